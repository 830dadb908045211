// A regular file or a block device as a device of the engine.
//
// How data moves. A file on tmpfs or ramfs is read and written inside submit(): that is a memcpy in
// the kernel. For every other regular file, a read is first tried with RWF_NOWAIT, which the page
// cache answers inside submit() or not at all; after kCacheTries misses in a row that is given up,
// but for one read in kColdReads (our own direct writes empty the cache, so it tends to be warm
// only where someone else reads or has just written the file). What is left goes through libaio
// with O_DIRECT where the file takes that, and through preadv2/pwritev2 on the environment's
// blocking threads where it does not: no O_DIRECT in this file system, a buffer that is not aligned
// (copied through one that is), a sector that is no whole block, no libaio.
//
// What the cache may answer. A page that is read into the cache while a direct write of it is in
// flight may hold the old data. A file system drops such pages when the write is done. A block
// device drops them only before an asynchronous direct write, and the old page would then be read
// for ever: its reads go past the cache, and the few that cannot (a sector that is no whole block)
// have the range dropped first.
//
// A try that misses makes the kernel read ahead, and that waits where the disk's queue is full: the
// first after a miss, and all while direct transfers are refused (EAGAIN), ask cachestat(2) before.
//
// A slow disk is its own trouble alone: transfers that would wait in the kernel are kept by their
// context (engine/aio_context.h), and no more than kBlockingShare bios of a device are on the
// blocking threads at once; the others wait here. A write of a file is for those threads at once
// while the device's share has room: unlike a read it may have to wait for blocks, a time stamp or
// pages in the cache, which no other transfer's end would change.
//
// Two descriptors. The file is open twice, with O_DIRECT and without. Reads agree: a direct read
// first writes back dirty pages of its range, a direct write drops the pages of its range. A
// buffered write that shares a page with a direct write that is under way does not: the page cannot
// be dropped, which the kernel reports as an EIO of a later fsync. Hence a file whose blocks for
// direct I/O are larger than a sector (a 4K native disk) gets no direct descriptor at all, as with
// the kernel's loop driver; every write of a file that has one is direct. On a block device with
// larger logical blocks the limits say so, and bios that disregard them are buffered.
//
// Flush: one fdatasync at a time serves all flushes that were waiting when it began; those that
// come later wait for the next. With libaio it is an IOCB_CMD_FDSYNC. FUA writes carry RWF_DSYNC.
// That pages could not be written back the kernel tells each descriptor once: only flushes sync by
// the buffered one, so that no FUA write is told in their place.
//
// A file that shrinks gives kIoError for what it lost. Writes would make it grow again: they look
// at the size first, once in a tick of the coarse clock (4 ms at most 10), so that another
// program's truncate is noticed within that time. An I/O never reaches behind the size seen last.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/aio_context.h"
#include "engine/bio_gate.h"
#include "engine/env.h"
#include "engine/file_probe.h"
#include "engine/unique_fd.h"

namespace mapperfs {

class FileDevice final : public AioDevice {
 public:
  struct Names {
    std::string path;   // absolute and free of symlinks: opened again with O_DIRECT
    std::string table;  // of a file: what tables print; of a block device MAJOR:MINOR is printed
  };
  // `fd` is the open file or block device. `env` outlives the device.
  FileDevice(Env& env, Names names, UniqueFd fd, bool writable);
  // No bio is inside.
  ~FileDevice() override;

  // Goes on with `fd`, the same file open for writing. One control thread at a time; bios may be in
  // flight.
  void make_writable(UniqueFd fd);
  [[nodiscard]] bool writable() const { return files().writable; }
  // Looks at the size again (files grow). Any thread.
  sector_t refresh_size() const noexcept;
  [[nodiscard]] const FileFacts& facts() const { return files().facts; }

  // BlockDevice
  void submit(Bio& bio) noexcept override;
  [[nodiscard]] sector_t size_sectors() const override {
    return size_.load(std::memory_order_acquire);
  }
  [[nodiscard]] QueueLimits limits() const override { return files().facts.limits; }
  [[nodiscard]] std::string table_name() const override;
  [[nodiscard]] std::string display_name() const override;
  [[nodiscard]] std::string numbers() const override;
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override;
  [[nodiscard]] Result<int> whole_file() const override;
  [[nodiscard]] bool is_memory() const override {
    return files().facts.speed == FileSpeed::kMemory;
  }

  // AioDevice
  [[nodiscard]] int aio_fd(const Bio& bio) const noexcept override;
  void aio_end(Bio& bio, BlkStatus status) noexcept override;
  void aio_refused(Bio& bio) noexcept override;
  bool aio_would_wait(const Bio& bio) noexcept override;

  // Of the environment's blocking threads (BlockingPool::kMaxThreads) for one device.
  static constexpr std::size_t kBlockingShare = 8;

 private:
  static constexpr int kCacheTries = 16;
  static constexpr std::uint32_t kColdReads = 1024;
  // So many reads after an EAGAIN the disk's queue may still be full.
  static constexpr int kFullReads = 1024;
  // Discards up to this size are done inside submit() on memory file systems.
  static constexpr std::size_t kInlinePunchBytes = 256 * 1024;

  // The descriptors and what was found out about them: constant. Kept until the device goes, since
  // bios in flight may use the ones before make_writable().
  struct Files {
    UniqueFd buffered;
    UniqueFd direct;
    UniqueFd synced;  // kBuffered: of FUA writes
    FileFacts facts;
    bool writable = false;
  };
  [[nodiscard]] const Files& files() const { return *files_.load(std::memory_order_acquire); }
  void adopt(UniqueFd fd, bool writable);

  // Inside submit(): must not block.
  void submit_read(Bio& bio, const Files& files) noexcept;
  void submit_write(Bio& bio, const Files& files) noexcept;
  void submit_abnormal(Bio& bio, const Files& files) noexcept;
  void submit_data(Bio& bio, const Files& files) noexcept;
  bool read_from_cache(Bio& bio, const Files& files) noexcept;
  [[nodiscard]] bool cache_worth_a_try(const Files& files) noexcept;
  [[nodiscard]] bool may_be_cached(const Bio& bio, const Files& files) noexcept;
  void submit_blocking(Bio& bio) noexcept;
  void send_to_pool(Bio& bio) noexcept;
  [[nodiscard]] bool past_the_end(const Bio& bio, const Files& files) const noexcept;

  // Flushes: a round is one fdatasync.
  void join_flush(Bio& bio) noexcept;
  void start_round(Bio& leader) noexcept;
  void end_round(BlkStatus status) noexcept;

  // On blocking threads (file_device_blocking.cc). They return how the bio ends.
  [[nodiscard]] BlkStatus serve_blocking(const Bio& bio) noexcept;
  [[nodiscard]] BlkStatus transfer_blocking(const Bio& bio) const noexcept;
  [[nodiscard]] BlkStatus transfer_bounced(const Bio& bio, const Files& files) const noexcept;
  [[nodiscard]] BlkStatus discard_blocking(const Bio& bio) const noexcept;
  [[nodiscard]] BlkStatus write_zeroes_blocking(const Bio& bio) noexcept;
  [[nodiscard]] BlkStatus write_zeroes_by_hand(const Bio& bio, const Files& files) const noexcept;
  [[nodiscard]] BlkStatus sync_blocking() const noexcept;
  // As write_all() of file_device_blocking.cc, through the page cache: 0 or an errno.
  static int write_buffered(const Files& files, std::byte* data, std::size_t bytes,
                            std::uint64_t offset, bool fua) noexcept;

  Env& env_;
  const Names names_;
  std::atomic<const Files*> files_{nullptr};
  std::vector<std::unique_ptr<const Files>> all_files_;  // one control thread at a time
  mutable std::atomic<sector_t> size_{0};
  mutable std::atomic<std::uint64_t> size_tick_{0};  // coarse clock of the last look
  std::atomic<int> cache_tries_{kCacheTries - 1};    // 0: cold; kCacheTries: the last one hit
  std::atomic<int> full_reads_{0};                   // > 0: the disk's queue may be full
  std::atomic<std::uint32_t> cold_reads_{0};
  std::atomic<bool> zero_range_missing_{false};

  BioGate blocking_{kBlockingShare};

  std::mutex flush_mutex_;
  bool flush_running_ = false;  // flush_mutex_
  BioList flush_now_;           // flush_mutex_: the round under way; its first bio leads
  BioList flush_next_;          // flush_mutex_: came after it began
};

}  // namespace mapperfs
