// What a thin pool must remember: which devices there are, which block of the data device holds
// which block of which thin device, and which data blocks are free. One RocksDB database in one
// directory; docs/formats/thin.md has every byte of it.
//
// Idea: each device is a radix tree of small pages with reference counts. A snapshot is one more
// reference to a root, so it costs the same whatever the size; a page is copied when a device that
// shares it changes it. RocksDB only makes the state last: look-ups are answered from a bounded
// cache of pages, and a commit is one atomic, synced batch of all that changed since the last.
//
// Transactions: every change belongs to the open transaction. commit() seals it, calls the
// pre-commit function (the pool flushes the data device there) and makes it last; changes made
// meanwhile belong to the next one. After a crash the pool is at some commit at or after the last
// one that returned.
//
// Threads: everything may be called from any thread unless said otherwise. What "may block" reads
// or writes the database. Units: blocks, where a data block is data_block_size sectors and
// metadata blocks are counted as 4 KiB.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/status.h"
#include "engine/types.h"

namespace rocksdb {
class Env;
}

namespace mapperfs {

// Limits of the format.
inline constexpr std::uint32_t kThinMaxDeviceId = (std::uint32_t{1} << 24) - 1;
inline constexpr std::uint64_t kThinMaxVirtualBlocks = std::uint64_t{1} << 48;
// What is known of free blocks is in memory, 2 bytes for 512 of them: 256 MiB. The counts of more
// would fill the largest metadata.
inline constexpr std::uint64_t kThinMaxDataBlocks = std::uint64_t{1} << 36;
// Of a data block, in sectors.
inline constexpr std::uint32_t kThinBlockSizeStep = 128;
inline constexpr std::uint32_t kThinMaxBlockSize = 2097152;
// Metadata blocks of 4 KiB that a pool may use: the kernel's largest metadata device.
inline constexpr std::uint64_t kThinMaxMetadataBlocks = 4161600;

// What a virtual block is mapped to. 16 bytes, trivially copyable.
struct ThinMapping {
  std::uint64_t data_block = 0;  // meaningless when not mapped
  std::uint32_t time = 0;        // the pool's time when it was mapped
  bool mapped = false;
  // The kernel's rule: a snapshot was taken after the block was mapped. May be true for a block
  // that has no second owner any more, is never false for one that has.
  bool shared = false;
};

// `length` consecutive virtual blocks on consecutive data blocks, mapped at one time.
struct ThinRun {
  std::uint64_t virtual_begin = 0;
  std::uint64_t data_begin = 0;
  std::uint64_t length = 0;
  std::uint32_t time = 0;
};

// Data blocks [begin, begin + length).
struct DataRun {
  std::uint64_t begin = 0;
  std::uint64_t length = 0;
};

struct ThinDeviceDetails {
  std::uint32_t id = 0;
  std::uint64_t mapped_blocks = 0;
  std::uint64_t transaction_id = 0;  // the pool's when the device was made
  std::uint32_t creation_time = 0;
  std::uint32_t snapshotted_time = 0;
};

// What the pool was when its metadata snapshot was taken.
struct ThinHeldSnapshot {
  std::uint64_t transaction_id = 0;
  std::uint32_t time = 0;
  std::vector<ThinDeviceDetails> devices;  // by id, ascending
};

// The data blocks' figures are of one moment, the others each of its own. "used" of data counts
// blocks that have an owner or are allocated and not yet inserted; `free_data_blocks` are those
// that allocate_data_block() can hand out now, so that blocks freed in the open transaction are in
// neither.
struct ThinPoolStatus {
  std::uint64_t transaction_id = 0;
  std::uint32_t time = 0;
  std::uint64_t used_data_blocks = 0;
  std::uint64_t free_data_blocks = 0;
  std::uint64_t total_data_blocks = 0;
  // As the kernel prints them: "used" includes the reserve of min(4096, a tenth of the total).
  // What counts as a block is in docs/formats/thin.md, "Usage".
  std::uint64_t used_metadata_blocks = 0;
  std::uint64_t total_metadata_blocks = 0;
  std::uint64_t held_root = 0;  // of the metadata snapshot; 0: none
  bool needs_check = false;
  bool reclaim_pending = false;  // deleted devices whose blocks are not all free yet
};

struct ThinMetadataOptions {
  enum class Mode {
    kReadWrite,
    kReadOnly,  // nothing is written, not even a recovered log; for tools on a pool at rest
    kLive,      // as kReadOnly, the last commit of a pool that another process has open
  };
  Mode mode = Mode::kReadWrite;
  // Format an empty or missing directory. Without it such a directory is EPERM, or EINVAL if
  // data_block_size is 0 too.
  bool may_format = true;
  // Sectors; must be the one that the pool was formatted with. 0: whatever the pool has (then
  // nothing is formatted).
  std::uint32_t data_block_size = 0;
  // Size of the data device when formatting. An existing pool keeps its own until resize_data().
  std::uint64_t nr_data_blocks = 0;
  // Size to report and to keep to, in 4 KiB blocks; clamped to kThinMaxMetadataBlocks.
  std::uint64_t nr_metadata_blocks = kThinMaxMetadataBlocks;
  // Bytes of clean pages kept in memory. Changed pages come on top, bounded by dirty_bytes.
  std::size_t cache_bytes = std::size_t{128} << 20;
  // Changes held between commits. A change that finds it reached commits first; commit_due() is
  // true long before.
  std::size_t dirty_bytes = std::size_t{32} << 20;
  // LZ4 for RocksDB's files; the pages are packed already.
  bool compress = false;
  // RocksDB's memtable: what opening may have to replay from its log.
  std::size_t memtable_bytes = std::size_t{8} << 20;
  // Where RocksDB finds files and threads; for tests. Must outlive the metadata. Null: the default.
  rocksdb::Env* env = nullptr;
  // For tests: blocks are given to devices from runs of their own even if no two threads ever met.
  bool always_lend = false;
  // For tests: called between steps whose order other threads rely on, with the name of the place,
  // maybe with locks held; the thread goes on when it returns. Null: nothing is called.
  std::function<void(std::string_view place)> at_place;
};

class ThinMetadata;

// A thin device that is in use. While one exists, its device cannot be deleted. Several may exist
// for one id; all see the same. Must not outlive its ThinMetadata.
class ThinDevice {
 public:
  ThinDevice(const ThinDevice&) = delete;
  ThinDevice& operator=(const ThinDevice&) = delete;
  virtual ~ThinDevice() = default;

  [[nodiscard]] virtual std::uint32_t id() const noexcept = 0;

  // The mapping if the cache can tell without blocking; nullopt: call lookup() where blocking is
  // allowed. A hit takes no shared lock and allocates nothing. For queue threads.
  [[nodiscard]] virtual std::optional<ThinMapping> lookup_cached(
      std::uint64_t virtual_block) const noexcept = 0;
  // The mapping; may block to read it (which also caches it). ENODATA: an abort took the device
  // away; EILSEQ: damaged metadata; EIO.
  [[nodiscard]] virtual Result<ThinMapping> lookup(std::uint64_t virtual_block) const = 0;

  // As ThinMetadata::allocate_data_block(), for a block of this device: where several devices get
  // blocks at the same time, each gets them from a run of its own, in which no other is in its way.
  virtual Result<std::uint64_t> allocate_data_block() = 0;
  // Maps `virtual_block` to `data_block`, which allocate_data_block() returned and nobody inserted
  // yet. Replaces a mapping, whose data block loses a reference. On error the block is still the
  // caller's to cancel. May block. EINVAL: block not allocated or out of range; EROFS.
  virtual Status insert(std::uint64_t virtual_block, std::uint64_t data_block) = 0;

  // Maps `virtual_block`, if it is unmapped, to a free data block, which it returns; as
  // allocate_data_block() and insert(), but only where that needs no reading, no commit and no
  // waiting for who may be at one of these. nullopt: not now, or not so. For queue
  // threads, which may be inside what the pre-commit function waits for.
  virtual std::optional<std::uint64_t> try_provision(std::uint64_t virtual_block) noexcept = 0;

  // Unmaps [begin, end). Data blocks that lost their last reference are free after the next commit
  // if `freed` is null. Else they are appended to *freed, merged into runs, and are not handed out
  // before the caller has discarded them and passed the runs to ThinMetadata::release_data().
  // They need no undoing after a crash. Works in steps of one page; a failure may leave the range
  // partly unmapped (then *freed is right as far as it went). May block.
  virtual Status remove(std::uint64_t begin, std::uint64_t end, std::vector<DataRun>* freed) = 0;

  // Number of mapped blocks; does not block.
  [[nodiscard]] virtual std::uint64_t mapped_blocks() const noexcept = 0;
  // The highest mapped block, if any is. May block.
  [[nodiscard]] virtual Result<std::optional<std::uint64_t>> highest_mapped() const = 0;
  // Calls `fn` for the mapped runs within [begin, end) in order, clipped to the range and as long
  // as possible, until it returns false. Not a frozen view if others change the device. `fn` must
  // not change this device. May block.
  virtual Status for_each_run(std::uint64_t begin, std::uint64_t end,
                              const std::function<bool(const ThinRun&)>& fn) const = 0;
  // True if this device has changes that no finished commit holds: a flush has to commit().
  [[nodiscard]] virtual bool changed() const noexcept = 0;
  [[nodiscard]] virtual ThinDeviceDetails details() const noexcept = 0;

 protected:
  ThinDevice() = default;
};

class ThinMetadata {
 public:
  // Opens the pool's metadata in directory `dir`, made if missing; formats it when empty. May
  // block. EBUSY: someone has it open; EINVAL: other block size, unknown version, empty and may not
  // format; EILSEQ: damaged; else RocksDB's errno.
  static Result<std::unique_ptr<ThinMetadata>> open(const std::string& dir,
                                                    const ThinMetadataOptions& options);
  ThinMetadata(const ThinMetadata&) = delete;
  ThinMetadata& operator=(const ThinMetadata&) = delete;
  // Drops what was not committed. No ThinDevice may exist any more.
  virtual ~ThinMetadata() = default;

  // --- devices (each part of the open transaction; the caller commits) ---
  // EINVAL: id past kThinMaxDeviceId; EEXIST.
  virtual Status create_thin(std::uint32_t id) = 0;
  // Costs the same whatever the origin's size. EEXIST; ENODATA: no such origin.
  virtual Status create_snap(std::uint32_t id, std::uint32_t origin) = 0;
  // The id is free at once; small devices' blocks too, else reclaim() frees the rest, and has the
  // error if that fails. EBUSY: a ThinDevice exists; ENODATA.
  virtual Status delete_device(std::uint32_t id) = 0;
  // ENODATA: no such device.
  virtual Result<std::unique_ptr<ThinDevice>> open_device(std::uint32_t id) = 0;
  // Frees up to `max_pages` pages of deleted devices; true: there is more. Keeps nobody waiting for
  // longer than one page takes, nor for reading it. For a worker, while status().reclaim_pending,
  // and before the pool says that it has no space.
  virtual Result<bool> reclaim(std::size_t max_pages) = 0;
  // By id, ascending.
  [[nodiscard]] virtual std::vector<ThinDeviceDetails> devices() const = 0;

  // EINVAL: `current` is not the present one.
  virtual Status set_transaction_id(std::uint64_t current, std::uint64_t next) = 0;
  // Keeps every device as it is now readable through open_held(). EBUSY: there is one already.
  virtual Status reserve_metadata_snap() = 0;
  // EINVAL: there is none; EBUSY: a ThinDevice of open_held() exists.
  virtual Status release_metadata_snap() = 0;
  // What the metadata snapshot holds; ENODATA: none, or no such device in it. An open_held() one is
  // read-only (EROFS).
  [[nodiscard]] virtual Result<ThinHeldSnapshot> held_snapshot() const = 0;
  virtual Result<std::unique_ptr<ThinDevice>> open_held(std::uint32_t id) = 0;

  // --- data blocks ---
  // The first free block after the last one given out, wrapping; at first, and after an abort(),
  // the lowest. It is the caller's until insert() or cancel_allocation(); a crash in between leaks
  // nothing. ENOSPC: none is free now (reclaim() and commit() may free some). May block.
  virtual Result<std::uint64_t> allocate_data_block() = 0;
  virtual void cancel_allocation(std::uint64_t data_block) = 0;
  // Gives back what remove() handed out; free after the next commit at the earliest.
  virtual void release_data(const std::vector<DataRun>& runs) = 0;
  // References by mapping pages; 0: free. Sharing of pages hides in it: 1 does not mean one device.
  // May block.
  [[nodiscard]] virtual Result<std::uint32_t> data_references(std::uint64_t data_block) = 0;
  // Grows the data device. EINVAL: smaller than it is, or past kThinMaxDataBlocks.
  virtual Status resize_data(std::uint64_t nr_blocks) = 0;
  // Changes the size to keep to, as when a metadata device grows. EINVAL: less than is used.
  virtual Status resize_metadata(std::uint64_t nr_blocks) = 0;

  // --- transactions ---
  // Called by commit() between sealing and writing, from the committing thread, with no lock held;
  // its error fails the commit. Set before other threads use the metadata.
  virtual void set_pre_commit(std::function<Status()> flush_data) = 0;
  // Makes everything last that was changed before the call. Callers at the same time share one
  // commit; costs next to nothing when there is nothing to do. After an error every change and
  // commit fails with EIO until abort(). EIO too if an abort() came between call and return. What
  // an abort() took away before the call is not missed: the caller has to know. May block.
  virtual Status commit() = 0;
  // Back to the last commit: blocks allocated, devices made and mappings inserted since are gone;
  // ThinDevices stay usable if their device still exists. Where the metadata cannot be opened for
  // writing again, they are read on, and all changes fail with EROFS. If this fails, all fails with
  // EIO for good. No allocate/insert pair of the caller's may be under way. May block.
  virtual Status abort() = 0;
  // Anything to commit? Does not block.
  [[nodiscard]] virtual bool changed() const noexcept = 0;
  // Enough changes have gathered that committing now is better than in a second.
  [[nodiscard]] virtual bool commit_due() const noexcept = 0;

  // --- state ---
  [[nodiscard]] virtual ThinPoolStatus status() const noexcept = 0;
  // Number of free data blocks, as in status(); cheap.
  [[nodiscard]] virtual std::uint64_t free_data_blocks() const noexcept = 0;
  // free_data_blocks() > blocks; cheaper still, where the two are not close to each other.
  [[nodiscard]] virtual bool free_data_blocks_exceed(std::uint64_t blocks) const noexcept = 0;
  // While on, changes fail with EROFS; reading goes on. Not stored.
  virtual void set_read_only(bool on) noexcept = 0;
  // Stored at once by a write of its own, which works after a failed commit once abort() has. Where
  // nothing can be written, the flag is kept in memory, and all changes fail with EROFS from then
  // on.
  virtual Status set_needs_check() = 0;
  virtual Status clear_needs_check() = 0;
  [[nodiscard]] virtual std::uint32_t data_block_size() const noexcept = 0;  // sectors
  // Bytes of pages in memory now; for tools and tests.
  [[nodiscard]] virtual std::size_t cached_bytes() const noexcept = 0;

 protected:
  ThinMetadata() = default;
};

}  // namespace mapperfs
