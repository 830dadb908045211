#include "fs/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <set>
#include <thread>

namespace mapperfs {
namespace {

TEST(ThreadPool, RunsWhatWasPostedBeforeItStops) {
  std::atomic<int> done{0};
  ThreadPool pool("test", 3);
  for (int i = 0; i < 100; ++i) {
    pool.post([&done] { ++done; });
  }
  pool.stop();
  EXPECT_EQ(done.load(), 100);
}

TEST(ThreadPool, DropsWhatIsPostedAfterTheStop) {
  std::atomic<int> done{0};
  ThreadPool pool("test", 1);
  pool.stop();
  pool.post([&done] { ++done; });
  EXPECT_EQ(done.load(), 0);
}

TEST(ThreadPool, ItsThreadsLast) {
  ThreadPool pool("test", 1);
  std::set<std::thread::id> threads;
  for (int i = 0; i < 3; ++i) {
    std::promise<std::thread::id> ran;
    pool.post([&ran] { ran.set_value(std::this_thread::get_id()); });
    threads.insert(ran.get_future().get());
  }
  EXPECT_EQ(threads.size(), 1U);
}

TEST(ThreadPool, WorkThatWaitsForOtherWorkGetsAThreadOfItsOwn) {
  std::promise<void> first;
  std::promise<void> both;
  ThreadPool pool("test", 2);  // last: ends first, and its threads use the others until then
  pool.post([&first, &both] {
    first.get_future().wait();
    both.set_value();
  });
  pool.post([&first] { first.set_value(); });
  EXPECT_EQ(both.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

TEST(ThreadPool, RefusesWhatItWouldHaveToQueue) {
  ThreadPool pool("test", 1);
  std::promise<void> go;
  std::promise<void> went;
  ASSERT_TRUE(pool.try_post([&go, &went] {
    go.get_future().wait();
    went.set_value();
  }));
  std::atomic<bool> ran{false};
  EXPECT_FALSE(pool.try_post([&ran] { ran = true; }));
  go.set_value();
  went.get_future().wait();
  pool.stop();
  EXPECT_FALSE(ran.load());
  EXPECT_FALSE(pool.try_post([&ran] { ran = true; }));
}

TEST(ThreadPool, TakesMoreWorkAtOnceThanItHasIdleThreads) {
  constexpr int kMany = 50;
  std::atomic<int> there{0};
  std::promise<void> all_there;
  ThreadPool pool("test", kMany);  // last, as above
  for (int i = 0; i < kMany; ++i) {
    ASSERT_TRUE(pool.try_post([&] {
      if (++there == kMany) {
        all_there.set_value();
      }
      while (there < kMany) {
        std::this_thread::yield();
      }
    })) << i;
  }
  EXPECT_EQ(all_there.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

TEST(ThreadPool, LetsGoOfThreadsThatHaveNothingToDo) {
  ThreadPool pool("test", 3, std::chrono::milliseconds(1));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (int round = 0; round < 3; ++round) {
    std::promise<void> ran;
    pool.post([&ran] { ran.set_value(); });
    ran.get_future().wait();
    while (pool.threads() > 0 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
    EXPECT_EQ(pool.threads(), 0U);
  }
}

}  // namespace
}  // namespace mapperfs
