#include "fs/thread_pool.h"

#include <chrono>
#include <utility>

#include "engine/thread.h"

namespace mapperfs {
namespace {

constexpr std::chrono::seconds kIdleTime{10};

}  // namespace

void ThreadPool::post(std::function<void()> work) {
  Threads ended;
  bool here = false;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      return;
    }
    work_.push_back(std::move(work));
    if (idle_ < work_.size() && running_.size() < max_threads_) {
      const auto self = running_.emplace(running_.end());
      *self = start_thread(name_, [this, self] { thread_main(self); });
      if (!self->joinable()) {
        running_.erase(self);
        here = running_.empty();
      }
    }
    if (here) {
      work = std::move(work_.back());
      work_.pop_back();
    } else {
      work_cv_.notify_one();
    }
    ended.swap(ended_);
  }
  for (std::thread& thread : ended) {
    thread.join();  // it has let go of the lock for the last time
  }
  if (here) {
    work();
  }
}

void ThreadPool::thread_main(Threads::iterator self) {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    work_cv_.wait_for(lock, kIdleTime, [this] { return !work_.empty() || stopping_; });
    --idle_;
    if (work_.empty()) {
      break;
    }
    std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
  ended_.splice(ended_.end(), running_, self);
  gone_cv_.notify_all();
}

void ThreadPool::stop() {
  Threads ended;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    work_cv_.notify_all();
    gone_cv_.wait(lock, [this] { return running_.empty(); });
    ended.swap(ended_);
  }
  for (std::thread& thread : ended) {
    thread.join();
  }
}

}  // namespace mapperfs
