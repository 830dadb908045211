// Bios that map() could not answer: lanes, the choice of what to do with each, and the lists of
// those that wait for a resume or for space.
#include <algorithm>
#include <cstring>

#include "targets/thin/pool.h"

namespace mapperfs::thinp {

namespace {

bool same(const ThinMapping& one, const ThinMapping& other) {
  return one.mapped && other.mapped && one.data_block == other.data_block && one.time == other.time;
}

}  // namespace

void Pool::defer(Bio& bio) noexcept { push(bio, lane_of(bio, bio.per_io<ThinIo>())); }

std::size_t Pool::lane_of(const Bio& bio, const ThinIo& io) const noexcept {
  if (bio.op == Op::kFlush) {
    return kFlushLane;
  }
  if (bio.op == Op::kDiscard) {
    return kDiscardLane;
  }
  // All bios of one block of one device, whichever table they came by.
  const std::uint64_t key = io.block + io.thin->volume->dev->id() * std::uint64_t{7919};
  const std::uint64_t hash = key * 0x9e3779b97f4a7c15U >> 32;
  return bio.op == Op::kRead ? kDataLanes + hash % kReadLanes : hash % kDataLanes;
}

void Pool::push(Bio& bio, std::size_t lane_index) noexcept {
  Lane& lane = lanes_[lane_index];
  const std::lock_guard<std::mutex> lock(lane.mutex);
  if (holds(bio)) {
    const std::lock_guard<std::mutex> waiting(waiting_mutex_);
    // Both under the mutex that resume() and requeue_waiting() take after they have changed what is
    // looked at here.
    if (holds(bio) && !bio.per_io<ThinIo>().thin->requeue) {
      held_.push_back(bio);
      return;
    }
  }
  lane.bios.push_back(bio);
  if (!lane.scheduled) {
    lane.scheduled = true;
    lane.worker->post([this, lane_index] { run_lane(lane_index); });
  }
}

void Pool::run_lane(std::size_t lane_index) noexcept {
  Lane& lane = lanes_[lane_index];
  BioList bios;
  {
    const std::lock_guard<std::mutex> lock(lane.mutex);
    bios.swap(lane.bios);
    lane.scheduled = false;
  }
  BioList live;
  while (Bio* bio = bios.pop_front()) {
    if (answered_early(*bio)) {
      continue;
    }
    if (lane_index < kFlushLane) {
      process(*bio, lane.copier);
    } else {
      live.push_back(*bio);
    }
  }
  if (lane_index == kFlushLane) {
    run_flushes(live);
  } else if (lane_index == kDiscardLane) {
    run_discards(live);
  }
}

// True: the bio has gone elsewhere.
bool Pool::answered_early(Bio& bio) noexcept {
  const ThinIo& io = bio.per_io<ThinIo>();
  if (io.thin->requeue) {
    bio.end_io(BlkStatus::kRequeue);
    return true;
  }
  if (mode() == PoolMode::kFail) {
    bio.end_io(BlkStatus::kIoError);
    return true;
  }
  if (holds(bio)) {
    push(bio, lane_of(bio, io));  // to held_, or back here if it was resumed right now
    return true;
  }
  return false;
}

void Pool::process(Bio& bio, Copier& copier) noexcept {
  while (true) {
    BlkStatus error = BlkStatus::kOk;
    if (try_remap(bio, error)) {
      return;
    }
    if (error != BlkStatus::kOk) {
      bio.end_io(error);
      return;
    }
    if (mode() != PoolMode::kWrite) {
      unserviceable(bio);
      return;
    }
    if (!provision(bio, copier)) {
      return;
    }
  }
}

void Pool::commit_first(Bio& bio, const ThinMapping& mapping) noexcept {
  ThinIo& io = bio.per_io<ThinIo>();
  io.seen = mapping;
  io.committed = false;
  push(bio, kFlushLane);
}

// Sends the bio where its block is, if it may go there. False: it is a write that needs a block of
// its own, or `error` says why it fails.
bool Pool::try_remap(Bio& bio, BlkStatus& error) noexcept {
  ThinIo& io = bio.per_io<ThinIo>();
  const Volume& volume = *io.thin->volume;
  const InFlight::Section section = in_flight_.enter();
  const Result<ThinMapping> mapping = volume.dev->lookup(io.block);
  if (mapping.ok() && mapping->mapped && !(bio.is_write() && mapping->shared)) {
    // The block may have been copied since the commit that it has waited for.
    const bool committed = io.committed && same(io.seen, *mapping);
    if ((bio.flags & kBioFua) != 0 && !committed && volume.dev->changed()) {
      in_flight_.leave(section);
      commit_first(bio, *mapping);
      return true;
    }
    io.section = section;
    const sector_t offset = (bio.sector - io.thin->begin) % block_sectors_;
    bio.remap(*data_, mapping->data_block * block_sectors_ + offset);
    submit_bio(bio);
    return true;
  }
  in_flight_.leave(section);
  if (!mapping.ok()) {
    error = BlkStatus::kIoError;
    return false;
  }
  if (bio.is_write()) {
    return false;
  }
  if (remap_unmapped_read(bio, *io.thin)) {
    submit_bio(bio);
  } else {
    bio.end_io(BlkStatus::kOk);
  }
  return true;
}

bool Pool::remap_unmapped_read(Bio& bio, const Thin& thin) noexcept {
  const sector_t offset = bio.sector - thin.begin;
  const sector_t origin = thin.origin_sectors.load(std::memory_order_relaxed);
  const sector_t there = offset < origin ? std::min(bio.sectors, origin - offset) : 0;
  std::memset(bio.data + (there << kSectorShift), 0, (bio.sectors - there) << kSectorShift);
  if (there == 0) {
    return false;
  }
  bio.remap(*thin.origin, offset);
  bio.sectors = there;  // the engine puts it back
  return true;
}

// A write that needs a block in a mode that gives none.
void Pool::unserviceable(Bio& bio) noexcept {
  BlkStatus status = BlkStatus::kIoError;
  {
    // What is looked at is changed before this mutex is taken to empty the list.
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    const PoolMode now = mode();
    ThinIo& io = bio.per_io<ThinIo>();
    io.tries = 0;
    if (io.thin->requeue) {
      status = BlkStatus::kRequeue;
    } else if (now == PoolMode::kOutOfDataSpace && error_if_no_space_) {
      status = BlkStatus::kNoSpace;
    } else if (now == PoolMode::kOutOfDataSpace) {
      retry_.push_back(bio);
      return;
    } else if (now == PoolMode::kWrite) {
      status = BlkStatus::kOk;
    }
  }
  if (status == BlkStatus::kOk) {
    defer(bio);  // space was found meanwhile
  } else {
    bio.end_io(status);
  }
}

void Pool::redefer(BioList& bios) noexcept {
  while (Bio* bio = bios.pop_front()) {
    defer(*bio);
  }
}

void Pool::retry_waiting() noexcept {
  BioList bios;
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    bios.swap(retry_);
  }
  redefer(bios);
}

void Pool::requeue_waiting(const Thin& thin) {
  BioList back;
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    for (BioList* list : {&held_, &retry_, &settling_}) {
      BioList keep;
      while (Bio* bio = list->pop_front()) {
        (bio->per_io<ThinIo>().thin == &thin ? back : keep).push_back(*bio);
      }
      list->swap(keep);
    }
  }
  end_all(back, BlkStatus::kRequeue);
}

// Whether nobody writes any more to the shared block that the mapping names. After the look-up that
// found it shared, which acquires: a snapshot under way then is either counted here, or was and has
// settled.
bool Pool::settled(const ThinMapping& mapping, const ThinIo& io) const noexcept {
  if (snapshots_.load() == 0) {
    return true;
  }
  // It waited already, and further snapshots do not make a shared block less so.
  return same(io.seen, mapping) && graces_over_.load() > io.grace;
}

// Puts a write aside until the shared block that it has seen is settled.
void Pool::settle_first(Bio& bio) noexcept {
  ThinIo& io = bio.per_io<ThinIo>();
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    if (snapshots_ != 0 && !io.thin->requeue) {
      io.grace = graces_begun_.load();
      settling_.push_back(bio);
      return;
    }
  }
  defer(bio);
}

// A grace period: what was on its way to the data device when it began is over. Not for bios' own
// threads, and under no lock that they need to end.
void Pool::synchronize() {
  const std::uint64_t number = graces_begun_.fetch_add(1) + 1;
  in_flight_.synchronize();
  BioList ready;
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    graces_over_ = std::max(graces_over_.load(), number);
    BioList keep;
    while (Bio* bio = settling_.pop_front()) {
      (bio->per_io<ThinIo>().grace < number ? ready : keep).push_back(*bio);
    }
    settling_.swap(keep);
  }
  redefer(ready);
}

// A snapshot's message is through. Who began to wait during the last grace period need not wait for
// another one.
void Pool::snapshot_settled() {
  BioList ready;
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    if (--snapshots_ == 0) {
      ready.swap(settling_);
    }
  }
  redefer(ready);
}

// One commit and one flush of the data device serve all that came together. FUA writes come here
// twice at most: their own data is written after the commit, unless it filled the block.
void Pool::run_flushes(BioList& bios) noexcept {
  if (bios.empty()) {
    return;
  }
  BioList going;
  bool changed = false;
  bool flush = false;
  while (Bio* bio = bios.pop_front()) {
    const Volume& volume = *bio->per_io<ThinIo>().thin->volume;
    if (volume.lost_changes) {
      bio->end_io(BlkStatus::kIoError);
      continue;
    }
    changed |= volume.dev->changed();
    flush |= bio->op == Op::kFlush;
    going.push_back(*bio);
  }
  if (going.empty()) {
    return;
  }
  const std::uint64_t before = flushes_started_.load();
  Status status = changed ? commit() : Status();
  // The commit has flushed, unless another one had just taken the changes along: its flush may
  // have begun before the data that this one is about was written.
  if (status.ok() && flush && flushed_.load() <= before) {
    status = flush_data();
  }
  while (Bio* bio = going.pop_front()) {
    ThinIo& io = bio->per_io<ThinIo>();
    // Again: an abort may have come before the commit, which then found nothing left to do. It
    // marks the device first.
    if (!status.ok() || io.thin->volume->lost_changes) {
      bio->end_io(BlkStatus::kIoError);
    } else if (bio->op == Op::kFlush || io.written) {
      bio->end_io(BlkStatus::kOk);
    } else {
      io.committed = true;
      BlkStatus error = BlkStatus::kOk;
      // From here: the block's lane may be filling others for long.
      if (!try_remap(*bio, error)) {
        if (error != BlkStatus::kOk) {
          bio->end_io(error);
        } else {
          defer(*bio);
        }
      }
    }
  }
}

}  // namespace mapperfs::thinp
