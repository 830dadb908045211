#include "fs/ring_aio.h"

#include <liburing.h>
#include <linux/fs.h>

#include <algorithm>
#include <cerrno>

#include "engine/assert.h"

namespace mapperfs {

RingAio::RingAio(SqeSource& source) : source_(source) {
  free_.reserve(kDepth);
  for (Slot& slot : slots_) {
    free_.push_back(&slot);
  }
}

void RingAio::carry(Bio& bio) noexcept {
  if (free_.empty()) {
    AioDevice& device = aio_device_of(bio);
    if (slots_of(device) < kDepth / AioContext::kStarved) {
      device.aio_refused(bio);
      return;
    }
    ++in_flight_;
    waiting_.push_back(bio);
    return;
  }
  ++in_flight_;
  start(bio, 0);
}

void RingAio::start(Bio& bio, unsigned refusals) noexcept {
  Slot& slot = *free_.back();
  free_.pop_back();
  AioDevice& device = aio_device_of(bio);
  slot = {&bio, 0, &device, bio.has_data() && device.takes_nowait(), refusals};
  send(slot);
}

// What is left of the slot's bio.
void RingAio::send(Slot& slot) noexcept {
  Bio& bio = *slot.bio;
  const int fd = aio_device_of(bio).aio_fd(bio);
  const auto bytes = static_cast<unsigned>(bio.len_bytes() - slot.done_bytes);
  const std::uint64_t offset = (bio.sector << kSectorShift) + slot.done_bytes;
  ::io_uring_sqe& sqe = source_.next_sqe();
  switch (bio.op) {
    case Op::kRead:
      ::io_uring_prep_read(&sqe, fd, bio.data + slot.done_bytes, bytes, offset);
      break;
    case Op::kWrite:
      ::io_uring_prep_write(&sqe, fd, bio.data + slot.done_bytes, bytes, offset);
      sqe.rw_flags = (bio.flags & kBioFua) != 0 ? RWF_DSYNC : 0;
      break;
    default:
      MFS_ASSERT(bio.op == Op::kFlush);
      ::io_uring_prep_fsync(&sqe, fd, IORING_FSYNC_DATASYNC);
      break;
  }
  if (slot.nowait) [[likely]] {
    sqe.rw_flags |= RWF_NOWAIT;
  }
  sqe.user_data = reinterpret_cast<std::uint64_t>(&slot) | kTag;
}

void RingAio::completed(std::uint64_t user_data, int result) noexcept {
  Slot& slot = *reinterpret_cast<Slot*>(user_data & ~kTagMask);
  Bio& bio = *slot.bio;
  const AioOutcome outcome = aio_outcome(bio, slot.done_bytes, result);
  if (outcome.next == AioOutcome::Next::kContinue) {
    slot.done_bytes += outcome.moved_bytes;
    send(slot);
    return;
  }
  AioDevice& device = *slot.device;
  if (slot.nowait && result == -EOPNOTSUPP) {
    device.forget_nowait();
    slot.nowait = false;
    send(slot);
    return;
  }
  if (slot.nowait && result == -EAGAIN) {
    if (!device.aio_would_wait(bio) && keep(slot)) {
      return;
    }
  }
  const bool refused = outcome.next == AioOutcome::Next::kRefuse;
  vacate(slot);
  BioList stranded;
  if (!kept_.empty()) [[unlikely]] {
    if (!refused) {
      bring_on(device);
    } else if (slots_of(device) == 0) {
      const std::size_t before = kept_.size();
      stranded = kept_.take_all(device);
      in_flight_ -= before - kept_.size();
    }
  }
  while (Bio* next = stranded.pop_front()) {
    device.aio_refused(*next);
  }
  --in_flight_;
  if (refused) {
    device.aio_refused(bio);
  } else {
    device.aio_end(bio, outcome.status);
  }
}

std::size_t RingAio::slots_of(const AioDevice& device) const noexcept {
  return static_cast<std::size_t>(std::count_if(
      slots_.begin(), slots_.end(), [&](const Slot& slot) { return slot.device == &device; }));
}

// EAGAIN: the bio waits here for a transfer of the same device. False where it has done so often
// enough, or none is under way.
bool RingAio::keep(Slot& slot) noexcept {
  if (slot.refusals + 1 >= KeptBios::kMaxRefusals || slots_of(*slot.device) == 1) {
    return false;
  }
  kept_.keep({slot.bio, slot.device, slot.refusals + 1});
  vacate(slot);
  return true;
}

// The slot's bio has left; the next that waits takes it.
void RingAio::vacate(Slot& slot) noexcept {
  slot.device = nullptr;
  free_.push_back(&slot);
  if (Bio* next = waiting_.pop_front(); next != nullptr) {
    start(*next, 0);
  }
}

// A transfer of the device is over: those that were kept for it go on.
void RingAio::bring_on(const AioDevice& device) noexcept {
  const std::size_t under_way = slots_of(device);
  for (std::size_t count = under_way < KeptBios::kFewUnderWay ? 2 : 1; count > 0; --count) {
    const auto kept = kept_.take(device);
    if (!kept.has_value()) {
      return;
    }
    if (free_.empty()) {
      waiting_.push_back(*kept->bio);
    } else {
      start(*kept->bio, kept->refusals);
    }
  }
}

}  // namespace mapperfs
