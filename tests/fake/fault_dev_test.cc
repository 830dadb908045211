// The fakes themselves: what they promise to the tests that stand on them.
#include "tests/fake/fault_dev.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/fake/io.h"
#include "tests/fake/mem_dev.h"
#include "tests/fake/sim_env.h"

namespace mapperfs::fake {

namespace {

TEST(MemDev, ReadsBackWhatWasWrittenAndZeroesElsewhere) {
  MemDev dev("m", 64);
  const Bytes data = pattern(3, 1);
  EXPECT_EQ(write(dev, 7, data), BlkStatus::kOk);
  EXPECT_EQ(read_back(dev, 7, 3), data);
  EXPECT_EQ(read_back(dev, 10, 2), Bytes(1024));
  EXPECT_EQ(write(dev, 62, data), BlkStatus::kIoError);
}

TEST(MemDev, PunchesPartsOfPagesInSmallAndLargeRanges) {
  MemDev dev("m", 1 << 20);
  const Bytes data = pattern(32, 2);
  EXPECT_EQ(write(dev, 0, data), BlkStatus::kOk);
  EXPECT_EQ(do_op(dev, Op::kDiscard, 3, 2), BlkStatus::kOk);
  EXPECT_EQ(read_back(dev, 3, 2), Bytes(1024));
  EXPECT_EQ(do_op(dev, Op::kDiscard, 6, (1 << 20) - 6), BlkStatus::kOk);
  EXPECT_EQ(read_back(dev, 6, 26), Bytes(26 * 512));
  EXPECT_EQ(read_back(dev, 5, 1), Bytes(data.begin() + 5 * 512, data.begin() + 6 * 512));
  EXPECT_TRUE(dev.extent(8, 100).hole);
  EXPECT_EQ(dev.extent(0, 100).sectors, 8U);
}

TEST(FaultDev, FailsTheOneThatIsAskedFor) {
  SimEnv env;
  FaultDev dev("f", 64, env);
  dev.add_fault({.op = Op::kWrite, .times = 1, .skip = 2});
  for (const BlkStatus expected :
       {BlkStatus::kOk, BlkStatus::kOk, BlkStatus::kIoError, BlkStatus::kOk}) {
    EXPECT_EQ(write(dev, 0, pattern(1, 1)), expected);
  }
  EXPECT_EQ(dev.struck(), 1U);
}

TEST(FaultDev, FailsAsOftenAsAsked) {
  SimEnv env;
  FaultDev dev("f", 64, env);
  dev.add_fault({Op::kRead, 8, 16, BlkStatus::kMedium, 2});
  EXPECT_EQ(do_op(dev, Op::kRead, 0, 8), BlkStatus::kOk);
  EXPECT_EQ(do_op(dev, Op::kRead, 0, 9), BlkStatus::kMedium);
  EXPECT_EQ(do_op(dev, Op::kRead, 15, 1), BlkStatus::kMedium);
  EXPECT_EQ(do_op(dev, Op::kRead, 15, 1), BlkStatus::kOk);
}

TEST(FaultDev, CrashKeepsWhatWasFlushedAndForced) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SimEnv env;
    FaultDev::Options options;
    options.seed = seed;
    FaultDev dev("f", 64, env, options);
    const Bytes flushed = pattern(8, 1);
    const Bytes forced = pattern(8, 2);
    EXPECT_EQ(write(dev, 0, flushed), BlkStatus::kOk);
    EXPECT_EQ(flush(dev), BlkStatus::kOk);
    EXPECT_EQ(write(dev, 8, pattern(8, 3)), BlkStatus::kOk);
    EXPECT_EQ(write(dev, 8, forced, kBioFua), BlkStatus::kOk);
    dev.crash();
    EXPECT_EQ(dev.peek(0, 8), flushed) << "seed " << seed;
    EXPECT_EQ(dev.peek(8, 8), forced) << "seed " << seed;
  }
}

TEST(FaultDev, CrashLosesKeepsAndTearsUnflushedWrites) {
  std::set<std::size_t> kept_sectors;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SimEnv env;
    FaultDev::Options options;
    options.seed = seed;
    FaultDev dev("f", 64, env, options);
    const Bytes data = pattern(4, 7);
    EXPECT_EQ(write(dev, 0, data), BlkStatus::kOk);
    dev.crash();
    const Bytes now = dev.peek(0, 4);
    std::size_t kept = 0;
    while (kept < 4 && std::equal(now.begin() + static_cast<std::ptrdiff_t>(kept) * 512,
                                  now.begin() + static_cast<std::ptrdiff_t>(kept + 1) * 512,
                                  data.begin() + static_cast<std::ptrdiff_t>(kept) * 512)) {
      ++kept;
    }
    kept_sectors.insert(kept);
  }
  EXPECT_EQ(kept_sectors, (std::set<std::size_t>{0, 1, 2, 3, 4}));
}

TEST(FaultDev, DelayedBiosEndWhenTimeHasCome) {
  SimEnv env;
  FaultDev::Options options;
  options.min_delay_ns = 100;
  options.max_delay_ns = 200;
  FaultDev dev("f", 64, env, options);
  AsyncBio a(dev, Op::kRead, 0, 1);
  AsyncBio b(dev, Op::kRead, 1, 1);
  a.submit();
  b.submit();
  env.advance(99);
  EXPECT_FALSE(a.done() || b.done());
  EXPECT_EQ(dev.waiting(), 2U);
  env.advance(101);
  EXPECT_TRUE(a.done() && b.done());
}

TEST(FaultDev, HeldBiosEndOnRelease) {
  SimEnv env;
  FaultDev dev("f", 64, env);
  dev.hold();
  AsyncBio bio(dev, Op::kFlush, 0, 0);
  bio.submit();
  EXPECT_FALSE(bio.done());
  dev.release();
  EXPECT_TRUE(bio.done());
}

class CountingTimer final : public Timer {
 public:
  explicit CountingTimer(SimEnv& env) : env_(env) {}
  void fire() noexcept override { fired_at_ns_ = env_.now_ns(); }
  [[nodiscard]] std::uint64_t fired_at_ns() const { return fired_at_ns_; }

 private:
  SimEnv& env_;
  std::uint64_t fired_at_ns_ = 0;
};

TEST(SimEnv, TimersFireAtTheirTimeAndArmingMovesThem) {
  SimEnv env;
  CountingTimer timer(env);
  const std::uint64_t start_ns = env.now_ns();
  env.arm(timer, start_ns + 10);
  env.arm(timer, start_ns + 30);
  env.advance(20);
  EXPECT_EQ(timer.fired_at_ns(), 0U);
  env.advance(20);
  EXPECT_EQ(timer.fired_at_ns(), start_ns + 30);
  env.arm(timer, start_ns + 50);
  env.cancel(timer);
  EXPECT_FALSE(env.advance_to_next_timer());
}

TEST(SimEnv, WorkersRunInOrderInsideRunAndDrain) {
  SimEnv env;
  std::string order;
  const std::unique_ptr<Worker> worker = env.make_worker("w");
  worker->post([&] {
    order += 'a';
    worker->post([&] { order += 'c'; });
  });
  worker->post([&] { order += 'b'; });
  EXPECT_EQ(order, "");
  env.run();
  EXPECT_EQ(order, "abc");
  worker->post([&] { order += 'd'; });
  worker->drain();
  EXPECT_EQ(order, "abcd");
}

}  // namespace

}  // namespace mapperfs::fake
