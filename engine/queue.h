// A queue: what one thread needs to move bios without sharing anything: pools of bios and frames,
// an index into every device's per-queue counters, and an aio context.
//
// Every thread that submits or ends bios has one; it is attached at first use and goes back to a
// list when the thread ends, for the next thread. Queues are the process's, not an engine's: tests
// make many engines. Limit: kMaxQueues threads at once, far above what those who start threads may
// start together: rings (Rings::kMaxRings), pools of threads, four lanes a thin pool.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "engine/bio.h"
#include "engine/pool.h"

namespace mapperfs {

class AioContext;

inline constexpr std::size_t kMaxQueues = 4096;

class Queue {
 public:
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // The calling thread's queue.
  static Queue& current() noexcept {
    if (current_ == nullptr) [[unlikely]] {
      attach();
    }
    return *current_;
  }
  // 0 .. kMaxQueues - 1.
  [[nodiscard]] std::size_t index() const { return index_; }

  Frame& alloc_frame() noexcept {
    Frame& frame = frames_.take();
    frame.home = this;
    return frame;
  }
  // The calling thread gives back a frame of any queue.
  static void free_frame(Frame& frame) noexcept {
    if (frame.home == current_) {
      frame.home->frames_.give_back(frame);
    } else {
      frame.home->frames_.give_back_remote(frame);
    }
  }
  Bio& alloc_bio() noexcept {
    Bio& bio = bios_.take();
    bio.home_ = this;
    return bio;
  }
  static void free_bio(Bio& bio) noexcept {
    if (bio.home_ == current_) {
      bio.home_->bios_.give_back(bio);
    } else {
      bio.home_->bios_.give_back_remote(bio);
    }
  }
  // The thread's libaio context, made at first use; stays when the thread ends.
  AioContext& aio();
  // Objects that the pools of all queues have made so far: for the allocations-per-bio figure.
  static std::size_t pooled_objects();

 private:
  friend class QueueRegistry;
  explicit Queue(std::size_t index);
  ~Queue();
  static void attach() noexcept;

  static thread_local constinit Queue* current_;

  const std::size_t index_;
  Pool<Frame> frames_;
  Pool<Bio> bios_;
  std::unique_ptr<AioContext> aio_;
};

// The asymmetric barrier pair of the in-flight counters: the fast side pays a compiler barrier, the
// slow side a membarrier(2) that makes every running thread pass a full one. Where the kernel
// refuses membarrier, both sides pay a read-modify-write of one shared word, which orders them
// (and which ThreadSanitizer understands, unlike a fence).
inline std::atomic<bool> g_membarrier_missing{false};
inline std::atomic<unsigned> g_barrier_word{0};
inline void light_barrier() noexcept {
  if (g_membarrier_missing.load(std::memory_order_relaxed)) [[unlikely]] {
    g_barrier_word.fetch_add(1, std::memory_order_seq_cst);
  }
  std::atomic_signal_fence(std::memory_order_seq_cst);
}
void heavy_barrier() noexcept;

}  // namespace mapperfs
