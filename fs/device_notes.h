// What the file system remembers about a device that the engine has no use for: owner and mode of
// its file, and whether its tables are to be loaded read-only. Only devices that differ from the
// default have a note, so that ten thousand devices cost nothing here.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace mapperfs {

struct DeviceNote {
  bool load_read_only = false;
  std::optional<mode_t> mode;  // permission bits
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
};

// Keyed by the device's serial. Any thread.
class DeviceNotes {
 public:
  [[nodiscard]] DeviceNote get(std::uint64_t serial) const {
    const std::lock_guard lock(mutex_);
    const auto at = notes_.find(serial);
    return at == notes_.end() ? DeviceNote() : at->second;
  }
  // Calls change(note) under the lock.
  template <typename Change>
  void update(std::uint64_t serial, const Change& change) {
    const std::lock_guard lock(mutex_);
    change(notes_[serial]);
  }
  void forget(std::uint64_t serial) {
    const std::lock_guard lock(mutex_);
    notes_.erase(serial);
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, DeviceNote> notes_;
};

}  // namespace mapperfs
