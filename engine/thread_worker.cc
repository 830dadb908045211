#include "engine/thread_worker.h"

#include <utility>

#include "engine/assert.h"
#include "engine/thread.h"

namespace mapperfs {

ThreadWorker::~ThreadWorker() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    MFS_ASSERT(thread_.get_id() != std::this_thread::get_id());
    stop_ = true;
    work_cv_.notify_one();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void ThreadWorker::post(std::function<void()> work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  work_.push_back(std::move(work));
  ++posted_;
  if (!thread_.joinable()) {
    thread_ = start_thread(name_, [this] { thread_main(); });
    // What a worker is for (commits, suspends) cannot be left undone, nor done on this thread.
    MFS_ASSERT(thread_.joinable());
    return;
  }
  work_cv_.notify_one();
}

void ThreadWorker::drain() {
  std::unique_lock<std::mutex> lock(mutex_);
  MFS_ASSERT(thread_.get_id() != std::this_thread::get_id());
  const std::uint64_t target = posted_;
  done_cv_.wait(lock, [this, target] { return done_ >= target; });
}

void ThreadWorker::thread_main() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    work_cv_.wait(lock, [this] { return !work_.empty() || stop_; });
    if (work_.empty()) {
      return;
    }
    std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    work = nullptr;  // what it holds goes before drain() returns
    lock.lock();
    ++done_;
    done_cv_.notify_all();
  }
}

}  // namespace mapperfs
