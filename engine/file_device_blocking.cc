// The part of FileDevice that may block: runs on the environment's blocking threads (and inside
// submit() for memory file systems, where nothing blocks).
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "engine/file_device.h"

namespace mapperfs {
namespace {

constexpr std::size_t kBounceBytes = 256 * 1024;

// preadv2 or pwritev2 until all is done; 0 or an errno. `offset` in bytes.
int transfer_all(int fd, bool is_read, std::byte* data, std::size_t bytes, std::uint64_t offset,
                 int flags) {
  while (bytes > 0) {
    const iovec vec{data, bytes};
    const auto at = static_cast<off_t>(offset);
    const ssize_t n =
        is_read ? ::preadv2(fd, &vec, 1, at, flags) : ::pwritev2(fd, &vec, 1, at, flags);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno;
    }
    if (n == 0) {
      return is_read ? EIO : ENOSPC;  // a read at the end of a file that shrank
    }
    data += n;
    bytes -= static_cast<std::size_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
  return 0;
}

// As transfer_all(), with data that is on stable storage at the end where `fua`.
int write_all(int fd, std::byte* data, std::size_t bytes, std::uint64_t offset, bool fua) {
  int error = transfer_all(fd, false, data, bytes, offset, fua ? RWF_DSYNC : 0);
  if (fua && (error == EOPNOTSUPP || error == EINVAL)) {
    // A file system that does not know the flag.
    error = transfer_all(fd, false, data, bytes, offset, 0);
    if (error == 0 && ::fdatasync(fd) != 0) {
      error = errno;
    }
  }
  return error;
}

std::uint64_t offset_of(const Bio& bio) { return bio.sector << kSectorShift; }

// Of a block device that is written past its cache: what the cache holds of the range may be older
// than the disk ("What the cache may answer" in file_device.h). Dirty pages are newer, and stay.
void drop_old_pages(int fd, std::uint64_t offset, std::size_t bytes) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = offset & ~(page - 1);  // pages in part would be kept
  const std::uint64_t end = (offset + bytes + page - 1) & ~(page - 1);
  ::posix_fadvise(fd, static_cast<off_t>(begin), static_cast<off_t>(end - begin),
                  POSIX_FADV_DONTNEED);
}

bool is_whole_blocks(const Bio& bio, std::uint32_t align) {
  return ((offset_of(bio) | bio.len_bytes()) & (align - 1)) == 0;
}

}  // namespace

BlkStatus FileDevice::serve_blocking(const Bio& bio) noexcept {
  switch (bio.op) {
    case Op::kDiscard:
      return discard_blocking(bio);
    case Op::kWriteZeroes:
      return write_zeroes_blocking(bio);
    default:
      break;
  }
  if ((bio.flags & kBioPreflush) != 0) {
    if (const BlkStatus flushed = sync_blocking(); flushed != BlkStatus::kOk) {
      return flushed;
    }
  }
  return transfer_blocking(bio);
}

BlkStatus FileDevice::transfer_blocking(const Bio& bio) const noexcept {
  const Files& now = files();
  if (now.facts.speed == FileSpeed::kDirect && is_whole_blocks(bio, now.facts.offset_align)) {
    // EINVAL: the file system's rules for direct I/O are narrower than what it told.
    const BlkStatus status = transfer_bounced(bio, now);
    if (status != BlkStatus::kNotSupported) {
      return status;
    }
  }
  const int fd = now.buffered.get();
  if (now.facts.block_device && now.facts.speed == FileSpeed::kDirect) {
    drop_old_pages(fd, offset_of(bio), bio.len_bytes());
  }
  return blk_status_of_errno(
      bio.op == Op::kRead ? transfer_all(fd, true, bio.data, bio.len_bytes(), offset_of(bio), 0)
                          : write_buffered(now, bio.data, bio.len_bytes(), offset_of(bio),
                                           (bio.flags & kBioFua) != 0));
}

int FileDevice::write_buffered(const Files& now, std::byte* data, std::size_t bytes,
                               std::uint64_t offset, bool fua) noexcept {
  if (fua && !now.direct) {
    return write_all(now.synced ? now.synced.get() : now.buffered.get(), data, bytes, offset, true);
  }
  const int error = transfer_all(now.buffered.get(), false, data, bytes, offset, 0);
  return error == 0 && fua && ::fdatasync(now.direct.get()) != 0 ? errno : error;
}

// Direct I/O through memory that is aligned as the file wants it, unless the bio's own is. Answers
// kNotSupported where the file refuses direct I/O after all.
BlkStatus FileDevice::transfer_bounced(const Bio& bio, const Files& now) const noexcept {
  const std::uint32_t align = now.facts.memory_align;
  const bool aligned = (reinterpret_cast<std::uintptr_t>(bio.data) & (align - 1)) == 0;
  const std::size_t chunk = aligned ? bio.len_bytes() : std::min(bio.len_bytes(), kBounceBytes);
  std::vector<std::byte> memory(aligned ? 0 : chunk + align);
  void* place = memory.data();
  std::size_t space = memory.size();
  auto* bounce =
      aligned ? nullptr : static_cast<std::byte*>(std::align(align, chunk, place, space));
  const bool fua = (bio.flags & kBioFua) != 0;
  const int fd = now.direct.get();
  for (std::size_t done = 0; done < bio.len_bytes(); done += chunk) {
    const std::size_t bytes = std::min(chunk, bio.len_bytes() - done);
    std::byte* data = bio.data + done;
    std::byte* through = aligned ? data : bounce;
    int error = 0;
    if (bio.op == Op::kRead) {
      error = transfer_all(fd, true, through, bytes, offset_of(bio) + done, 0);
      if (error == 0 && !aligned) {
        std::memcpy(data, bounce, bytes);
      }
    } else {
      if (!aligned) {
        std::memcpy(bounce, data, bytes);
      }
      error = write_all(fd, through, bytes, offset_of(bio) + done, fua);
    }
    if (error != 0) {
      return error == EINVAL ? BlkStatus::kNotSupported : blk_status_of_errno(error);
    }
  }
  return BlkStatus::kOk;
}

BlkStatus FileDevice::sync_blocking() const noexcept {
  return ::fdatasync(files().buffered.get()) == 0 ? BlkStatus::kOk : blk_status_of_errno(errno);
}

BlkStatus FileDevice::discard_blocking(const Bio& bio) const noexcept {
  const Files& now = files();
  int result = 0;
  do {
    if (now.facts.block_device) {
      std::array<std::uint64_t, 2> range{offset_of(bio), bio.len_bytes()};
      result = ::ioctl(now.buffered.get(), BLKDISCARD, range.data());
    } else {
      result = ::fallocate(now.buffered.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           static_cast<off_t>(offset_of(bio)), static_cast<off_t>(bio.len_bytes()));
    }
  } while (result != 0 && errno == EINTR);
  return result == 0 ? BlkStatus::kOk : blk_status_of_errno(errno);
}

BlkStatus FileDevice::write_zeroes_blocking(const Bio& bio) noexcept {
  const Files& now = files();
  const int fd = now.buffered.get();
  const auto at = static_cast<off_t>(offset_of(bio));
  const auto bytes = static_cast<off_t>(bio.len_bytes());
  int result = -1;
  if (now.facts.block_device) {
    std::array<std::uint64_t, 2> range{offset_of(bio), bio.len_bytes()};
    result = ::ioctl(fd, BLKZEROOUT, range.data());
    return result == 0 ? BlkStatus::kOk : write_zeroes_by_hand(bio, now);
  }
  // Zeroes that keep their blocks, as the writer asked for; a hole where only that is possible.
  if (!zero_range_missing_.load(std::memory_order_relaxed)) {
    result = ::fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, bytes);
    if (result != 0 && errno == EOPNOTSUPP) {
      zero_range_missing_.store(true, std::memory_order_relaxed);
    } else if (result != 0 && errno == ENOSPC) {
      return BlkStatus::kNoSpace;
    }
  }
  if (result != 0 && now.facts.limits.discard_zeroes) {
    result = ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, bytes);
  }
  if (result != 0) {
    return write_zeroes_by_hand(bio, now);
  }
  const int synced = now.direct ? now.direct.get() : now.synced ? now.synced.get() : fd;
  if ((bio.flags & kBioFua) != 0 && ::fdatasync(synced) != 0) {
    return blk_status_of_errno(errno);
  }
  return BlkStatus::kOk;
}

BlkStatus FileDevice::write_zeroes_by_hand(const Bio& bio, const Files& now) const noexcept {
  alignas(4096) static std::array<std::byte, 64 * 1024> zeroes{};  // never written
  const bool direct =
      now.facts.speed == FileSpeed::kDirect && is_whole_blocks(bio, now.facts.offset_align);
  const bool fua = (bio.flags & kBioFua) != 0;
  for (std::size_t done = 0; done < bio.len_bytes(); done += zeroes.size()) {
    const std::size_t bytes = std::min(zeroes.size(), bio.len_bytes() - done);
    const std::uint64_t at = offset_of(bio) + done;
    const int error = direct ? write_all(now.direct.get(), zeroes.data(), bytes, at, fua)
                             : write_buffered(now, zeroes.data(), bytes, at, fua);
    if (error != 0) {
      return blk_status_of_errno(error);
    }
  }
  return BlkStatus::kOk;
}

}  // namespace mapperfs
