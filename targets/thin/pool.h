// A thin pool: metadata, data device, mode, and the bios of its thin devices that cannot go
// straight to the data device.
//
// Where a bio goes. The thin target's map() looks the block up in memory and sends the bio on if it
// is mapped to a block of its own. A write to an unmapped block that nothing has to be put into
// gets its block right there, if the metadata can give one without reading, committing or waiting.
// All other bios are deferred to a lane: a list with a worker,
// whose plain code may block. Writes go to one of kDataLanes by device and virtual block, so that
// one block is provisioned by one thread at a time; flushes and what has to wait for a commit go to
// the flush lane, discards and deletions to the discard lane. Reads that miss the cache have lanes
// of their own, which wait for no other bio: a data lane may wait for them, where a block is filled
// from an external origin that is a thin device of the same pool.
//
// What a crash at each step leaves
//  - A new block is zeroed, or filled by a copy or by the write itself, before its mapping is
//    inserted. The commit flushes the data device after the mapping was inserted and before the
//    mapping is on stable storage. So no mapping that survives names a block with data of another.
//    (skip_block_zeroing gives up the zeroing and no more.)
//  - A write in a new block is acknowledged before its mapping is committed: the pool is a volatile
//    write cache. A flush, and a FUA write, complete after the commit.
//  - A block that lost its last mapping is reused only after the commit that says so, and after the
//    I/O that was still on its way to it. A discard is passed down only after that commit: before,
//    a crash would bring back mappings (perhaps another device's) to a block already wiped.
//  - A block that was allocated and not inserted is free again.
//
// A snapshot of a device in use. From one moment on the device's blocks are shared, but writes that
// found them its own before may still be on their way. They belong to the snapshot and to the
// device. So the message returns when they are over (its commit waits for a grace period of
// in_flight_), and no such block is copied before that: a write that needs the copy waits on
// settling_, in nobody's way. One that covers its block needs no copy.
//
// Locks, outermost first: transactions_, Volume::discards, Lane::giving, mode_mutex_, a lane's
// mutex, waiting_mutex_. None is held across end_io() or across a bio that goes to the data device,
// except the first two, shared, and the third, while a block is filled. Queue threads only try
// those three.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/bio.h"
#include "engine/env.h"
#include "metadata/thin_metadata.h"
#include "targets/thin/copier.h"
#include "targets/thin/fair_shared_mutex.h"
#include "targets/thin/in_flight.h"
#include "targets/thin/pool_table.h"

namespace mapperfs::thinp {

// In order of gravity; what the pool can do is in docs/targets/thin-pool.md.
enum class PoolMode : std::uint8_t {
  kWrite,
  kOutOfDataSpace,
  kOutOfMetadataSpace,
  kReadOnly,
  kFail,
};

// A thin device that at least one table has open. Outlived by its pool.
struct Volume {
  std::unique_ptr<ThinDevice> dev;
  // Shared by who fills a block, exclusive while mappings are removed: else a block filled from the
  // old contents would come back after the discard.
  FairSharedMutex discards;
  // An abort took changes away that had been acknowledged: flushes fail until it is opened again.
  std::atomic<bool> lost_changes{false};
};

// A thin target as the pool sees it. Outlives its bios.
struct Thin {
  std::shared_ptr<Volume> volume;
  sector_t begin = 0;             // of the target on its mapped device
  BlockDevice* origin = nullptr;  // external origin, read only
  std::atomic<sector_t> origin_sectors{0};
  std::atomic<bool> requeue{false};  // a noflush suspend: bios go back to the mapped device
};

// In the per-I/O data of each bio of a thin target.
struct ThinIo {
  Thin* thin = nullptr;
  std::uint64_t block = 0;  // virtual; of reads and writes
  InFlight::Section section = InFlight::kNone;
  bool committed = false;  // FUA: the mapping `seen` has been committed
  bool written = false;    // its data is in the block already; only the commit is missing
  std::uint8_t tries = 0;  // to find a free block
  ThinMapping seen;        // why it waits: for its commit, or to be settled
  // `seen` is not copied before a grace period that began after this many.
  std::uint64_t grace = 0;
};

// What a thin-pool table asks for. Belongs to its target; the live one's is bound to the pool.
struct PoolControl {
  std::uint64_t data_blocks = 0;
  std::uint64_t low_water_blocks = 0;
  bool zero_new_blocks = true;
  bool discard_enabled = true;
  bool discard_passdown = true;  // asked for, and the data device can
  bool error_if_no_space = false;
  PoolMode mode = PoolMode::kWrite;  // asked for; then the pool's
};

class Pool {
 public:
  // Opens or formats the metadata. The pool is suspended. Control threads.
  static Result<std::shared_ptr<Pool>> open(const PoolKey& key, const PoolTuning& tuning);
  Pool(const PoolKey& key, const PoolTuning& tuning, std::unique_ptr<ThinMetadata> metadata);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  [[nodiscard]] BlockDevice& data() const { return *data_; }
  [[nodiscard]] std::uint32_t block_sectors() const { return block_sectors_; }
  [[nodiscard]] PoolMode mode() const { return mode_.load(std::memory_order_acquire); }
  [[nodiscard]] bool suspended() const { return suspended_.load(std::memory_order_acquire); }
  [[nodiscard]] bool discard_enabled() const { return discard_enabled_; }
  [[nodiscard]] bool discard_passdown() const { return discard_passdown_; }
  [[nodiscard]] bool error_if_no_space() const { return error_if_no_space_; }
  // Blocks that the live table gives the pool.
  [[nodiscard]] std::uint64_t table_blocks() const { return table_blocks_; }
  [[nodiscard]] ThinMetadata& metadata() const { return *metadata_; }
  // With so many free metadata blocks, of those in the status, an event is raised.
  [[nodiscard]] static std::uint64_t metadata_low_water(const ThinPoolStatus& now);
  InFlight& in_flight() { return in_flight_; }

  // --- control threads, all may block ---
  // Says which discards the pool takes, once, when its first table is loaded.
  void set_discard_enabled(bool on) { discard_enabled_ = on; }
  // The target whose table goes live takes over; grows the pool to its size.
  Status bind(PoolControl& control);
  // The control goes away. If it was the bound one all I/O fails from here on.
  void unbind(const PoolControl& control);
  void presuspend();
  void postsuspend();
  void resume();
  // ENODATA: no such device.
  Result<std::shared_ptr<Volume>> open_volume(std::uint32_t id);
  // Runs a change of the metadata that a message asks for, and commits it. `shares`: blocks that
  // belonged to one device may be another's too from then on.
  Status change(const std::function<Status(ThinMetadata&)>& what, bool shares);
  // Makes all changes last. Any thread but queue threads.
  Status commit();
  // A thin target's noflush suspend: its waiting bios go back to the mapped device.
  void requeue_waiting(const Thin& thin);

  // --- queue threads ---
  // Takes over a bio of a thin target that map() cannot answer.
  void defer(Bio& bio) noexcept;
  // Takes over a FUA write to a block of its own, `mapping`, that is not committed yet: it waits
  // for no block that is being filled.
  void commit_first(Bio& bio, const ThinMapping& mapping) noexcept;
  // A block for a write without FUA to an unmapped one, if that is possible here and now. True: the
  // bio was changed to go to it. Inside a section of in_flight(), begun before the look-up.
  bool provision_now(Bio& bio) noexcept;
  // A read of what is not mapped: from the external origin, or zeroes. True: the bio was changed to
  // go to the origin; false: its data is filled with zeroes and it can be ended.
  static bool remap_unmapped_read(Bio& bio, const Thin& thin) noexcept;

 private:
  // As many blocks can be filled at a time: most of that is waiting for the data device.
  static constexpr std::size_t kDataLanes = 16;
  static constexpr std::size_t kReadLanes = 4;
  static constexpr std::size_t kFlushLane = kDataLanes + kReadLanes;
  static constexpr std::size_t kDiscardLane = kFlushLane + 1;
  static constexpr std::size_t kLanes = kDiscardLane + 1;

  // Bios in order of coming and the thread that serves them.
  struct Lane {
    std::mutex mutex;
    BioList bios;            // mutex
    bool scheduled = false;  // mutex: a piece of work for it is posted
    std::mutex giving;       // held by who gives a block to one of its bios
    std::unique_ptr<Worker> worker;
    Copier copier;  // the worker's
  };
  // Posts a member function to a lane's worker.
  class PostTimer final : public Timer {
   public:
    PostTimer(Pool& pool, void (Pool::*what)()) : pool_(pool), what_(what) {}
    void fire() noexcept override;

   private:
    Pool& pool_;
    void (Pool::*const what_)();
  };

  // What came of a try to give a write a block of its own.
  enum class Given : std::uint8_t {
    kMapped,        // look the mapping up again
    kWritten,       // the write's data is in it, too
    kUnsettled,     // not before a snapshot has settled
    kFailed,        // the look-up, or a device below
    kNoBlock,       // there is none, or the metadata failed
    kMetadataFull,  // there is no room for the mapping
  };

  // pool.cc
  void set_mode(PoolMode mode);
  // Only if the mode is `from`: of several who see the same change, one makes it.
  void change_mode(PoolMode from, PoolMode to);
  void set_mode_locked(PoolMode mode, BioList& failed);  // mode_mutex_ held
  void announce_mode(PoolMode mode);
  Status grow(std::uint64_t blocks);
  bool has_volumes();
  void operation_failed(std::string_view what, const Status& status);
  PoolMode abort_transaction(std::string_view what, const Status& status);
  Status commit_metadata();
  void check_metadata_low_water();
  Status flush_data();
  void note_changed();
  void periodic_commit();
  void no_space_timed_out();
  void log(const std::string& sentence) { host_.log(sentence); }
  static void end_all(BioList& bios, BlkStatus status) noexcept;

  // deferred.cc
  [[nodiscard]] std::size_t lane_of(const Bio& bio, const ThinIo& io) const noexcept;
  void push(Bio& bio, std::size_t lane) noexcept;
  void run_lane(std::size_t lane) noexcept;
  bool answered_early(Bio& bio) noexcept;
  [[nodiscard]] bool holds(const Bio& bio) const {
    return suspended() || (bio.op != Op::kRead && suspending_.load(std::memory_order_acquire));
  }
  void process(Bio& bio, Copier& copier) noexcept;
  bool try_remap(Bio& bio, BlkStatus& error) noexcept;
  void unserviceable(Bio& bio) noexcept;
  void run_flushes(BioList& bios) noexcept;
  void redefer(BioList& bios) noexcept;
  void retry_waiting() noexcept;
  [[nodiscard]] bool settled(const ThinMapping& mapping, const ThinIo& io) const noexcept;
  void settle_first(Bio& bio) noexcept;
  void synchronize();
  void snapshot_settled();

  // provision.cc
  void give_way();
  bool provision(Bio& bio, Copier& copier);
  Given give_block(Bio& bio, Copier& copier, Status& why);
  BlkStatus fill(Bio& bio, const ThinMapping& from, std::uint64_t data_block, Copier& copier);
  bool no_block(const Status& status, ThinIo& io);
  Result<std::uint64_t> allocate(ThinDevice& device);
  void check_low_water();
  void make_space();
  void run_out_of_space();

  // discards.cc
  void run_discards(BioList& bios) noexcept;
  Status remove_range(Bio& bio, std::vector<DataRun>* freed);
  void pass_down(const std::vector<DataRun>& runs);
  void reclaim_some();
  [[nodiscard]] bool may_reclaim() const;
  void start_reclaim();

  TargetHost& host_;  // a mapped device, held open by each thin target
  Env& env_;
  const DevRef data_;
  const std::uint32_t block_sectors_;
  const PoolTuning tuning_;
  const std::unique_ptr<ThinMetadata> metadata_;
  InFlight in_flight_;

  std::atomic<PoolMode> mode_{PoolMode::kWrite};
  std::atomic<bool> suspending_{true};  // all bios but reads wait on held_
  std::atomic<bool> suspended_{true};   // reads too
  std::atomic<bool> stopping_{false};
  std::atomic<bool> discard_enabled_{true};
  std::atomic<bool> discard_passdown_{true};
  std::atomic<bool> zero_new_blocks_{true};
  std::atomic<bool> error_if_no_space_{false};
  std::atomic<bool> low_water_triggered_{false};
  std::atomic<bool> metadata_low_water_triggered_{false};
  std::atomic<std::uint64_t> low_water_blocks_{0};
  std::atomic<std::uint64_t> table_blocks_{0};
  std::atomic<bool> commit_armed_{false};   // the timer's
  std::atomic<bool> commit_posted_{false};  // one is with the flush lane's worker
  std::atomic<bool> reclaiming_{false};
  // Flushes of the data device, numbered as they start, and the newest of those that succeeded.
  std::atomic<std::uint64_t> flushes_started_{0};
  std::atomic<std::uint64_t> flushed_{0};

  // Shared by who allocates and inserts, exclusive for an abort.
  WideSharedMutex transactions_;

  // Messages that are being committed; who would give blocks on a worker waits for them.
  std::atomic<unsigned> messages_{0};
  std::mutex messages_mutex_;  // no other is taken under it
  std::condition_variable messages_done_;

  std::mutex mode_mutex_;           // changes of mode_
  PoolControl* control_ = nullptr;  // mode_mutex_; the bound one

  std::mutex waiting_mutex_;
  BioList held_;      // waiting_mutex_: came while the pool was suspended
  BioList retry_;     // waiting_mutex_: waits for a free block
  BioList settling_;  // waiting_mutex_: waits for a snapshot to settle

  // Snapshots that may share blocks to which writes are still on their way. Changed under
  // waiting_mutex_.
  std::atomic<unsigned> snapshots_{0};
  // Grace periods of in_flight_, numbered as they begin, and the newest that is over.
  std::atomic<std::uint64_t> graces_begun_{0};
  std::atomic<std::uint64_t> graces_over_{0};

  std::mutex volumes_mutex_;
  std::map<std::uint32_t, std::weak_ptr<Volume>> volumes_;  // volumes_mutex_
  std::size_t prune_volumes_at_ = 64;                       // volumes_mutex_

  std::mutex space_mutex_;  // one thread looks for space at a time

  PostTimer commit_timer_{*this, &Pool::periodic_commit};
  PostTimer no_space_timer_{*this, &Pool::no_space_timed_out};
  // Last: their destructors run what is posted, which uses all of the above.
  std::array<Lane, kLanes> lanes_;
};

}  // namespace mapperfs::thinp
