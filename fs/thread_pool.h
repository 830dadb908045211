// Threads for work that a FUSE thread must not do itself, since it may wait: control operations,
// and everything that waits for I/O.
//
// A thread is started when work waits and none is idle, up to the pool's limit, and ends when it
// had nothing to do for a while. With as many waiting as the limit says, further work queues, or is
// refused (try_post): so work that only other work of the same pool can end does not belong in one
// pool, unless the caller keeps it below the limit.
#pragma once

#include <chrono>
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
  // `patience`: how long a thread stays that has nothing to do.
  ThreadPool(std::string name, std::size_t max_threads,
             std::chrono::milliseconds patience = std::chrono::seconds(60))
      : name_(std::move(name)), max_threads_(max_threads), patience_(patience) {}
  ~ThreadPool() { stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Any thread; never blocks on the work, unless the system refuses even one thread: then the work
  // is done here.
  void post(std::function<void()> work);
  // As post(), but only with a thread that takes the work up at once. False: there is none, and the
  // work is not done.
  [[nodiscard]] bool try_post(std::function<void()> work);
  // Runs what was posted, ends the threads. What is posted afterwards is dropped: its request goes
  // unanswered until the kernel is told that nobody answers any more.
  void stop();
  // How many there are.
  [[nodiscard]] std::size_t threads() const;

 private:
  void thread_main();
  // Both with mutex_ held. Whether a thread is there or coming for one more piece of work.
  bool find_thread_locked();
  void leave_locked();

  const std::string name_;
  const std::size_t max_threads_;
  const std::chrono::milliseconds patience_;
  mutable std::mutex mutex_;
  std::condition_variable work_cv_;  // work_ is not empty, or stopping_
  // Below: under mutex_.
  std::deque<std::function<void()>> work_;
  std::vector<std::thread> threads_;
  std::vector<std::thread> left_;  // ended, or about to without any lock
  std::size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace mapperfs
