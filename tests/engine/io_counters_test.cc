#include "engine/io_counters.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace mapperfs {
namespace {

TEST(IoCounters, FreshOnesAreIdle) {
  const IoCounters counters;
  EXPECT_TRUE(counters.idle());
  EXPECT_EQ(counters.sums().in_flight, 0U);
}

TEST(IoCounters, WhatStartedAndDidNotFinishIsInFlight) {
  IoCounters counters;
  IoCounters::Slot& slot = counters.slot(Queue::current());
  EXPECT_EQ(&slot, &counters.slot(Queue::current()));
  IoCounters::add(slot.started[0], 3);
  IoCounters::add(slot.finished[0], 1);
  EXPECT_FALSE(counters.idle());
  EXPECT_EQ(counters.sums().in_flight, 2U);
  IoCounters::add(slot.finished[0], 2);
  EXPECT_TRUE(counters.idle());
}

// More threads at once than have their place in the device itself.
TEST(IoCounters, QueuesBeyondTheFirstOnesCountToo) {
  constexpr std::size_t kThreads = 300;
  IoCounters counters;
  std::mutex mutex;
  std::condition_variable all_cv;
  std::set<const IoCounters::Slot*> slots;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      IoCounters::Slot& mine = counters.slot(Queue::current());
      IoCounters::add(mine.started[0], 2);
      IoCounters::add(mine.finished[0], 1);
      EXPECT_EQ(&mine, &counters.slot(Queue::current()));
      std::unique_lock lock(mutex);
      slots.insert(&mine);
      all_cv.notify_all();
      all_cv.wait(lock, [&] { return slots.size() == kThreads; });
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(counters.sums().in_flight, kThreads);
  EXPECT_FALSE(counters.idle());
  IoCounters::add(counters.slot(Queue::current()).finished[0], kThreads);
  EXPECT_TRUE(counters.idle());
}

// A bio may end on another thread than the one that submitted it: the sums balance, not the slots.
TEST(IoCounters, StartsAndFinishesOfDifferentQueuesBalance) {
  IoCounters counters;
  IoCounters::add(counters.slot(Queue::current()).started[0], 5);
  std::thread([&] {
    IoCounters::Slot& other = counters.slot(Queue::current());
    EXPECT_NE(&other, nullptr);
    IoCounters::add(other.finished[0], 5);
    IoCounters::add(other.ios[static_cast<std::size_t>(StatGroup::kWrite)], 5);
    IoCounters::add(other.sectors[static_cast<std::size_t>(StatGroup::kWrite)], 40);
    IoCounters::add(other.time_ns[static_cast<std::size_t>(StatGroup::kWrite)], 700);
  }).join();
  EXPECT_TRUE(counters.idle());
  const IoSums sums = counters.sums();
  EXPECT_EQ(sums.in_flight, 0U);
  EXPECT_EQ(sums.ios[static_cast<std::size_t>(StatGroup::kWrite)], 5U);
  EXPECT_EQ(sums.sectors[static_cast<std::size_t>(StatGroup::kWrite)], 40U);
  EXPECT_EQ(sums.time_ns[static_cast<std::size_t>(StatGroup::kWrite)], 700U);
  EXPECT_EQ(sums.ios[static_cast<std::size_t>(StatGroup::kRead)], 0U);
}

TEST(IoCounters, EachEpochSettlesForItself) {
  IoCounters counters;
  IoCounters::Slot& slot = counters.slot(Queue::current());
  IoCounters::add(slot.started[0], 2);
  IoCounters::add(slot.started[1], 1);
  EXPECT_FALSE(counters.idle(0));
  EXPECT_FALSE(counters.idle(1));
  EXPECT_EQ(counters.sums().in_flight, 3U);
  std::thread([&] { IoCounters::add(counters.slot(Queue::current()).finished[0], 2); }).join();
  EXPECT_TRUE(counters.idle(0));
  EXPECT_FALSE(counters.idle(1));
  EXPECT_FALSE(counters.idle());
  EXPECT_EQ(counters.sums().in_flight, 1U);
  IoCounters::add(slot.finished[1], 1);
  EXPECT_TRUE(counters.idle(1));
  EXPECT_TRUE(counters.idle());
}

constexpr std::uint64_t kNsPerMs = 1000000;

// A bio of `slot` at those moments.
void begin(IoCounters& counters, IoCounters::Slot& slot, std::uint64_t ms) {
  counters.account_begin(ms * kNsPerMs);
  IoCounters::add(slot.started[0], 1);
}
void end(IoCounters& counters, IoCounters::Slot& slot, std::uint64_t ms) {
  counters.account_end(ms * kNsPerMs);
  IoCounters::add(slot.finished[0], 1);
}
std::uint64_t busy_ms(const IoCounters& counters, std::uint64_t now_ms) {
  return counters.sums(now_ms * kNsPerMs).busy_ns / kNsPerMs;
}

TEST(IoCounters, IdleTimeIsNotBusy) {
  IoCounters counters;
  IoCounters::Slot& slot = counters.slot(Queue::current());
  EXPECT_EQ(busy_ms(counters, 900), 0U);
  begin(counters, slot, 1000);
  end(counters, slot, 1007);
  EXPECT_EQ(busy_ms(counters, 5000), 7U);
  begin(counters, slot, 6000);
  end(counters, slot, 6000);
  EXPECT_EQ(busy_ms(counters, 7000), 7U);
  begin(counters, slot, 8000);
  end(counters, slot, 8001);
  EXPECT_EQ(busy_ms(counters, 9000), 8U);
}

TEST(IoCounters, OverlappingBiosAreBusyOnce) {
  IoCounters counters;
  IoCounters::Slot& slot = counters.slot(Queue::current());
  begin(counters, slot, 1000);
  std::thread([&] {
    IoCounters::Slot& other = counters.slot(Queue::current());
    begin(counters, other, 1002);
    end(counters, other, 1006);
    begin(counters, other, 1006);
    end(counters, other, 1008);
  }).join();
  end(counters, slot, 1005);  // a clock read before the other's last
  EXPECT_EQ(busy_ms(counters, 2000), 8U);
}

TEST(IoCounters, WhatIsUnderWayIsBusyUpToNow) {
  IoCounters counters;
  IoCounters::Slot& slot = counters.slot(Queue::current());
  begin(counters, slot, 1000);
  EXPECT_EQ(busy_ms(counters, 1500), 500U);
  EXPECT_EQ(busy_ms(counters, 1500), 500U);
  end(counters, slot, 1600);
  EXPECT_EQ(busy_ms(counters, 1700), 600U);
}

TEST(IoCounters, SlotsFillWholeCacheLines) {
  EXPECT_EQ(sizeof(IoCounters::Slot) % kCacheLineBytes, 0U);
  EXPECT_EQ(alignof(IoCounters::Slot), kCacheLineBytes);
}

}  // namespace
}  // namespace mapperfs
