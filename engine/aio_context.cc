#include "engine/aio_context.h"

#include <libaio.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "engine/queue.h"
#include "engine/thread.h"

namespace mapperfs {
namespace {

// The ring that io_setup() maps into the process, include of fs/aio.c: its address is the context's
// handle. The kernel writes `tail` and the events before it, we write `head`.
struct Ring {
  unsigned id;
  unsigned nr;
  unsigned head;
  unsigned tail;
  unsigned magic;
  unsigned compat_features;
  unsigned incompat_features;
  unsigned header_length;
};
constexpr unsigned kRingMagic = 0xa10a10a1;
constexpr unsigned kIocbResfd = 1;  // IOCB_FLAG_RESFD of linux/aio_abi.h

// On a reaper's thread its context.
thread_local constinit AioContext* reaping_context = nullptr;
thread_local constinit AioContext* override_context = nullptr;

// Errors that say "not this way" and nothing about the data.
bool is_refusal(int error) {
  return error == EINVAL || error == EOPNOTSUPP || error == ENOSYS || error == EAGAIN ||
         error == EINTR;
}

}  // namespace

AioOutcome aio_outcome(const Bio& bio, std::size_t done_bytes, long result) noexcept {
  using Next = AioOutcome::Next;
  if (result < 0) {
    const int error = static_cast<int>(-result);
    return {is_refusal(error) ? Next::kRefuse : Next::kEnd, blk_status_of_errno(error)};
  }
  const auto moved = static_cast<std::size_t>(result);
  const std::size_t left = bio.len_bytes() - done_bytes;
  if (!bio.has_data() || moved == left) {
    return {};
  }
  if (moved > 0 && moved < left) {
    // If there is an error behind the short transfer, it comes with the rest. Half a sector is
    // nothing that a direct transfer can go on from.
    return {moved % kSectorBytes == 0 ? Next::kContinue : Next::kRefuse, BlkStatus::kOk, moved};
  }
  // The end of a file that shrank.
  return {Next::kEnd, bio.op == Op::kRead ? BlkStatus::kIoError : BlkStatus::kNoSpace};
}

const AioSyscalls& real_aio_syscalls() {
  static const AioSyscalls kReal = {::io_setup, ::io_destroy, ::io_submit, ::io_getevents, true};
  return kReal;
}

// One bio's way through the kernel.
struct AioContext::Slot {
  ::iocb cb{};
  // Released by the thread that fills the slot, acquired by the one that reaps it: the kernel
  // orders the two as well, but neither the language nor a race detector knows.
  std::atomic<Bio*> bio{nullptr};
  std::size_t done_bytes = 0;
  const AioDevice* device = nullptr;  // mutex_: whose bio is inside; null: none
  bool nowait = false;                // the iocb carries RWF_NOWAIT
  unsigned refusals = 0;              // EAGAINs that the bio has had so far
};

AioContext::AioContext(std::size_t depth, const AioSyscalls& syscalls)
    : depth_(depth), syscalls_(syscalls) {
  MFS_ASSERT(depth_ > 0);
}

AioContext::~AioContext() {
  if (state_ == State::kReady) {
    drain();
    stop_reaper();
    syscalls_.destroy(context_);
  }
}

AioContext::Override::Override(AioContext& context) noexcept {
  MFS_ASSERT(override_context == nullptr);
  override_context = &context;
}

AioContext::Override::~Override() { override_context = nullptr; }

AioContext& AioContext::current() noexcept {
  if (override_context != nullptr) [[unlikely]] {
    return *override_context;
  }
  return reaping_context != nullptr ? *reaping_context : Queue::current().aio();
}

AioContext::Batch& AioContext::my_batch() noexcept {
  return reaping_context == this ? reaper_batch_ : owner_batch_;
}

bool AioContext::available() { return state_ == State::kReady || start(); }

bool AioContext::start() {
  if (state_ == State::kMissing &&
      (missed_.fetch_add(1, std::memory_order_relaxed) + 1) % kSetupRetry != 0) {
    return false;
  }
  // One more than slots: for the event that wakes the reaper.
  if (syscalls_.setup(static_cast<int>(depth_ + 1), &context_) < 0) {
    if (state_ != State::kMissing) {
      state_ = State::kMissing;
    }
    return false;
  }
  free_.clear();
  slots_ = std::make_unique<Slot[]>(depth_);
  free_.reserve(depth_);
  for (std::size_t i = depth_; i > 0; --i) {
    free_.push_back(&slots_[i - 1]);
  }
  pending_.reserve(depth_);
  owner_batch_.slots.reserve(depth_);
  reaper_batch_.slots.reserve(depth_);
  if (!polled_ && !start_reaper()) {
    syscalls_.destroy(context_);
    context_ = nullptr;
    state_ = State::kMissing;
    return false;
  }
  state_ = State::kReady;
  return true;
}

bool AioContext::start_reaper() {
  stop_ = false;
  wake_ = UniqueFd(::memfd_create("mapperfs-wake", MFD_CLOEXEC));
  if (!wake_) {
    return false;  // no descriptor left: a thread that cannot be stopped is not started
  }
  reaper_ = start_thread("mfs-aio", [this] { reaper_main(); });
  return reaper_.joinable();
}

// Nothing is in flight. An iocb that completes at once wakes the reaper from io_getevents().
void AioContext::stop_reaper() {
  if (!reaper_.joinable()) {
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  std::byte byte{};
  ::iocb wake{};
  ::iocb* list = &wake;
  io_prep_pread(&wake, wake_.get(), &byte, 1, 0);
  int sent = syscalls_.submit(context_, 1, &list);
  while (sent == -EAGAIN || sent == -EINTR) {
    ::sched_yield();
    sent = syscalls_.submit(context_, 1, &list);
  }
  MFS_ASSERT(sent == 1);
  reaper_.join();
}

void AioContext::reaper_main() {
  reaping_context = this;
  std::array<::io_event, kReapBatch> events{};
  while (true) {
    const std::size_t count = collect(events.data(), true);
    end_events(events.data(), count);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stop_) {
      return;
    }
  }
}

void AioContext::drain() {
  if (polled_) {
    while (in_flight() > 0) {
      reap(true);
    }
    return;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  idle_cv_.wait(lock, [this] { return inside_ == 0; });
}

void AioContext::set_polled(bool polled) {
  if (polled == polled_) {
    return;
  }
  if (state_ == State::kReady) {
    drain();
    stop_reaper();
    if (!polled && !start_reaper()) {
      return;  // stays polled: the owner goes on reaping
    }
  }
  polled_ = polled;
}

int AioContext::notify_fd() {
  MFS_ASSERT(polled_);
  if (!notify_) {
    notify_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  }
  return notify_.get();
}

void AioContext::clear_notify() noexcept {
  eventfd_t ignored = 0;
  static_cast<void>(::eventfd_read(notify_.get(), &ignored));
}

std::size_t AioContext::in_flight() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return inside_;
}

void AioContext::set_carrier(BioCarrier* carrier) noexcept {
  if (state_ == State::kReady) {
    drain();  // of the thread that had this queue before
  }
  carrier_ = carrier;
}

void AioContext::submit(Bio& bio) noexcept {
  if (carrier_ != nullptr) {
    carrier_->carry(bio);
    return;
  }
  if (state_ != State::kReady && !start()) [[unlikely]] {
    aio_device_of(bio).aio_refused(bio);
    return;
  }
  AioDevice& device = aio_device_of(bio);
  Slot* slot = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!device.takes_nowait() && bio.has_data() && slots_of(device) >= kBlindDepth) [[unlikely]] {
      ++inside_;
      kept_.keep({&bio, &device, 0});
      return;
    }
    if (!free_.empty()) [[likely]] {
      ++inside_;
      slot = &take_slot(bio);
    } else if (slots_of(device) >= depth_ / kStarved) {
      ++inside_;
      waiting_.push_back(bio);
      return;
    }
  }
  if (slot == nullptr) {
    device.aio_refused(bio);
    return;
  }
  Batch& batch = my_batch();
  prepare(*slot, bio);
  batch.slots.push_back(slot);
  if (batch.plugs == 0 || batch.slots.size() >= kSubmitBatch) {
    flush(batch);
  }
}

void AioContext::plug() noexcept { ++my_batch().plugs; }

void AioContext::unplug() noexcept {
  Batch& batch = my_batch();
  MFS_ASSERT(batch.plugs > 0);
  if (--batch.plugs == 0) {
    flush(batch);
  }
}

std::size_t AioContext::slots_of(const AioDevice& device) const noexcept {
  return static_cast<std::size_t>(
      std::count_if(slots_.get(), slots_.get() + depth_,
                    [&](const Slot& slot) { return slot.device == &device; }));
}

AioContext::Slot& AioContext::take_slot(const Bio& bio) noexcept {
  Slot& slot = *free_.back();
  free_.pop_back();
  slot.device = &aio_device_of(bio);
  return slot;
}

void AioContext::prepare(Slot& slot, Bio& bio) noexcept {
  slot.done_bytes = 0;
  slot.refusals = 0;
  slot.cb = {};
  slot.cb.data = &slot;
  const AioDevice& device = aio_device_of(bio);
  slot.cb.aio_fildes = device.aio_fd(bio);
  slot.nowait = bio.has_data() && device.takes_nowait();
  switch (bio.op) {
    case Op::kRead:
      slot.cb.aio_lio_opcode = IO_CMD_PREAD;
      break;
    case Op::kWrite:
      slot.cb.aio_lio_opcode = IO_CMD_PWRITE;
      slot.cb.aio_rw_flags = (bio.flags & kBioFua) != 0 ? RWF_DSYNC : 0;
      break;
    default:
      MFS_ASSERT(bio.op == Op::kFlush);
      slot.cb.aio_lio_opcode = IO_CMD_FDSYNC;
      break;
  }
  if (slot.nowait) [[likely]] {
    slot.cb.aio_rw_flags |= RWF_NOWAIT;
  }
  if (notify_) {
    slot.cb.u.c.flags = kIocbResfd;
    slot.cb.u.c.resfd = static_cast<unsigned>(notify_.get());
  }
  slot.bio.store(&bio, std::memory_order_release);
  aim(slot);
}

// Points the iocb at what is left of its bio.
void AioContext::aim(Slot& slot) noexcept {
  Bio& bio = *slot.bio.load(std::memory_order_relaxed);
  if (bio.has_data()) {
    slot.cb.u.c.buf = bio.data + slot.done_bytes;
    slot.cb.u.c.nbytes = bio.len_bytes() - slot.done_bytes;
    slot.cb.u.c.offset = static_cast<long long>((bio.sector << kSectorShift) + slot.done_bytes);
  }
  slot.bio.store(&bio, std::memory_order_release);
}

// Sends all that the batch holds. A bio that fails here may submit another from its completion,
// which comes back to this batch: it is taken out in chunks before anything is called.
void AioContext::flush(Batch& batch) noexcept {
  while (!batch.slots.empty()) {
    std::array<Slot*, kSubmitBatch> chunk{};
    const std::size_t count = std::min(batch.slots.size(), chunk.size());
    const auto end = batch.slots.begin() + static_cast<std::ptrdiff_t>(count);
    std::copy(batch.slots.begin(), end, chunk.begin());
    batch.slots.erase(batch.slots.begin(), end);
    send_chunk(chunk.data(), count, batch);
  }
}

void AioContext::send_chunk(Slot** slots, std::size_t count, Batch& batch) noexcept {
  MFS_ASSERT(count <= kSubmitBatch);
  std::array<::iocb*, kSubmitBatch> list{};
  for (std::size_t i = 0; i < count; ++i) {
    list[i] = &slots[i]->cb;
  }
  std::size_t at = 0;
  while (at < count) {
    const int sent = syscalls_.submit(context_, static_cast<long>(count - at), list.data() + at);
    if (sent > 0) {
      // Short: the next call tells why the first of the rest was not taken.
      const std::lock_guard<std::mutex> lock(mutex_);
      in_kernel_ += sent;
      at += static_cast<std::size_t>(sent);
      continue;
    }
    if (sent == -EINTR) {
      continue;
    }
    const int error = sent == 0 ? EAGAIN : -sent;
    if (error == EAGAIN && keep_for_later(slots + at, count - at)) {
      return;
    }
    if (error == EOPNOTSUPP && slots[at]->nowait) {
      drop_nowait(*slots[at]);
      continue;
    }
    // An error is the first iocb's alone; those behind it were not looked at.
    give_up(*slots[at], error, batch);
    ++at;
  }
}

// EAGAIN: whoever completes next sends these again. False where nothing is in flight.
bool AioContext::keep_for_later(Slot** slots, std::size_t count) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (in_kernel_ <= 0) {
    return false;
  }
  pending_.insert(pending_.end(), slots, slots + count);
  return true;
}

// io_submit() did not take the slot's bio.
void AioContext::give_up(Slot& slot, int error, Batch& batch) noexcept {
  Bio& bio = *slot.bio.load(std::memory_order_acquire);
  AioDevice& device = aio_device_of(bio);
  refuse_all(release(slot, false, true, batch));
  if (is_refusal(error)) {
    device.aio_refused(bio);
  } else {
    device.aio_end(bio, blk_status_of_errno(error));
  }
}

// The slot's bio has left. The slot goes on with a bio that waits, and what the kernel had no room
// for gets its next try. `refused`: no transfer has ended, so no room was made. Gives the kept bios
// that nothing under way could bring on any more: to be refused.
BioList AioContext::release(Slot& slot, bool was_in_kernel, bool refused, Batch& batch) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  in_kernel_ -= was_in_kernel ? 1 : 0;
  const AioDevice& device = *slot.device;
  vacate(slot, batch);
  BioList stranded;
  std::size_t left = 1;
  if (!kept_.empty()) [[unlikely]] {
    if (!refused) {
      bring_on(device, batch);
    } else if (slots_of(device) == 0) {
      left += kept_.size();
      stranded = kept_.take_all(device);
      left -= kept_.size();
    }
  }
  inside_ -= left;
  if (inside_ == 0) {
    idle_cv_.notify_all();
  }
  batch.slots.insert(batch.slots.end(), pending_.begin(), pending_.end());
  pending_.clear();
  return stranded;
}

void AioContext::vacate(Slot& slot, Batch& batch) noexcept {
  slot.device = nullptr;
  free_.push_back(&slot);
  if (Bio* next = waiting_.pop_front(); next != nullptr) {
    Slot& taken = take_slot(*next);
    prepare(taken, *next);
    batch.slots.push_back(&taken);
  }
}

// A transfer of the device is over: those that were kept for it go on.
void AioContext::bring_on(const AioDevice& device, Batch& batch) noexcept {
  const std::size_t under_way = slots_of(device);
  for (std::size_t count = under_way < KeptBios::kFewUnderWay ? 2 : 1; count > 0; --count) {
    const auto kept = kept_.take(device);
    if (!kept.has_value()) {
      return;
    }
    if (free_.empty()) {
      waiting_.push_back(*kept->bio);
      continue;
    }
    Slot& slot = take_slot(*kept->bio);
    prepare(slot, *kept->bio);
    slot.refusals = kept->refusals;
    batch.slots.push_back(&slot);
  }
}

// EAGAIN of a transfer that may not wait: it waits here, for one of the same device. False where it
// has done so often enough, or none is under way.
bool AioContext::keep(Slot& slot, Batch& batch) noexcept {
  Bio& bio = *slot.bio.load(std::memory_order_acquire);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (slot.refusals + 1 >= KeptBios::kMaxRefusals || slots_of(*slot.device) == 1) {
    return false;
  }
  --in_kernel_;
  kept_.keep({&bio, slot.device, slot.refusals + 1});
  vacate(slot, batch);
  return true;
}

// The slot's iocb goes to the kernel again.
void AioContext::resend(Slot& slot, Batch& batch) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  --in_kernel_;
  batch.slots.push_back(&slot);
}

// The file does not know RWF_NOWAIT.
void AioContext::drop_nowait(Slot& slot) noexcept {
  aio_device_of(*slot.bio.load(std::memory_order_acquire)).forget_nowait();
  slot.nowait = false;
  slot.cb.aio_rw_flags &= ~unsigned{RWF_NOWAIT};
}

void AioContext::refuse_all(BioList bios) noexcept {
  while (Bio* bio = bios.pop_front()) {
    aio_device_of(*bio).aio_refused(*bio);
  }
}

std::size_t AioContext::read_ring(::io_event* events) noexcept {
  auto* ring = reinterpret_cast<Ring*>(context_);
  const auto* ring_events =
      reinterpret_cast<const ::io_event*>(reinterpret_cast<const std::byte*>(ring) + sizeof(Ring));
  const std::atomic_ref<unsigned> shared_head(ring->head);
  const std::atomic_ref<unsigned> shared_tail(ring->tail);
  unsigned head = shared_head.load(std::memory_order_relaxed);
  const unsigned tail = shared_tail.load(std::memory_order_acquire);
  std::size_t count = 0;
  while (head != tail && count < kReapBatch) {
    events[count++] = ring_events[head];
    head = head + 1 == ring->nr ? 0 : head + 1;
  }
  if (count > 0) {
    shared_head.store(head, std::memory_order_release);
  }
  return count;
}

std::size_t AioContext::collect(::io_event* events, bool wait) noexcept {
  const bool has_ring = syscalls_.read_ring &&
                        reinterpret_cast<const Ring*>(context_)->magic == kRingMagic &&
                        reinterpret_cast<const Ring*>(context_)->incompat_features == 0;
  if (has_ring) {
    const std::size_t count = read_ring(events);
    if (count > 0 || !wait) {
      return count;
    }
  }
  ::timespec now{};
  int count = -EINTR;
  while (count == -EINTR) {
    count = syscalls_.getevents(context_, wait ? 1 : 0, static_cast<long>(kReapBatch), events,
                                wait ? nullptr : &now);
  }
  MFS_ASSERT(count >= 0);
  return static_cast<std::size_t>(count);
}

int AioContext::end_events(const ::io_event* events, std::size_t count) noexcept {
  Batch& batch = my_batch();
  // What the completions submit goes out together.
  ++batch.plugs;
  int ended = 0;
  for (std::size_t i = 0; i < count; ++i) {
    auto* slot = static_cast<Slot*>(events[i].data);
    if (slot != nullptr) {  // else the reaper's wake-up
      ended += complete(*slot, static_cast<long>(events[i].res), batch) ? 1 : 0;
    }
  }
  --batch.plugs;
  do {
    flush(batch);
  } while (rescue_pending(batch));
  return ended;
}

// Nothing in flight can bring the pending ones on: they must be tried again now, which ends in the
// kernel or with a refusal.
bool AioContext::rescue_pending(Batch& batch) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (in_kernel_ > 0 || pending_.empty()) {
    return false;
  }
  batch.slots.insert(batch.slots.end(), pending_.begin(), pending_.end());
  pending_.clear();
  return true;
}

// True where the bio has left the context.
bool AioContext::complete(Slot& slot, long result, Batch& batch) noexcept {
  Bio& bio = *slot.bio.load(std::memory_order_acquire);
  AioDevice& device = aio_device_of(bio);
  const AioOutcome outcome = aio_outcome(bio, slot.done_bytes, result);
  if (outcome.next == AioOutcome::Next::kContinue) {
    slot.done_bytes += outcome.moved_bytes;
    aim(slot);
    resend(slot, batch);
    return false;
  }
  if (slot.nowait && result == -EOPNOTSUPP) {  // of a device below the file's
    drop_nowait(slot);
    resend(slot, batch);
    return false;
  }
  if (slot.nowait && result == -EAGAIN) [[unlikely]] {
    if (!device.aio_would_wait(bio) && keep(slot, batch)) {
      return false;
    }
  }
  const bool refused = outcome.next == AioOutcome::Next::kRefuse;
  refuse_all(release(slot, true, refused, batch));
  if (refused) {
    device.aio_refused(bio);
  } else {
    device.aio_end(bio, outcome.status);
  }
  return true;
}

int AioContext::reap(bool wait) noexcept {
  MFS_ASSERT(polled_);
  if (state_ != State::kReady) {
    return 0;
  }
  std::array<::io_event, kReapBatch> events{};
  int ended = 0;
  do {
    // A short transfer's rest or a refusal may leave nothing to wait for.
    if (wait && in_flight() == 0) {
      break;
    }
    const std::size_t count = collect(events.data(), wait);
    ended += end_events(events.data(), count);
  } while (wait && ended == 0);
  return ended;
}

}  // namespace mapperfs
