// Transactions. A commit seals the open one - with everybody kept out, all that changed is marked
// as its own - lets the next begin, copies the changes into a batch, has the pool flush its data,
// and writes the batch. So no mapping gets to stable storage before the data it maps to, and I/O
// goes on meanwhile.
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "metadata/pool_metadata.h"

namespace mapperfs::thin {

namespace {

constexpr int kFlagTries = 2;

// What the calling thread has had of a core.
std::chrono::nanoseconds thread_work() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}  // namespace

void PoolMetadata::set_pre_commit(std::function<Status()> flush_data) {
  flush_data_ = std::move(flush_data);
}

bool PoolMetadata::open_has_changes() const noexcept {
  return small_changes_.load() || cache_.changed() || data_.changed();
}

// The last transaction that may have changes of the caller's. The number is read last: whatever
// takes changes out of the open transaction has begun the next one before.
std::uint64_t PoolMetadata::last_change() const noexcept {
  const bool in_open = open_has_changes();
  return open_.load() - (in_open ? 0 : 1);
}

bool PoolMetadata::changed() const noexcept { return committed_.load() < last_change(); }

bool PoolMetadata::commit_due() const noexcept {
  const std::size_t pages = cache_.dirty_bytes() / sizeof(Page);
  return pages >= due_pages_.load(std::memory_order_relaxed) ||
         pages >= options_.dirty_bytes / 8 / sizeof(Page);
}

// A snapshot or a flush waits for all that has gathered to be written, and for the commit before if
// that is under way. So commits should be small; but each waits for the devices, however small it
// is. A commit is due when writing it would be as much work as the waiting, or kDueWork.
void PoolMetadata::learn_due(std::size_t pages, std::chrono::nanoseconds took,
                             std::chrono::nanoseconds worked) {
  constexpr std::chrono::nanoseconds kDueWork = std::chrono::milliseconds(1);
  if (pages < kDueLeast / 4) {
    return;  // says little about the price of a page
  }
  // Waiting for a core is no reason to write less often: the shortest counts, and is forgotten.
  const std::chrono::nanoseconds waited = std::max(took - worked, std::chrono::nanoseconds(1000));
  waiting_ = waiting_.count() == 0 ? waited : std::min(waited, waiting_ + waiting_ / 8);
  const auto page = std::max<std::int64_t>(worked.count() / static_cast<std::int64_t>(pages), 1);
  const auto due = static_cast<std::size_t>(std::max(waiting_, kDueWork).count() / page);
  due_pages_ = std::max(due, kDueLeast);
}

// Keeps the changes in memory bounded. Called before a change, with no lock held.
Status PoolMetadata::make_room() {
  return cache_.dirty_bytes() >= options_.dirty_bytes ? commit() : Status();
}

Status PoolMetadata::commit() {
  std::unique_lock<std::mutex> lock(commit_mutex_);
  const std::uint64_t aborts = aborts_;
  const std::uint64_t wanted = last_change();
  while (committed_.load() < wanted || aborts_ != aborts) {
    if (aborts_ != aborts) {
      return {EIO, "thin metadata: what was to be committed was aborted"};
    }
    if (health_ != Health::kGood) {
      return may_change();
    }
    if (committing_) {
      stand_at("committing: waits for another");
      commit_done_.wait(lock);
      if (options_.at_place) {
        lock.unlock();
        stand_at("committing: woken");
        lock.lock();
      }
      continue;
    }
    committing_ = true;
    lock.unlock();
    Status status = run_commit();
    lock.lock();
    committing_ = false;
    if (!status.ok()) {
      health_ = Health::kFailed;
    }
    commit_done_.notify_all();
    if (!status.ok()) {
      return status;
    }
  }
  return health_ == Health::kLost ? may_change() : Status();
}

// By the one thread whose turn it is.
Status PoolMetadata::run_commit() {
  const auto began = std::chrono::steady_clock::now();
  const std::chrono::nanoseconds worked_before = thread_work();
  const std::uint64_t sealed = open_.load();
  const std::unique_ptr<StoreBatch> batch = seal();
  const std::size_t pages = cache_.sealed_pages();
  stand_at("committing: to be packed");
  cache_.collect();
  if (!batch->empty()) {
    if (flush_data_) {
      if (Status s = flush_data_(); !s.ok()) {
        return s.with_context("flushing the data device before a commit");
      }
    }
    if (Status s = store_->write(*batch); !s.ok()) {
      return s;
    }
  }
  cache_.written();
  data_.written();
  committed_ = sealed;
  learn_due(pages, std::chrono::steady_clock::now() - began, thread_work() - worked_before);
  return {};
}

std::unique_ptr<StoreBatch> PoolMetadata::seal() {
  auto batch = store_->new_batch();
  const ShardedLock::WriteGuard between(gate_);
  const bool any = open_has_changes();
  open_.fetch_add(1);  // first: who finds no change in the open one must not miss this one
  if (any) {
    cache_.seal(*batch);
    data_.seal(*batch);
    const std::lock_guard<std::mutex> lock(state_mutex_);
    // In the order of their making: a device deleted and made again is first erased, then put.
    for (const auto& [key, value] : changed_records_) {
      if (value.has_value()) {
        batch->put(key, *value);
      } else {
        batch->erase(key);
      }
    }
    changed_records_.clear();
    for (const std::shared_ptr<DeviceState>& device : changed_devices_) {
      device->listed = false;
      if (!device->gone) {
        DeviceRecord record;
        record.root = Root{device->root.load()};
        record.mapped_blocks = device->mapped_blocks;
        record.transaction_id = device->transaction_id;
        record.creation_time = device->creation_time;
        record.snapshotted_time = device->snapshotted_time;
        batch->put(number_key(kDevicePrefix, device->id), encode(record));
      }
    }
    changed_devices_.clear();
    Superblock superblock;
    superblock.data_block_size = data_block_size_;
    superblock.nr_data_blocks = data_.nr_blocks();
    superblock.transaction_id = transaction_id_;
    superblock.time = time_;
    superblock.flags = flags_;
    superblock.next_page = ids_.next;
    superblock.tree_pages = ids_.pages;
    superblock.next_dead = next_dead_;
    superblock.held_root = held_root_;
    superblock.held_transaction_id = held_transaction_id_;
    superblock.held_time = held_time_;
    batch->put(kSuperblockKey, encode(superblock));
    small_changes_ = false;
  }
  stand_at("committing: sealed");
  return batch;
}

Status PoolMetadata::abort() {
  const std::lock_guard<std::mutex> control(control_mutex_);
  std::unique_lock<std::mutex> lock(commit_mutex_);
  commit_done_.wait(lock, [this] { return !committing_; });
  if (health_ == Health::kLost) {
    return may_change();
  }
  committing_ = true;  // keeps commits away without holding their mutex over I/O
  lock.unlock();
  std::uint64_t lost = 0;
  Status status;
  {
    const ShardedLock::WriteGuard between(gate_);
    lost = open_.fetch_add(1);  // first, as in seal()
    // After a failed write the database refuses all others until it is opened again, which also
    // finds out whether that write is in its log or not.
    if (health_ == Health::kFailed) {
      status = store_->reopen();
    }
    cache_.clear();
    stand_at("aborting: pages forgotten");
    small_changes_ = false;
    if (status.ok()) {
      status = load();
    }
    trees_.depart();  // what was reverted is left to nobody, and must be believed no more
    health_ = status.ok() ? Health::kGood : Health::kLost;
  }
  lock.lock();
  committing_ = false;
  committed_ = lost;  // in one with aborts_: whoever waits for it must not take it for done
  ++aborts_;
  commit_done_.notify_all();
  return status;
}

Status PoolMetadata::write_needs_check(bool on) {
  if (options_.mode != ThinMetadataOptions::Mode::kReadWrite) {
    return {EROFS, "thin metadata: read-only"};
  }
  const auto batch = store_->new_batch();
  if (on) {
    batch->put(kNeedsCheckKey, "1");
  } else {
    batch->erase(kNeedsCheckKey);
  }
  Status status = store_->write(*batch);
  // What failed may be why the flag is set, and still fail. A store that can only be read changes
  // no more: then the flag is for who looks now.
  for (int i = 0; on && !status.ok() && i < kFlagTries; ++i) {
    if (const Status reopened = store_->reopen(); !reopened.ok()) {
      return reopened;
    }
    status = store_->writable() ? store_->write(*batch) : Status();
  }
  if (status.ok()) {
    needs_check_ = on;
  }
  return status;
}

Status PoolMetadata::set_needs_check() { return write_needs_check(true); }
Status PoolMetadata::clear_needs_check() { return write_needs_check(false); }

}  // namespace mapperfs::thin
