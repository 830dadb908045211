// What the file system remembers about a device that the engine has no use for: owner and mode of
// its file, whether its tables are to be loaded read-only, who is to serve it. Only devices that
// differ from the default have a note, so that ten thousand devices cost nothing here.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

namespace mapperfs {

struct DeviceNote {
  bool load_read_only = false;
  std::optional<mode_t> mode;  // permission bits
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<bool> passthrough;  // else as the mount says
  // Why the last open that wanted passthrough did not get it.
  std::string not_passed;
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
  // Whether the kernel is to serve the device's file itself, where it can.
  [[nodiscard]] bool wants_passthrough(std::uint64_t serial) const {
    return get(serial).passthrough.value_or(passthrough_.load(std::memory_order_relaxed));
  }
  void set_default_passthrough(bool on) { passthrough_.store(on, std::memory_order_relaxed); }
  // The device has another table: the next open is another question.
  void forget_not_passed(std::uint64_t serial) {
    const std::lock_guard lock(mutex_);
    const auto at = notes_.find(serial);
    if (at != notes_.end()) {
      at->second.not_passed.clear();
    }
  }
  void forget(std::uint64_t serial) {
    const std::lock_guard lock(mutex_);
    notes_.erase(serial);
  }

 private:
  std::atomic<bool> passthrough_{false};
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, DeviceNote> notes_;
};

}  // namespace mapperfs
