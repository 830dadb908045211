// A lock for much reading and rare writing: one mutex per slot, each thread always uses the same
// slot, so readers on different cores share no cache line. A writer takes every slot, and gets
// in before readers that come after it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <mutex>

#include "engine/types.h"

namespace mapperfs {

// Threads are numbered as they first ask.
inline std::size_t number_of_thread() {
  static std::atomic<std::size_t> threads{0};
  thread_local const std::size_t number = threads.fetch_add(1, std::memory_order_relaxed);
  return number;
}

// Any thread; not recursive. A reader may block while it holds the lock, at the cost of writers and
// of the readers that share its slot.
class ShardedLock {
 public:
  class ReadGuard {
   public:
    explicit ReadGuard(ShardedLock& lock) : mutex_(lock.slots_[slot_of_thread()].mutex) {
      if (lock.writer_waits_.load(std::memory_order_relaxed)) {
        const std::lock_guard<std::mutex> queue(lock.writer_mutex_);
      }
      mutex_.lock();
    }
    ~ReadGuard() { mutex_.unlock(); }
    ReadGuard(const ReadGuard&) = delete;
    ReadGuard& operator=(const ReadGuard&) = delete;

   private:
    std::mutex& mutex_;
  };
  // For who must not wait, and whose thread does not hold the lock already.
  class TryReadGuard {
   public:
    explicit TryReadGuard(ShardedLock& lock)
        : lock_(lock.slots_[slot_of_thread()].mutex, std::defer_lock) {
      if (!lock.writer_waits_.load(std::memory_order_relaxed)) {
        lock_.try_lock();
      }
    }
    [[nodiscard]] bool owns_lock() const { return lock_.owns_lock(); }

   private:
    std::unique_lock<std::mutex> lock_;
  };
  class WriteGuard {
   public:
    explicit WriteGuard(ShardedLock& lock) : lock_(lock) {
      lock_.writer_mutex_.lock();
      lock_.writer_waits_.store(true, std::memory_order_relaxed);
      for (Slot& slot : lock_.slots_) {
        slot.mutex.lock();
      }
    }
    ~WriteGuard() {
      lock_.writer_waits_.store(false, std::memory_order_relaxed);
      for (Slot& slot : lock_.slots_) {
        slot.mutex.unlock();
      }
      lock_.writer_mutex_.unlock();
    }
    WriteGuard(const WriteGuard&) = delete;
    WriteGuard& operator=(const WriteGuard&) = delete;

   private:
    ShardedLock& lock_;
  };

  // Waits until every reader that held the lock at the call has let go: a grace period. The caller
  // must not hold the lock.
  void synchronize() {
    for (Slot& slot : slots_) {
      const std::lock_guard<std::mutex> wait(slot.mutex);
    }
  }

 private:
  static constexpr std::size_t kSlots = 32;
  struct alignas(kCacheLineBytes) Slot {
    std::mutex mutex;
  };

  static std::size_t slot_of_thread() { return number_of_thread() % kSlots; }

  std::array<Slot, kSlots> slots_;
  // Only for fairness: a thread that takes its slot over and over would keep a writer out.
  std::mutex writer_mutex_;
  std::atomic<bool> writer_waits_{false};
};

// A mutex at which a thread that comes back at once does not overtake one that waits: whoever waits
// holds the entry.
class FairMutex {
 public:
  void lock() {
    const std::lock_guard<std::mutex> entry(entry_);
    mutex_.lock();
  }
  bool try_lock() {
    const std::unique_lock<std::mutex> entry(entry_, std::try_to_lock);
    return entry.owns_lock() && mutex_.try_lock();
  }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex entry_;
  std::mutex mutex_;
};

// For who must not wait for long: tries for about as long as a change in memory takes, some 2 us.
// Who holds the lock longer is reading or was put off its core.
template <typename Mutex>
std::unique_lock<Mutex> try_lock_briefly(Mutex& mutex) {
  constexpr int kTries = 64;
  std::unique_lock<Mutex> lock(mutex, std::try_to_lock);
  for (int i = 1; i < kTries && !lock.owns_lock(); ++i) {
#if defined(__x86_64__)
    __builtin_ia32_pause();  // some 40 ns, and the other thread of the core gets on
#endif
    if (lock.try_lock()) {
      break;
    }
  }
  return lock;
}

}  // namespace mapperfs
