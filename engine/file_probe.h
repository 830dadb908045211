// What a file or a block device is and can do: asked once when it is opened.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "engine/limits.h"
#include "engine/status.h"
#include "engine/types.h"
#include "engine/unique_fd.h"

namespace mapperfs {

// How data goes to and from the file; engine/file_device.h says when each is used.
enum class FileSpeed : std::uint8_t {
  kMemory,    // tmpfs, ramfs: pread and pwrite answer at once
  kDirect,    // O_DIRECT works
  kBuffered,  // only the page cache
};

struct FileFacts {
  bool block_device = false;
  dev_t rdev = 0;  // of a block device
  FileSpeed speed = FileSpeed::kBuffered;
  // What O_DIRECT wants, in bytes; powers of two.
  std::uint32_t memory_align = 512;
  std::uint32_t offset_align = 512;
  QueueLimits limits;
};

// The open file `fd` once more, at `path`, with `flags` besides the access mode; nothing where that
// is another file by now.
UniqueFd reopen_file(int fd, const std::string& path, bool writable, int flags);

// Asks about the open file `fd` (`path` for a second open). `direct` is set to a descriptor with
// O_DIRECT where the speed is kDirect. `writable`: fd is open for writing.
FileFacts probe_file(int fd, const std::string& path, bool writable, UniqueFd& direct);

// Size now, in whole sectors: what is behind the last whole one is not reachable. 0 on error.
sector_t file_size_sectors(int fd, bool block_device);

// One line of a file below /sys/dev/block/MAJOR:MINOR (of a partition's disk where the partition
// has no such file), as a number; 0 where there is none.
std::uint64_t block_attribute(dev_t rdev, const std::string& name);
// The kernel's name of a block device: "loop0"; "MAJ:MIN" where sysfs does not know it.
std::string block_device_name(dev_t rdev);
std::string device_numbers(dev_t rdev);

}  // namespace mapperfs
