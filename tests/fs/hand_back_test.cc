#include "fs/hand_back.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace mapperfs {
namespace {

struct Item {
  int number = 0;
  Item* next_handed = nullptr;
};

TEST(HandBack, GivesInTheOrderOfGiving) {
  HandBack<Item> list;
  EXPECT_EQ(list.take_all(), nullptr);
  Item items[3] = {{1}, {2}, {3}};
  EXPECT_TRUE(list.give(items[0])) << "its taker may sleep";
  EXPECT_FALSE(list.give(items[1]));
  EXPECT_FALSE(list.give(items[2]));
  const Item* item = list.take_all();
  for (int number = 1; number <= 3; ++number) {
    ASSERT_NE(item, nullptr);
    EXPECT_EQ(item->number, number);
    item = item->next_handed;
  }
  EXPECT_EQ(item, nullptr);
  EXPECT_EQ(list.take_all(), nullptr);
}

TEST(HandBack, LosesNothingBetweenThreads) {
  constexpr int kThreads = 3;
  constexpr int kEach = 5000;
  HandBack<Item> list;
  std::vector<Item> items(kThreads * kEach);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        list.give(items[static_cast<std::size_t>(t * kEach + i)]);
      }
    });
  }
  int taken = 0;
  while (taken < kThreads * kEach) {
    for (Item* item = list.take_all(); item != nullptr;) {
      Item* next = item->next_handed;
      ++item->number;
      ++taken;
      item = next;
    }
    std::this_thread::yield();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const Item& item : items) {
    EXPECT_EQ(item.number, 1);
  }
}

}  // namespace
}  // namespace mapperfs
