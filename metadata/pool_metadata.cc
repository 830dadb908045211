// Opening a pool: the superblock, the device table, the free-space summary and the roots of deleted
// devices are read; mapping pages are not, so that a pool of any size opens at once.
#include "metadata/pool_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

namespace mapperfs {

namespace {

// Of a pool that is to be used and must not be made, as the kernel has it; EINVAL for who only
// looks.
Status unformatted(const ThinMetadataOptions& options) {
  if (options.mode == ThinMetadataOptions::Mode::kReadWrite && options.data_block_size != 0 &&
      !options.may_format) {
    return {EPERM, "thin metadata: there is none, and read_only forbids to format it"};
  }
  return {EINVAL, "thin metadata: there is none"};
}

}  // namespace

Result<std::unique_ptr<ThinMetadata>> ThinMetadata::open(const std::string& dir,
                                                         const ThinMetadataOptions& options) {
  StoreOptions store_options;
  store_options.mode = options.mode == ThinMetadataOptions::Mode::kReadWrite ? StoreMode::kReadWrite
                       : options.mode == ThinMetadataOptions::Mode::kLive    ? StoreMode::kLive
                                                                             : StoreMode::kReadOnly;
  store_options.create = options.may_format && options.data_block_size != 0;
  store_options.compress = options.compress;
  store_options.memtable_bytes = options.memtable_bytes;
  store_options.env = options.env;
  auto store = open_rocks_store(dir, store_options);
  if (!store.ok()) {
    if (store.status().error() == ENOENT) {
      return unformatted(options).with_context(dir);
    }
    return store.status();
  }
  auto pool = std::make_unique<thin::PoolMetadata>(store.take(), options);
  if (Status s = pool->start(); !s.ok()) {
    return s.with_context(dir);
  }
  return std::unique_ptr<ThinMetadata>(std::move(pool));
}

namespace thin {
namespace {

constexpr std::uint64_t kReserveMost = 4096;
// As the kernel's metadata: entries of one bitmap block and of one node of device details.
constexpr std::uint64_t kBlocksPerBitmap = 16320;
constexpr std::uint64_t kDevicesPerNode = 126;

std::uint64_t divide_up(std::uint64_t value, std::uint64_t by) { return (value + by - 1) / by; }

}  // namespace

PoolMetadata::PoolMetadata(std::unique_ptr<Store> store, const ThinMetadataOptions& options)
    : options_(options),
      store_(std::move(store)),
      cache_(*store_, options.cache_bytes),
      data_(cache_, options.always_lend),
      trees_(cache_, data_, ids_, options_.at_place),
      metadata_blocks_(std::min(options.nr_metadata_blocks, kThinMaxMetadataBlocks)),
      read_only_(options.mode != ThinMetadataOptions::Mode::kReadWrite) {}

PoolMetadata::~PoolMetadata() {
  for (const auto& [id, device] : devices_) {
    MFS_ASSERT(device->opens == 0);
  }
}

Status PoolMetadata::start() {
  auto superblock = store_->get(kSuperblockKey);
  if (!superblock.ok()) {
    return superblock.status();
  }
  if (!superblock->has_value()) {
    bool empty = true;
    if (Status s = store_->scan({}, [&empty](auto, auto) { return empty = false; }); !s.ok()) {
      return s;
    }
    if (!empty) {
      return {EILSEQ, "thin metadata: the superblock is missing"};
    }
    if (!options_.may_format || options_.data_block_size == 0 || read_only_) {
      return unformatted(options_);
    }
    if (Status s = format(0); !s.ok()) {
      return s;
    }
  }
  return load();
}

Status PoolMetadata::start_restore() {
  bool empty = true;
  if (Status s = store_->scan({}, [&empty](auto, auto) { return empty = false; }); !s.ok()) {
    return s;
  }
  if (!empty) {
    return {EEXIST, "thin metadata: there is a pool already; a restore needs an empty directory"};
  }
  restoring_ = true;
  Status s = format(Superblock::kIncomplete);
  return s.ok() ? load() : s;
}

Status PoolMetadata::finish_restore(std::uint64_t transaction_id, std::uint32_t time,
                                    bool needs_check) {
  transaction_id_ = transaction_id;
  time_ = time;
  flags_ = 0;
  small_changes_ = true;
  if (needs_check) {
    note_record(std::string(kNeedsCheckKey), "1");
  }
  return commit();
}

Status PoolMetadata::format(std::uint32_t flags) {
  if (options_.data_block_size == 0 || options_.data_block_size % kThinBlockSizeStep != 0 ||
      options_.data_block_size > kThinMaxBlockSize) {
    return {EINVAL, fmt::format("thin metadata: block size {} is not a multiple of {} up to {}",
                                options_.data_block_size, kThinBlockSizeStep, kThinMaxBlockSize)};
  }
  if (options_.nr_data_blocks > kThinMaxDataBlocks) {
    return {EINVAL, fmt::format("thin metadata: {} data blocks are more than {}",
                                options_.nr_data_blocks, kThinMaxDataBlocks)};
  }
  Superblock superblock;
  superblock.data_block_size = options_.data_block_size;
  superblock.nr_data_blocks = options_.nr_data_blocks;
  superblock.flags = flags;
  auto batch = store_->new_batch();
  batch->put(kSuperblockKey, encode(superblock));
  return store_->write(*batch);
}

Status PoolMetadata::load() {
  auto record = store_->get(kSuperblockKey);
  auto needs_check = store_->get(kNeedsCheckKey);
  if (!record.ok() || !needs_check.ok()) {
    return record.ok() ? needs_check.status() : record.status();
  }
  if (!record->has_value()) {
    return {EILSEQ, "thin metadata: the superblock is missing"};
  }
  auto superblock = decode_superblock(**record);
  if (!superblock.ok()) {
    return superblock.status();
  }
  if (options_.data_block_size != 0 && superblock->data_block_size != options_.data_block_size) {
    return {EINVAL, fmt::format("changing the data block size (from {} to {}) is not supported",
                                superblock->data_block_size, options_.data_block_size)};
  }
  if ((superblock->flags & Superblock::kIncomplete) != 0 && !restoring_) {
    return {EILSEQ, "thin metadata: a restore into it did not finish"};
  }
  std::map<std::uint32_t, DeviceRecord> devices;
  std::map<std::uint32_t, DeviceRecord> held;
  for (const auto& [prefix, records] : {std::pair{kDevicePrefix, &devices}, {kHeldPrefix, &held}}) {
    if (Status s = load_devices(prefix, *records); !s.ok()) {
      return s;
    }
  }
  data_block_size_ = superblock->data_block_size;
  flags_ = superblock->flags;
  transaction_id_ = superblock->transaction_id;
  time_ = superblock->time;
  // After an abort() ids of the reverted transaction stay used, so that a reader who still holds
  // one cannot take another page for it.
  ids_.next = std::max(ids_.next.load(), superblock->next_page);
  ids_.pages = superblock->tree_pages;
  next_dead_ = superblock->next_dead;
  held_root_ = superblock->held_root;
  held_transaction_id_ = superblock->held_transaction_id;
  held_time_ = superblock->held_time;
  needs_check_ = needs_check->has_value();
  data_.reset(superblock->nr_data_blocks);
  {
    const std::lock_guard<std::mutex> lock(state_mutex_);
    adopt(devices_, devices, false);
    adopt(held_, held, true);
    changed_devices_.clear();
    changed_records_.clear();
    device_count_ = devices_.size() + held_.size();
  }
  if (Status s = load_dead(); !s.ok()) {
    return s;
  }
  return load_data_map();
}

Status PoolMetadata::load_devices(char prefix, std::map<std::uint32_t, DeviceRecord>& records) {
  Status bad;
  Status s = store_->scan({&prefix, 1}, [&](std::string_view key, std::string_view value) {
    const std::optional<std::uint64_t> id = number_of_key(key);
    auto record = decode_device(value);
    if (!id.has_value() || *id > kThinMaxDeviceId) {
      bad = {EILSEQ, "thin metadata: the id of a device is damaged"};
    } else if (!record.ok()) {
      bad = record.status().with_context(fmt::format("device {}", *id));
    } else {
      records.emplace(static_cast<std::uint32_t>(*id), *record);
    }
    return bad.ok();
  });
  return s.ok() ? bad : s;
}

// Makes `table` what `records` say, keeping the objects of devices that stay: handles hold them.
void PoolMetadata::adopt(std::map<std::uint32_t, std::shared_ptr<DeviceState>>& table,
                         const std::map<std::uint32_t, DeviceRecord>& records, bool held) {
  for (auto it = table.begin(); it != table.end();) {
    if (!records.contains(it->first)) {
      it->second->gone = true;  // before the root: without one all would seem unmapped
      it->second->root = 0;
      it->second->mapped_blocks = 0;
      it = table.erase(it);
    } else {
      ++it;
    }
  }
  for (const auto& [id, record] : records) {
    std::shared_ptr<DeviceState>& device = table[id];
    if (device == nullptr) {
      device = std::make_shared<DeviceState>(id, held);
    }
    device->root = record.root.word;
    device->mapped_blocks = record.mapped_blocks;
    device->transaction_id = record.transaction_id;
    device->creation_time = record.creation_time;
    device->snapshotted_time = record.snapshotted_time;
    device->changed_in = 0;
    device->listed = false;
  }
}

Status PoolMetadata::load_dead() {
  const std::lock_guard<std::mutex> lock(dead_mutex_);
  dead_.clear();
  Status bad;
  Status s = store_->scan({&kDeadPrefix, 1}, [&](std::string_view key, std::string_view value) {
    const std::optional<std::uint64_t> number = number_of_key(key);
    auto root = decode_dead(value);
    if (!number.has_value() || !root.ok()) {
      bad = {EILSEQ, "thin metadata: the root of a deleted device is damaged"};
      return false;
    }
    dead_[*number] = root->word;
    return true;
  });
  dead_count_ = dead_.size();
  return s.ok() ? bad : s;
}

Status PoolMetadata::load_data_map() {
  Status bad;
  Status s = store_->scan({&kSummaryPrefix, 1}, [&](std::string_view key, std::string_view value) {
    const std::optional<std::uint64_t> number = number_of_key(key);
    auto summary = decode_summary(value);
    bad = !number.has_value() ? Status(EILSEQ, "thin metadata: the key of a summary is damaged")
          : !summary.ok()     ? summary.status()
                              : data_.load_summary(*number, *summary);
    return bad.ok();
  });
  data_.finish_loading();
  return s.ok() ? bad : s;
}

Status PoolMetadata::may_change() const {
  switch (health_.load()) {
    case Health::kGood:
      break;
    case Health::kFailed:
      return {EIO, "thin metadata: the last commit failed; the transaction has to be aborted"};
    case Health::kLost:
      return {EIO, "thin metadata: lost after an error"};
  }
  return read_only_ || !store_->writable() ? Status(EROFS, "thin metadata: read-only") : Status();
}

std::uint64_t PoolMetadata::metadata_reserve() const noexcept {
  return std::min(kReserveMost, metadata_blocks_.load() / 10);
}

std::uint64_t PoolMetadata::used_metadata() const noexcept {
  return 1 + divide_up(data_.nr_blocks(), kBlocksPerBitmap) +
         divide_up(device_count_.load(), kDevicesPerNode) + divide_up(ids_.pages.load(), 2) +
         metadata_reserve();
}

ThinPoolStatus PoolMetadata::status() const noexcept {
  ThinPoolStatus status;
  status.transaction_id = transaction_id_;
  status.time = time_;
  const DataMap::Usage usage = data_.usage();
  status.used_data_blocks = usage.used;
  status.free_data_blocks = usage.allocatable;
  status.total_data_blocks = usage.blocks;
  status.total_metadata_blocks = metadata_blocks_;
  status.used_metadata_blocks = std::min(used_metadata(), status.total_metadata_blocks);
  status.held_root = held_root_;
  status.needs_check = needs_check_;
  status.reclaim_pending = dead_count_ != 0;
  return status;
}

std::uint64_t PoolMetadata::free_data_blocks() const noexcept { return data_.usage().allocatable; }
bool PoolMetadata::free_data_blocks_exceed(std::uint64_t blocks) const noexcept {
  return data_.allocatable_exceeds(blocks);
}
void PoolMetadata::set_read_only(bool on) noexcept {
  read_only_ = on || options_.mode != ThinMetadataOptions::Mode::kReadWrite;
}
std::uint32_t PoolMetadata::data_block_size() const noexcept { return data_block_size_; }
std::size_t PoolMetadata::cached_bytes() const noexcept { return cache_.bytes(); }

Result<std::uint64_t> PoolMetadata::allocate_data_block() {
  const ShardedLock::ReadGuard inside(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  return data_.allocate();
}

Result<std::uint64_t> PoolMetadata::allocate_for(const DeviceState& device) {
  const ShardedLock::ReadGuard inside(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  return data_.allocate(device.lot);
}

void PoolMetadata::cancel_allocation(std::uint64_t data_block) {
  const ShardedLock::ReadGuard inside(gate_);
  data_.cancel(data_block);
}

void PoolMetadata::release_data(const std::vector<DataRun>& runs) {
  const ShardedLock::ReadGuard inside(gate_);
  data_.release(runs);
}

Result<std::uint32_t> PoolMetadata::data_references(std::uint64_t data_block) {
  return data_.owners(data_block);
}

Status PoolMetadata::resize_data(std::uint64_t nr_blocks) {
  const ShardedLock::ReadGuard inside(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  if (nr_blocks < data_.nr_blocks() || nr_blocks > kThinMaxDataBlocks) {
    return {EINVAL,
            fmt::format("thin metadata: a data device of {} blocks cannot become {} (it can "
                        "only grow, up to {})",
                        data_.nr_blocks(), nr_blocks, kThinMaxDataBlocks)};
  }
  if (nr_blocks != data_.nr_blocks()) {
    data_.grow(nr_blocks);
    small_changes_ = true;
  }
  return {};
}

Status PoolMetadata::resize_metadata(std::uint64_t nr_blocks) {
  const std::uint64_t wanted = std::min(nr_blocks, kThinMaxMetadataBlocks);
  const std::uint64_t used = used_metadata() - metadata_reserve();
  if (wanted < used) {
    return {EINVAL,
            fmt::format("thin metadata: {} blocks are too few, {} are used", nr_blocks, used)};
  }
  metadata_blocks_ = wanted;
  return {};
}

}  // namespace thin
}  // namespace mapperfs
