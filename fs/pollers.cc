#include "fs/pollers.h"

#include <fuse_lowlevel.h>

#include <algorithm>
#include <utility>

namespace mapperfs {

void PollHandleDelete::operator()(fuse_pollhandle* handle) const {
  fuse_pollhandle_destroy(handle);
}

void Pollers::remember(std::uint64_t serial, const void* key, PollHandle handle) {
  const std::lock_guard lock(mutex_);
  std::vector<Entry>& entries = waiting_[serial];
  const auto at = std::find_if(entries.begin(), entries.end(),
                               [&](const Entry& entry) { return entry.key == key; });
  std::shared_ptr<fuse_pollhandle> shared = std::move(handle);
  if (at != entries.end()) {
    at->handle = std::move(shared);
  } else {
    entries.push_back({key, std::move(shared)});
  }
}

void Pollers::forget(std::uint64_t serial, const void* key) {
  const std::lock_guard lock(mutex_);
  const auto device = waiting_.find(serial);
  if (device == waiting_.end()) {
    return;
  }
  std::erase_if(device->second, [&](const Entry& entry) { return entry.key == key; });
  if (device->second.empty()) {
    waiting_.erase(device);
  }
}

void Pollers::wake(std::uint64_t serial) {
  {
    const std::lock_guard lock(mutex_);
    if (!waiting_.contains(serial)) {
      return;
    }
  }
  worker_->post([this, serial] { wake_now(serial); });
}

void Pollers::wake_now(std::uint64_t serial) {
  std::vector<std::shared_ptr<fuse_pollhandle>> handles;
  {
    const std::lock_guard lock(mutex_);
    const auto device = waiting_.find(serial);
    if (device != waiting_.end()) {
      for (const Entry& entry : device->second) {
        handles.push_back(entry.handle);
      }
    }
  }
  for (const auto& handle : handles) {
    // Fails only where the file was closed meanwhile: then nobody waits.
    static_cast<void>(fuse_lowlevel_notify_poll(handle.get()));
  }
}

}  // namespace mapperfs
