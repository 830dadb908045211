// A std::shared_mutex that lets in a writer who waits before readers who come after: the C
// library's prefers readers, and where some hold it over I/O all the time a writer would never get
// in. With several slots readers on different cores write to different cache lines; a writer takes
// all of them.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <shared_mutex>

#include "engine/types.h"
#include "metadata/sharded_lock.h"

namespace mapperfs::thinp {

// Any thread; not recursive; shared by a thread, it is let go by the same one. For std::unique_lock
// and std::shared_lock.
template <std::size_t kSlots>
class SlottedSharedMutex {
 public:
  void lock() {
    entry_.lock();
    writer_.store(true, std::memory_order_relaxed);
    for (Slot& slot : slots_) {
      slot.mutex.lock();
    }
  }
  void unlock() {
    writer_.store(false, std::memory_order_relaxed);
    for (Slot& slot : slots_) {
      slot.mutex.unlock();
    }
    entry_.unlock();
  }
  void lock_shared() {
    if (writer_.load(std::memory_order_relaxed)) {
      const std::lock_guard<std::mutex> queue(entry_);
    }
    own_slot().lock_shared();
  }
  bool try_lock_shared() {
    return !writer_.load(std::memory_order_relaxed) && own_slot().try_lock_shared();
  }
  void unlock_shared() { own_slot().unlock_shared(); }

 private:
  struct alignas(kCacheLineBytes) Slot {
    std::shared_mutex mutex;
  };
  std::shared_mutex& own_slot() { return slots_[number_of_thread() % kSlots].mutex; }

  std::mutex entry_;  // a writer's, from when it begins to wait
  std::atomic<bool> writer_{false};
  std::array<Slot, kSlots> slots_;
};

// For what few threads share at a time, and for what all of them share at each write.
using FairSharedMutex = SlottedSharedMutex<1>;
using WideSharedMutex = SlottedSharedMutex<16>;

}  // namespace mapperfs::thinp
