#include "fs/thread_pool.h"

#include <utility>

#include "engine/thread.h"

namespace mapperfs {

void ThreadPool::post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      return;
    }
    if (idle_ <= work_.size() && threads_.size() < max_threads_) {
      std::thread thread = start_thread(name_, [this] { thread_main(); });
      if (thread.joinable()) {
        threads_.push_back(std::move(thread));
      }
    }
    if (!threads_.empty()) {
      work_.push_back(std::move(work));
      work_cv_.notify_one();
      return;
    }
  }
  work();
}

void ThreadPool::thread_main() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    work_cv_.wait(lock, [this] { return !work_.empty() || stopping_; });
    --idle_;
    if (work_.empty()) {
      return;
    }
    std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
}

void ThreadPool::stop() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    work_cv_.notify_all();
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace mapperfs
