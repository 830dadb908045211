#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/blocking_pool.h"
#include "engine/env.h"

namespace mapperfs {
namespace {

// Something to wait for.
class Gate {
 public:
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++opened_;
    cv_.notify_all();
  }
  void wait(int times = 1) {
    std::unique_lock<std::mutex> lock(mutex_);
    cv_.wait(lock, [this, times] { return opened_ >= times; });
  }
  int opened() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return opened_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable cv_;
  int opened_ = 0;
};

class TestTimer final : public Timer {
 public:
  explicit TestTimer(Env& env) : env_(env) {}
  void fire() noexcept override {
    fired_ns = env_.now_ns();
    if (on_fire) {
      on_fire();
    }
    gate.open();
  }
  std::atomic<std::uint64_t> fired_ns{0};
  std::function<void()> on_fire;
  Gate gate;

 private:
  Env& env_;
};

constexpr std::uint64_t kMs = 1'000'000;

class RealEnvTest : public ::testing::Test {
 protected:
  std::unique_ptr<Env> env_ = make_real_env();
};

std::string thread_name() {
  std::array<char, 16> name{};
  ::pthread_getname_np(::pthread_self(), name.data(), name.size());
  return name.data();
}

bool blocks_all_signals() {
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGCHLD) == 1 &&
         sigismember(&mask, SIGUSR1) == 1;
}

TEST_F(RealEnvTest, ClockGoesOn) {
  const std::uint64_t first = env_->now_ns();
  EXPECT_GE(env_->now_ns(), first);
}

TEST_F(RealEnvTest, TimersFireInOrderAndNotBeforeTheirTime) {
  TestTimer late(*env_);
  TestTimer early(*env_);
  const std::uint64_t now = env_->now_ns();
  env_->arm(late, now + 20 * kMs);
  env_->arm(early, now + 5 * kMs);
  late.gate.wait();
  ASSERT_EQ(early.gate.opened(), 1);
  EXPECT_GE(early.fired_ns, now + 5 * kMs);
  EXPECT_GE(late.fired_ns, now + 20 * kMs);
  EXPECT_LE(early.fired_ns, late.fired_ns);
}

TEST_F(RealEnvTest, TimersArePrecise) {
  // The best of many: a busy machine may delay any one.
  std::uint64_t best = kMs * 1000;
  for (int i = 0; i < 50 && best > kMs / 2; ++i) {
    TestTimer timer(*env_);
    const std::uint64_t when = env_->now_ns() + kMs;
    env_->arm(timer, when);
    timer.gate.wait();
    env_->cancel(timer);
    best = std::min(best, timer.fired_ns - when);
  }
  EXPECT_LE(best, kMs / 2);
}

TEST_F(RealEnvTest, TimersOfThePastFireAtOnce) {
  TestTimer timer(*env_);
  env_->arm(timer, 0);
  timer.gate.wait();
  EXPECT_EQ(timer.gate.opened(), 1);
  env_->cancel(timer);
}

TEST_F(RealEnvTest, ArmingMovesATimer) {
  TestTimer timer(*env_);
  TestTimer after(*env_);
  const std::uint64_t now = env_->now_ns();
  env_->arm(timer, now + 3'600'000 * kMs);
  env_->arm(timer, now + 2 * kMs);
  timer.gate.wait();
  env_->arm(after, now + 10 * kMs);
  after.gate.wait();
  EXPECT_EQ(timer.gate.opened(), 1);
}

TEST_F(RealEnvTest, CancelledTimerDoesNotFire) {
  TestTimer cancelled(*env_);
  TestTimer after(*env_);
  const std::uint64_t now = env_->now_ns();
  env_->arm(cancelled, now + 5 * kMs);
  env_->arm(after, now + 10 * kMs);
  env_->cancel(cancelled);
  after.gate.wait();
  EXPECT_EQ(cancelled.gate.opened(), 0);
}

TEST_F(RealEnvTest, CancelWaitsForARunningTimer) {
  TestTimer timer(*env_);
  Gate inside;
  Gate go_on;
  std::atomic<bool> done{false};
  timer.on_fire = [&] {
    inside.open();
    go_on.wait();
    done = true;
  };
  env_->arm(timer, 0);
  inside.wait();
  std::thread opener([&] { go_on.open(); });
  env_->cancel(timer);
  EXPECT_TRUE(done);
  opener.join();
}

TEST_F(RealEnvTest, CancelStopsATimerThatArmsItself) {
  TestTimer timer(*env_);
  timer.on_fire = [&] { env_->arm(timer, env_->now_ns()); };
  env_->arm(timer, 0);
  timer.gate.wait(10);
  env_->cancel(timer);
  const int fired = timer.gate.opened();
  TestTimer after(*env_);
  env_->arm(after, env_->now_ns() + 2 * kMs);
  after.gate.wait();
  EXPECT_EQ(timer.gate.opened(), fired);
}

TEST_F(RealEnvTest, TimerMayCancelItselfAndOthers) {
  TestTimer first(*env_);
  TestTimer second(*env_);
  TestTimer after(*env_);
  first.on_fire = [&] {
    env_->cancel(first);
    env_->cancel(second);
  };
  const std::uint64_t now = env_->now_ns();
  // Far enough away that all three are armed before the first fires, on a busy machine too.
  env_->arm(second, now + 200 * kMs);
  env_->arm(after, now + 300 * kMs);
  env_->arm(first, now + 100 * kMs);
  after.gate.wait();
  EXPECT_EQ(first.gate.opened(), 1);
  EXPECT_EQ(second.gate.opened(), 0);
}

TEST_F(RealEnvTest, WorkerRunsInOrderOnOneNamedThread) {
  std::vector<int> order;
  std::thread::id id;
  std::string name;
  bool signals = false;
  const auto worker = env_->make_worker("worker-of-a-long-name");
  worker->post([&] {
    id = std::this_thread::get_id();
    name = thread_name();
    signals = blocks_all_signals();
  });
  for (int i = 0; i < 100; ++i) {
    worker->post([&, i] {
      order.push_back(i);
      EXPECT_EQ(std::this_thread::get_id(), id);
    });
  }
  worker->drain();
  ASSERT_EQ(order.size(), 100U);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  }
  EXPECT_NE(id, std::this_thread::get_id());
  EXPECT_EQ(name, "worker-of-a-lon");
  EXPECT_TRUE(signals);
}

TEST_F(RealEnvTest, WorkerRunsAllBeforeItEnds) {
  std::atomic<int> ran{0};
  {
    const auto worker = env_->make_worker("worker");
    worker->post([&] {
      ++ran;
      worker->post([&] { ++ran; });
    });
  }
  EXPECT_EQ(ran, 2);
}

TEST_F(RealEnvTest, DrainOfAnIdleWorkerReturns) {
  const auto worker = env_->make_worker("worker");
  worker->drain();
  std::atomic<bool> ran{false};
  worker->post([&] { ran = true; });
  worker->drain();
  EXPECT_TRUE(ran);
}

TEST_F(RealEnvTest, BlockingWorkRunsSideBySide) {
  // All wait for all: less than kMaxThreads would hang.
  Gate inside;
  Gate go_on;
  Gate done;
  std::atomic<bool> signals{true};
  const auto count = static_cast<int>(BlockingPool::kMaxThreads);
  for (int i = 0; i < count; ++i) {
    env_->run_blocking([&] {
      signals = signals && blocks_all_signals();
      inside.open();
      go_on.wait();
      done.open();
    });
  }
  inside.wait(count);
  std::atomic<int> more{0};
  for (int i = 0; i < 100; ++i) {
    env_->run_blocking([&] {
      ++more;
      done.open();
    });
  }
  EXPECT_EQ(more, 0) << "the pool is bounded";
  go_on.open();
  done.wait(count + 100);
  EXPECT_EQ(more, 100);
  EXPECT_TRUE(signals);
}

TEST_F(RealEnvTest, BlockingWorkMayAskForMore) {
  Gate done;
  env_->run_blocking([&] { env_->run_blocking([&] { done.open(); }); });
  done.wait();
  EXPECT_EQ(done.opened(), 1);
}

TEST(BlockingPool, RunsWhatItWasGivenBeforeItEnds) {
  std::atomic<int> ran{0};
  {
    BlockingPool pool;
    for (int i = 0; i < 1000; ++i) {
      pool.run([&] { ++ran; });
    }
  }
  EXPECT_EQ(ran, 1000);
}

TEST(BlockingPool, IdleThreadsEndAndComeBack) {
  BlockingPool pool(std::chrono::milliseconds(1));
  for (int round = 0; round < 3; ++round) {
    Gate done;
    pool.run([&] { done.open(); });
    done.wait();
    while (pool.threads() > 0) {
      std::this_thread::yield();
    }
    EXPECT_EQ(done.opened(), 1);
  }
}

TEST_F(RealEnvTest, SeedsDiffer) { EXPECT_NE(env_->random_seed(), env_->random_seed()); }

TEST(RealEnv, OneSeedGivesTheSameSeedsInTurn) {
  const auto seeds = [](std::uint64_t seed) {
    const std::unique_ptr<Env> env = make_real_env(seed);
    std::vector<std::uint64_t> given;
    for (int i = 0; i < 100; ++i) {
      given.push_back(env->random_seed());
    }
    return given;
  };
  const std::vector<std::uint64_t> first = seeds(0);
  EXPECT_EQ(seeds(0), first);
  EXPECT_EQ(std::set<std::uint64_t>(first.begin(), first.end()).size(), first.size());
  EXPECT_NE(seeds(1).front(), first.front());
}

}  // namespace
}  // namespace mapperfs
