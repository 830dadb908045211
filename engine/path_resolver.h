// Finds out where a path leads without ever entering the own mount.
//
// A table may name a device by its path in the mount of this very process ("/mnt/disk"). Any system
// call that reaches the mount would have to be answered by the thread that makes it: a deadlock.
// The kernel follows symlinks unasked, so the walk is done here, component by component: readlink
// on each prefix, and before that a look whether the prefix is the own mount. Mounts of it in other
// places (bind mounts, of a part of it as well) are found in /proc/self/mountinfo by the device
// number; the list is read again when the kernel says that it changed.
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/status.h"
#include "engine/unique_fd.h"

namespace mapperfs {

// Threads: any. Costs a readlink a component and a poll.
class PathResolver {
 public:
  // `mount_point`: where the own mount is or will be, absolute and canonical; empty: there is none.
  explicit PathResolver(std::string mount_point);

  struct Place {
    bool own = false;  // inside the own mount, its root included
    // own: relative to the mount's root, without a leading slash ("disk", "sys/disk/table", "").
    // Else: absolute, without symlinks, "." and "..".
    std::string path;
  };
  // Where `path` leads; a relative one starts at the process's working directory. Errors: ENOENT
  // (also for an empty path), ENOTDIR, ELOOP (more than kMaxLinks links), ENAMETOOLONG, EACCES.
  [[nodiscard]] Result<Place> resolve(std::string_view path) const;

  static constexpr unsigned kMaxLinks = 40;
  static constexpr std::size_t kMaxPathBytes = 4095;
  static constexpr std::size_t kMaxNameBytes = 255;

 private:
  // Where a part of the own file system can be reached.
  struct OwnMount {
    std::string at;    // the mount point
    std::string root;  // the part of it that is mounted there: "" for all, "/sys" for a folder
  };
  class Walk;

  [[nodiscard]] std::vector<OwnMount> own_mounts() const;
  void read_mounts() const;

  const std::string mount_point_;
  mutable std::mutex mutex_;
  UniqueFd mountinfo_;                    // poll() tells of changes
  mutable bool mounts_read_ = false;      // mutex_
  mutable std::vector<OwnMount> mounts_;  // mutex_
};

}  // namespace mapperfs
