#include "targets/thin/fair_shared_mutex.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

namespace mapperfs::test {

namespace {

using thinp::FairSharedMutex;
using Shared = std::shared_lock<FairSharedMutex>;
using Exclusive = std::unique_lock<FairSharedMutex>;

constexpr int kReaders = 4;
constexpr int kMostTries = 1'000'000;  // a second: whoever needs so many waits in vain

// A reader that holds the mutex, and a writer that waits for it.
class FairSharedMutexHeld : public ::testing::Test {
 protected:
  FairSharedMutexHeld() : held_(Shared(mutex_)) {
    threads_.emplace_back([this] {
      const Exclusive lock(mutex_);
      note('w');
    });
  }
  ~FairSharedMutexHeld() override { join(); }

  // The writer is waiting once nobody else gets in at once. False: somebody always does.
  bool shuts_out() {
    for (int i = 0; i < kMostTries; ++i) {
      if (!mutex_.try_lock_shared()) {
        return true;
      }
      mutex_.unlock_shared();
      std::this_thread::yield();
    }
    return false;
  }
  void note(char who) {
    const std::lock_guard<std::mutex> lock(order_mutex_);
    order_ += who;
  }
  void join() {
    held_.reset();
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
  }

  FairSharedMutex mutex_;
  std::optional<Shared> held_;
  std::vector<std::thread> threads_;
  std::mutex order_mutex_;
  std::string order_;  // order_mutex_: who was inside
};

TEST_F(FairSharedMutexHeld, AWaitingWriterGoesBeforeReadersWhoComeLater) {
  ASSERT_TRUE(shuts_out()) << "readers pass by a writer who waits";
  std::latch coming(kReaders);
  for (int i = 0; i < kReaders; ++i) {
    threads_.emplace_back([&] {
      coming.count_down();
      const Shared lock(mutex_);
      note('r');
    });
  }
  coming.wait();
  for (int i = 0; i < 1000; ++i) {
    std::this_thread::yield();  // whoever does not wait is through by now
  }
  join();
  EXPECT_EQ(order_, "wrrrr");
}

// Each of them stays until all are inside.
TEST_F(FairSharedMutexHeld, ReadersBehindAWriterGoInTogether) {
  ASSERT_TRUE(shuts_out());
  std::latch inside(kReaders);
  for (int i = 0; i < kReaders; ++i) {
    threads_.emplace_back([&] {
      const Shared lock(mutex_);
      inside.arrive_and_wait();
      note('r');
    });
  }
  join();
  EXPECT_EQ(order_, "wrrrr");
}

TEST_F(FairSharedMutexHeld, ATryNeverWaits) {
  ASSERT_TRUE(shuts_out());
  EXPECT_FALSE(Shared(mutex_, std::try_to_lock).owns_lock()) << "a writer waits";
  join();
  const Shared one(mutex_, std::try_to_lock);
  EXPECT_TRUE(one.owns_lock()) << "nobody waits any more";
  EXPECT_TRUE(Shared(mutex_, std::try_to_lock).owns_lock()) << "beside a reader";
}

TEST(FairSharedMutexThreads, NobodyIsInsideBesideAWriter) {
  FairSharedMutex mutex;
  std::uint64_t first = 0;  // both under the mutex
  std::uint64_t second = 0;
  constexpr std::uint64_t kRounds = 2000;
  constexpr int kWriters = 2;
  std::atomic<int> writing{kWriters};
  std::vector<std::thread> threads;
  for (int i = 0; i < kWriters; ++i) {
    threads.emplace_back([&] {
      for (std::uint64_t round = 0; round < kRounds; ++round) {
        const Exclusive lock(mutex);
        ++first;
        ++second;
      }
      --writing;
    });
  }
  for (int i = 0; i < kReaders; ++i) {
    threads.emplace_back([&, tries = i % 2 == 0] {
      while (writing != 0) {
        const Shared lock = tries ? Shared(mutex, std::try_to_lock) : Shared(mutex);
        if (lock.owns_lock()) {
          ASSERT_EQ(first, second);
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(first, kWriters * kRounds);
  EXPECT_EQ(second, kWriters * kRounds);
}

}  // namespace

}  // namespace mapperfs::test
