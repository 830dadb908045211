#include "engine/io_counters.h"

namespace mapperfs {

IoCounters::~IoCounters() {
  for (std::atomic<Slot*>& slot : slots_) {
    const std::unique_ptr<Slot> owned(slot.load(std::memory_order_relaxed));
  }
}

// Slots are made by the one thread that has the queue, so that there is no race for the place.
IoCounters::Slot& IoCounters::make_slot(std::size_t index) noexcept {
  auto slot = std::make_unique<Slot>();
  slots_[index].store(slot.get(), std::memory_order_release);
  return *slot.release();
}

// Finished is read before started: what is in flight at the first reading cannot be hidden by what
// starts and finishes between the two.
bool IoCounters::idle() const {
  std::uint64_t finished = 0;
  std::uint64_t started = 0;
  for (const std::atomic<Slot*>& place : slots_) {
    if (const Slot* slot = place.load(std::memory_order_acquire)) {
      finished += slot->finished.load(std::memory_order_acquire);
    }
  }
  for (const std::atomic<Slot*>& place : slots_) {
    if (const Slot* slot = place.load(std::memory_order_acquire)) {
      started += slot->started.load(std::memory_order_acquire);
    }
  }
  return started == finished;
}

void IoCounters::move_stamp(std::uint64_t now_ns, bool busy) const noexcept {
  std::uint64_t stamp = stamp_ns_.load(std::memory_order_relaxed);
  if (now_ns > stamp && stamp_ns_.compare_exchange_strong(stamp, now_ns) && busy && stamp != 0) {
    busy_ns_.fetch_add(now_ns - stamp, std::memory_order_relaxed);
  }
}

IoSums IoCounters::sums(std::uint64_t now_ns) const {
  IoSums sums;
  std::uint64_t finished = 0;
  std::uint64_t started = 0;
  for (const std::atomic<Slot*>& place : slots_) {
    const Slot* slot = place.load(std::memory_order_acquire);
    if (slot == nullptr) {
      continue;
    }
    finished += slot->finished.load(std::memory_order_acquire);
    started += slot->started.load(std::memory_order_acquire);
    for (std::size_t group = 0; group < kStatGroups; ++group) {
      sums.ios[group] += slot->ios[group].load(std::memory_order_relaxed);
      sums.sectors[group] += slot->sectors[group].load(std::memory_order_relaxed);
      sums.time_ns[group] += slot->time_ns[group].load(std::memory_order_relaxed);
    }
  }
  sums.in_flight = started > finished ? started - finished : 0;
  if (sums.in_flight != 0) {
    move_stamp(now_ns, true);
  }
  sums.busy_ns = busy_ns_.load(std::memory_order_relaxed);
  return sums;
}

}  // namespace mapperfs
