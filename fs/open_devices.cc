#include "fs/open_devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace mapperfs {

Result<std::unique_ptr<OpenDevice>> OpenDevices::open(const std::shared_ptr<MappedDevice>& device) {
  Status status = engine_.open(*device);
  if (!status.ok()) {
    return status;
  }
  auto open = std::make_unique<OpenDevice>();
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<SharedDevice>& shared = shared_[device->serial()];
    if (shared == nullptr) {
      shared = std::make_shared<SharedDevice>();
      shared->device = device;
    }
    ++shared->opens;
    open->shared = shared;
  }
  refresh(*device);
  settle_who_serves(*open);
  return open;
}

void OpenDevices::settle_who_serves(OpenDevice& open) {
  SharedDevice& shared = *open.shared;
  const std::lock_guard lock(shared.served_mutex);
  const std::uint64_t serial = shared.device->serial();
  if (!shared.served_settled && notes_.wants_passthrough(serial)) {
    Result<std::unique_ptr<PassthroughFile>> file = passthrough_.begin(shared.device);
    const std::string why = file.ok() ? std::string() : file.status().message();
    // Said once, not at every open.
    if (!file.ok() && why != notes_.get(serial).not_passed) {
      shared.device->log(fmt::format("no passthrough, the engine serves it: {}", why));
    }
    notes_.update(serial, [&](DeviceNote& note) { note.not_passed = why; });
    if (file.ok()) {
      shared.passthrough = file.take();
    }
  }
  shared.served_settled = true;
  open.passthrough_id = shared.passthrough != nullptr ? shared.passthrough->id() : 0;
}

void OpenDevices::begin_close(OpenDevice& open) {
  set_flushed(open, false);
  const std::lock_guard lock(mutex_);
  ++open.shared->closing;
}

void OpenDevices::end_close(const OpenDevice& open) {
  engine_.close(*open.shared->device);
  const std::lock_guard lock(mutex_);
  --open.shared->closing;
  if (--open.shared->opens == 0) {
    // No other open has it any more. Now, since who waits for the closes wants the table free.
    open.shared->passthrough.reset();
    shared_.erase(open.shared->device->serial());
  }
  closed_cv_.notify_all();
}

void OpenDevices::set_flushed(OpenDevice& open, bool flushed) {
  const std::lock_guard lock(mutex_);
  if (open.flushed.exchange(flushed, std::memory_order_relaxed) != flushed) {
    open.shared->flushed += flushed ? 1 : -1;
  }
}

bool OpenDevices::await_closes(const MappedDevice& device) {
  std::unique_lock lock(mutex_);
  const auto at = shared_.find(device.serial());
  if (at == shared_.end()) {
    // Perhaps the last one closed between the refusal and now.
    return true;
  }
  const std::shared_ptr<SharedDevice> shared = at->second;
  const bool all_due = shared->closing + shared->flushed >= shared->opens;
  return closed_cv_.wait_for(lock, all_due ? kAwaitFlushed : kAwaitOthers,
                             [&] { return shared->opens == 0; });
}

void OpenDevices::end_passthrough() {
  const std::lock_guard lock(mutex_);
  for (const auto& [serial, shared] : shared_) {
    shared->passthrough.reset();
  }
}

void OpenDevices::refresh(const MappedDevice& device) {
  std::shared_ptr<SharedDevice> shared;
  {
    const std::lock_guard lock(mutex_);
    const auto at = shared_.find(device.serial());
    if (at == shared_.end()) {
      return;
    }
    shared = at->second;
  }
  const std::uint32_t block = std::max<std::uint32_t>(device.limits().logical_block_size, 512);
  shared->block_bytes.store(block, std::memory_order_relaxed);
}

}  // namespace mapperfs
