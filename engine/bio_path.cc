// The way of a bio through mapped devices: in, cut, mapped, joined, out (drivers/md/dm.c; reference
// core.md section 7). docs/design.md draws it.
//
// Cost. A bio that is not cut takes one frame from the queue's pool per mapped device and writes
// nothing that another core reads: no lock, no allocation, no shared counter.
#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "engine/coarse_clock.h"
#include "engine/mapped_device.h"
#include "engine/stats.h"

namespace mapperfs {

namespace {

StatGroup group_of(Op op) noexcept {
  switch (op) {
    case Op::kRead:
      return StatGroup::kRead;
    case Op::kFlush:
      return StatGroup::kFlush;
    case Op::kDiscard:
    case Op::kSecureErase:
      return StatGroup::kDiscard;
    case Op::kWrite:
    case Op::kWriteZeroes:
      return StatGroup::kWrite;
  }
  return StatGroup::kWrite;
}

// Sectors from `sector` to the next place where the target wants an ordinary I/O to be cut.
sector_t room_in(const Table::Place& place, sector_t sector) noexcept {
  if (place.dev != nullptr) {
    return place.end - sector;
  }
  const Target& target = *place.target;
  const sector_t room = target.end() - sector;
  const sector_t max_io_len = target.features().max_io_len;
  if (max_io_len == 0) {
    return room;
  }
  return std::min(room, max_io_len - (sector - target.begin()) % max_io_len);
}

unsigned abnormal_bios(const TargetFeatures& features, Op op) noexcept {
  switch (op) {
    case Op::kDiscard:
      return features.num_discard_bios;
    case Op::kSecureErase:
      return features.num_secure_erase_bios;
    default:
      return features.num_write_zeroes_bios;
  }
}

sector_t abnormal_limit(const QueueLimits& limits, Op op) noexcept {
  switch (op) {
    case Op::kDiscard:
      return limits.max_discard_sectors;
    case Op::kSecureErase:
      return limits.max_secure_erase_sectors;
    default:
      return limits.max_write_zeroes_sectors;
  }
}

}  // namespace

// Joins the pieces of a bio. Lives in the per-I/O bytes of the whole bio's frame, which has no
// target. Counts from 1: the cutter drops that one with put() after its last piece.
class PieceJoin final : public Completion {
 public:
  PieceJoin(Bio& whole, const Table& table, bool preflush) noexcept
      : whole_(whole), table_(table), preflush_(preflush) {}

  // A piece for `target` over [sector, sector + sectors) of the mapped device; goes on its way at
  // once.
  void submit_piece(Target& target, sector_t sector, sector_t sectors, unsigned bio_nr) noexcept {
    MappedDevice& md = *whole_.frame_->md;
    Bio& piece = make_piece(md);
    piece.sector = sector;
    piece.sectors = sectors;
    // The flush before a write has none of the write's data.
    piece.data = whole_.data != nullptr && !preflush_
                     ? whole_.data + ((sector - whole_.frame_->sector) << kSectorShift)
                     : nullptr;
    Frame& frame = Queue::current().alloc_frame();
    frame.outer = nullptr;
    frame.md = &md;
    frame.sector = sector;
    frame.sectors = sectors;
    frame.start_ns = whole_.frame_->start_ns;
    frame.piece = true;
    piece.frame_ = &frame;
    if (md.map_one(piece, target, bio_nr)) {
      submit_bio(piece);
    }
  }
  // A flush straight to a device below.
  void submit_flush(BlockDevice& dev) noexcept {
    Bio& piece = make_piece(*whole_.frame_->md);
    piece.remap(dev, 0);
    piece.sectors = 0;
    piece.data = nullptr;
    piece.frame_ = nullptr;
    submit_bio(piece);
  }
  void complete(Bio& piece) noexcept override {
    const BlkStatus status = piece.status();
    free_bio(piece);
    put(status);
  }
  // The first error wins, except that a requeue of any piece requeues the whole.
  void put(BlkStatus status) noexcept {
    if (status == BlkStatus::kRequeue) {
      status_.store(status, std::memory_order_relaxed);
    } else if (status != BlkStatus::kOk) {
      BlkStatus none = BlkStatus::kOk;
      status_.compare_exchange_strong(none, status, std::memory_order_relaxed);
    }
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      finish();
    }
  }

 private:
  Bio& make_piece(MappedDevice& md) noexcept {
    pending_.fetch_add(1, std::memory_order_relaxed);
    Bio& piece = alloc_bio(*this);
    piece.dev = &md;
    piece.op = preflush_ ? Op::kFlush : whole_.op;
    piece.flags =
        preflush_ ? std::uint8_t{0} : static_cast<std::uint8_t>(whole_.flags & ~kBioInternal);
    return piece;
  }
  void finish() noexcept {
    const BlkStatus status = status_.load(std::memory_order_relaxed);
    Bio& whole = whole_;
    if (!preflush_ || status != BlkStatus::kOk) {
      whole.end_io(status);
      return;
    }
    // The flush part of a preflush write is done: now its data, from the same frame.
    whole.flags &= static_cast<std::uint8_t>(~kBioPreflush);
    if (whole.frame_->md->route(whole, table_)) {
      submit_bio(whole);
    }
  }

  Bio& whole_;
  const Table& table_;
  const bool preflush_;
  std::atomic<BlkStatus> status_{BlkStatus::kOk};
  std::atomic<std::uint32_t> pending_{1};
};

void submit_bio(Bio& bio) noexcept {
  std::uint64_t now_ns = 0;
  while (true) {
    MappedDevice* md = bio.dev->mapped();
    if (md == nullptr) {
      bio.dev->submit(bio);
      return;
    }
    if (!md->enter(bio, now_ns)) {
      return;
    }
  }
}

void MappedDevice::submit(Bio& bio) noexcept {
  MFS_ASSERT(bio.dev == this);
  submit_bio(bio);
}

IoSums MappedDevice::io_sums() const { return counters_.sums(coarse_now_ns()); }

bool MappedDevice::enter(Bio& bio, std::uint64_t& now_ns) noexcept {
  if (now_ns == 0) {
    now_ns = coarse_now_ns();
  }
  counters_.account_begin(now_ns);
  Queue& queue = Queue::current();
  IoCounters::Slot& slot = counters_.slot(queue);
  // Looked at twice, in the same cache line: which epoch to count in must be known before, and who
  // is held back is only known for sure after. A flip between the two does no harm, see
  // close_range().
  const std::uint32_t epoch = gate_.load(std::memory_order_relaxed) & kGateEpoch;
  IoCounters::add(slot.started[epoch], 1, std::memory_order_release);
  light_barrier();
  const std::uint32_t gate = gate_.load(std::memory_order_acquire);
  if (gate > kGateEpoch && held_back(bio, gate)) [[unlikely]] {
    leave(slot, epoch);
    defer(bio);
    return false;
  }
  const Table* table = live_.load(std::memory_order_acquire);
  if (table == nullptr) [[unlikely]] {
    leave(slot, epoch);
    bio.end_io(BlkStatus::kIoError);
    return false;
  }
  Frame& frame = queue.alloc_frame();
  frame.outer = bio.frame_;
  frame.md = this;
  frame.target = nullptr;
  frame.sector = bio.sector;
  frame.sectors = bio.sectors;
  frame.start_ns = now_ns;
  frame.piece = false;
  frame.mapped = false;
  frame.epoch = static_cast<std::uint8_t>(epoch);
  frame.stats_epoch = 0;
  bio.frame_ = &frame;
  if (StatsRegions* stats = stats_.load(std::memory_order_acquire)) [[unlikely]] {
    stats->start(bio, frame);
  }
  return route(bio, *table);
}

bool MappedDevice::route(Bio& bio, const Table& table) noexcept {
  if (bio.op == Op::kFlush) {
    return route_flush(bio, table);
  }
  if (bio.sectors == 0 || bio.sector >= table.size() || bio.sectors > table.size() - bio.sector)
      [[unlikely]] {
    bio.end_io(BlkStatus::kIoError);
    return false;
  }
  if (bio.is_write() && table.mode() == DeviceMode::kReadOnly) [[unlikely]] {
    bio.end_io(BlkStatus::kReadOnly);
    return false;
  }
  return bio.has_data() ? route_data(bio, table) : route_abnormal(bio, table);
}

bool MappedDevice::route_data(Bio& bio, const Table& table) noexcept {
  const Table::Place& place = table.place(bio.sector);
  const bool whole = bio.sectors <= room_in(place, bio.sector);
  if ((bio.flags & kBioPreflush) != 0) [[unlikely]] {
    // Where all goes to one device in one piece, that device sees the flush and the data together.
    const bool passes = whole && table.single() != nullptr && table.flush_bypasses_map() &&
                        table.flush_devices().size() == 1;
    if (!passes) {
      return route_flush(bio, table);
    }
  }
  if (whole) [[likely]] {
    if (place.dev == nullptr) {
      return map_one(bio, *place.target, 0);
    }
    bio.frame_->mapped = true;
    bio.remap(*place.dev, place.start + (bio.sector - place.begin));
    return true;
  }
  auto& join = bio.make_per_io<PieceJoin>(bio, table, false);
  sector_t sector = bio.sector;
  const sector_t end = bio.end_sector();
  while (sector < end) {
    const Table::Place& piece_place = table.place(sector);
    const sector_t sectors = std::min(room_in(piece_place, sector), end - sector);
    join.submit_piece(table.target_at(piece_place), sector, sectors, 0);
    sector += sectors;
  }
  join.put(BlkStatus::kOk);
  return false;
}

// An empty flush, or the flush before a preflush write's data: to every target, or once to every
// distinct device where no target wants to see it.
bool MappedDevice::route_flush(Bio& bio, const Table& table) noexcept {
  const bool preflush = bio.op != Op::kFlush;
  if (!preflush && table.flush_bypasses_map() && table.flush_devices().size() == 1) {
    bio.remap(*table.flush_devices().front(), 0);
    return true;
  }
  Target* single = table.single();
  if (!preflush && single != nullptr && single->features().num_flush_bios == 1) {
    bio.sector = single->begin();
    return map_one(bio, *single, 0);
  }
  auto& join = bio.make_per_io<PieceJoin>(bio, table, preflush);
  if (table.flush_bypasses_map()) {
    for (BlockDevice* dev : table.flush_devices()) {
      join.submit_flush(*dev);
    }
  } else if (table.flush_bios() != 0) {
    for (const auto& target : table.targets()) {
      for (unsigned nr = 0; nr < target->features().num_flush_bios; ++nr) {
        join.submit_piece(*target, target->begin(), 0, nr);
      }
    }
  }
  join.put(BlkStatus::kOk);
  return false;
}

// Discard, secure erase, write zeroes: max_io_len does not cut them; target ends and the largest
// request do.
bool MappedDevice::route_abnormal(Bio& bio, const Table& table) noexcept {
  const sector_t limit = abnormal_limit(table.limits(), bio.op);
  const bool off =
      (bio.op == Op::kDiscard && discard_off_.load(std::memory_order_relaxed)) ||
      (bio.op == Op::kWriteZeroes && write_zeroes_off_.load(std::memory_order_relaxed));
  if (limit == 0 || off) {
    bio.end_io(BlkStatus::kNotSupported);
    return false;
  }
  const Op op = bio.op;
  const auto room = [limit, op](const Target& target, sector_t sector) {
    sector_t most = std::min(limit, target.end() - sector);
    if (op == Op::kDiscard && target.features().max_discard_granularity &&
        limit != kUnlimitedSectors) {
      most = std::min(most, limit - (sector - target.begin()) % limit);
    }
    return most;
  };
  Target& first = table.find(bio.sector);
  if (bio.sectors <= room(first, bio.sector) && abnormal_bios(first.features(), bio.op) == 1) {
    return map_one(bio, first, 0);
  }
  auto& join = bio.make_per_io<PieceJoin>(bio, table, false);
  sector_t sector = bio.sector;
  const sector_t end = bio.end_sector();
  while (sector < end) {
    Target& target = table.find(sector);
    const sector_t sectors = std::min(room(target, sector), end - sector);
    const unsigned copies = abnormal_bios(target.features(), op);
    MFS_ASSERT(copies != 0);  // the stacked limit is 0 where a target does not take the operation
    for (unsigned nr = 0; nr < copies; ++nr) {
      join.submit_piece(target, sector, sectors, nr);
    }
    sector += sectors;
  }
  join.put(BlkStatus::kOk);
  return false;
}

bool MappedDevice::map_one(Bio& bio, Target& target, unsigned bio_nr) noexcept {
  bio.frame_->target = target.features().wants_end_io ? &target : nullptr;
  bio.frame_->mapped = true;
  bio.frame_->bio_nr = static_cast<std::uint16_t>(bio_nr);
  switch (target.map(bio)) {
    case MapIo::kRemapped:
      return true;
    case MapIo::kSubmitted:
      return false;
    case MapIo::kRequeue:
      return refuse(bio, BlkStatus::kRequeue);
    case MapIo::kKill:
      return refuse(bio, BlkStatus::kIoError);
  }
  return false;
}

// The bio never went on: its target's end_io() is not called, which might look at per-I/O bytes
// that map() did not make.
bool MappedDevice::refuse(Bio& bio, BlkStatus status) noexcept {
  bio.frame_->target = nullptr;
  bio.frame_->mapped = false;
  const bool in_vain = status == BlkStatus::kRequeue && !bio.frame_->md->noflush_suspending();
  bio.end_io(in_vain ? BlkStatus::kIoError : status);
  return false;
}

void Bio::end_io(BlkStatus status) noexcept {
  status_ = status;
  std::uint64_t now_ns = 0;
  while (frame_ != nullptr) {
    if (!MappedDevice::pop_frame(*this, now_ns)) {
      return;
    }
  }
  completion->complete(*this);
}

bool MappedDevice::pop_frame(Bio& bio, std::uint64_t& now_ns) noexcept {
  Frame& frame = *bio.frame_;
  MappedDevice& md = *frame.md;
  bio.dev = &md;
  bio.sector = frame.sector;
  bio.sectors = frame.sectors;
  if (frame.target != nullptr) {
    switch (frame.target->end_io(bio, bio.status_)) {
      case EndIo::kDone:
        break;
      case EndIo::kIncomplete:
        return false;
      case EndIo::kRequeue:
        bio.status_ = BlkStatus::kRequeue;
        break;
    }
  }
  if (bio.status_ == BlkStatus::kTargetError) [[unlikely]] {
    md.turn_off(bio);
  }
  // Asked here, when a target requeues, and not of the whole bio, which may end later.
  if (bio.status_ == BlkStatus::kRequeue && frame.mapped && !md.noflush_suspending()) [[unlikely]] {
    bio.status_ = BlkStatus::kIoError;
  }
  bio.frame_ = frame.outer;
  Queue& queue = Queue::current();
  if (frame.piece) {
    Queue::free_frame(frame);
    return true;
  }
  IoCounters::Slot& slot = md.counters_.slot(queue);
  if (StatsRegions* stats = md.stats_.load(std::memory_order_acquire)) [[unlikely]] {
    stats->end(bio, frame);
  }
  const std::uint32_t epoch = frame.epoch;
  if (bio.status_ == BlkStatus::kRequeue) [[unlikely]] {
    Queue::free_frame(frame);
    if ((bio.flags & kBioInternal) != 0 && bio.frame_ == nullptr) {
      // The suspend waits for the exclusive work, which begins anew after it.
      md.leave(slot, epoch);
      return true;
    }
    const bool deferred = md.defer_requeued(bio);
    md.leave(slot, epoch);
    if (!deferred) {
      submit_bio(bio);
    }
    return false;
  }
  if (now_ns == 0) {
    now_ns = coarse_now_ns();
  }
  const auto group = static_cast<std::size_t>(group_of(bio.op));
  md.counters_.account_end(now_ns);
  IoCounters::add(slot.ios[group], 1);
  IoCounters::add(slot.sectors[group], frame.sectors);
  IoCounters::add(slot.time_ns[group], now_ns - frame.start_ns);
  Queue::free_frame(frame);
  md.leave(slot, epoch);  // from here on the device may be gone
  return true;
}

// A device below no longer does what the bio asked for: the operation is off until the next table.
void MappedDevice::turn_off(Bio& bio) noexcept {
  if (bio.has_data() || bio.op == Op::kFlush) {
    return;
  }
  if (bio.op == Op::kDiscard) {
    discard_off_.store(true, std::memory_order_relaxed);
  } else if (bio.op == Op::kWriteZeroes) {
    write_zeroes_off_.store(true, std::memory_order_relaxed);
  }
  bio.status_ = BlkStatus::kNotSupported;
}

// The store to `finished` is the last touch of the device on the fast side: whoever waits for idle
// may free it right after. Only those are told who saw that somebody waits for their epoch: the one
// that is not current any more waits for a range, both for a hold. The waiters look again by
// themselves for the others.
void MappedDevice::leave(IoCounters::Slot& slot, std::uint32_t epoch) noexcept {
  const std::uint32_t gate = gate_.load(std::memory_order_acquire);
  if (gate <= kGateEpoch || (gate < kGateHold && (gate & kGateEpoch) == epoch)) [[likely]] {
    IoCounters::add(slot.finished[epoch], 1, std::memory_order_release);
    return;
  }
  const std::lock_guard<std::mutex> lock(deferred_mutex_);
  IoCounters::add(slot.finished[epoch], 1, std::memory_order_release);
  idle_cv_.notify_all();
}

namespace {

class Waiter final : public Completion {
 public:
  void complete(Bio& bio) noexcept override {
    static_cast<void>(bio);
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ = true;
    cv_.notify_one();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    cv_.wait(lock, [this] { return done_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable cv_;
  bool done_ = false;
};

thread_local constinit bool is_inside_submit_and_wait = false;

}  // namespace

bool inside_submit_and_wait() noexcept { return is_inside_submit_and_wait; }

BlkStatus submit_bio_and_wait(Bio& bio) noexcept {
  Waiter waiter;
  Completion* const outer = bio.completion;
  const bool nested = is_inside_submit_and_wait;
  bio.completion = &waiter;
  is_inside_submit_and_wait = true;
  submit_bio(bio);
  waiter.wait();
  is_inside_submit_and_wait = nested;
  bio.completion = outer;
  return bio.status();
}

}  // namespace mapperfs
