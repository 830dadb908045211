#include "fs/core_choice.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>

namespace mapperfs {
namespace {

using Where = CoreChoice::Where;

constexpr std::uint64_t kMs = 1'000'000;

// A caller whose requests come as fast as they are served, looked at every millisecond, for
// `length_ms`: how many of these were away from home.
struct Caller {
  CoreChoice choice;
  Where where = Where::kHome;
  std::uint64_t now_ns = std::uint64_t{1} << 40;

  // Requests a millisecond at each of the two, in the given millisecond of the call.
  using Served = std::function<unsigned(Where, unsigned ms)>;

  unsigned away_ms(unsigned length_ms, const Served& served) {
    unsigned away = 0;
    for (unsigned ms = 0; ms < length_ms; ++ms) {
      away += where == Where::kAnywhere ? 1 : 0;
      const unsigned requests = served(where, ms);
      now_ns += kMs;
      where = choice.look(now_ns, requests);
    }
    return away;
  }
};

unsigned one_at_a_time(Where where, unsigned /*ms*/) { return where == Where::kHome ? 43 : 20; }
unsigned in_batches(Where where, unsigned /*ms*/) { return where == Where::kHome ? 96 : 240; }

TEST(CoreChoice, ServesSynchronousCallersAtHome) {
  Caller caller;
  EXPECT_LT(caller.away_ms(1000, one_at_a_time), 60U);
  EXPECT_LT(caller.away_ms(10'000, one_at_a_time), 100U) << "trials in vain become rare";
}

TEST(CoreChoice, LeavesHomeForCallersThatSubmitBatches) {
  Caller caller;
  EXPECT_GT(caller.away_ms(1000, in_batches), 850U);
  EXPECT_GT(caller.away_ms(10'000, in_batches), 9'800U);
}

TEST(CoreChoice, StaysWhereTheOtherWayIsNotClearlyBetter) {
  Caller caller;
  EXPECT_LT(caller.away_ms(
                10'000, [](Where where, unsigned) { return where == Where::kHome ? 100U : 115U; }),
            250U);
}

TEST(CoreChoice, FollowsACallerThatChangesItsWay) {
  Caller caller;
  caller.away_ms(10'000, in_batches);
  ASSERT_EQ(caller.where, Where::kAnywhere);
  caller.away_ms(2'000, one_at_a_time);
  EXPECT_LT(caller.away_ms(1000, one_at_a_time), 60U);
  caller.away_ms(2'000, in_batches);
  EXPECT_GT(caller.away_ms(1000, in_batches), 850U);
}

// Its first trial falls into the time in which the caller is faster.
TEST(CoreChoice, DoesNotTakeAFasterCallerForABetterPlace) {
  for (unsigned step = 60; step < 140; ++step) {
    Caller caller;
    caller.away_ms(step, [](Where, unsigned) { return 50U; });
    const unsigned away = caller.away_ms(60, [](Where, unsigned) { return 200U; });
    EXPECT_LE(away, 11U) << "faster from millisecond " << step;
  }
}

TEST(CoreChoice, GoesHomeWhenThereIsLittleToDo) {
  Caller caller;
  caller.away_ms(2'000, in_batches);
  ASSERT_EQ(caller.where, Where::kAnywhere);
  caller.away_ms(20, [](Where, unsigned) { return 5U; });
  EXPECT_EQ(caller.where, Where::kHome);
  EXPECT_EQ(caller.away_ms(10'000, [](Where, unsigned) { return 5U; }), 0U) << "and tries nothing";
}

TEST(CoreChoice, GoesHomeAfterASleep) {
  Caller caller;
  caller.away_ms(2'000, in_batches);
  ASSERT_EQ(caller.where, Where::kAnywhere);
  caller.now_ns += 3 * CoreChoice::kWindowNs;
  EXPECT_EQ(caller.choice.look(caller.now_ns, 5000), Where::kHome);
}

}  // namespace
}  // namespace mapperfs
