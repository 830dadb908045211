#include "engine/blocking_pool.h"

#include <utility>

#include "engine/assert.h"
#include "engine/thread.h"

namespace mapperfs {

BlockingPool::~BlockingPool() {
  Threads ended;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    stop_ = true;
    work_cv_.notify_all();
    gone_cv_.wait(lock, [this] { return running_.empty(); });
    MFS_ASSERT(work_.empty());
    ended.swap(ended_);
  }
  for (std::thread& thread : ended) {
    thread.join();
  }
}

bool BlockingPool::start_locked() {
  const auto self = running_.emplace(running_.end());
  // The new thread first waits for the lock: it does not look at its own place too early.
  *self = start_thread("mfs-blocking", [this, self] { thread_main(self); });
  if (self->joinable()) {
    return true;
  }
  running_.erase(self);
  return false;
}

void BlockingPool::run(std::function<void()> work) {
  Threads ended;
  bool here = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    work_.push_back(std::move(work));
    if (idle_ >= work_.size() || running_.size() == kMaxThreads) {
      work_cv_.notify_one();
      return;
    }
    ended.swap(ended_);
    if (!start_locked() && running_.empty()) {
      here = true;
      work = std::move(work_.back());
      work_.pop_back();
    }
  }
  for (std::thread& thread : ended) {
    thread.join();  // it gave up the lock for the last time: no wait worth the name
  }
  if (here) {
    work();
  }
}

void BlockingPool::thread_main(Threads::iterator self) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    ++idle_;
    work_cv_.wait_for(lock, idle_time_, [this] { return !work_.empty() || stop_; });
    --idle_;
    if (work_.empty()) {
      break;  // nothing for a while, or stopped
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

std::size_t BlockingPool::threads() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return running_.size();
}

}  // namespace mapperfs
