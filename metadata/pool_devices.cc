// The table of devices: making, sharing and deleting them, and the metadata snapshot.
#include <fmt/format.h>

#include <cerrno>

#include "metadata/pool_metadata.h"

namespace mapperfs::thin {
namespace {

DeviceRecord record_of(const DeviceState& device) {
  DeviceRecord record;
  record.root = Root{device.root.load()};
  record.mapped_blocks = device.mapped_blocks;
  record.transaction_id = device.transaction_id;
  record.creation_time = device.creation_time;
  record.snapshotted_time = device.snapshotted_time;
  return record;
}

ThinDeviceDetails details_of(const DeviceState& device) {
  return {device.id, device.mapped_blocks, device.transaction_id, device.creation_time,
          device.snapshotted_time};
}

}  // namespace

Status PoolMetadata::check_new_id(std::uint32_t id) const {
  if (id > kThinMaxDeviceId) {
    return {EINVAL, fmt::format("thin metadata: device id {} is past {}", id, kThinMaxDeviceId)};
  }
  const std::lock_guard<std::mutex> lock(state_mutex_);
  return devices_.contains(id) ? Status(EEXIST, fmt::format("thin metadata: device {} exists", id))
                               : Status();
}

std::shared_ptr<DeviceState> PoolMetadata::find_device(std::uint32_t id) const {
  const std::lock_guard<std::mutex> lock(state_mutex_);
  const auto it = devices_.find(id);
  return it == devices_.end() ? nullptr : it->second;
}

void PoolMetadata::note_change(const std::shared_ptr<DeviceState>& device) {
  // A store costs all others who look at it a cache line, even if it changes nothing.
  if (const std::uint64_t now = open_.load(); device->changed_in.load() != now) {
    device->changed_in = now;
  }
  if (!device->listed.load() && !device->listed.exchange(true)) {
    const std::lock_guard<std::mutex> lock(state_mutex_);
    changed_devices_.push_back(device);
  }
  if (!small_changes_.load()) {
    small_changes_ = true;
  }
}

void PoolMetadata::note_record(std::string key, std::optional<std::string> value) {
  const std::lock_guard<std::mutex> lock(state_mutex_);
  changed_records_.emplace_back(std::move(key), std::move(value));
  small_changes_ = true;
}

std::shared_ptr<DeviceState> PoolMetadata::add_device(std::uint32_t id,
                                                      const DeviceRecord& record) {
  auto device = std::make_shared<DeviceState>(id, false);
  device->root = record.root.word;
  device->mapped_blocks = record.mapped_blocks;
  device->transaction_id = record.transaction_id;
  device->creation_time = record.creation_time;
  device->snapshotted_time = record.snapshotted_time;
  {
    const std::lock_guard<std::mutex> lock(state_mutex_);
    devices_[id] = device;
    device_count_ = devices_.size() + held_.size();
  }
  note_change(device);
  return device;
}

Status PoolMetadata::create_thin(std::uint32_t id) {
  const std::lock_guard<std::mutex> control(control_mutex_);
  const ShardedLock::ReadGuard inside(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  if (Status s = check_new_id(id); !s.ok()) {
    return s;
  }
  DeviceRecord record;
  record.transaction_id = transaction_id_;
  record.creation_time = time_;
  record.snapshotted_time = time_;
  add_device(id, record);
  return {};
}

Status PoolMetadata::create_snap(std::uint32_t id, std::uint32_t origin_id) {
  const std::lock_guard<std::mutex> control(control_mutex_);
  const ShardedLock::ReadGuard inside(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  if (Status s = check_new_id(id); !s.ok()) {
    return s;
  }
  const std::shared_ptr<DeviceState> origin = find_device(origin_id);
  if (origin == nullptr) {
    return {ENODATA, fmt::format("thin metadata: there is no device {}", origin_id)};
  }
  if (time_ >= kMaxTime) {
    return {EOVERFLOW,
            fmt::format("thin metadata: {} snapshots were taken, the most there can be", kMaxTime)};
  }
  const std::lock_guard<FairMutex> lock(origin->mutex);
  if (Status s = trees_.share(Root{origin->root.load()}); !s.ok()) {
    return s;
  }
  DeviceRecord record = record_of(*origin);
  record.transaction_id = transaction_id_;
  record.creation_time = ++time_;
  record.snapshotted_time = record.creation_time;
  origin->snapshotted_time = record.creation_time;
  note_change(origin);
  add_device(id, record);
  return {};
}

Status PoolMetadata::delete_device(std::uint32_t id) {
  {
    const std::lock_guard<std::mutex> control(control_mutex_);
    const ShardedLock::ReadGuard inside(gate_);
    if (Status s = may_change(); !s.ok()) {
      return s;
    }
    std::shared_ptr<DeviceState> device;
    {
      const std::lock_guard<std::mutex> lock(state_mutex_);
      const auto it = devices_.find(id);
      if (it == devices_.end()) {
        return {ENODATA, fmt::format("thin metadata: there is no device {}", id)};
      }
      if (it->second->opens != 0) {
        return {EBUSY, fmt::format("thin metadata: device {} is in use", id)};
      }
      device = it->second;
      device->gone = true;
      devices_.erase(it);
      device_count_ = devices_.size() + held_.size();
    }
    note_record(number_key(kDevicePrefix, id), std::nullopt);
    data_.give_back(*device->lot);
    bury(Root{device->root.load()});
  }
  reclaim_at_once();
  return {};
}

// A small device's blocks are free at once; a large one's are the worker's to free. The device is
// gone whatever becomes of its blocks: the worker will meet with the same error, and knows what to
// do about it, and a failed commit fails the caller's own.
void PoolMetadata::reclaim_at_once() { reclaim(kInlineReclaim).status().ignore(); }

// The tree is nobody's any more: it waits to be taken apart.
void PoolMetadata::bury(Root root) {
  if (root.empty()) {
    return;
  }
  const std::uint64_t number = next_dead_.fetch_add(1);
  note_record(number_key(kDeadPrefix, number), encode_dead(root));
  const std::lock_guard<std::mutex> lock(dead_mutex_);
  dead_[number] = root.word;
  dead_count_ = dead_.size();
}

Result<bool> PoolMetadata::reclaim(std::size_t max_pages) {
  for (std::size_t done = 0; done < max_pages && dead_count_ != 0; ++done) {
    if (Status s = make_room(); !s.ok()) {
      return s;
    }
    if (Status s = reclaim_one(); !s.ok()) {
      return s;
    }
  }
  return dead_count_ != 0;
}

Root PoolMetadata::first_dead() {
  const std::lock_guard<std::mutex> lock(dead_mutex_);
  return dead_.empty() ? Root{} : Root{dead_.begin()->second.load()};
}

// One page, read before anybody is kept waiting.
Status PoolMetadata::reclaim_one() {
  const Loaded loaded = trees_.load_for_reclaim(first_dead());
  const ShardedLock::ReadGuard inside(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  const std::lock_guard<std::mutex> lock(dead_mutex_);
  if (dead_.empty()) {
    return {};
  }
  const auto dead = dead_.begin();
  if (Status s = trees_.reclaim_step(dead->second); !s.ok()) {
    return s.with_context(fmt::format("freeing the blocks of deleted device {}", dead->first));
  }
  if (dead->second.load() == 0) {
    note_record(number_key(kDeadPrefix, dead->first), std::nullopt);
    dead_.erase(dead);
    dead_count_ = dead_.size();
  }
  return {};
}

std::vector<ThinDeviceDetails> PoolMetadata::devices() const {
  const std::lock_guard<std::mutex> lock(state_mutex_);
  std::vector<ThinDeviceDetails> all;
  all.reserve(devices_.size());
  for (const auto& [id, device] : devices_) {
    all.push_back(details_of(*device));
  }
  return all;
}

Result<std::unique_ptr<ThinDevice>> PoolMetadata::open_device(std::uint32_t id) {
  const std::lock_guard<std::mutex> lock(state_mutex_);
  const auto it = devices_.find(id);
  if (it == devices_.end()) {
    return Status(ENODATA, fmt::format("thin metadata: there is no device {}", id));
  }
  ++it->second->opens;
  return make_thin_device(*this, it->second);
}

Result<std::unique_ptr<ThinDevice>> PoolMetadata::open_held(std::uint32_t id) {
  const std::lock_guard<std::mutex> lock(state_mutex_);
  const auto it = held_.find(id);
  if (it == held_.end()) {
    return Status(ENODATA,
                  fmt::format("thin metadata: there is no device {} in a metadata snapshot", id));
  }
  ++it->second->opens;
  return make_thin_device(*this, it->second);
}

void PoolMetadata::close_device(DeviceState& device) {
  const std::lock_guard<std::mutex> lock(state_mutex_);
  MFS_ASSERT(device.opens != 0);
  --device.opens;
}

Status PoolMetadata::set_transaction_id(std::uint64_t current, std::uint64_t next) {
  const std::lock_guard<std::mutex> control(control_mutex_);
  const ShardedLock::ReadGuard inside(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  if (current != transaction_id_) {
    return {EINVAL, fmt::format("thin metadata: mismatched transaction id: it is {}, not {}",
                                transaction_id_.load(), current)};
  }
  transaction_id_ = next;
  small_changes_ = true;
  return {};
}

std::vector<std::uint64_t> PoolMetadata::roots() const {
  std::vector<std::uint64_t> roots;
  const std::lock_guard<std::mutex> lock(state_mutex_);
  for (const auto& [id, device] : devices_) {
    if (const Root root{device->root.load()}; !root.empty()) {
      roots.push_back(root.page());
    }
  }
  return roots;
}

// One more reference to each root. All of it with the gate held for writing, so that the snapshot
// is of one moment: some 100 ns a device. The counts are read before.
Status PoolMetadata::reserve_metadata_snap() {
  const std::lock_guard<std::mutex> control(control_mutex_);
  const auto loaded = CountPages::load_any(cache_, PageKind::kPageRefs, roots());
  if (!loaded.ok()) {
    return loaded.status();
  }
  const ShardedLock::WriteGuard between(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  if (held_root_ != 0) {
    return {EBUSY, "thin metadata: a metadata snapshot exists; release it first"};
  }
  std::vector<std::shared_ptr<DeviceState>> all;
  {
    const std::lock_guard<std::mutex> lock(state_mutex_);
    for (const auto& [id, device] : devices_) {
      all.push_back(device);
    }
  }
  auto pinned = CountPages::load(cache_, PageKind::kPageRefs, roots());
  if (!pinned.ok()) {
    return pinned.status();
  }
  for (const std::shared_ptr<DeviceState>& device : all) {
    const Status shared = trees_.share(Root{device->root.load()});
    MFS_ASSERT(shared.ok());  // the page of its count is in memory and was looked at
    auto held = std::make_shared<DeviceState>(device->id, true);
    const DeviceRecord record = record_of(*device);
    held->root = record.root.word;
    held->mapped_blocks = record.mapped_blocks;
    held->transaction_id = record.transaction_id;
    held->creation_time = record.creation_time;
    held->snapshotted_time = record.snapshotted_time;
    note_record(number_key(kHeldPrefix, device->id), encode(record));
    const std::lock_guard<std::mutex> lock(state_mutex_);
    held_[device->id] = held;
    device_count_ = devices_.size() + held_.size();
  }
  held_root_ = ids_.next.fetch_add(1);
  held_transaction_id_ = transaction_id_.load();
  held_time_ = time_.load();
  small_changes_ = true;
  return {};
}

Status PoolMetadata::release_metadata_snap() {
  {
    const std::lock_guard<std::mutex> control(control_mutex_);
    const ShardedLock::ReadGuard inside(gate_);
    if (Status s = may_change(); !s.ok()) {
      return s;
    }
    if (held_root_ == 0) {
      return {EINVAL, "thin metadata: there is no metadata snapshot to release"};
    }
    std::map<std::uint32_t, std::shared_ptr<DeviceState>> held;
    {
      const std::lock_guard<std::mutex> lock(state_mutex_);
      for (const auto& [id, device] : held_) {
        if (device->opens != 0) {
          return {EBUSY,
                  fmt::format("thin metadata: device {} of the metadata snapshot is in use", id)};
        }
      }
      held.swap(held_);
      device_count_ = devices_.size();
    }
    for (const auto& [id, device] : held) {
      note_record(number_key(kHeldPrefix, id), std::nullopt);
      bury(Root{device->root.load()});
    }
    held_root_ = 0;
    small_changes_ = true;
  }
  reclaim_at_once();
  return {};
}

Result<ThinHeldSnapshot> PoolMetadata::held_snapshot() const {
  const std::lock_guard<std::mutex> lock(state_mutex_);
  if (held_root_ == 0) {
    return Status(ENODATA, "thin metadata: there is no metadata snapshot");
  }
  ThinHeldSnapshot snapshot{held_transaction_id_, held_time_, {}};
  for (const auto& [id, device] : held_) {
    snapshot.devices.push_back(details_of(*device));
  }
  return snapshot;
}

}  // namespace mapperfs::thin
