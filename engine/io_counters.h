// Per-queue counters of a mapped device: bios in flight and I/O statistics. Each queue's thread
// writes its own slot with plain stores; sums are taken by reading all slots.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "engine/queue.h"
#include "engine/types.h"

namespace mapperfs {

// The classes of /sys/block/*/stat.
enum class StatGroup : std::uint8_t { kRead, kWrite, kDiscard, kFlush };
inline constexpr std::size_t kStatGroups = 4;

struct IoSums {
  std::array<std::uint64_t, kStatGroups> ios{};
  std::array<std::uint64_t, kStatGroups> sectors{};
  std::array<std::uint64_t, kStatGroups> time_ns{};
  std::uint64_t in_flight = 0;
};

class IoCounters {
 public:
  // One queue's share. Written by that queue's thread only.
  struct alignas(kCacheLineBytes) Slot {
    std::atomic<std::uint64_t> started{0};
    std::atomic<std::uint64_t> finished{0};
    std::array<std::atomic<std::uint64_t>, kStatGroups> ios{};
    std::array<std::atomic<std::uint64_t>, kStatGroups> sectors{};
    std::array<std::atomic<std::uint64_t>, kStatGroups> time_ns{};
  };
  IoCounters() = default;
  ~IoCounters();
  IoCounters(const IoCounters&) = delete;
  IoCounters& operator=(const IoCounters&) = delete;

  // The slot of the calling thread's queue; made at its first I/O to this device.
  Slot& slot(const Queue& queue) noexcept {
    Slot* slot = slots_[queue.index()].load(std::memory_order_relaxed);
    return slot != nullptr ? *slot : make_slot(queue.index());
  }
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t n,
                  std::memory_order order = std::memory_order_relaxed) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + n, order);
  }
  // True at some moment during the call nothing was in flight. Meant for after new bios are held
  // back and a heavy_barrier().
  [[nodiscard]] bool idle() const;
  [[nodiscard]] IoSums sums() const;

 private:
  Slot& make_slot(std::size_t index) noexcept;
  std::array<std::atomic<Slot*>, kMaxQueues> slots_{};
};

}  // namespace mapperfs
