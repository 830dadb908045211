// Holding bios back: all of them (suspend, swap, remove), or those that overlap a range while
// exclusive work changes it. docs/design.md tells the protocol, mapped_device.h the invariants.
//
// Both ways begin alike: a bit of gate_ rises, and after a heavy_barrier() every bio either is
// counted already or sees the bit. What is counted then has to leave. A hold lets nothing in, so
// that it can wait until nothing is counted at all. Beside a range other bios keep coming, so it
// waits by epochs.
#include <condition_variable>
#include <mutex>

#include "engine/assert.h"
#include "engine/engine.h"
#include "engine/mapped_device.h"

namespace mapperfs {

namespace {

bool overlap(const Bio& bio, sector_t sector, sector_t sectors) noexcept {
  if (bio.sectors == 0) {
    return false;  // a flush
  }
  // Without sums: a bio's range is not checked yet, and may wrap around.
  return bio.sector < sector ? bio.sectors > sector - bio.sector : bio.sector - sector < sectors;
}

}  // namespace

// Where the bio comes in, before it is cut. The range may be torn, of work that has ended and of
// work that begins only now. The latter waits for the caller, who is counted and did not see it.
// What the former did is seen by who finds no overlap because of a newer number: it was stored
// after that work ended, with release. Who finds one looks again under the lock.
bool MappedDevice::held_back(const Bio& bio, std::uint32_t gate) const noexcept {
  if ((bio.flags & kBioInternal) != 0 && bio.frame_ == nullptr) {
    return false;
  }
  return (gate & kGateHold) != 0 ||
         ((gate & kGateRange) != 0 && overlap(bio, range_sector_.load(std::memory_order_acquire),
                                              range_sectors_.load(std::memory_order_acquire)));
}

void MappedDevice::defer(Bio& bio) noexcept {
  if ((bio.flags & (kBioNowait | kBioReadahead)) != 0) {
    bio.end_io((bio.flags & kBioNowait) != 0 ? BlkStatus::kAgain : BlkStatus::kIoError);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(deferred_mutex_);
    if (held_back(bio, gate_.load(std::memory_order_acquire)) && !removed()) {
      deferred_.push_back(bio);
      return;
    }
  }
  // What held it back ended between the two looks, or the device is going for good.
  if (removed()) {
    bio.end_io(BlkStatus::kIoError);
  } else {
    submit_bio(bio);
  }
}

// False: the suspend was given up meanwhile, the bio goes in again at once. Looked at under the
// lock: whoever gives up clears the flag before it takes the lock to let the list go, so that no
// bio joins a list that nobody empties any more.
bool MappedDevice::defer_requeued(Bio& bio) noexcept {
  const std::lock_guard<std::mutex> lock(deferred_mutex_);
  if (!noflush_suspending()) {
    return false;
  }
  deferred_.push_back(bio);
  return true;
}

// All of them ------------------------------------------------------------------------------------

void MappedDevice::hold() {
  const std::uint32_t before = gate_.fetch_or(kGateHold, std::memory_order_seq_cst);
  MFS_ASSERT((before & kGateHold) == 0);
  heavy_barrier();
}

void MappedDevice::release() {
  BioList list;
  {
    const std::lock_guard<std::mutex> lock(deferred_mutex_);
    gate_.fetch_and(~kGateHold, std::memory_order_acq_rel);
    list.swap(deferred_);
    open_cv_.notify_all();
  }
  while (Bio* bio = list.pop_front()) {
    submit_bio(*bio);
  }
}

bool MappedDevice::wait_idle(const std::function<bool()>& interrupted) {
  const auto idle = [this] { return !exclusive_inside_ && counters_.idle(); };
  std::unique_lock<std::mutex> lock(deferred_mutex_);
  while (!idle()) {
    if (interrupted) {
      lock.unlock();
      const bool give_up = interrupted();
      lock.lock();
      if (give_up) {
        return false;
      }
      if (idle()) {
        break;
      }
    }
    idle_cv_.wait_for(lock, kDrainPoll);
  }
  return true;
}

bool MappedDevice::falls_idle(std::uint64_t until_ns) {
  const Env& env = engine_.env();
  return wait_idle([&] { return env.now_ns() >= until_ns; });
}

// Those that overlap a range ---------------------------------------------------------------------

BlkStatus MappedDevice::run_exclusive(sector_t sector, sector_t sectors,
                                      const std::function<BlkStatus()>& work) {
  const std::lock_guard<std::mutex> one_at_a_time(exclusive_mutex_);
  BlkStatus status = BlkStatus::kRequeue;
  while (status == BlkStatus::kRequeue) {
    if (!wait_open()) {
      return BlkStatus::kIoError;
    }
    close_range(sector, sectors);
    // Else a suspend came between, which did not wait for who only waits: it goes first.
    if (begin_exclusive()) {
      status = work();
    }
    open_range();
  }
  return status;
}

// False: the device was removed. A noflush suspend that has begun counts as one that holds: its
// targets push back whatever comes.
bool MappedDevice::wait_open() {
  std::unique_lock<std::mutex> lock(deferred_mutex_);
  open_cv_.wait(lock, [this] {
    const bool held = (gate_.load(std::memory_order_acquire) & kGateHold) != 0;
    return removed() || (!held && !noflush_suspending());
  });
  return !removed();
}

// Returns when every bio inside has seen the range, and so does not overlap it.
//
// After the barrier a bio that has not seen it is counted, in either epoch: it may have read the
// epoch long ago. Both have to be settled once, each while new bios are counted in the other one,
// so that a stream of them does not keep this waiting. Only stragglers come to an epoch that is not
// current, one of each thread; they have seen the range.
void MappedDevice::close_range(sector_t sector, sector_t sectors) {
  range_sector_.store(sector, std::memory_order_release);
  range_sectors_.store(sectors, std::memory_order_release);
  const std::uint32_t epoch = gate_.fetch_or(kGateRange, std::memory_order_seq_cst) & kGateEpoch;
  heavy_barrier();
  wait_settled(epoch ^ kGateEpoch);
  gate_.fetch_xor(kGateEpoch, std::memory_order_acq_rel);
  wait_settled(epoch);
}

void MappedDevice::wait_settled(std::uint32_t epoch) {
  std::unique_lock<std::mutex> lock(deferred_mutex_);
  while (!counters_.idle(epoch)) {
    idle_cv_.wait_for(lock, kDrainPoll);
  }
}

// False: a suspend holds, or is about to. Else it waits for open_range(): wait_idle() looks under
// the same lock, after the hold.
bool MappedDevice::begin_exclusive() {
  const std::lock_guard<std::mutex> lock(deferred_mutex_);
  exclusive_inside_ = (gate_.load(std::memory_order_acquire) & kGateHold) == 0;
  return exclusive_inside_;
}

// Whom a suspend holds back as well, its end lets go.
void MappedDevice::open_range() {
  BioList list;
  {
    const std::lock_guard<std::mutex> lock(deferred_mutex_);
    exclusive_inside_ = false;
    const std::uint32_t before = gate_.fetch_and(~kGateRange, std::memory_order_acq_rel);
    if ((before & kGateHold) == 0) {
      list.swap(deferred_);
    }
    idle_cv_.notify_all();
  }
  while (Bio* bio = list.pop_front()) {
    submit_bio(*bio);
  }
}

}  // namespace mapperfs
