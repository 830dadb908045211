#include "engine/memory_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <type_traits>

namespace mapperfs {
namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::uint64_t kPagesPerWord = 64;
// Pages that one page of the bitmap speaks for: 128 MiB.
constexpr std::uint64_t kPagesPerBitmapPage = kPageBytes * 8;
// The largest mapping: half of what a process of 47 bits of addresses has.
constexpr std::uint64_t kMaxMappedBytes = std::uint64_t{64} << 40;
// Pages that one extent() looks at where the bitmap alone answers.
constexpr std::uint64_t kMaxScanPages = std::uint64_t{1} << 20;

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

void* map_sparse(std::size_t bytes, int fd) {
  const int flags = MAP_NORESERVE | (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  return at == MAP_FAILED ? nullptr : at;
}

// pread or pwrite until all is done.
template <typename Call, typename Byte>
BlkStatus transfer(Call call, int fd, Byte* data, std::uint64_t bytes, std::uint64_t offset) {
  while (bytes > 0) {
    const ssize_t n = call(fd, data, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return n == 0 ? BlkStatus::kIoError : blk_status_of_errno(errno);
    }
    data += n;
    bytes -= static_cast<std::uint64_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
  return BlkStatus::kOk;
}

}  // namespace

Result<std::unique_ptr<MemoryStore>> MemoryStore::make(sector_t sectors, const Options& options) {
  if (sectors == 0 || sectors > kMaxDeviceSectors) {
    return Status(EINVAL, fmt::format("memory of {} sectors: 1 to {} are possible", sectors,
                                      kMaxDeviceSectors));
  }
  auto store = std::make_unique<MemoryStore>(Key{}, sectors);
  int error = 0;
  if (options.memfd) {
    store->memfd_ = UniqueFd(::memfd_create(options.name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!store->memfd_) {
      error = errno;
    } else if (::ftruncate(store->memfd_.get(), static_cast<off_t>(sectors << kSectorShift)) != 0) {
      error = errno;
      store->memfd_ = UniqueFd();
    } else if (::fcntl(store->memfd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
      // Only others could change its size, and only those it is shared with.
      error = 0;
    }
  }
  const bool mapped = options.map && store->map_memory();
  if (!mapped && !store->memfd_) {
    return Status(error != 0 ? error : ENOMEM,
                  fmt::format("no memory for {} sectors: {}", sectors,
                              error != 0 ? errno_name(error) : "the address space is full"));
  }
  return store;
}

bool MemoryStore::map_memory() {
  const std::uint64_t bytes = round_up(sectors_ << kSectorShift, kPageBytes);
  if (bytes > kMaxMappedBytes) {
    return false;
  }
  static_assert(std::is_trivially_destructible_v<Word> && sizeof(Word) == 8);
  const std::size_t bitmap_bytes = round_up(bytes / kPageBytes, kPagesPerBitmapPage) / 8;
  void* bitmap = map_sparse(bitmap_bytes, -1);
  if (bitmap == nullptr) {
    return false;
  }
  void* data = map_sparse(bytes, memfd_.get());
  if (data == nullptr) {
    ::munmap(bitmap, bitmap_bytes);
    return false;
  }
  if (!memfd_) {
    // The promise about discards and small writes holds for anonymous memory as well.
    ::madvise(data, bytes, MADV_NOHUGEPAGE);
  }
  // A dump of the daemon must not hold what users keep on their disks.
  ::madvise(data, bytes, MADV_DONTDUMP);
  bitmap_ = static_cast<Word*>(bitmap);
  bitmap_bytes_ = bitmap_bytes;
  data_ = static_cast<std::byte*>(data);
  data_bytes_ = bytes;
  return true;
}

MemoryStore::~MemoryStore() {
  if (data_ != nullptr) {
    ::munmap(data_, data_bytes_);
    ::munmap(bitmap_, bitmap_bytes_);
  }
}

bool MemoryStore::page_written(std::uint64_t page) const noexcept {
  const std::uint64_t word = bitmap_[page / kPagesPerWord].load(std::memory_order_acquire);
  return ((word >> (page % kPagesPerWord)) & 1) != 0;
}

// After the data was copied: who sees the bit sees the data.
void MemoryStore::mark_written(std::uint64_t first, std::uint64_t last) noexcept {
  for (std::uint64_t page = first; page <= last;) {
    const std::uint64_t bit = page % kPagesPerWord;
    const std::uint64_t count = std::min(kPagesPerWord - bit, last - page + 1);
    const std::uint64_t mask = (~std::uint64_t{0} >> (kPagesPerWord - count)) << bit;
    Word& word = bitmap_[page / kPagesPerWord];
    // Rewriting is the common case and leaves the shared line alone.
    if ((word.load(std::memory_order_relaxed) & mask) != mask) {
      word.fetch_or(mask, std::memory_order_release);
    }
    page += count;
  }
}

void MemoryStore::forget_pages(std::uint64_t first, std::uint64_t end) noexcept {
  std::uint64_t page = first;
  while (page < end) {
    if (page % kPagesPerBitmapPage == 0 && end - page >= kPagesPerBitmapPage) {
      // Whole pages of the bitmap at once: a discard of 1 PiB must not walk 32 GiB of bits.
      const std::uint64_t whole = (end - page) / kPagesPerBitmapPage;
      std::byte* at = reinterpret_cast<std::byte*>(bitmap_) + page / 8;
      const int result = ::madvise(at, whole * kPageBytes, MADV_DONTNEED);
      MFS_ASSERT(result == 0);
      page += whole * kPagesPerBitmapPage;
      continue;
    }
    const std::uint64_t bit = page % kPagesPerWord;
    const std::uint64_t count = std::min(kPagesPerWord - bit, end - page);
    const std::uint64_t mask = (~std::uint64_t{0} >> (kPagesPerWord - count)) << bit;
    Word& word = bitmap_[page / kPagesPerWord];
    if ((word.load(std::memory_order_relaxed) & mask) != 0) {
      word.fetch_and(~mask, std::memory_order_acq_rel);
    }
    page += count;
  }
}

std::uint64_t MemoryStore::run_end(std::uint64_t page, std::uint64_t end,
                                   bool written) const noexcept {
  while (page < end) {
    const std::uint64_t bit = page % kPagesPerWord;
    std::uint64_t word = bitmap_[page / kPagesPerWord].load(std::memory_order_acquire) >> bit;
    // Count the bits that are as asked, from the lowest; what was shifted in ends the count for
    // ones and must not prolong it for zeroes.
    const auto same =
        static_cast<std::uint64_t>(written ? std::countr_one(word) : std::countr_zero(word));
    const std::uint64_t left = kPagesPerWord - bit;
    page += std::min(same, left);
    if (same < left) {
      break;
    }
  }
  return std::min(page, end);
}

BlkStatus MemoryStore::read(sector_t sector, sector_t sectors, std::byte* to) const noexcept {
  MFS_ASSERT(sector <= sectors_ && sectors <= sectors_ - sector);
  std::uint64_t at = sector << kSectorShift;
  const std::uint64_t end = (sector + sectors) << kSectorShift;
  if (!mapped()) [[unlikely]] {
    return transfer(::pread, memfd_.get(), to, end - at, at);
  }
  const std::uint64_t end_page = round_up(end, kPageBytes) / kPageBytes;
  while (at < end) {
    const std::uint64_t page = at / kPageBytes;
    const bool written = page_written(page);
    const std::uint64_t stop = std::min(run_end(page + 1, end_page, written) * kPageBytes, end);
    if (written) {
      std::memcpy(to, data_ + at, stop - at);
    } else {
      std::memset(to, 0, stop - at);
    }
    to += stop - at;
    at = stop;
  }
  return BlkStatus::kOk;
}

BlkStatus MemoryStore::write(sector_t sector, sector_t sectors, const std::byte* from) noexcept {
  MFS_ASSERT(sector <= sectors_ && sectors <= sectors_ - sector);
  const std::uint64_t at = sector << kSectorShift;
  const std::uint64_t bytes = sectors << kSectorShift;
  if (!mapped()) [[unlikely]] {
    return transfer(::pwrite, memfd_.get(), from, bytes, at);
  }
  if (bytes == 0) {
    return BlkStatus::kOk;
  }
  std::memcpy(data_ + at, from, bytes);
  mark_written(at / kPageBytes, (at + bytes - 1) / kPageBytes);
  return BlkStatus::kOk;
}

void MemoryStore::zero_if_written(std::uint64_t from, std::uint64_t to) noexcept {
  if (from < to && page_written(from / kPageBytes)) {
    std::memset(data_ + from, 0, to - from);
  }
}

BlkStatus MemoryStore::give_back_pages(std::uint64_t from, std::uint64_t to) noexcept {
  if (from >= to) {
    return BlkStatus::kOk;
  }
  int result = 0;
  if (memfd_) {
    result = ::fallocate(memfd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         static_cast<off_t>(from), static_cast<off_t>(to - from));
  } else {
    result = ::madvise(data_ + from, to - from, MADV_DONTNEED);
  }
  return result == 0 ? BlkStatus::kOk : blk_status_of_errno(errno);
}

BlkStatus MemoryStore::punch_unmapped(std::uint64_t from, std::uint64_t to) noexcept {
  // tmpfs zeroes the edges of a hole itself. Behind the end it is asked for the rest of the last
  // page as well, so that the page goes; at the largest size of all there is no such offset.
  const bool at_end = to == sectors_ << kSectorShift && sectors_ <= kMaxDeviceSectors - 8;
  return give_back_pages(from, at_end ? round_up(to, kPageBytes) : to);
}

BlkStatus MemoryStore::punch(sector_t sector, sector_t sectors) noexcept {
  MFS_ASSERT(sector <= sectors_ && sectors <= sectors_ - sector);
  const std::uint64_t from = sector << kSectorShift;
  const std::uint64_t to = (sector + sectors) << kSectorShift;
  if (!mapped()) {
    return punch_unmapped(from, to);
  }
  std::uint64_t first = round_up(from, kPageBytes);
  // The last page of the store may be a part of one: nothing but zeroes lies behind its end.
  std::uint64_t end = to == sectors_ << kSectorShift ? data_bytes_ : to / kPageBytes * kPageBytes;
  if (first >= end) {
    // No whole page; the range may still touch two.
    const std::uint64_t border = std::min(first, to);
    zero_if_written(from, border);
    zero_if_written(border, to);
    return BlkStatus::kOk;
  }
  zero_if_written(from, first);
  zero_if_written(end, to);
  // Bits first: a read that comes between sees zeroes either way.
  forget_pages(first / kPageBytes, end / kPageBytes);
  return give_back_pages(first, end);
}

BlkStatus MemoryStore::handle(const Bio& bio) noexcept {
  switch (bio.op) {
    case Op::kRead:
      return read(bio.sector, bio.sectors, bio.data);
    case Op::kWrite:
      return write(bio.sector, bio.sectors, bio.data);
    case Op::kFlush:
      return BlkStatus::kOk;
    case Op::kDiscard:
    case Op::kWriteZeroes:
    case Op::kSecureErase:
      return punch(bio.sector, bio.sectors);
  }
  return BlkStatus::kNotSupported;
}

Extent MemoryStore::extent(sector_t sector, sector_t max) const {
  MFS_ASSERT(sector < sectors_ && max > 0);
  max = std::min(max, sectors_ - sector);
  const std::uint64_t at = sector << kSectorShift;
  if (mapped()) {
    const std::uint64_t page = at / kPageBytes;
    const std::uint64_t last = (at + (max << kSectorShift) - 1) / kPageBytes;
    const std::uint64_t end = std::min(last + 1, page + kMaxScanPages);
    const bool written = page_written(page);
    std::uint64_t stop = run_end(page + 1, end, written);
    // A long hole: the memfd knows its end without a look at every bit.
    if (!written && stop == page + kMaxScanPages && memfd_) {
      const off_t data = ::lseek(memfd_.get(), static_cast<off_t>(stop * kPageBytes), SEEK_DATA);
      stop = data >= 0 ? static_cast<std::uint64_t>(data) / kPageBytes : last + 1;
    }
    const sector_t stop_sector = stop * kPageBytes >> kSectorShift;
    return {std::min(max, stop_sector - sector), !written};
  }
  const off_t data = ::lseek(memfd_.get(), static_cast<off_t>(at), SEEK_DATA);
  if (data < 0) {
    return {max, errno == ENXIO};
  }
  if (static_cast<std::uint64_t>(data) > at) {
    return {std::min(max, (static_cast<std::uint64_t>(data) - at) >> kSectorShift), true};
  }
  const off_t hole = ::lseek(memfd_.get(), static_cast<off_t>(at), SEEK_HOLE);
  const std::uint64_t end =
      hole < 0 ? at + (max << kSectorShift) : static_cast<std::uint64_t>(hole);
  return {std::min(max, round_up(end - at, kSectorBytes) >> kSectorShift), false};
}

std::uint64_t MemoryStore::allocated_bytes() const {
  if (memfd_) {
    struct stat st {};
    const int result = ::fstat(memfd_.get(), &st);
    MFS_ASSERT(result == 0);
    return static_cast<std::uint64_t>(st.st_blocks) * 512;
  }
  std::uint64_t pages = 0;
  const std::uint64_t words = data_bytes_ / kPageBytes / kPagesPerWord + 1;
  for (std::uint64_t i = 0; i < std::min(words, bitmap_bytes_ / 8); ++i) {
    pages += static_cast<std::uint64_t>(std::popcount(bitmap_[i].load(std::memory_order_relaxed)));
  }
  return pages * kPageBytes;
}

int MemoryStore::share_memfd() noexcept {
  if (memfd_) {
    shared_.store(true, std::memory_order_release);
  }
  return memfd_.get();
}

}  // namespace mapperfs
