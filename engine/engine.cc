#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <unordered_set>
#include <utility>

namespace mapperfs {

namespace {

// The kernel's largest: 12 bits of a device number.
constexpr std::uint64_t kMaxMajor = 4095;

Status no_such_device(const std::string& name) {
  return {ENXIO, fmt::format("there is no mapped device \"{}\"", name)};
}

}  // namespace

// Lengths of the chains of mapped devices that stand on one another, through live and inactive
// tables. Each device is walked once, however many ways lead to it. The engine's mutex is held for
// as long as a walk lives.
class Engine::StackWalk {
 public:
  static constexpr int kNone = -1;

  // To the lowest device that any way leads to.
  StackWalk() = default;
  // To `end` alone.
  explicit StackWalk(const MappedDevice& end) : end_(&end) {}

  // Steps down from `device` on the longest way, or kNone where no way ends at `end`.
  int below(const MappedDevice& device) {
    if (&device == end_) {
      return 0;
    }
    const auto [it, first_time] = known_.try_emplace(&device, kNone);
    if (!first_time) {
      return it->second;
    }
    int longest = end_ == nullptr ? 0 : kNone;
    for (const auto* deps : {&device.live_deps_, &device.inactive_deps_}) {
      for (const BlockDevice* dep : *deps) {
        if (const MappedDevice* lower = dep->mapped()) {
          const int steps = below(*lower);
          longest = std::max(longest, steps == kNone ? kNone : steps + 1);
        }
      }
    }
    return known_[&device] = longest;
  }

 private:
  const MappedDevice* end_ = nullptr;
  std::unordered_map<const MappedDevice*, int> known_;
};

// An opening of a mapped device by a table of another one.
class Engine::MappedHolder final : public DevRef::Holder {
 public:
  MappedHolder(Engine& engine, std::shared_ptr<MappedDevice> device)
      : engine_(engine), device_(std::move(device)) {}
  ~MappedHolder() override { engine_.drop_open(*device_); }
  [[nodiscard]] BlockDevice& device() const override { return *device_; }

 private:
  Engine& engine_;
  const std::shared_ptr<MappedDevice> device_;
};

Engine::Engine(Env& env, const TargetRegistry& registry, BackingOpener& backing)
    : env_(env), registry_(registry), backing_(backing) {}

Engine::~Engine() {
  while (!shut_down().empty()) {  // a bio under way must not come back to nothing
  }
}

Status Engine::check_name(const std::string& name) {
  if (name.empty()) {
    return {EINVAL, "the device name is empty"};
  }
  if (name.size() > kMaxNameBytes) {
    return {EINVAL, fmt::format("device name \"{}\" is too long: {} bytes, at most {}", name,
                                name.size(), kMaxNameBytes)};
  }
  if (name.find('/') != std::string::npos) {
    return {EINVAL, fmt::format("device name \"{}\" cannot contain '/'", name)};
  }
  if (name.find('\0') != std::string::npos || name.find('\n') != std::string::npos) {
    return {EINVAL, "a device name cannot contain a NUL byte or a newline"};
  }
  // The mount's own files: in its root, and in `sys` beside the devices' folders.
  constexpr std::array<std::string_view, 7> kTaken = {"control", "sys", "log", "targets",
                                                      "version", ".",   ".."};
  if (std::find(kTaken.begin(), kTaken.end(), name) != kTaken.end()) {
    return {EINVAL, fmt::format("device name cannot be \"{}\": \"{}\" is taken",
                                fmt::join(kTaken, "\", \""), name)};
  }
  return {};
}

Result<std::shared_ptr<MappedDevice>> Engine::create(const std::string& name,
                                                     const CreateOptions& options) {
  if (Status status = check_name(name); !status.ok()) {
    return status;
  }
  if (options.uuid.size() > kMaxUuidBytes) {
    return Status(EINVAL, fmt::format("uuid \"{}\" is too long: {} bytes, at most {}", options.uuid,
                                      options.uuid.size(), kMaxUuidBytes));
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (by_name_.contains(name)) {
    return Status(EBUSY, fmt::format("a mapped device \"{}\" exists already", name));
  }
  if (!options.uuid.empty() && by_uuid_.contains(options.uuid)) {
    return Status(EBUSY, fmt::format("uuid \"{}\" belongs to mapped device \"{}\" already",
                                     options.uuid, by_uuid_.at(options.uuid)->name_));
  }
  if (options.minor >= 0 && static_cast<unsigned>(options.minor) >= kMaxMinors) {
    return Status(ENXIO, fmt::format("minor {} is not below {}", options.minor, kMaxMinors));
  }
  if (options.minor >= 0 && by_minor_.contains(static_cast<unsigned>(options.minor))) {
    return Status(ENXIO, fmt::format("minor {} is taken by mapped device \"{}\"", options.minor,
                                     by_minor_.at(static_cast<unsigned>(options.minor))->name_));
  }
  unsigned minor = options.minor >= 0 ? static_cast<unsigned>(options.minor) : next_minor_hint_;
  while (by_minor_.contains(minor)) {
    ++minor;
  }
  if (minor >= kMaxMinors) {
    return Status(EBUSY, fmt::format("all {} minor numbers are taken", kMaxMinors));
  }
  if (options.minor < 0) {
    next_minor_hint_ = minor + 1;
  }
  auto device = std::make_shared<MappedDevice>(*this, next_serial_++, minor, name, options.uuid);
  by_name_.emplace(name, device);
  by_serial_.emplace(device->serial(), device.get());
  by_minor_.emplace(minor, device.get());
  if (!options.uuid.empty()) {
    by_uuid_.emplace(options.uuid, device.get());
  }
  return device;
}

std::shared_ptr<MappedDevice> Engine::find_locked(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it != by_name_.end() ? it->second : nullptr;
}

Result<std::shared_ptr<MappedDevice>> Engine::find(const std::string& name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (std::shared_ptr<MappedDevice> device = find_locked(name)) {
    return device;
  }
  return no_such_device(name);
}

std::shared_ptr<MappedDevice> Engine::find_serial(std::uint64_t serial) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = by_serial_.find(serial);
  return it != by_serial_.end() ? find_locked(it->second->name_) : nullptr;
}

std::vector<std::shared_ptr<MappedDevice>> Engine::list() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<MappedDevice>> devices;
  devices.reserve(by_name_.size());
  for (const auto& [name, device] : by_name_) {
    devices.push_back(device);
  }
  return devices;
}

// By depth, then by name: whoever stands on another one is deeper than it.
std::vector<std::shared_ptr<MappedDevice>> Engine::list_bottom_up() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::pair<int, std::shared_ptr<MappedDevice>>> order;
  order.reserve(by_name_.size());
  StackWalk walk;
  for (const auto& [name, device] : by_name_) {
    order.emplace_back(walk.below(*device), device);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::shared_ptr<MappedDevice>> devices;
  devices.reserve(order.size());
  for (auto& [depth, device] : order) {
    devices.push_back(std::move(device));
  }
  return devices;
}

// The names go first, so that nobody opens it any more. The caller then destroys it without the
// mutex.
void Engine::unlink_locked(MappedDevice& device) {
  if (!device.uuid_.empty()) {
    by_uuid_.erase(device.uuid_);
  }
  by_serial_.erase(device.serial());
  by_minor_.erase(device.minor());
  next_minor_hint_ = std::min(next_minor_hint_, device.minor());
  by_name_.erase(device.name_);
}

Status Engine::remove(const std::string& name, bool deferred) {
  std::shared_ptr<MappedDevice> device;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    device = find_locked(name);
    if (device == nullptr) {
      return no_such_device(name);
    }
    if (deferred && device->open_count_ > 0) {
      device->deferred_remove_ = true;
      return {};
    }
    if (device->open_count_ > 0) {
      return {EBUSY, fmt::format("mapped device \"{}\" is in use: open count {}", name,
                                 device->open_count_)};
    }
    unlink_locked(*device);
  }
  finish_removal(*device);
  return {};
}

void Engine::finish_removal(MappedDevice& device) {
  device.destroy();
  device.table_event();  // wakes who waits
  if (observer_ != nullptr) {
    observer_->device_removed(device, device.name());
  }
}

Status Engine::remove_all(bool deferred) {
  bool progress = true;
  while (progress) {
    progress = false;
    for (const auto& device : list()) {
      progress |= remove(device->name(), false).ok();
    }
  }
  if (deferred) {
    for (const auto& device : list()) {
      remove(device->name(), true).ignore();  // one that went meanwhile is what was wanted
    }
  }
  return {};
}

Status Engine::cancel_deferred_remove(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::shared_ptr<MappedDevice> device = find_locked(name);
  if (device == nullptr) {
    return no_such_device(name);
  }
  device->deferred_remove_ = false;
  return {};
}

Status Engine::rename(const std::string& from, const std::string& to) {
  std::shared_ptr<MappedDevice> device;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (Status status = check_name(to); !status.ok()) {
      return status;
    }
    if (by_name_.contains(to)) {
      return {EBUSY, fmt::format("Unable to change name on mapped device {} to one that already "
                                 "exists: {}",
                                 from, to)};
    }
    device = find_locked(from);
    if (device == nullptr) {
      return {ENXIO, fmt::format("Unable to rename non-existent device, {} to {}", from, to)};
    }
    by_name_.erase(from);
    device->name_ = to;
    by_name_.emplace(to, device);
  }
  if (observer_ != nullptr) {
    observer_->device_renamed(*device, from);
  }
  device->table_event();
  return {};
}

Status Engine::set_uuid(const std::string& name, const std::string& uuid) {
  std::shared_ptr<MappedDevice> device;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    device = find_locked(name);
    if (device == nullptr) {
      return no_such_device(name);
    }
    if (uuid.empty() || uuid.size() > kMaxUuidBytes) {
      return {EINVAL,
              fmt::format("a uuid has 1 to {} bytes, this one {}", kMaxUuidBytes, uuid.size())};
    }
    if (by_uuid_.contains(uuid)) {
      return {EBUSY, fmt::format("uuid \"{}\" belongs to mapped device \"{}\" already", uuid,
                                 by_uuid_.at(uuid)->name_)};
    }
    if (!device->uuid_.empty()) {
      return {EINVAL, fmt::format("Unable to change uuid of mapped device {} to {} because uuid "
                                  "is already set to {}",
                                  name, uuid, device->uuid_)};
    }
    device->uuid_ = uuid;
    by_uuid_.emplace(uuid, device.get());
  }
  device->table_event();
  return {};
}

Status Engine::open(MappedDevice& device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!by_serial_.contains(device.serial())) {
    return {ENXIO, fmt::format("mapped device \"{}\" is being removed", device.name_)};
  }
  ++device.open_count_;
  return {};
}

void Engine::close(MappedDevice& device) { drop_open(device); }

void Engine::drop_open(MappedDevice& device) {
  std::shared_ptr<MappedDevice> last;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    MFS_ASSERT(device.open_count_ > 0);
    --device.open_count_;
    if (device.open_count_ > 0 || !device.deferred_remove_) {
      return;
    }
    last = find_locked(device.name_);
    if (last.get() != &device) {
      return;  // shut_down() was first
    }
    unlink_locked(device);
  }
  finish_removal(*last);
}

// What can be no device whatever there is: its own sentence, since "no such file" would have the
// user look for one.
Status Engine::check_word(const std::string& word) {
  const std::size_t scheme = word.find("://");
  if (scheme != std::string::npos && scheme != 0 &&
      std::all_of(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(scheme), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+';
      })) {
    return {ENOENT, fmt::format("\"{}\" is a URI, and devices are paths, MAJOR:MINOR or names of "
                                "mapped devices: \"{}\" is not supported",
                                word, word.substr(0, scheme))};
  }
  const std::size_t colon = word.find(':');
  std::uint64_t major = 0;
  std::uint64_t minor = 0;
  if (colon != std::string::npos && parse_decimal(std::string_view(word).substr(0, colon), major) &&
      parse_decimal(std::string_view(word).substr(colon + 1), minor) &&
      (major > kMaxMajor || minor >= kMaxMinors)) {
    return {EOVERFLOW, fmt::format("there is no device {}: major numbers are at most {}, minor "
                                   "numbers at most {}",
                                   word, kMaxMajor, kMaxMinors - 1)};
  }
  return {};
}

Result<DevRef> Engine::open_word(const std::string& word, DeviceMode mode,
                                 MappedDevice& for_device) {
  const std::string name =
      word.find('/') != std::string::npos ? backing_.own_mount_name(word) : word;
  const bool inside = name != word;
  std::shared_ptr<MappedDevice> device;
  if (!name.empty()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    device = find_locked(name);
    unsigned minor = 0;
    if (device == nullptr && parse_mapped_number(word, minor)) {
      const auto it = by_minor_.find(minor);
      device = it != by_minor_.end() ? find_locked(it->second->name_) : nullptr;
      if (device == nullptr) {
        return Status(ENXIO, fmt::format("there is no mapped device {}", word));
      }
    }
    if (device != nullptr) {
      if (device.get() == &for_device) {
        return Status(EINVAL, fmt::format("\"{}\" is the mapped device itself", word));
      }
      ++device->open_count_;
    }
  }
  if (device != nullptr) {
    return DevRef(std::make_shared<MappedHolder>(*this, std::move(device)));
  }
  if (inside && !name.empty()) {
    return Status(ENOENT, fmt::format("\"{}\" is inside this mount, which has no mapped device "
                                      "\"{}\"",
                                      word, name));
  }
  if (Status status = check_word(word); !status.ok()) {
    return status;
  }
  return backing_.open(word, mode);
}

bool Engine::parse_mapped_number(const std::string& word, unsigned& minor) {
  const std::string prefix = fmt::format("{}:", kMapperMajor);
  std::uint64_t value = 0;
  if (!word.starts_with(prefix) ||
      !parse_decimal(std::string_view(word).substr(prefix.size()), value) || value >= kMaxMinors) {
    return false;
  }
  minor = static_cast<unsigned>(value);
  return true;
}

// Who stands on whom -----------------------------------------------------------------------------

// How many mapped devices stand on `device`, one on the other.
int Engine::above_locked(const MappedDevice& device) const {
  int highest = 0;
  if (device.open_count_ > 0) {  // else no table has it open
    StackWalk walk(device);
    for (const auto& [name, other] : by_name_) {
      highest = std::max(highest, walk.below(*other));
    }
  }
  return highest;
}

Status Engine::set_inactive_dependencies(MappedDevice& device, std::vector<BlockDevice*> deps) {
  const std::lock_guard<std::mutex> lock(mutex_);
  StackWalk to_device(device);
  StackWalk down;
  int above = -1;  // not known yet: most tables stand on no mapped device
  for (const BlockDevice* dep : deps) {
    const MappedDevice* below = dep->mapped();
    if (below == nullptr) {
      continue;
    }
    if (to_device.below(*below) != StackWalk::kNone) {
      return {EINVAL, fmt::format("mapped device \"{}\" stands on \"{}\": the table would close a "
                                  "cycle",
                                  below->name_, device.name_)};
    }
    if (above < 0) {
      above = above_locked(device);
    }
    const auto depth = static_cast<unsigned>(above + 2 + down.below(*below));
    if (depth > kMaxDepth) {
      return {EINVAL, fmt::format("mapped devices would be stacked {} deep on \"{}\", at most {}",
                                  depth, below->name_, kMaxDepth)};
    }
  }
  device.inactive_deps_ = std::move(deps);
  return {};
}

std::size_t Engine::add_dependencies_live(MappedDevice& device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::size_t before = device.live_deps_.size();
  device.live_deps_.insert(device.live_deps_.end(), device.inactive_deps_.begin(),
                           device.inactive_deps_.end());
  device.inactive_deps_.clear();
  return before;
}

void Engine::drop_dependencies(MappedDevice& device, std::size_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  MFS_ASSERT(count <= device.live_deps_.size());
  const auto first = device.live_deps_.begin();
  device.live_deps_.erase(first, first + static_cast<std::ptrdiff_t>(count));
}

void Engine::notify_event(MappedDevice& device) {
  if (observer_ != nullptr) {
    observer_->device_event(device);
  }
}

void Engine::end(MappedDevice& device) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (find_locked(device.name_).get() != &device) {
      return;
    }
    unlink_locked(device);
  }
  finish_removal(device);
}

bool Engine::quiesce(MappedDevice& device, std::uint64_t until_ns) {
  SuspendOptions options;
  options.interrupted = [&] { return env_.now_ns() >= until_ns; };
  const Status status = device.suspend(options);
  // EBUSY: the kernel reads and writes its file past us, and goes on with that whatever we do.
  return status.ok() || status.error() == ENXIO ||
         (status.error() == EBUSY && device.falls_idle(until_ns));
}

std::vector<std::string> Engine::shut_down(std::uint64_t patience_ns) {
  const std::vector<std::shared_ptr<MappedDevice>> devices = list_bottom_up();
  const std::uint64_t until_ns = env_.now_ns() + patience_ns;
  // The last moment for a device, at least a little later than now: one whose I/O never ends must
  // not cost the next one its chance.
  const auto last_moment = [&] {
    return std::max(until_ns + patience_ns, env_.now_ns() + patience_ns / 64);
  };
  // From below, who keeps bios that the devices above would wait for without end.
  for (const auto& device : devices) {
    SuspendOptions options;
    options.noflush = true;
    options.interrupted = [&, end_ns = last_moment()] { return env_.now_ns() >= end_ns; };
    if (device->info().suspended ||
        (!device->falls_idle(until_ns) && device->suspend(options).ok())) {
      end(*device);
    }
  }
  std::vector<std::string> left;
  for (auto it = devices.rbegin(); it != devices.rend(); ++it) {
    if (quiesce(**it, last_moment())) {
      end(**it);
    } else {
      left.push_back((*it)->name());
    }
  }
  return left;
}

}  // namespace mapperfs
