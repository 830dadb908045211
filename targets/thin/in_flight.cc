#include "targets/thin/in_flight.h"

#include <chrono>
#include <condition_variable>

namespace mapperfs::thinp {

namespace {

// A section's end does not wake who waits for it: that would cost every bio a look at a shared
// word. I/O takes longer than this anyway.
constexpr std::chrono::microseconds kDrainPoll{100};

}  // namespace

// Two turns: a thread may have read current_ long ago and count itself only now, under the number
// that is not the current one any more. One turn would miss it.
void InFlight::synchronize() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (int turn = 0; turn < 2; ++turn) {
    const Section old = current_.load(std::memory_order_relaxed);
    current_.store(static_cast<Section>(old ^ 1U), std::memory_order_release);
    heavy_barrier();
    drain(old);
  }
}

void InFlight::drain(Section section) const {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock<std::mutex> lock(mutex);
  while (!counters_.idle(section)) {
    never.wait_for(lock, kDrainPoll);
  }
}

}  // namespace mapperfs::thinp
