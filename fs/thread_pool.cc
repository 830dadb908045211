#include "fs/thread_pool.h"

#include <algorithm>
#include <utility>

#include "engine/thread.h"

namespace mapperfs {

bool ThreadPool::find_thread_locked() {
  if (idle_ > work_.size()) {
    return true;
  }
  if (threads_.size() >= max_threads_) {
    return false;
  }
  for (std::thread& thread : left_) {
    thread.join();  // it needs nothing more
  }
  left_.clear();
  std::thread thread = start_thread(name_, [this] { thread_main(); });
  if (!thread.joinable()) {
    return false;
  }
  threads_.push_back(std::move(thread));
  return true;
}

void ThreadPool::post(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      return;
    }
    if (find_thread_locked() || !threads_.empty()) {
      work_.push_back(std::move(work));
      work_cv_.notify_one();
      return;
    }
  }
  work();
}

bool ThreadPool::try_post(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || !find_thread_locked()) {
    return false;
  }
  work_.push_back(std::move(work));
  work_cv_.notify_one();
  return true;
}

void ThreadPool::thread_main() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    work_cv_.wait_for(lock, patience_, [this] { return !work_.empty() || stopping_; });
    --idle_;
    if (work_.empty()) {
      leave_locked();
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

// The thread's own end; stop() has taken the threads already where it is the reason.
void ThreadPool::leave_locked() {
  const auto own = std::find_if(threads_.begin(), threads_.end(), [](const std::thread& thread) {
    return thread.get_id() == std::this_thread::get_id();
  });
  if (own != threads_.end()) {
    left_.push_back(std::move(*own));
    threads_.erase(own);
  }
}

void ThreadPool::stop() {
  std::vector<std::thread> threads;
  std::vector<std::thread> left;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    work_cv_.notify_all();
    threads.swap(threads_);
    left.swap(left_);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (std::thread& thread : left) {
    thread.join();
  }
}

std::size_t ThreadPool::threads() const {
  const std::lock_guard lock(mutex_);
  return threads_.size();
}

}  // namespace mapperfs
