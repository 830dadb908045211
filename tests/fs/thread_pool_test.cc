#include "fs/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
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
  ThreadPool pool("test", 2);
  std::promise<void> first;
  std::promise<void> both;
  pool.post([&first, &both] {
    first.get_future().wait();
    both.set_value();
  });
  pool.post([&first] { first.set_value(); });
  EXPECT_EQ(both.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

}  // namespace
}  // namespace mapperfs
