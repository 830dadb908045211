// Discards of thin devices, and freeing what deleted devices leave.
#include <algorithm>
#include <shared_mutex>

#include "targets/thin/pool.h"

namespace mapperfs::thinp {

// Mappings are removed for all that came together; then, where blocks lost their last owner and the
// data device is to know, one commit, the discards below, and the blocks are free.
void Pool::run_discards(BioList& bios) noexcept {
  if (bios.empty()) {
    return;
  }
  BioList done;
  BioList bad;
  std::vector<DataRun> freed;
  Status failed;
  {
    // An abort forgets which blocks wait for being discarded: none may come between.
    const std::shared_lock<WideSharedMutex> transactions(transactions_);
    std::vector<DataRun>* const runs = discard_passdown_ ? &freed : nullptr;
    while (Bio* bio = bios.pop_front()) {
      // A pool that cannot change keeps its mappings; a discard promises nothing.
      const bool can = mode() < PoolMode::kOutOfMetadataSpace && failed.ok();
      if (Status status = can ? remove_range(*bio, runs) : failed; !status.ok()) {
        failed = std::move(status);
        bad.push_back(*bio);
      } else {
        done.push_back(*bio);
      }
    }
    if (!freed.empty() && failed.ok()) {
      failed = commit_metadata();
      if (failed.ok()) {
        pass_down(freed);
        metadata_->release_data(freed);
      }
    }
  }
  if (!failed.ok()) {
    operation_failed("remove_range", failed);
  } else {
    note_changed();
  }
  end_all(done, failed.ok() ? BlkStatus::kOk : BlkStatus::kIoError);
  end_all(bad, BlkStatus::kIoError);
}

// Whole blocks inside the bio's range; none: nothing to do.
Status Pool::remove_range(Bio& bio, std::vector<DataRun>* freed) {
  const Thin& thin = *bio.per_io<ThinIo>().thin;
  const sector_t offset = bio.sector - thin.begin;
  const std::uint64_t begin = (offset + block_sectors_ - 1) / block_sectors_;
  const std::uint64_t end = (offset + bio.sectors) / block_sectors_;
  if (begin >= end) {
    return {};
  }
  const std::unique_lock<FairSharedMutex> lock(thin.volume->discards);
  return thin.volume->dev->remove(begin, end, freed);
}

// Its errors change nothing: the blocks are free, and what they hold is nobody's business.
void Pool::pass_down(const std::vector<DataRun>& runs) {
  const sector_t most = data_->limits().max_discard_sectors / block_sectors_ * block_sectors_;
  if (most == 0) {
    return;
  }
  for (const DataRun& run : runs) {
    const sector_t end = (run.begin + run.length) * block_sectors_;
    for (sector_t at = run.begin * block_sectors_; at < end;) {
      const sector_t now = std::min(most, end - at);
      static_cast<void>(Copier::transfer(*data_, Op::kDiscard, at, now, nullptr));
      at += now;
    }
  }
}

bool Pool::may_reclaim() const {
  return !suspended() && !stopping_ && mode() < PoolMode::kOutOfMetadataSpace;
}

void Pool::start_reclaim() {
  if (may_reclaim() && metadata_->status().reclaim_pending && !reclaiming_.exchange(true)) {
    lanes_[kDiscardLane].worker->post([this] { reclaim_some(); });
  }
}

// A little at a time, so that discards get their turn. A suspend ends it, resume() begins anew.
void Pool::reclaim_some() {
  constexpr std::size_t kPages = 32;
  bool more = false;
  Status failed;
  if (may_reclaim()) {
    const std::shared_lock<WideSharedMutex> transactions(transactions_);
    const Result<bool> left = metadata_->reclaim(kPages);
    if (left.ok()) {
      more = *left;
      note_changed();
    } else {
      failed = left.status();
    }
  }
  if (!failed.ok()) {
    operation_failed("reclaim", failed);
  }
  if (more) {
    lanes_[kDiscardLane].worker->post([this] { reclaim_some(); });
  } else {
    reclaiming_ = false;
    start_reclaim();  // again: who deleted a device just now may have found it still set
  }
}

}  // namespace mapperfs::thinp
