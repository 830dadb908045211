// Giving a block to a write: allocate, fill, insert.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <shared_mutex>

#include "metadata/sharded_lock.h"
#include "targets/thin/pool.h"

namespace mapperfs::thinp {

// A message's commit has all to write that has changed until it begins: while writers at full speed
// kept adding, and took the cores besides, a snapshot would take as long as they please. Not for
// long, however, where the devices are slow. Workers, under no lock.
void Pool::give_way() {
  constexpr std::chrono::milliseconds kMost{5};
  if (messages_.load(std::memory_order_relaxed) != 0) {
    std::unique_lock<std::mutex> lock(messages_mutex_);
    messages_done_.wait_for(lock, kMost, [this] { return messages_ == 0; });
  }
}

// Gives the bio's block a data block of its own. True: look the mapping up again. False: the bio
// has gone, ended or to where it waits.
bool Pool::provision(Bio& bio, Copier& copier) {
  ThinIo& io = bio.per_io<ThinIo>();
  give_way();
  Status why;
  const Given given = give_block(bio, copier, why);
  // Without the locks: each of these takes them, or waits for those who hold them.
  switch (given) {
    case Given::kMapped:
      return true;
    case Given::kWritten:
      if ((bio.flags & kBioFua) != 0) {
        push(bio, kFlushLane);
      } else {
        bio.end_io(BlkStatus::kOk);
      }
      return false;
    case Given::kUnsettled:
      settle_first(bio);
      return false;
    case Given::kFailed:
      break;
    case Given::kNoBlock:
      if (no_block(why, io)) {
        return true;
      }
      break;
    case Given::kMetadataFull:
      commit().ignore();  // what was acknowledged so far is kept
      change_mode(PoolMode::kWrite, PoolMode::kOutOfMetadataSpace);
      break;
  }
  // As the kernel, whatever the device below said: its ENOSPC is not the pool's.
  bio.end_io(BlkStatus::kIoError);
  return false;
}

// On the block's lane, so that nobody else fills the same block, except provision_now(), which
// `giving` keeps away. `why` goes with kNoBlock.
Pool::Given Pool::give_block(Bio& bio, Copier& copier, Status& why) {
  ThinIo& io = bio.per_io<ThinIo>();
  Volume& volume = *io.thin->volume;
  const std::shared_lock<WideSharedMutex> transactions(transactions_);
  const std::shared_lock<FairSharedMutex> discards(volume.discards);
  const std::lock_guard<std::mutex> giving(lanes_[lane_of(bio, io)].giving);
  const Result<ThinMapping> mapping = volume.dev->lookup(io.block);
  if (!mapping.ok()) {
    return Given::kFailed;
  }
  if (mapping->mapped && !mapping->shared) {
    return Given::kMapped;
  }
  if (mapping->mapped && bio.sectors != block_sectors_ && !settled(*mapping, io)) {
    io.seen = *mapping;
    return Given::kUnsettled;
  }
  const Result<std::uint64_t> block = allocate(*volume.dev);
  if (!block.ok()) {
    why = block.status();
    return Given::kNoBlock;
  }
  if (fill(bio, *mapping, *block, copier) != BlkStatus::kOk) {
    metadata_->cancel_allocation(*block);
    note_changed();  // others may wait for it
    return Given::kFailed;
  }
  if (const Status inserted = volume.dev->insert(io.block, *block); !inserted.ok()) {
    io.written = false;
    metadata_->cancel_allocation(*block);
    why = inserted;
    return inserted.error() == ENOSPC ? Given::kMetadataFull : Given::kNoBlock;
  }
  io.committed = false;
  note_changed();
  return io.written ? Given::kWritten : Given::kMapped;
}

// As provision() where nothing is to be filled. Hands over to it whatever may take longer.
bool Pool::provision_now(Bio& bio) noexcept {
  ThinIo& io = bio.per_io<ThinIo>();
  Volume& volume = *io.thin->volume;
  const sector_t offset = bio.sector - io.thin->begin;
  // A thread that fills a block has these locks already.
  if (inside_submit_and_wait() || zero_new_blocks_ || mode() != PoolMode::kWrite || holds(bio) ||
      io.block * block_sectors_ < io.thin->origin_sectors.load(std::memory_order_relaxed) ||
      !metadata_->free_data_blocks_exceed(low_water_blocks_) || messages_ != 0) {
    return false;
  }
  const std::shared_lock<WideSharedMutex> transactions(transactions_, std::try_to_lock);
  if (!transactions.owns_lock()) {
    return false;
  }
  const std::shared_lock<FairSharedMutex> discards(volume.discards, std::try_to_lock);
  const std::unique_lock<std::mutex> giving = try_lock_briefly(lanes_[lane_of(bio, io)].giving);
  if (!discards.owns_lock() || !giving.owns_lock()) {
    return false;
  }
  const std::optional<std::uint64_t> block = volume.dev->try_provision(io.block);
  if (!block.has_value()) {
    return false;
  }
  note_changed();
  bio.remap(*data_, *block * block_sectors_ + offset % block_sectors_);
  return true;
}

// What is to be done now that there is no block. False: nothing, the write fails.
bool Pool::no_block(const Status& status, ThinIo& io) {
  if (status.error() == EROFS) {
    return false;  // the mode changed under us
  }
  if (status.error() != ENOSPC) {
    operation_failed("allocate_data_block", status);
    return false;
  }
  if (io.tries < 2) {
    ++io.tries;
    make_space();
  } else {
    run_out_of_space();
  }
  if (tuning_.at_place) {
    tuning_.at_place("no space: again");
  }
  return true;
}

// What the block holds before its mapping is there: zeroes, the shared or origin's contents, or the
// write itself where it covers the block.
BlkStatus Pool::fill(Bio& bio, const ThinMapping& from, std::uint64_t data_block, Copier& copier) {
  ThinIo& io = bio.per_io<ThinIo>();
  const sector_t begin = io.block * block_sectors_;
  const sector_t at = data_block * block_sectors_;
  const sector_t origin = io.thin->origin_sectors.load(std::memory_order_relaxed);
  const bool has_old = from.mapped || begin < origin;
  io.written = false;
  if (bio.sectors == block_sectors_) {
    if (!has_old && !zero_new_blocks_) {
      return BlkStatus::kOk;  // the write follows, and nobody was promised what is there until then
    }
    const auto flags = static_cast<std::uint8_t>(bio.flags & kBioFua);
    const BlkStatus status =
        Copier::transfer(*data_, Op::kWrite, at, block_sectors_, bio.data, flags);
    io.written = status == BlkStatus::kOk;
    return status;
  }
  if (from.mapped) {
    // The old block stays ours until insert(): no section is needed to read it. Nobody writes to it
    // any more: it is shared, and settled().
    return copier.copy(*data_, from.data_block * block_sectors_, *data_, at, block_sectors_);
  }
  sector_t filled = 0;
  if (has_old) {
    filled = std::min<sector_t>(block_sectors_, origin - begin);
    if (const BlkStatus status = copier.copy(*io.thin->origin, begin, *data_, at, filled);
        status != BlkStatus::kOk) {
      return status;
    }
  }
  return zero_new_blocks_ ? Copier::zero(*data_, at + filled, block_sectors_ - filled)
                          : BlkStatus::kOk;
}

// ENOSPC: there is none now.
Result<std::uint64_t> Pool::allocate(ThinDevice& device) {
  check_low_water();
  return device.allocate_data_block();
}

void Pool::check_low_water() {
  if (!metadata_->free_data_blocks_exceed(low_water_blocks_) &&
      !low_water_triggered_.exchange(true)) {
    log("reached low water mark for data device: sending event.");
    host_.table_event();
  }
}

// Blocks that were freed may only be used after a commit, and deleted devices may have some left.
void Pool::make_space() {
  const std::lock_guard<std::mutex> lock(space_mutex_);
  if (metadata_->free_data_blocks() != 0 || mode() != PoolMode::kWrite) {
    return;  // somebody else has been here
  }
  commit().ignore();
  while (metadata_->free_data_blocks() == 0 && metadata_->status().reclaim_pending &&
         mode() == PoolMode::kWrite) {
    constexpr std::size_t kPages = 256;
    {
      const std::shared_lock<WideSharedMutex> transactions(transactions_);
      if (const Result<bool> more = metadata_->reclaim(kPages); !more.ok()) {
        break;
      }
    }
    commit().ignore();
  }
  if (metadata_->free_data_blocks() == 0) {
    run_out_of_space();
  }
}

// Somebody has seen that there is no free block. One that is freed between that look and the change
// of mode ends nothing, as who frees it still sees `rw`: what waits would wait for nobody. So this
// looks again.
void Pool::run_out_of_space() {
  if (tuning_.at_place) {
    tuning_.at_place("no space: seen");
  }
  change_mode(PoolMode::kWrite, PoolMode::kOutOfDataSpace);
  if (metadata_->free_data_blocks() != 0) {
    change_mode(PoolMode::kOutOfDataSpace, PoolMode::kWrite);
  }
}

}  // namespace mapperfs::thinp
