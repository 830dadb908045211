// A pool's life: opening, modes, commits, suspend and resume.
#include "targets/thin/pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <shared_mutex>

namespace mapperfs::thinp {

namespace {

// Changes are committed this long after the first of them, if no flush asks for it before.
constexpr std::uint64_t kCommitPeriodNs = 1'000'000'000;

constexpr std::uint64_t kMaxMetadataLowWater = 1024;

}  // namespace

Result<std::shared_ptr<Pool>> Pool::open(const PoolKey& key, const PoolTuning& tuning) {
  ThinMetadataOptions options;
  options.may_format = !key.read_only;
  options.data_block_size = key.block_sectors;
  options.nr_metadata_blocks = tuning.nr_metadata_blocks;
  options.cache_bytes = tuning.cache_bytes;
  options.memtable_bytes = tuning.memtable_bytes;
  options.env = tuning.env;
  Result<std::unique_ptr<ThinMetadata>> metadata = ThinMetadata::open(key.metadata_dir, options);
  if (!metadata.ok()) {
    return metadata.status();
  }
  return std::make_shared<Pool>(key, tuning, metadata.take());
}

Pool::Pool(const PoolKey& key, const PoolTuning& tuning, std::unique_ptr<ThinMetadata> metadata)
    : host_(*key.host),
      env_(*key.env),
      data_(key.data),
      block_sectors_(key.block_sectors),
      tuning_(tuning),
      metadata_(std::move(metadata)) {
  for (std::size_t i = 0; i < kLanes; ++i) {
    lanes_[i].worker = env_.make_worker(fmt::format("thin-{}", i));
  }
  // The commit has sealed the mappings that it will write. Who saw one that is no longer among them
  // has to be done before its block is anybody else's; what the others point to has to be stable.
  metadata_->set_pre_commit([this] {
    synchronize();
    return flush_data();
  });
}

Pool::~Pool() {
  stopping_ = true;
  env_.cancel(commit_timer_);
  env_.cancel(no_space_timer_);
  for (Lane& lane : lanes_) {
    lane.worker->drain();
  }
  if (mode() < PoolMode::kOutOfMetadataSpace) {
    metadata_->commit().ignore();  // nobody is left to tell; what was flushed is safe
  }
}

void Pool::PostTimer::fire() noexcept {
  pool_.lanes_[kFlushLane].worker->post([this] { (pool_.*what_)(); });
}

void Pool::end_all(BioList& bios, BlkStatus status) noexcept {
  while (Bio* bio = bios.pop_front()) {
    bio->end_io(status);
  }
}

// Modes -------------------------------------------------------------------------------------------

void Pool::set_mode(PoolMode mode) {
  BioList failed;
  {
    const std::lock_guard<std::mutex> lock(mode_mutex_);
    set_mode_locked(mode, failed);
  }
  end_all(failed, BlkStatus::kIoError);
}

void Pool::change_mode(PoolMode from, PoolMode to) {
  BioList failed;
  {
    const std::lock_guard<std::mutex> lock(mode_mutex_);
    if (mode() != from) {
      return;
    }
    set_mode_locked(to, failed);
  }
  end_all(failed, BlkStatus::kIoError);
  if (mode() == PoolMode::kWrite) {
    retry_waiting();
  }
}

// `failed` gets the bios that waited for space and now never will have it.
void Pool::set_mode_locked(PoolMode mode, BioList& failed) {
  const PoolMode old = mode_.load(std::memory_order_relaxed);
  if (mode == PoolMode::kWrite && metadata_->status().needs_check) {
    log("unable to switch pool to write mode until repaired.");
    mode = old != mode ? old : PoolMode::kReadOnly;
  }
  if (old == PoolMode::kFail) {
    mode = old;  // for good: what the metadata says is not known any more
  }
  const bool read_only = mode >= PoolMode::kOutOfMetadataSpace;
  metadata_->set_read_only(read_only);
  if (mode == PoolMode::kWrite && control_ != nullptr) {
    error_if_no_space_ = control_->error_if_no_space;
  }
  mode_.store(mode, std::memory_order_release);
  if (control_ != nullptr) {
    control_->mode = mode;  // a resume without a new table keeps it
  }
  if (mode == PoolMode::kOutOfDataSpace) {
    if (!error_if_no_space_ && tuning_.no_space_timeout_ns != 0) {
      env_.arm(no_space_timer_, env_.now_ns() + tuning_.no_space_timeout_ns);
    }
  } else {
    env_.cancel(no_space_timer_);  // its fire() takes no lock
  }
  if (read_only) {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    failed.swap(retry_);
  }
  if (old != mode) {
    announce_mode(mode);
  }
}

void Pool::announce_mode(PoolMode mode) {
  const auto name = [&]() -> std::string_view {
    switch (mode) {
      case PoolMode::kWrite:
        return "write";
      case PoolMode::kOutOfDataSpace:
        return error_if_no_space_ ? "out-of-data-space (error IO)" : "out-of-data-space (queue IO)";
      case PoolMode::kOutOfMetadataSpace:
      case PoolMode::kReadOnly:
        return "read-only";
      case PoolMode::kFail:
        return "fail";
    }
    return "fail";
  };
  host_.table_event();
  log(fmt::format("switching pool to {} mode", name()));
}

void Pool::no_space_timed_out() {
  BioList failed;
  {
    const std::lock_guard<std::mutex> lock(mode_mutex_);
    if (mode() != PoolMode::kOutOfDataSpace || error_if_no_space_) {
      return;
    }
    error_if_no_space_ = true;
    announce_mode(PoolMode::kOutOfDataSpace);
    const std::lock_guard<std::mutex> waiting(waiting_mutex_);
    failed.swap(retry_);
  }
  end_all(failed, BlkStatus::kNoSpace);
}

// An operation on the metadata failed: back to the last commit, and no more changes until somebody
// has looked at it. The caller holds no lock. Of several who fail at once the first does it.
void Pool::operation_failed(std::string_view what, const Status& status) {
  BioList failed;
  {
    const std::unique_lock<WideSharedMutex> lock(transactions_);
    if (mode() >= PoolMode::kOutOfMetadataSpace) {
      return;
    }
    const PoolMode next = abort_transaction(what, status);
    const std::lock_guard<std::mutex> mode_lock(mode_mutex_);
    set_mode_locked(next, failed);
  }
  end_all(failed, BlkStatus::kIoError);
}

// transactions_ held, exclusive. The mode that the pool is to have.
PoolMode Pool::abort_transaction(std::string_view what, const Status& status) {
  log(fmt::format("metadata operation '{}' failed: error = -{}: {}", what, status.error(),
                  status.message()));
  log("aborting current metadata transaction");
  {
    const std::lock_guard<std::mutex> volumes(volumes_mutex_);
    for (const auto& [id, weak] : volumes_) {
      if (const std::shared_ptr<Volume> volume = weak.lock(); volume && volume->dev->changed()) {
        volume->lost_changes = true;
      }
    }
  }
  PoolMode next = PoolMode::kReadOnly;
  if (const Status aborted = metadata_->abort(); !aborted.ok()) {
    log(fmt::format("failed to abort metadata transaction: {}", aborted.message()));
    next = PoolMode::kFail;
  }
  if (const Status flagged = metadata_->set_needs_check(); !flagged.ok()) {
    log(fmt::format("failed to set 'needs_check' flag in metadata: {}", flagged.message()));
    next = PoolMode::kFail;
  }
  return next;
}

// Commits -----------------------------------------------------------------------------------------

// The caller may hold transactions_ shared, and then has to do itself what follows a failure.
Status Pool::commit_metadata() {
  commit_armed_ = false;  // before: a change that comes meanwhile arms the timer again
  const bool changed = metadata_->changed();
  Status status = metadata_->commit();
  if (status.ok() && changed) {
    check_metadata_low_water();
  }
  return status;
}

Status Pool::commit() {
  if (mode() >= PoolMode::kOutOfMetadataSpace) {
    return {EINVAL, "the pool is read-only"};
  }
  if (Status status = commit_metadata(); !status.ok()) {
    operation_failed("commit", status);
    return status;
  }
  if (metadata_->free_data_blocks() != 0) {
    change_mode(PoolMode::kOutOfDataSpace, PoolMode::kWrite);
  }
  return {};
}

std::uint64_t Pool::metadata_low_water(const ThinPoolStatus& now) {
  return std::min(kMaxMetadataLowWater, now.total_metadata_blocks / 4);
}

// After each commit that had anything to write: that is soon after each change of what is used, and
// off the way of a write.
void Pool::check_metadata_low_water() {
  const ThinPoolStatus now = metadata_->status();
  const bool low = now.total_metadata_blocks - now.used_metadata_blocks <= metadata_low_water(now);
  if (low && !metadata_low_water_triggered_.exchange(true)) {
    log("reached low water mark for metadata device: sending event.");
    host_.table_event();
  } else if (!low) {
    metadata_low_water_triggered_ = false;  // the next crossing is another one
  }
}

Status Pool::flush_data() {
  const std::uint64_t number = flushes_started_.fetch_add(1) + 1;
  const BlkStatus status = Copier::transfer(*data_, Op::kFlush, 0, 0, nullptr);
  if (status != BlkStatus::kOk) {
    return {errno_of(status), fmt::format("{}: the flush failed", data_->display_name())};
  }
  std::uint64_t newest = flushed_.load();
  while (newest < number && !flushed_.compare_exchange_weak(newest, number)) {
  }
  return {};
}

// Something is to be committed about a second from now, or at once where much has gathered or a
// block is waited for.
void Pool::note_changed() {
  // Looked at before it is written to, as it is true most of the time, and all threads come by.
  const auto set = [](std::atomic<bool>& flag) { return !flag.load() && !flag.exchange(true); };
  if ((mode() == PoolMode::kOutOfDataSpace || metadata_->commit_due()) && set(commit_posted_)) {
    lanes_[kFlushLane].worker->post([this] {
      periodic_commit();
      commit_posted_ = false;  // after: while it runs, what it takes along still looks due
    });
  } else if (set(commit_armed_)) {
    env_.arm(commit_timer_, env_.now_ns() + kCommitPeriodNs);
  }
}

void Pool::periodic_commit() {
  commit_armed_ = false;
  if (!suspended() && mode() < PoolMode::kOutOfMetadataSpace) {
    commit().ignore();  // the pool's mode tells
  }
}

// Control -----------------------------------------------------------------------------------------

Status Pool::bind(PoolControl& control) {
  BioList failed;
  {
    const std::lock_guard<std::mutex> lock(mode_mutex_);
    const PoolMode wanted = control.mode;
    control.mode = mode();
    if (control_ != &control) {
      metadata_low_water_triggered_ = false;  // a new table is told anew
    }
    control_ = &control;
    low_water_blocks_ = control.low_water_blocks;
    zero_new_blocks_ = control.zero_new_blocks;
    discard_passdown_ = control.discard_passdown;
    error_if_no_space_ = control.error_if_no_space;
    table_blocks_ = control.data_blocks;
    set_mode_locked(wanted, failed);
  }
  end_all(failed, BlkStatus::kIoError);
  const Status status = grow(control.data_blocks);
  // A pool that has failed is resumed all the same, so that what waits ends.
  return mode() == PoolMode::kFail ? Status() : status;
}

Status Pool::grow(std::uint64_t blocks) {
  const ThinPoolStatus now = metadata_->status();
  if (blocks < now.total_data_blocks) {
    return {EINVAL, fmt::format("{}: pool target ({} blocks) too small: expected {}",
                                host_.numbers(), blocks, now.total_data_blocks)};
  }
  if (blocks == now.total_data_blocks) {
    return {};
  }
  if (now.needs_check) {
    log("unable to grow the data device until repaired.");
    return {};
  }
  if (now.total_data_blocks != 0) {
    log(fmt::format("growing the data device from {} to {} blocks", now.total_data_blocks, blocks));
  }
  Status status;
  {
    const std::shared_lock<WideSharedMutex> lock(transactions_);
    status = metadata_->resize_data(blocks);
  }
  if (status.error() == EROFS) {
    log("unable to grow the data device while the pool is read-only.");
    return {};
  }
  if (!status.ok()) {
    operation_failed("resize_data", status);
    return status;
  }
  commit().ignore();  // as the kernel: the pool's mode tells
  return {};
}

void Pool::unbind(const PoolControl& control) {
  {
    const std::lock_guard<std::mutex> lock(mode_mutex_);
    if (control_ != &control) {
      return;
    }
    control_ = nullptr;
  }
  if (!has_volumes()) {
    return;
  }
  // The pool's table was wiped under thin devices, which would wait for ever.
  set_mode(PoolMode::kFail);
  suspended_ = false;
  suspending_ = false;
  BioList held;
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    held.swap(held_);
  }
  end_all(held, BlkStatus::kIoError);
}

// From here on bios of thin devices wait on held_; what is on its way is waited for. Reads are held
// last: a block may be being filled from an external origin that is a thin device of this pool.
void Pool::presuspend() {
  for (std::atomic<bool>* flag : {&suspending_, &suspended_}) {
    *flag = true;
    for (Lane& lane : lanes_) {
      const std::lock_guard<std::mutex> lock(lane.mutex);  // who pushes has seen it, or is before
    }
    for (Lane& lane : lanes_) {
      lane.worker->drain();
    }
  }
  in_flight_.synchronize();
}

void Pool::postsuspend() {
  env_.cancel(commit_timer_);
  env_.cancel(no_space_timer_);
  lanes_[kFlushLane].worker->drain();
  commit_armed_ = false;
  const std::uint64_t before = flushes_started_.load();
  commit().ignore();  // the pool's mode tells
  // Writes to blocks that were mapped long ago have changed nothing that a commit is about. Who
  // takes a pool down in order finds it as it was left.
  if (flushed_.load() <= before && mode() < PoolMode::kFail) {
    if (const Status flushed = flush_data(); !flushed.ok()) {
      log(flushed.message());
    }
  }
}

void Pool::resume() {
  low_water_triggered_ = false;
  suspended_ = false;
  suspending_ = false;
  BioList held;
  {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    held.swap(held_);
  }
  retry_waiting();
  redefer(held);
  if (metadata_->changed() && mode() < PoolMode::kOutOfMetadataSpace) {
    note_changed();
  }
  start_reclaim();
}

Result<std::shared_ptr<Volume>> Pool::open_volume(std::uint32_t id) {
  const std::lock_guard<std::mutex> lock(volumes_mutex_);
  if (volumes_.size() >= prune_volumes_at_) {
    std::erase_if(volumes_, [](const auto& volume) { return volume.second.expired(); });
    prune_volumes_at_ = 64 + 2 * volumes_.size();
  }
  std::weak_ptr<Volume>& place = volumes_[id];
  if (std::shared_ptr<Volume> volume = place.lock()) {
    return volume;
  }
  Result<std::unique_ptr<ThinDevice>> dev = metadata_->open_device(id);
  if (!dev.ok()) {
    volumes_.erase(id);
    return dev.status();
  }
  auto volume = std::make_shared<Volume>();
  volume->dev = dev.take();
  place = volume;
  return volume;
}

bool Pool::has_volumes() {
  const std::lock_guard<std::mutex> lock(volumes_mutex_);
  return std::any_of(volumes_.begin(), volumes_.end(),
                     [](const auto& volume) { return !volume.second.expired(); });
}

Status Pool::change(const std::function<Status(ThinMetadata&)>& what, bool shares) {
  messages_.fetch_add(1);
  if (shares) {
    const std::lock_guard<std::mutex> lock(waiting_mutex_);
    ++snapshots_;  // before anybody can find a block shared
  }
  Status status;
  {
    const std::shared_lock<WideSharedMutex> lock(transactions_);
    status = what(*metadata_);
  }
  const std::uint64_t begun = graces_begun_.load();
  if (status.ok()) {
    commit().ignore();  // as the kernel: the message was taken, the pool's mode tells
  }
  if (shares) {
    if (status.ok() && graces_over_ <= begun) {
      synchronize();  // there was no commit to do it
    }
    snapshot_settled();
  }
  {
    const std::lock_guard<std::mutex> lock(messages_mutex_);
    messages_.fetch_sub(1);
  }
  messages_done_.notify_all();
  if (status.ok()) {
    start_reclaim();
  }
  return status;
}

}  // namespace mapperfs::thinp
