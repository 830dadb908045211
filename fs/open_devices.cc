#include "fs/open_devices.h"

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
  return open;
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
