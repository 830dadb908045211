// Runs of the simulation, by seed. A failure says which: MAPPERFS_SEED=N runs that seed alone, and
// MAPPERFS_LONG=1 runs a hundred times as many of each kind.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/sim/world.h"

namespace mapperfs::sim {
namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// One seed, and a comparison now and then.
void run(const Config& config) {
  World world(config);
  for (int i = 0; i < config.steps && world.failure().empty(); ++i) {
    world.step();
    if (config.power_cuts ? i % 100 == 99 : i % 200 == 199) {
      config.power_cuts ? world.cut_power() : world.settle_and_compare();
    }
  }
  world.settle_and_compare();
  EXPECT_EQ(world.failure(), "");
  EXPECT_GT(world.ios_done(), 0U);
}

void run_seeds(Config config, std::uint64_t seeds) {
  const std::uint64_t only = from_environment("MAPPERFS_SEED", 0);
  constexpr std::uint64_t kLong = 100;
  const std::uint64_t count = from_environment("MAPPERFS_LONG", 0) != 0 ? seeds * kLong : seeds;
  for (std::uint64_t seed = 1; seed <= count && !testing::Test::HasFailure(); ++seed) {
    config.seed = only != 0 ? only : seed;
    SCOPED_TRACE("MAPPERFS_SEED=" + std::to_string(config.seed));
    run(config);
    if (only != 0) {
      return;
    }
  }
}

TEST(Sim, DevicesThatAnswerAtOnce) { run_seeds({}, 20); }

TEST(Sim, DevicesThatAnswerLateAndOutOfOrder) {
  Config config;
  config.delays = true;
  run_seeds(config, 20);
}

TEST(Sim, DevicesThatFail) {
  Config config;
  config.errors = true;
  run_seeds(config, 10);
}

TEST(Sim, DevicesThatFailLateAndOutOfOrder) {
  Config config;
  config.errors = true;
  config.delays = true;
  run_seeds(config, 20);
}

TEST(Sim, PowerCuts) {
  Config config;
  config.power_cuts = true;
  config.delays = true;
  run_seeds(config, 20);
}

TEST(Sim, PowerCutsOfDevicesThatFail) {
  Config config;
  config.power_cuts = true;
  config.errors = true;
  config.delays = true;
  run_seeds(config, 10);
}

}  // namespace
}  // namespace mapperfs::sim
