// A whole engine with all targets, on virtual time and over fake devices, for tests of targets.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "tests/fake/fake_opener.h"
#include "tests/fake/fault_dev.h"
#include "tests/fake/io.h"
#include "tests/fake/mem_dev.h"
#include "tests/fake/sim_env.h"

namespace mapperfs::test {

inline constexpr std::uint64_t kMillisecond = 1'000'000;
inline constexpr std::uint64_t kSecond = 1'000 * kMillisecond;

// One thread, unless a test says otherwise.
class Harness {
 public:
  explicit Harness(std::uint64_t seed = 1);

  [[nodiscard]] fake::SimEnv& env() { return env_; }
  [[nodiscard]] fake::FakeOpener& opener() { return opener_; }
  [[nodiscard]] Engine& engine() { return engine_; }
  [[nodiscard]] const TargetRegistry& registry() const { return registry_; }
  // A failing device of its own under `word`.
  fake::FaultDev& add_fault_dev(const std::string& word, sector_t sectors);
  // Devices in memory ram0, ram1, ram2 as the transcripts have them: 32768 sectors each.
  void add_rams();

  // The device; made without a table if it does not exist.
  MappedDevice& device(const std::string& name);
  // Loads and resumes a table: its lines, parted by newlines, as dmsetup takes them.
  Status set_table(const std::string& name, std::string_view text,
                   DeviceMode mode = DeviceMode::kReadWrite);
  // What loading `text` says; the table is cleared again.
  Status try_table(std::string_view text);
  // Lines as `dmsetup table` and `status` print them, parted by newlines.
  std::string table(const std::string& name);
  std::string status(const std::string& name);
  // The words of a message to the target at sector 0, parted by blanks.
  Result<std::string> message(const std::string& name, std::string_view text);
  // Targets outside of any device: Table::load() for the host of `name`.
  Result<std::unique_ptr<Table>> make_table(const std::string& name, std::string_view text);

  // I/O that moves virtual time on until it ends.
  BlkStatus write(const std::string& name, sector_t sector, const fake::Bytes& data,
                  std::uint8_t flags = 0);
  BlkStatus read(const std::string& name, sector_t sector, sector_t sectors, fake::Bytes& data);
  // The data, or an empty vector for an error.
  fake::Bytes read(const std::string& name, sector_t sector, sector_t sectors);
  BlkStatus run_op(const std::string& name, Op op, sector_t sector, sector_t sectors,
                   std::uint8_t flags = 0);

 private:
  BlkStatus finish(fake::AsyncBio& bio);

  fake::SimEnv env_;
  std::vector<std::unique_ptr<fake::FaultDev>> fault_devs_;
  fake::FakeOpener opener_;
  TargetRegistry registry_;
  Engine engine_;
};

std::vector<TableLine> parse_lines(std::string_view text);
// One sector whose bytes are all `value`, `sectors` times.
fake::Bytes filled(sector_t sectors, int value);

}  // namespace mapperfs::test
