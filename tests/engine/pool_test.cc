#include "engine/pool.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

namespace mapperfs {
namespace {

struct Thing {
  int value = 0;
};

TEST(Pool, GivesWhatWasGivenBackLast) {
  Pool<Thing> pool(4);
  Thing& first = pool.take();
  first.value = 7;
  pool.give_back(first);
  Thing& again = pool.take();
  EXPECT_EQ(&again, &first);
  EXPECT_EQ(again.value, 7);  // reused as it is, not made anew
}

TEST(Pool, GrowsByChunksToTheMostInFlight) {
  Pool<Thing> pool(4);
  EXPECT_EQ(pool.capacity(), 0U);
  std::set<Thing*> taken;
  for (int i = 0; i < 9; ++i) {
    taken.insert(&pool.take());
  }
  EXPECT_EQ(taken.size(), 9U);
  EXPECT_EQ(pool.capacity(), 12U);
  for (Thing* thing : taken) {
    pool.give_back(*thing);
  }
  for (int i = 0; i < 12; ++i) {
    pool.take();
  }
  EXPECT_EQ(pool.capacity(), 12U);
}

TEST(Pool, TakesBackFromOtherThreads) {
  Pool<Thing> pool(2);
  Thing& a = pool.take();
  Thing& b = pool.take();
  std::thread([&] {
    pool.give_back_remote(a);
    pool.give_back_remote(b);
  }).join();
  const std::set<Thing*> returned = {&pool.take(), &pool.take()};
  EXPECT_EQ(returned, (std::set<Thing*>{&a, &b}));
  EXPECT_EQ(pool.capacity(), 2U);
}

// The owner takes while others give back: nothing is lost and nothing is given twice.
TEST(Pool, OwnerAndOthersAtOnce) {
  constexpr int kRounds = 100;
  constexpr std::size_t kBatch = 8;
  Pool<Thing> pool(kBatch);
  for (int round = 0; round < kRounds; ++round) {
    std::vector<Thing*> taken;
    for (std::size_t i = 0; i < 2 * kBatch; ++i) {
      taken.push_back(&pool.take());
    }
    std::thread other([&] {
      for (std::size_t i = 0; i < kBatch; ++i) {
        pool.give_back_remote(*taken[i]);
      }
    });
    for (std::size_t i = kBatch; i < 2 * kBatch; ++i) {
      pool.give_back(*taken[i]);
    }
    std::set<Thing*> again;
    for (std::size_t i = 0; i < 2 * kBatch; ++i) {
      EXPECT_TRUE(again.insert(&pool.take()).second);
    }
    other.join();
    for (Thing* thing : again) {
      pool.give_back(*thing);
    }
  }
  EXPECT_LE(pool.capacity(), std::size_t{100} * kBatch);
}

}  // namespace
}  // namespace mapperfs
