#include "engine/io_counters.h"

#include <gtest/gtest.h>

#include <thread>

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
  IoCounters::add(slot.started, 3);
  IoCounters::add(slot.finished, 1);
  EXPECT_FALSE(counters.idle());
  EXPECT_EQ(counters.sums().in_flight, 2U);
  IoCounters::add(slot.finished, 2);
  EXPECT_TRUE(counters.idle());
}

// A bio may end on another thread than the one that submitted it: the sums balance, not the slots.
TEST(IoCounters, StartsAndFinishesOfDifferentQueuesBalance) {
  IoCounters counters;
  IoCounters::add(counters.slot(Queue::current()).started, 5);
  std::thread([&] {
    IoCounters::Slot& other = counters.slot(Queue::current());
    EXPECT_NE(&other, nullptr);
    IoCounters::add(other.finished, 5);
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

TEST(IoCounters, SlotsFillWholeCacheLines) {
  EXPECT_EQ(sizeof(IoCounters::Slot) % kCacheLineBytes, 0U);
  EXPECT_EQ(alignof(IoCounters::Slot), kCacheLineBytes);
}

}  // namespace
}  // namespace mapperfs
