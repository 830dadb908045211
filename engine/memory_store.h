// Zero-filled memory of any size: what stands behind the ram target and behind tests.
//
// The bytes lie in a memfd that is mapped whole, so a transfer is a memcpy. A bitmap beside it, one
// bit for each page of 4 KiB, says which pages were ever written; a read of the others is answered
// with zeroes and touches nothing. (Without it a read of a hole through the mapping would allocate
// a page, and reading a sparse disk of 1 TiB would take 1 TiB.)
//
// Size. Nothing is allocated before it is written, and the bitmap is a sparse mapping as well, so
// 1 PiB costs what 1 MiB costs. Where the address space does not hold the mapping (above 64 TiB
// each, 128 TiB together, or a lower RLIMIT_AS) transfers go through pread/pwrite on the memfd.
// Where there is no descriptor left for a memfd, the memory is an anonymous mapping.
//
// Out of memory. Writes are not limited by the store. Past what the machine or its memory cgroup
// has, a page fault of the mapping ends as everywhere: swap, then the OOM killer; there is no
// SIGBUS, since the memfd is sealed against shrinking. The pread/pwrite form answers ENOSPC or
// ENOMEM as a status.
//
// Huge pages are not asked for: a first write of 4 KiB would take 2 MiB, and a discard of less than
// 2 MiB would give nothing back; what they save is a part of a TLB miss.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/block_device.h"
#include "engine/status.h"
#include "engine/types.h"
#include "engine/unique_fd.h"

namespace mapperfs {

// Threads: everything may be called on any thread at once, without locks; transfers that overlap
// mix as they do on a disk. Ranges lie inside the store (asserted).
class MemoryStore {
  // For make() alone to give.
  struct Key {};

 public:
  struct Options {
    std::string name = "mapperfs";  // of the memfd, for /proc/PID/fd
    bool map = true;                // false: always the pread/pwrite form
    bool memfd = true;              // false: always anonymous memory
  };
  // `sectors` is at least 1 and at most kMaxDeviceSectors. ENOMEM, EMFILE where nothing can be had.
  static Result<std::unique_ptr<MemoryStore>> make(sector_t sectors, const Options& options);
  static Result<std::unique_ptr<MemoryStore>> make(sector_t sectors) {
    return make(sectors, Options{});
  }
  MemoryStore(Key /*key*/, sector_t sectors) : sectors_(sectors) {}
  ~MemoryStore();
  MemoryStore(const MemoryStore&) = delete;
  MemoryStore& operator=(const MemoryStore&) = delete;

  [[nodiscard]] sector_t sectors() const { return sectors_; }
  // Never block, but for a page fault; the pread/pwrite form makes a system call.
  BlkStatus read(sector_t sector, sector_t sectors, std::byte* to) const noexcept;
  BlkStatus write(sector_t sector, sector_t sectors, const std::byte* from) noexcept;
  // The range reads back as zeroes; its whole pages go back to the system.
  BlkStatus punch(sector_t sector, sector_t sectors) noexcept;
  // What a bio asks for: read, write, discard and write zeroes (punch), flush (nothing to do). Does
  // not end the bio.
  BlkStatus handle(const Bio& bio) noexcept;

  // Data (a page written at least once since it was punched) or hole at `sector`, up to `max`
  // sectors; may answer with less than the whole run.
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const;
  // Bytes of memory that are allocated now, as far as the store or the kernel knows. Not on any
  // path of I/O: shows whether a punch gave memory back, which extent() cannot tell.
  [[nodiscard]] std::uint64_t allocated_bytes() const;

  // The memfd for others to read and write directly (FUSE passthrough), or -1 where there is none.
  // From this call on, the store itself uses pread/pwrite: what others write is not in the bitmap.
  // It is sealed: a write past its end fails with EPERM.
  [[nodiscard]] int share_memfd() noexcept;
  // True while a transfer is a memcpy.
  [[nodiscard]] bool mapped() const {
    return data_ != nullptr && !shared_.load(std::memory_order_acquire);
  }

 private:
  using Word = std::atomic<std::uint64_t>;
  bool map_memory();
  [[nodiscard]] bool page_written(std::uint64_t page) const noexcept;
  void mark_written(std::uint64_t first, std::uint64_t last) noexcept;
  void forget_pages(std::uint64_t first, std::uint64_t end) noexcept;
  // First page in [page, end) whose bit is not `written`, or `end`.
  [[nodiscard]] std::uint64_t run_end(std::uint64_t page, std::uint64_t end,
                                      bool written) const noexcept;
  void zero_if_written(std::uint64_t from, std::uint64_t to) noexcept;
  BlkStatus give_back_pages(std::uint64_t from, std::uint64_t to) noexcept;
  BlkStatus punch_unmapped(std::uint64_t from, std::uint64_t to) noexcept;

  const sector_t sectors_;
  UniqueFd memfd_;                // none: anonymous memory
  std::byte* data_ = nullptr;     // mapping of data_bytes_; null: pread/pwrite
  std::size_t data_bytes_ = 0;    // whole pages
  Word* bitmap_ = nullptr;        // mapping of bitmap_bytes_; bit set: page holds data
  std::size_t bitmap_bytes_ = 0;  // whole pages
  std::atomic<bool> shared_{false};
};

}  // namespace mapperfs
