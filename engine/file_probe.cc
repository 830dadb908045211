#include "engine/file_probe.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace mapperfs {
namespace {

bool is_memory_file_system(const struct statfs& fs) {
  const auto type = static_cast<unsigned long>(fs.f_type);
  return type == TMPFS_MAGIC || type == RAMFS_MAGIC;
}

void probe_alignment(int direct_fd, FileFacts& facts) {
  facts.memory_align = 512;
  facts.offset_align = facts.limits.logical_block_size;
  struct statx info {};
  if (::statx(direct_fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) != 0 ||
      (info.stx_mask & STATX_DIOALIGN) == 0) {
    if (!facts.block_device) {
      // A file of a kernel before 6.1: the block size of the disk below is what counts.
      struct stat st {};
      const std::uint64_t logical =
          ::fstat(direct_fd, &st) == 0 ? block_attribute(st.st_dev, "logical_block_size") : 0;
      facts.offset_align = std::max<std::uint32_t>(512, static_cast<std::uint32_t>(logical));
      facts.memory_align = facts.offset_align;
    }
    return;
  }
  facts.memory_align = std::max<std::uint32_t>(1, info.stx_dio_mem_align);
  facts.offset_align = info.stx_dio_offset_align;  // 0: no direct I/O for this file
}

bool can_punch(int fd) {
  struct stat st {};
  // Behind the end there is nothing to lose.
  return ::fstat(fd, &st) == 0 && ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                              (st.st_size | 0xfffff) + 1, 4096) == 0;
}

void probe_file_limits(int fd, bool writable, QueueLimits& limits) {
  limits.write_cache = true;
  limits.fua = true;
  // Without a way to make a hole, zeroes are written.
  limits.max_write_zeroes_sectors = kUnlimitedSectors;
  struct statfs fs {};
  if (writable && can_punch(fd) && ::fstatfs(fd, &fs) == 0) {
    limits.max_discard_sectors = kUnlimitedSectors;
    limits.discard_granularity =
        std::max<std::uint32_t>(512, static_cast<std::uint32_t>(fs.f_bsize));
    limits.discard_zeroes = true;
  }
}

std::uint32_t attribute32(dev_t rdev, const std::string& name, std::uint32_t otherwise) {
  const std::uint64_t value = block_attribute(rdev, name);
  return value == 0 || value > std::numeric_limits<std::uint32_t>::max()
             ? otherwise
             : static_cast<std::uint32_t>(value);
}

void probe_disk_limits(int fd, dev_t rdev, QueueLimits& limits) {
  int logical = 0;
  if (::ioctl(fd, BLKSSZGET, &logical) != 0 || logical < 512) {
    logical = 512;
  }
  limits.logical_block_size = static_cast<std::uint32_t>(logical);
  limits.physical_block_size = attribute32(rdev, "physical_block_size", limits.logical_block_size);
  limits.io_min = attribute32(rdev, "minimum_io_size", limits.physical_block_size);
  limits.io_opt = attribute32(rdev, "optimal_io_size", 0);
  limits.chunk_sectors = attribute32(rdev, "chunk_sectors", 0);
  limits.discard_granularity = attribute32(rdev, "discard_granularity", 0);
  limits.max_discard_sectors = block_attribute(rdev, "discard_max_bytes") >> kSectorShift;
  limits.rotational = block_attribute(rdev, "rotational") != 0;
  // BLKZEROOUT writes zeroes itself where the disk has no command for it.
  limits.max_write_zeroes_sectors = kUnlimitedSectors;
  limits.write_cache = true;  // a flush costs nothing where the disk has none
  limits.fua = true;          // or the kernel flushes after the write
}

}  // namespace

std::string device_numbers(dev_t rdev) { return fmt::format("{}:{}", major(rdev), minor(rdev)); }

std::uint64_t block_attribute(dev_t rdev, const std::string& name) {
  for (const char* where : {"", "/.."}) {
    const std::string path =
        fmt::format("/sys/dev/block/{}{}/queue/{}", device_numbers(rdev), where, name);
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 32> text{};
    if (!fd || ::read(fd.get(), text.data(), text.size()) <= 0) {
      continue;
    }
    std::uint64_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    return parsed.ec == std::errc() ? value : 0;
  }
  return 0;
}

std::string block_device_name(dev_t rdev) {
  const std::string link = "/sys/dev/block/" + device_numbers(rdev);
  std::array<char, 4096> target{};
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  if (length <= 0) {
    return device_numbers(rdev);
  }
  const std::string text(target.data(), static_cast<std::size_t>(length));
  return text.substr(text.rfind('/') + 1);
}

sector_t file_size_sectors(int fd, bool block_device) {
  if (block_device) {
    std::uint64_t bytes = 0;
    return ::ioctl(fd, BLKGETSIZE64, &bytes) == 0 ? bytes >> kSectorShift : 0;
  }
  struct stat st {};
  return ::fstat(fd, &st) == 0 ? static_cast<std::uint64_t>(st.st_size) >> kSectorShift : 0;
}

UniqueFd reopen_file(int fd, const std::string& path, bool writable, int flags) {
  const int access = writable ? O_RDWR : O_RDONLY;
  UniqueFd again(::open(path.c_str(), access | flags | O_CLOEXEC | O_NOFOLLOW));
  struct stat ours {};
  struct stat theirs {};
  if (!again || ::fstat(fd, &ours) != 0 || ::fstat(again.get(), &theirs) != 0 ||
      ours.st_dev != theirs.st_dev || ours.st_ino != theirs.st_ino) {
    return {};
  }
  return again;
}

FileFacts probe_file(int fd, const std::string& path, bool writable, UniqueFd& direct) {
  FileFacts facts;
  struct stat st {};
  struct statfs fs {};
  if (::fstat(fd, &st) != 0) {
    return facts;
  }
  facts.block_device = S_ISBLK(st.st_mode);
  if (facts.block_device) {
    facts.rdev = st.st_rdev;
    probe_disk_limits(fd, st.st_rdev, facts.limits);
  } else {
    probe_file_limits(fd, writable, facts.limits);
    if (::fstatfs(fd, &fs) == 0 && is_memory_file_system(fs)) {
      facts.speed = FileSpeed::kMemory;
      facts.limits.write_cache = false;
      return facts;
    }
  }
  // File status flags belong to the open file, and buffered and direct transfers are wanted at the
  // same time.
  direct = reopen_file(fd, path, writable, O_DIRECT);
  if (!direct) {
    return facts;
  }
  probe_alignment(direct.get(), facts);
  const bool known =
      std::has_single_bit(facts.offset_align) && std::has_single_bit(facts.memory_align);
  // See "Two descriptors" in file_device.h for why a file must take every sector.
  if (!known || (!facts.block_device && facts.offset_align > kSectorBytes)) {
    direct = UniqueFd();
    return facts;
  }
  facts.speed = FileSpeed::kDirect;
  return facts;
}

}  // namespace mapperfs
