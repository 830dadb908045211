// A worker (engine/env.h) that has a thread, started with the first work.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "engine/env.h"

namespace mapperfs {

class ThreadWorker final : public Worker {
 public:
  explicit ThreadWorker(std::string name) : name_(std::move(name)) {}
  ~ThreadWorker() override;

  void post(std::function<void()> work) override;
  void drain() override;

 private:
  void thread_main();

  const std::string name_;
  std::mutex mutex_;
  std::condition_variable work_cv_;  // with mutex_: work_ is not empty, or stop_
  std::condition_variable done_cv_;  // with mutex_: done_ grew
  // Below: under mutex_.
  std::deque<std::function<void()>> work_;
  std::uint64_t posted_ = 0;
  std::uint64_t done_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace mapperfs
