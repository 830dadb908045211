// A std::shared_mutex that lets in a writer who waits before readers who come after: the C
// library's prefers readers, and where some hold it over I/O all the time a writer would never get
// in.
#pragma once

#include <atomic>
#include <mutex>
#include <shared_mutex>

namespace mapperfs::thinp {

// Any thread; not recursive. For std::unique_lock and std::shared_lock.
class FairSharedMutex {
 public:
  void lock() {
    entry_.lock();
    writer_.store(true, std::memory_order_relaxed);
    mutex_.lock();
  }
  void unlock() {
    writer_.store(false, std::memory_order_relaxed);
    mutex_.unlock();
    entry_.unlock();
  }
  void lock_shared() {
    if (writer_.load(std::memory_order_relaxed)) {
      const std::lock_guard<std::mutex> queue(entry_);
    }
    mutex_.lock_shared();
  }
  bool try_lock_shared() {
    return !writer_.load(std::memory_order_relaxed) && mutex_.try_lock_shared();
  }
  void unlock_shared() { mutex_.unlock_shared(); }

 private:
  std::mutex entry_;  // a writer's, from when it begins to wait
  std::atomic<bool> writer_{false};
  std::shared_mutex mutex_;
};

}  // namespace mapperfs::thinp
