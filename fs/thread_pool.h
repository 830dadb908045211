// Threads for work that a FUSE thread must not do itself, since it may wait: control operations,
// and everything that waits for I/O.
//
// A thread is started when work waits and none is idle, up to the pool's limit, and stays until
// stop(). With as many waiting as the limit says, further work queues: so work that only other work
// of the same pool can end does not belong in one pool.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mapperfs {

class ThreadPool {
 public:
  ThreadPool(std::string name, std::size_t max_threads)
      : name_(std::move(name)), max_threads_(max_threads) {}
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Any thread; never blocks on the work, unless the system refuses even one thread: then the work
  // is done here.
  void post(std::function<void()> work);
  // Runs what was posted, ends the threads. What is posted afterwards is dropped: its request goes
  // unanswered until the kernel is told that nobody answers any more.
  void stop();

 private:
  void thread_main();

  const std::string name_;
  const std::size_t max_threads_;
  std::mutex mutex_;
  std::condition_variable work_cv_;  // work_ is not empty, or stopping_
  // Below: under mutex_.
  std::deque<std::function<void()>> work_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace mapperfs
