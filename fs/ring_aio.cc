#include "fs/ring_aio.h"

#include <liburing.h>
#include <linux/fs.h>

#include "engine/assert.h"

namespace mapperfs {

RingAio::RingAio(SqeSource& source) : source_(source) {
  free_.reserve(kDepth);
  for (Slot& slot : slots_) {
    free_.push_back(&slot);
  }
}

void RingAio::carry(Bio& bio) noexcept {
  ++in_flight_;
  if (free_.empty()) {
    waiting_.push_back(bio);
    return;
  }
  Slot* slot = free_.back();
  free_.pop_back();
  start(*slot, bio);
}

void RingAio::start(Slot& slot, Bio& bio) noexcept {
  slot = {&bio, 0};
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
  --in_flight_;
  if (Bio* next = waiting_.pop_front(); next != nullptr) {
    start(slot, *next);
  } else {
    free_.push_back(&slot);
  }
  if (outcome.next == AioOutcome::Next::kRefuse) {
    aio_device_of(bio).aio_refused(bio);
  } else {
    aio_device_of(bio).aio_end(bio, outcome.status);
  }
}

}  // namespace mapperfs
