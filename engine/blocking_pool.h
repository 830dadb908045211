// A bounded pool of threads for work that blocks on I/O.
//
// Threads are started when work waits and none is idle, up to kMaxThreads, and end after kIdleTime
// without work. Work must not wait for other work of the pool: with kMaxThreads such waits nothing
// would go on. Waiting for the kernel, a lock that is not held across pool work, or a worker is
// fine.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

namespace mapperfs {

class BlockingPool {
 public:
  static constexpr std::size_t kMaxThreads = 32;
  static constexpr std::chrono::seconds kIdleTime{10};

  explicit BlockingPool(std::chrono::milliseconds idle_time = kIdleTime) : idle_time_(idle_time) {}
  // Runs what was given, then stops.
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  // Any thread, pool threads too. Never blocks, unless the system refuses even one thread: then the
  // work is run here.
  void run(std::function<void()> work);
  // Threads that exist now.
  [[nodiscard]] std::size_t threads() const;

 private:
  using Threads = std::list<std::thread>;
  void thread_main(Threads::iterator self);
  // Starts one more. False where the system has none left. mutex_ held.
  bool start_locked();

  const std::chrono::milliseconds idle_time_;
  mutable std::mutex mutex_;
  std::condition_variable work_cv_;  // with mutex_: work_ is not empty, or stop_
  std::condition_variable gone_cv_;  // with mutex_: a thread ended
  // Below: under mutex_.
  std::deque<std::function<void()>> work_;
  Threads running_;
  Threads ended_;  // to be joined by the next to start a thread, or at the end
  std::size_t idle_ = 0;
  bool stop_ = false;
};

}  // namespace mapperfs
