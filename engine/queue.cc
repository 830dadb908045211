#include "engine/queue.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <mutex>
#include <vector>

#include "engine/aio_context.h"
#include "engine/assert.h"

namespace mapperfs {

namespace {

constexpr std::size_t kFramesPerChunk = 256;
constexpr std::size_t kBiosPerChunk = 256;

bool register_membarrier() noexcept {
  if (::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0) {
    return true;
  }
  g_membarrier_missing.store(true);
  return false;
}

}  // namespace

// All queues of the process. They are never destroyed before the process ends: frames of a finished
// thread may still be on their way up on another.
class QueueRegistry {
 public:
  static QueueRegistry& instance() {
    static QueueRegistry registry;
    return registry;
  }
  Queue* take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      Queue* queue = idle_.back();
      idle_.pop_back();
      return queue;
    }
    MFS_ASSERT(made_ < kMaxQueues);
    queues_[made_].reset(new Queue(made_));  // NOLINT: private constructor
    return queues_[made_++].get();
  }
  void give_back(Queue& queue) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(&queue);
  }
  std::size_t pooled_objects() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::size_t sum = 0;
    for (std::size_t i = 0; i < made_; ++i) {
      sum += queues_[i]->frames_.capacity() + queues_[i]->bios_.capacity();
    }
    return sum;
  }

 private:
  struct Deleter {
    void operator()(Queue* queue) const { delete queue; }  // NOLINT: private destructor
  };
  QueueRegistry() = default;

  std::mutex mutex_;
  // Before queues_: at the process's end these stop their aio threads, which give back their own.
  std::vector<Queue*> idle_;
  std::array<std::unique_ptr<Queue, Deleter>, kMaxQueues> queues_;
  std::size_t made_ = 0;
};

namespace {

// Gives the thread's queue back when the thread ends.
struct ThreadQueue {
  Queue* queue = nullptr;
  ~ThreadQueue() {
    if (queue != nullptr) {
      QueueRegistry::instance().give_back(*queue);
    }
  }
};

}  // namespace

thread_local constinit Queue* Queue::current_ = nullptr;

Queue::Queue(std::size_t index) : index_(index), frames_(kFramesPerChunk), bios_(kBiosPerChunk) {}

Queue::~Queue() = default;

void Queue::attach() noexcept {
  static const bool registered = register_membarrier();
  static_cast<void>(registered);
  thread_local ThreadQueue holder;
  holder.queue = QueueRegistry::instance().take();
  current_ = holder.queue;
}

AioContext& Queue::aio() {
  if (aio_ == nullptr) {
    aio_ = std::make_unique<AioContext>();
  }
  return *aio_;
}

std::size_t Queue::pooled_objects() { return QueueRegistry::instance().pooled_objects(); }

void heavy_barrier() noexcept {
  if (g_membarrier_missing.load(std::memory_order_relaxed) ||
      ::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
    g_barrier_word.fetch_add(1, std::memory_order_seq_cst);
  }
}

Bio& alloc_bio(Completion& completion) noexcept {
  Bio& bio = Queue::current().alloc_bio();
  bio.completion = &completion;
  return bio;
}

void free_bio(Bio& bio) noexcept {
  static_cast<void>(Queue::current());
  Queue::free_bio(bio);
}

}  // namespace mapperfs
