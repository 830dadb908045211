// Per-queue counters of a mapped device: bios in flight and I/O statistics. Each queue's thread
// writes its own slot with plain stores; sums are taken by reading all slots.
//
// Bios in flight are counted in two epochs. Whoever wants to wait for those that are under way, and
// not for those that come meanwhile, sends the new ones to the other epoch and waits until the old
// one is settled (sleepable RCU, as the kernel has it).
//
// The time during which anything was in flight cannot be added up from queues, since they overlap.
// It is kept as the kernel keeps it (update_io_ticks in block/blk-core.c): one stamp a device, up
// to which all is accounted. Whoever begins or ends a bio in a later tick of the coarse clock moves
// it; so there is one shared write a tick, and else a read of a line that stays in every cache.
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
inline constexpr std::size_t kEpochs = 2;

struct IoSums {
  std::array<std::uint64_t, kStatGroups> ios{};
  std::array<std::uint64_t, kStatGroups> sectors{};
  std::array<std::uint64_t, kStatGroups> time_ns{};
  std::uint64_t in_flight = 0;
  std::uint64_t busy_ns = 0;  // with anything in flight, to the coarse clock's ticks
};

class IoCounters {
 public:
  // One queue's share. Written by that queue's thread only.
  struct alignas(kCacheLineBytes) Slot {
    // By epoch. What started in one finishes in the same one, perhaps in another queue's slot.
    std::array<std::atomic<std::uint64_t>, kEpochs> started{};
    std::array<std::atomic<std::uint64_t>, kEpochs> finished{};
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
    if (queue.index() >= kNear) [[unlikely]] {
      return far_slot(queue.index() - kNear);
    }
    Slot* slot = slots_[queue.index()].load(std::memory_order_relaxed);
    return slot != nullptr ? *slot : make_slot(slots_[queue.index()]);
  }
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t n,
                  std::memory_order order = std::memory_order_relaxed) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + n, order);
  }
  // True at some moment during the call nothing was in flight. Meant for after new bios are held
  // back and a heavy_barrier().
  [[nodiscard]] bool idle() const { return settled(0, kEpochs); }
  // The same of one epoch: true only after everything counted in it before the call has finished.
  [[nodiscard]] bool idle(std::size_t epoch) const { return settled(epoch, epoch + 1); }
  // Of that moment, where `now_ns` is one of the coarse clock.
  [[nodiscard]] IoSums sums(std::uint64_t now_ns = 0) const;

  // Accounts the time up to `now_ns`. A bio begins: before it is counted in `started`, so that of
  // two that end an idle time together one finds the stamp moved and none takes it for busy.
  void account_begin(std::uint64_t now_ns) noexcept {
    if (now_ns > stamp_ns_.load(std::memory_order_relaxed)) [[unlikely]] {
      move_stamp(now_ns, !idle());
    }
  }
  // A bio ends: before it is counted in `finished`.
  void account_end(std::uint64_t now_ns) noexcept {
    if (now_ns > stamp_ns_.load(std::memory_order_relaxed)) [[unlikely]] {
      move_stamp(now_ns, true);
    }
  }

 private:
  // Few processes ever have more queues than this: the places of the others are made when the first
  // of them comes, so that a device that they never touch stays small.
  static constexpr std::size_t kNear = 256;
  static_assert(kNear < kMaxQueues);
  using Place = std::atomic<Slot*>;
  using FarPlaces = std::array<Place, kMaxQueues - kNear>;

  void move_stamp(std::uint64_t now_ns, bool busy) const noexcept;
  static Slot& make_slot(Place& place) noexcept;
  [[nodiscard]] bool settled(std::size_t epoch, std::size_t end_epoch) const;
  Slot& far_slot(std::size_t index) noexcept;
  template <typename Fn>
  void for_each_slot(Fn fn) const;

  std::array<Place, kNear> slots_{};
  std::atomic<FarPlaces*> far_{nullptr};  // owned; set once
  // Mutable, since asking for the sums accounts too. 0: nothing began yet.
  alignas(kCacheLineBytes) mutable std::atomic<std::uint64_t> stamp_ns_{0};
  mutable std::atomic<std::uint64_t> busy_ns_{0};
};

}  // namespace mapperfs
