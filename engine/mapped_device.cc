#include "engine/mapped_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "engine/engine.h"
#include "engine/stats.h"
#include "engine/words.h"

namespace mapperfs {

namespace {

// Table lines and messages open devices through the engine, on behalf of one mapped device.
class EngineOpener final : public DeviceOpener {
 public:
  EngineOpener(Engine& engine, MappedDevice& device) : engine_(engine), device_(device) {}
  Result<DevRef> open(const std::string& word, DeviceMode mode) override {
    return engine_.open_word(word, mode, device_);
  }
  Status outside_mount(const std::string& path) override { return engine_.outside_mount(path); }

 private:
  Engine& engine_;
  MappedDevice& device_;
};

Status busy_with_bypass() {
  return {EBUSY,
          "open with passthrough: the kernel reads and writes its file directly, so I/O cannot be "
          "held back; close the device first (`passthrough NAME off` has the engine serve the next "
          "open)"};
}

bool may_replace_immutable(const Table& table) {
  return std::any_of(table.targets().begin(), table.targets().end(), [](const auto& target) {
    return (target->ti().type->flags & kTargetWildcard) != 0;
  });
}

}  // namespace

MappedDevice::MappedDevice(Engine& engine, std::uint64_t serial, unsigned minor, std::string name,
                           std::string uuid)
    : BlockDevice(this),
      engine_(engine),
      serial_(serial),
      minor_(minor),
      stats_owner_(std::make_unique<StatsRegions>(*this, engine.env())),
      name_(std::move(name)),
      uuid_(std::move(uuid)) {}

MappedDevice::~MappedDevice() { MFS_ASSERT(deferred_.empty()); }

QueueLimits MappedDevice::limits() const {
  const std::shared_lock<std::shared_mutex> lock(table_mutex_);
  return limits_locked();
}

QueueLimits MappedDevice::limits_locked() const {
  if (live_owner_ == nullptr) {
    return {};
  }
  QueueLimits limits = live_owner_->limits();
  if (discard_off_.load(std::memory_order_relaxed)) {
    limits.max_discard_sectors = 0;
  }
  if (write_zeroes_off_.load(std::memory_order_relaxed)) {
    limits.max_write_zeroes_sectors = 0;
  }
  return limits;
}

std::string MappedDevice::numbers() const { return fmt::format("{}:{}", kMapperMajor, minor_); }

Extent MappedDevice::extent(sector_t sector, sector_t max) const {
  const Table::Hold table = hold_table(Slot::kLive);
  if (!table || sector >= table->size()) {
    return {max, false};
  }
  const Target& target = table->find(sector);
  return target.extent(sector, std::min(max, target.end() - sector));
}

void MappedDevice::table_event() {
  event_nr_.fetch_add(1, std::memory_order_acq_rel);
  engine_.notify_event(*this);
}

void MappedDevice::log(std::string_view sentence) {
  engine_.log().add(fmt::format("{}: {}", name(), sentence));
}

std::string MappedDevice::name() const {
  const std::lock_guard<std::mutex> lock(engine_.mutex_);
  return name_;
}

std::string MappedDevice::uuid() const {
  const std::lock_guard<std::mutex> lock(engine_.mutex_);
  return uuid_;
}

void MappedDevice::set_stats(StatsRegions* stats) {
  stats_.store(stats, std::memory_order_release);
}

Status MappedDevice::load(std::span<const TableLine> lines, DeviceMode mode) {
  EngineOpener opener(engine_, *this);
  Table::Options options;
  options.mode = mode;
  options.host = this;
  options.env = &engine_.env();
  options.registry = &engine_.registry();
  options.opener = &opener;
  {
    // As the kernel: only a device's first table is checked at load against what lies below. Later
    // ones are when they go live, when the devices below may have been changed to fit.
    const std::shared_lock<std::shared_mutex> lock(table_mutex_);
    options.check_limits = !typed_;
  }
  Result<std::unique_ptr<Table>> table = Table::load(lines, options);
  if (!table.ok()) {
    return table.status();
  }
  std::unique_ptr<Table> old;
  {
    const std::unique_lock<std::shared_mutex> lock(table_mutex_);
    if (removed()) {
      return {ENXIO, "the device is being removed"};
    }
    const TargetType* fixed = live_owner_ != nullptr ? live_owner_->immutable_type() : nullptr;
    if (fixed != nullptr && (*table)->immutable_type() != fixed &&
        !may_replace_immutable(**table)) {
      return {EINVAL, fmt::format("can't replace immutable target type {}", fixed->name)};
    }
    const std::span<BlockDevice* const> devices = (*table)->devices();
    if (Status status = engine_.set_inactive_dependencies(*this, {devices.begin(), devices.end()});
        !status.ok()) {
      return status;
    }
    old = std::exchange(inactive_, table.take());
    typed_ = true;
  }
  return {};
}

Status MappedDevice::clear() {
  std::unique_ptr<Table> old;
  const std::unique_lock<std::shared_mutex> lock(table_mutex_);
  if (removed()) {
    return {ENXIO, "the device is being removed"};
  }
  old = std::move(inactive_);
  return engine_.set_inactive_dependencies(*this, {});
}

// Suspend and resume ------------------------------------------------------------------------------

// Who has the mutex may be waiting for I/O that never ends.
std::unique_lock<std::mutex> MappedDevice::lock_control(const std::function<bool()>& interrupted) {
  if (!interrupted) {
    return std::unique_lock<std::mutex>(control_mutex_);
  }
  std::unique_lock<std::mutex> control(control_mutex_, std::try_to_lock);
  while (!control.owns_lock() && !interrupted()) {
    std::unique_lock<std::mutex> lock(deferred_mutex_);
    idle_cv_.wait_for(lock, kDrainPoll);
    lock.unlock();
    control.try_lock();
  }
  return control;
}

Status MappedDevice::suspend(const SuspendOptions& options) {
  const std::unique_lock<std::mutex> lock = lock_control(options.interrupted);
  if (!lock.owns_lock()) {
    return {EINTR, "interrupted while another operation kept the device"};
  }
  return suspend_locked(options);
}

Status MappedDevice::suspend_locked(const SuspendOptions& options) {
  if (removed()) {
    return {ENXIO, "the device is being removed"};
  }
  if (suspended_.load(std::memory_order_acquire)) {
    return {};
  }
  if (Status status = bar_bypass(); !status.ok()) {
    return status;
  }
  // The live table changes only under control_mutex_, which is held: no table lock is needed, and
  // a drain that takes long must not hold up queries.
  const Table* table = live_.load(std::memory_order_acquire);
  noflush_suspending_.store(options.noflush, std::memory_order_release);
  if (table != nullptr) {
    table->presuspend();
  }
  hold();
  if (!wait_idle(options.interrupted)) {
    if (table != nullptr) {
      table->presuspend_undo();
    }
    noflush_suspending_.store(false, std::memory_order_release);
    release();
    allow_bypass();
    return {EINTR, "interrupted while waiting for I/O in flight; the device runs on"};
  }
  if (table != nullptr) {
    table->postsuspend();
  }
  suspended_.store(true, std::memory_order_release);
  return {};
}

Status MappedDevice::resume(const SuspendOptions& options) {
  const std::lock_guard<std::mutex> lock(control_mutex_);
  return resume_locked(options);
}

Status MappedDevice::resume_locked(const SuspendOptions& options) {
  if (removed()) {
    return {ENXIO, "the device is being removed"};
  }
  bool swap = false;
  {
    const std::shared_lock<std::shared_mutex> lock(table_mutex_);
    swap = inactive_ != nullptr;
  }
  if (!swap && !suspended_.load(std::memory_order_acquire)) {
    return {};
  }
  if (!swap && live_.load(std::memory_order_acquire) == nullptr) {
    return {EINVAL, "cannot resume: the device has no table"};
  }
  std::unique_ptr<Table> old;
  if (swap) {
    if (Status status = suspend_locked(options); !status.ok()) {
      return status;
    }
    Result<std::unique_ptr<Table>> swapped = swap_in_inactive();
    if (!swapped.ok()) {
      return swapped.status();  // as the kernel: suspended, with the old table
    }
    old = swapped.take();
  }
  const Table* table = live_.load(std::memory_order_acquire);
  if (table == nullptr) {
    return {EINVAL, "cannot resume: the inactive table was cleared meanwhile"};
  }
  if (Status status = table->preresume(); !status.ok()) {
    return status;  // as the kernel: suspended, with the new table live
  }
  table->resume();
  noflush_suspending_.store(false, std::memory_order_release);
  suspended_.store(false, std::memory_order_release);
  release();
  allow_bypass();
  return {};
}

// Nothing is in flight and nothing enters; the counters may say otherwise for the moment in which a
// bio counts itself in, sees the hold and counts itself out again. The old table comes back, to be
// destroyed after the resume. A table that does not fit what lies below it is dropped.
Result<std::unique_ptr<Table>> MappedDevice::swap_in_inactive() {
  std::unique_ptr<Table> old;
  std::size_t old_dependencies = 0;
  bool resized = false;
  {
    const std::unique_lock<std::shared_mutex> lock(table_mutex_);
    if (inactive_ == nullptr) {
      return old;  // cleared meanwhile
    }
    // As the kernel: who stands on the device goes on with the limits that it knows while the
    // devices below are away, and nothing has to fit anywhere.
    if (live_owner_ != nullptr && inactive_->lacks_data_devices()) {
      inactive_->keep_limits(limits_locked());
    } else if (Status status = inactive_->calculate_limits(); !status.ok()) {
      old = std::move(inactive_);
      engine_.set_inactive_dependencies(*this, {}).ignore();  // nothing stands on nothing
      return status;
    }
    old = std::exchange(live_owner_, std::move(inactive_));
    old_dependencies = engine_.add_dependencies_live(*this);
    live_.store(live_owner_.get(), std::memory_order_release);
    read_only_.store(live_owner_->mode() == DeviceMode::kReadOnly, std::memory_order_release);
    resized = size_.exchange(live_owner_->size(), std::memory_order_acq_rel) != live_owner_->size();
    if (resized) {
      geometry_ = {};
    }
    discard_off_.store(false, std::memory_order_relaxed);
    write_zeroes_off_.store(false, std::memory_order_relaxed);
  }
  if (resized && engine_.observer_ != nullptr) {
    engine_.observer_->device_resized(*this);
  }
  if (old != nullptr) {
    old->wait_unheld();  // no message to a target that its successor replaces
  }
  engine_.drop_dependencies(*this, old_dependencies);
  return old;
}

Status MappedDevice::wipe_table(const SuspendOptions& options) {
  const sector_t size = size_sectors();
  if (size == 0) {
    return {EINVAL, "the device has no table to wipe"};
  }
  if (bypassed()) {
    return busy_with_bypass();  // before the inactive table is replaced
  }
  const TableLine line = {0, size, "error", ""};
  const DeviceMode mode = read_only() ? DeviceMode::kReadOnly : DeviceMode::kReadWrite;
  if (Status status = load({&line, 1}, mode); !status.ok()) {
    return status;
  }
  return resume(options);
}

// Past the engine --------------------------------------------------------------------------------

Result<int> MappedDevice::begin_bypass() {
  const std::shared_lock<std::shared_mutex> lock(table_mutex_);
  if (live_owner_ == nullptr) {
    return Status(EOPNOTSUPP, "the device has no table");
  }
  if (live_owner_->mode() == DeviceMode::kReadOnly) {
    return Status(EOPNOTSUPP, "the table is read-only, which the kernel would not know");
  }
  const std::size_t targets = live_owner_->targets().size();
  if (targets != 1) {
    return Status(EOPNOTSUPP, fmt::format("the table has {} targets, not one", targets));
  }
  Result<int> file = live_owner_->targets().front()->whole_file();
  const std::lock_guard<std::mutex> bypass(bypass_mutex_);
  if (file.ok() && bypass_barred_) {
    return Status(EOPNOTSUPP, "the device was suspended");
  }
  bypasses_ += file.ok() ? 1 : 0;
  return file;
}

void MappedDevice::end_bypass() {
  const std::lock_guard<std::mutex> lock(bypass_mutex_);
  MFS_ASSERT(bypasses_ > 0);
  --bypasses_;
}

bool MappedDevice::bypassed() const {
  const std::lock_guard<std::mutex> lock(bypass_mutex_);
  return bypasses_ > 0;
}

Status MappedDevice::bar_bypass() {
  const std::lock_guard<std::mutex> lock(bypass_mutex_);
  if (bypasses_ > 0) {
    return busy_with_bypass();
  }
  bypass_barred_ = true;
  return {};
}

void MappedDevice::allow_bypass() {
  const std::lock_guard<std::mutex> lock(bypass_mutex_);
  bypass_barred_ = false;
}

void MappedDevice::destroy() {
  removed_.store(true, std::memory_order_release);
  {
    // Under the mutex, or one who has just looked would sleep through it.
    const std::lock_guard<std::mutex> lock(deferred_mutex_);
    open_cv_.notify_all();
  }
  std::unique_ptr<Table> live;
  std::unique_ptr<Table> inactive;
  {
    const std::lock_guard<std::mutex> control(control_mutex_);
    const Table* table = live_.load(std::memory_order_acquire);
    if (!suspended_.load(std::memory_order_acquire)) {
      if (table != nullptr) {
        table->presuspend();
      }
      hold();
      wait_idle({});
      if (table != nullptr) {
        table->postsuspend();
      }
    }
    const std::unique_lock<std::shared_mutex> lock(table_mutex_);
    live_.store(nullptr, std::memory_order_release);
    live = std::move(live_owner_);
    inactive = std::move(inactive_);
  }
  BioList list;
  {
    const std::lock_guard<std::mutex> lock(deferred_mutex_);
    list.swap(deferred_);
  }
  while (Bio* bio = list.pop_front()) {
    bio->end_io(BlkStatus::kIoError);
  }
}

// Messages and queries ---------------------------------------------------------------------------

Result<std::string> MappedDevice::message(sector_t sector, std::span<const std::string_view> argv) {
  if (argv.empty() || argv.front().empty()) {
    return Status(EINVAL, "Empty message received.");
  }
  if (same_word(argv.front(), "@cancel_deferred_remove")) {
    if (argv.size() != 1) {
      return Status(EINVAL, fmt::format("Invalid arguments for @cancel_deferred_remove: {} words, "
                                        "it takes none",
                                        argv.size() - 1));
    }
    if (Status status = engine_.cancel_deferred_remove(name()); !status.ok()) {
      return status;
    }
    return std::string();
  }
  if (argv.front().front() == '@') {
    return stats_owner_->message(argv);  // which also refuses what nobody knows
  }
  const Table::Hold table = hold_table(Slot::kLive);
  if (removed()) {
    return Status(ENXIO, "the device is being removed");
  }
  if (!table) {
    return Status(EINVAL, "The device has no table.");
  }
  if (sector >= table->size()) {
    return Status(EINVAL, fmt::format("Target message sector outside device: {} is not below {}",
                                      sector, table->size()));
  }
  Target& target = table->find(sector);
  Result<std::string> reply = target.message(argv);
  if (!reply.ok()) {
    return reply.status().with_context(target.ti().type->name);
  }
  return reply;
}

Status MappedDevice::set_geometry(const Geometry& geometry) {
  const std::unique_lock<std::shared_mutex> lock(table_mutex_);
  if (geometry.cylinders > 65535 || geometry.heads > 255 || geometry.sectors > 255) {
    return {EINVAL, fmt::format("Geometry exceeds range limits: {} cylinders (at most 65535), {} "
                                "heads (255), {} sectors (255)",
                                geometry.cylinders, geometry.heads, geometry.sectors)};
  }
  const std::uint64_t sectors = geometry.cylinders * geometry.heads * geometry.sectors;
  if (geometry.start > sectors) {
    return {EINVAL, fmt::format("Start sector is beyond the geometry limits: {} is above {}",
                                geometry.start, sectors)};
  }
  geometry_ = geometry;
  return {};
}

std::vector<MappedDevice::StatusLine> MappedDevice::table_lines(Slot slot, bool show_keys) const {
  std::vector<StatusLine> lines;
  if (const Table::Hold table = hold_table(slot)) {
    lines.reserve(table->targets().size());
    for (const auto& target : table->targets()) {
      lines.push_back({target->begin(), target->ti().len, std::string(target->ti().type->name),
                       target->table(show_keys)});
    }
  }
  return lines;
}

std::vector<MappedDevice::StatusLine> MappedDevice::status_lines(Slot slot, bool noflush) const {
  std::vector<StatusLine> lines;
  if (const Table::Hold table = hold_table(slot)) {
    const bool keep = noflush || suspended_.load(std::memory_order_acquire);
    lines.reserve(table->targets().size());
    for (const auto& target : table->targets()) {
      lines.push_back({target->begin(), target->ti().len, std::string(target->ti().type->name),
                       target->status(keep)});
    }
  }
  return lines;
}

std::vector<MappedDevice::Dependency> MappedDevice::dependencies(Slot slot) const {
  const std::shared_lock<std::shared_mutex> lock(table_mutex_);
  std::vector<Dependency> dependencies;
  if (const Table* table = slot_table(slot)) {
    for (const BlockDevice* dev : table->devices()) {
      dependencies.push_back({dev->numbers(), dev->table_name()});
    }
  }
  std::reverse(dependencies.begin(), dependencies.end());
  return dependencies;
}

MappedDevice::Info MappedDevice::info() const {
  Info info;
  {
    const std::shared_lock<std::shared_mutex> lock(table_mutex_);
    info.live = live_owner_ != nullptr;
    info.inactive = inactive_ != nullptr;
    info.targets = info.live ? live_owner_->targets().size() : 0;
  }
  info.suspended = suspended_.load(std::memory_order_acquire);
  info.read_only = read_only();
  info.event_nr = event_nr();
  info.size = size_sectors();
  const std::lock_guard<std::mutex> lock(engine_.mutex_);
  info.open_count = open_count_;
  info.deferred_remove = deferred_remove_;
  return info;
}

}  // namespace mapperfs
