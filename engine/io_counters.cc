#include "engine/io_counters.h"

#include <memory>

namespace mapperfs {

template <typename Fn>
void IoCounters::for_each_slot(Fn fn) const {
  const auto visit = [&fn](const auto& places) {
    for (const Place& place : places) {
      if (Slot* slot = place.load(std::memory_order_acquire)) {
        fn(*slot);
      }
    }
  };
  visit(slots_);
  if (const FarPlaces* far = far_.load(std::memory_order_acquire)) {
    visit(*far);
  }
}

IoCounters::~IoCounters() {
  for_each_slot([](Slot& slot) { const std::unique_ptr<Slot> owned(&slot); });
  const std::unique_ptr<FarPlaces> owned(far_.load(std::memory_order_relaxed));
}

// Slots are made by the one thread that has the queue, so that there is no race for the place.
IoCounters::Slot& IoCounters::make_slot(Place& place) noexcept {
  auto slot = std::make_unique<Slot>();
  place.store(slot.get(), std::memory_order_release);
  return *slot.release();
}

// The list of places is raced for by all queues that have theirs in it.
IoCounters::Slot& IoCounters::far_slot(std::size_t index) noexcept {
  FarPlaces* places = far_.load(std::memory_order_acquire);
  if (places == nullptr) {
    auto made = std::make_unique<FarPlaces>();
    if (far_.compare_exchange_strong(places, made.get(), std::memory_order_acq_rel)) {
      places = made.release();
    }
  }
  Place& place = (*places)[index];
  Slot* slot = place.load(std::memory_order_relaxed);
  return slot != nullptr ? *slot : make_slot(place);
}

// Finished is read before started: what is in flight at the first reading cannot be hidden by what
// starts and finishes between the two.
bool IoCounters::settled(std::size_t epoch, std::size_t end_epoch) const {
  std::uint64_t finished = 0;
  std::uint64_t started = 0;
  for_each_slot([&](const Slot& slot) {
    for (std::size_t i = epoch; i < end_epoch; ++i) {
      finished += slot.finished[i].load(std::memory_order_acquire);
    }
  });
  for_each_slot([&](const Slot& slot) {
    for (std::size_t i = epoch; i < end_epoch; ++i) {
      started += slot.started[i].load(std::memory_order_acquire);
    }
  });
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
  for_each_slot([&](const Slot& slot) {
    for (std::size_t epoch = 0; epoch < kEpochs; ++epoch) {
      finished += slot.finished[epoch].load(std::memory_order_acquire);
      started += slot.started[epoch].load(std::memory_order_acquire);
    }
    for (std::size_t group = 0; group < kStatGroups; ++group) {
      sums.ios[group] += slot.ios[group].load(std::memory_order_relaxed);
      sums.sectors[group] += slot.sectors[group].load(std::memory_order_relaxed);
      sums.time_ns[group] += slot.time_ns[group].load(std::memory_order_relaxed);
    }
  });
  sums.in_flight = started > finished ? started - finished : 0;
  if (sums.in_flight != 0) {
    move_stamp(now_ns, true);
  }
  sums.busy_ns = busy_ns_.load(std::memory_order_relaxed);
  return sums;
}

}  // namespace mapperfs
