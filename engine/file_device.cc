#include "engine/file_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "engine/coarse_clock.h"

namespace mapperfs {
namespace {

// Memory file systems: all of it or an error.
BlkStatus transfer_now(const Bio& bio, int fd) noexcept {
  std::size_t done = 0;
  const std::size_t bytes = bio.len_bytes();
  while (done < bytes) {
    const auto at = static_cast<off_t>((bio.sector << kSectorShift) + done);
    const ssize_t n = bio.op == Op::kRead ? ::pread(fd, bio.data + done, bytes - done, at)
                                          : ::pwrite(fd, bio.data + done, bytes - done, at);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return blk_status_of_errno(errno);
    }
    if (n == 0) {
      return BlkStatus::kIoError;  // the file shrank
    }
    done += static_cast<std::size_t>(n);
  }
  return BlkStatus::kOk;
}

// Whether all of the range is in the page cache; nothing where the kernel does not say (before 6.5,
// or behind a filter of system calls). Starts no I/O.
std::optional<bool> is_cached(int fd, std::uint64_t offset, std::size_t bytes) noexcept {
  constexpr long kCachestat = 451;  // everywhere but on alpha; linux/mman.h
  struct {
    std::uint64_t offset;
    std::uint64_t bytes;
  } range{offset, bytes};
  std::array<std::uint64_t, 5> counts{};  // pages: cached, dirty, under write-back, evicted (two)
  static const auto kPage = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  if (::syscall(kCachestat, fd, &range, counts.data(), 0) != 0) {
    return std::nullopt;
  }
  return counts[0] >= (offset + bytes + kPage - 1) / kPage - offset / kPage;
}

}  // namespace

FileDevice::FileDevice(Env& env, Names names, UniqueFd fd, bool writable)
    : env_(env), names_(std::move(names)) {
  adopt(std::move(fd), writable);
}

FileDevice::~FileDevice() { MFS_ASSERT(!flush_running_); }

void FileDevice::adopt(UniqueFd fd, bool writable) {
  auto files = std::make_unique<Files>();
  files->facts = probe_file(fd.get(), names_.path, writable, files->direct);
  files->buffered = std::move(fd);
  files->writable = writable;
  if (files->facts.speed == FileSpeed::kBuffered && writable) {
    files->synced = reopen_file(files->buffered.get(), names_.path, writable, 0);
  }
  if (files->facts.speed == FileSpeed::kDirect) {
    // The tries with RWF_NOWAIT start reads that nobody waits for: let them be no longer than
    // asked.
    ::posix_fadvise(files->buffered.get(), 0, 0, POSIX_FADV_RANDOM);
  }
  files_.store(files.get(), std::memory_order_release);
  all_files_.push_back(std::move(files));
  refresh_size();
}

void FileDevice::make_writable(UniqueFd fd) { adopt(std::move(fd), true); }

sector_t FileDevice::refresh_size() const noexcept {
  const Files& now = files();
  const sector_t size = file_size_sectors(now.buffered.get(), now.facts.block_device);
  size_.store(size, std::memory_order_release);
  return size;
}

std::string FileDevice::numbers() const {
  return facts().block_device ? device_numbers(facts().rdev) : "-";
}

std::string FileDevice::table_name() const {
  return facts().block_device ? device_numbers(facts().rdev) : names_.table;
}

std::string FileDevice::display_name() const {
  return facts().block_device ? block_device_name(facts().rdev) : names_.table;
}

Result<int> FileDevice::whole_file() const {
  const Files& now = files();
  if (now.facts.block_device) {
    return Status(EOPNOTSUPP, fmt::format("{} is a block device, no file", display_name()));
  }
  if (now.facts.speed == FileSpeed::kBuffered) {
    return Status(EOPNOTSUPP,
                  fmt::format("{} cannot be opened with O_DIRECT, as a device can", names_.path));
  }
  struct stat st {};
  const sector_t sectors = size_sectors();
  if (::fstat(now.buffered.get(), &st) != 0 ||
      static_cast<std::uint64_t>(st.st_size) != sectors << kSectorShift) {
    return Status(EOPNOTSUPP, fmt::format("{} has {} bytes, not just {} sectors", names_.path,
                                          st.st_size, sectors));
  }
  return now.buffered.get();
}

// --- submit ---

void FileDevice::submit(Bio& bio) noexcept {
  bio.dev = this;  // the aio context finds the device by it
  const Files& now = files();
  switch (bio.op) {
    case Op::kRead:
      submit_read(bio, now);
      return;
    case Op::kWrite:
      submit_write(bio, now);
      return;
    case Op::kFlush:
      if (now.facts.speed == FileSpeed::kMemory || !now.writable) {
        bio.end_io(BlkStatus::kOk);  // nothing of ours could be volatile
        return;
      }
      join_flush(bio);
      return;
    case Op::kDiscard:
    case Op::kWriteZeroes:
    case Op::kSecureErase:
      submit_abnormal(bio, now);
      return;
  }
}

void FileDevice::submit_read(Bio& bio, const Files& now) noexcept {
  if (now.facts.speed == FileSpeed::kMemory) {
    bio.end_io(transfer_now(bio, now.buffered.get()));
    return;
  }
  if (cache_worth_a_try(now) && read_from_cache(bio, now)) {
    bio.end_io(BlkStatus::kOk);
    return;
  }
  submit_data(bio, now);
}

void FileDevice::submit_write(Bio& bio, const Files& now) noexcept {
  if (!now.writable) {
    bio.end_io(BlkStatus::kReadOnly);
    return;
  }
  if (past_the_end(bio, now)) {
    bio.end_io(BlkStatus::kIoError);
    return;
  }
  if (now.facts.speed == FileSpeed::kMemory) {
    bio.end_io(transfer_now(bio, now.buffered.get()));
    return;
  }
  if ((bio.flags & kBioPreflush) != 0) {
    // Mapped devices send the flush on its own; this is for who submits here directly.
    submit_blocking(bio);
    return;
  }
  submit_data(bio, now);
}

// Data that goes to the disk or comes from it.
void FileDevice::submit_data(Bio& bio, const Files& now) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(bio.data);
  const std::uint64_t place = (bio.sector | bio.sectors) << kSectorShift;
  if (now.facts.speed == FileSpeed::kDirect && (place & (now.facts.offset_align - 1)) == 0 &&
      (address & (now.facts.memory_align - 1)) == 0) [[likely]] {
    AioContext::current().submit(bio);
    return;
  }
  submit_blocking(bio);
}

void FileDevice::submit_abnormal(Bio& bio, const Files& now) noexcept {
  if (bio.op == Op::kSecureErase) {
    bio.end_io(BlkStatus::kNotSupported);
    return;
  }
  if (!now.writable) {
    bio.end_io(BlkStatus::kReadOnly);
    return;
  }
  if (past_the_end(bio, now)) {
    bio.end_io(BlkStatus::kIoError);
    return;
  }
  if (now.facts.speed == FileSpeed::kMemory && bio.len_bytes() <= kInlinePunchBytes) {
    bio.end_io(bio.op == Op::kDiscard ? discard_blocking(bio) : write_zeroes_blocking(bio));
    return;
  }
  submit_blocking(bio);
}

void FileDevice::submit_blocking(Bio& bio) noexcept {
  if (blocking_.enter(bio)) {
    send_to_pool(bio);
  }
}

void FileDevice::send_to_pool(Bio& bio) noexcept {
  env_.run_blocking([this, &bio] {
    const BlkStatus status = serve_blocking(bio);
    // At the end of the pool's queue: others' work comes first. It keeps the device alive, too.
    if (Bio* const next = blocking_.leave(); next != nullptr) {
      send_to_pool(*next);
    }
    bio.end_io(status);
  });
}

bool FileDevice::past_the_end(const Bio& bio, const Files& now) const noexcept {
  if (!now.facts.block_device) {
    const std::uint64_t tick = coarse_now_ns();
    if (tick != size_tick_.load(std::memory_order_relaxed)) {
      size_tick_.store(tick, std::memory_order_relaxed);
      refresh_size();
    }
  }
  return bio.end_sector() > size_.load(std::memory_order_acquire);
}

bool FileDevice::cache_worth_a_try(const Files& now) noexcept {
  if (now.facts.speed == FileSpeed::kBuffered) {
    return true;
  }
  if (now.facts.block_device) {
    return false;  // "What the cache may answer" in file_device.h
  }
  if (cache_tries_.load(std::memory_order_relaxed) > 0) {
    return true;
  }
  return cold_reads_.fetch_add(1, std::memory_order_relaxed) % kColdReads == 0;
}

// A try that misses starts to read, which waits where the disk's queue is full: after a hit the
// next one is taken for one, else the kernel is asked what it has.
bool FileDevice::may_be_cached(const Bio& bio, const Files& now) noexcept {
  const bool full = full_reads_.load(std::memory_order_relaxed) > 0;
  if (full) {
    full_reads_.fetch_sub(1, std::memory_order_relaxed);
  } else if (cache_tries_.load(std::memory_order_relaxed) == kCacheTries) {
    return true;
  }
  const std::optional<bool> cached =
      is_cached(now.buffered.get(), bio.sector << kSectorShift, bio.len_bytes());
  return cached.value_or(!full);
}

bool FileDevice::read_from_cache(Bio& bio, const Files& now) noexcept {
  const iovec vec{bio.data, bio.len_bytes()};
  const bool hit =
      may_be_cached(bio, now) &&
      ::preadv2(now.buffered.get(), &vec, 1, static_cast<off_t>(bio.sector << kSectorShift),
                RWF_NOWAIT) == static_cast<ssize_t>(bio.len_bytes());
  const int tries = cache_tries_.load(std::memory_order_relaxed);
  // Stores are rare: at a change of the weather.
  if (hit && tries != kCacheTries) {
    cache_tries_.store(kCacheTries, std::memory_order_relaxed);
  } else if (!hit && tries > 0) {
    cache_tries_.store(tries - 1, std::memory_order_relaxed);
  }
  return hit;
}

// --- aio ---

int FileDevice::aio_fd(const Bio& bio) const noexcept {
  const Files& now = files();
  return bio.op == Op::kFlush ? now.buffered.get() : now.direct.get();
}

void FileDevice::aio_end(Bio& bio, BlkStatus status) noexcept {
  if (bio.op == Op::kFlush) {
    end_round(status);
  } else {
    bio.end_io(status);
  }
}

void FileDevice::aio_refused(Bio& bio) noexcept {
  if (bio.op == Op::kFlush) {
    env_.run_blocking([this] { end_round(sync_blocking()); });
  } else {
    submit_blocking(bio);
  }
}

bool FileDevice::aio_would_wait(const Bio& bio) noexcept {
  full_reads_.store(kFullReads, std::memory_order_relaxed);
  return bio.op == Op::kWrite && !facts().block_device && blocking_.has_room();
}

// --- flush ---

void FileDevice::join_flush(Bio& bio) noexcept {
  {
    const std::lock_guard<std::mutex> lock(flush_mutex_);
    if (flush_running_) {
      // The fdatasync under way may have begun before a write that this flush must cover.
      flush_next_.push_back(bio);
      return;
    }
    flush_running_ = true;
    flush_now_.push_back(bio);
  }
  start_round(bio);
}

// `leader` stands for the round where a bio is needed; it stays at the head of flush_now_.
void FileDevice::start_round(Bio& leader) noexcept { AioContext::current().submit(leader); }

void FileDevice::end_round(BlkStatus status) noexcept {
  BioList done;
  Bio* leader = nullptr;
  {
    const std::lock_guard<std::mutex> lock(flush_mutex_);
    MFS_ASSERT(flush_running_ && !flush_now_.empty());
    done.swap(flush_now_);
    flush_now_.swap(flush_next_);
    leader = flush_now_.pop_front();
    if (leader != nullptr) {
      flush_now_.push_front(*leader);
    }
    flush_running_ = leader != nullptr;
  }
  if (leader != nullptr) {
    start_round(*leader);
  }
  // From here on the device may go with the last bio.
  while (Bio* bio = done.pop_front()) {
    bio->end_io(status);
  }
}

// --- extents ---

Extent FileDevice::extent(sector_t sector, sector_t max) const {
  const Files& now = files();
  if (now.facts.block_device) {
    return {max, false};
  }
  const int fd = now.buffered.get();
  const auto at = static_cast<off_t>(sector << kSectorShift);
  const off_t data = ::lseek(fd, at, SEEK_DATA);
  if (data < 0) {
    return {max, errno == ENXIO};  // a hole to the end; else a file system that cannot tell
  }
  const auto hole_sectors = static_cast<sector_t>(data - at) >> kSectorShift;
  if (hole_sectors > 0) {
    return {std::min(max, hole_sectors), true};
  }
  // A sector that is data in part is data.
  const off_t hole = ::lseek(fd, data, SEEK_HOLE);
  if (hole < 0) {
    return {max, false};
  }
  const sector_t end = (static_cast<sector_t>(hole) + kSectorBytes - 1) >> kSectorShift;
  return {std::min(max, end - sector), false};
}

}  // namespace mapperfs
