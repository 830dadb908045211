// A mapped device: a name, two table slots, and the way of a bio through the live one.
//
// Threads. submit() and what it calls run on any thread and never block. Control operations may
// block. Suspend, resume and remove take control_mutex_ and so run one at a time; loads, messages
// and queries do not wait for them: they take table_mutex_, which is held for no wait on I/O in
// flight. A message or a status, whose target may take long, keeps its table by a Table::Hold and
// no lock: a load does not wait for it. Who takes that table away does so at once and then waits: a
// swap before the new table resumes, everyone before the old one is destroyed. Exclusive work runs
// one at a time as well, under exclusive_mutex_, which nothing that controls the device takes. Lock
// order: exclusive_mutex_ or control_mutex_ (nobody takes both), table_mutex_ (of the device above
// before those of the device below), then the engine's mutex, then deferred_mutex_.
//
// Invariants
//  1. A bio inside the device is counted in counters_ from enter to pop_frame; while anything is
//     counted, or exclusive work is inside, the live table stays.
//  2. kGateHold in gate_: no bio enters; kGateRange: none that overlaps range_ does (kBioInternal
//     excepted, both times). Such bios queue on deferred_ in order.
//  3. live_ is changed only with kGateHold in gate_ and nothing inside.
//
// Crash: a mapped device keeps nothing on media of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/io_counters.h"
#include "engine/table.h"

namespace mapperfs {

class Engine;
class StatsRegions;

struct SuspendOptions {
  bool noflush = false;  // targets may push bios back instead of completing them
  bool nolockfs =
      false;  // taken for the kernel's sake: a file has no file system above it to freeze
  // Asked now and then while bios drain, and while another control operation keeps the device,
  // under no lock that bios need; true gives the suspend up with EINTR.
  std::function<bool()> interrupted;
};

struct Geometry {
  std::uint64_t cylinders = 0;
  std::uint64_t heads = 0;
  std::uint64_t sectors = 0;
  std::uint64_t start = 0;
};

class MappedDevice final : public BlockDevice, public TargetHost {
 public:
  MappedDevice(Engine& engine, std::uint64_t serial, unsigned minor, std::string name,
               std::string uuid);
  ~MappedDevice() override;

  // BlockDevice
  void submit(Bio& bio) noexcept override;
  [[nodiscard]] sector_t size_sectors() const override {
    return size_.load(std::memory_order_acquire);
  }
  [[nodiscard]] QueueLimits limits() const override;
  [[nodiscard]] std::string table_name() const override { return name(); }
  [[nodiscard]] std::string numbers() const override;
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override;

  // TargetHost
  void table_event() override;
  void log(std::string_view sentence) override;
  [[nodiscard]] bool noflush_suspending() const override {
    return noflush_suspending_.load(std::memory_order_acquire);
  }
  [[nodiscard]] std::string name() const override;
  [[nodiscard]] MappedDevice& mapped_device() override { return *this; }

  // Identity. The serial is never used twice in an engine's life.
  [[nodiscard]] std::uint64_t serial() const { return serial_; }
  [[nodiscard]] unsigned minor() const { return minor_; }
  [[nodiscard]] std::string uuid() const;

  // Control operations: core.md sections 3 and 4 say what each does and which errno it gives.
  Status load(std::span<const TableLine> lines, DeviceMode mode);
  Status clear();
  Status suspend(const SuspendOptions& options);
  Status resume(const SuspendOptions& options);
  Result<std::string> message(sector_t sector, std::span<const std::string_view> argv);
  Status set_geometry(const Geometry& geometry);
  // Replaces the live table by `error` of the same size (wipe_table, remove --force).
  Status wipe_table(const SuspendOptions& options);

  enum class Slot : std::uint8_t { kLive, kInactive };
  struct StatusLine {
    sector_t start = 0;
    sector_t len = 0;
    std::string type;
    std::string words;
  };
  // The lines of a table, or none where that slot is empty.
  [[nodiscard]] std::vector<StatusLine> table_lines(Slot slot, bool show_keys) const;
  [[nodiscard]] std::vector<StatusLine> status_lines(Slot slot, bool noflush) const;
  // What the slot's table stands on, most recently opened first: word, numbers.
  struct Dependency {
    std::string numbers;
    std::string name;
  };
  [[nodiscard]] std::vector<Dependency> dependencies(Slot slot) const;

  struct Info {
    bool live = false;
    bool inactive = false;
    bool suspended = false;
    bool read_only = false;
    bool deferred_remove = false;
    int open_count = 0;
    std::uint32_t event_nr = 0;
    std::size_t targets = 0;
    sector_t size = 0;
  };
  [[nodiscard]] Info info() const;
  [[nodiscard]] std::uint32_t event_nr() const { return event_nr_.load(std::memory_order_acquire); }
  [[nodiscard]] bool read_only() const { return read_only_.load(std::memory_order_acquire); }
  [[nodiscard]] bool removed() const { return removed_.load(std::memory_order_acquire); }
  [[nodiscard]] IoSums io_sums() const;

  // Runs `work` while no other bio that overlaps [sector, sector + sectors) is inside; whatever
  // does not overlap goes on. `work` submits its bios to this device, within that range, with
  // kBioInternal, and waits for them. The live table stays as it is meanwhile: a suspend waits for
  // `work` as it waits for a bio. For read-modify-write of parts of a block.
  //
  // Waits while the device is suspended, for other exclusive work, and for the bios that are under
  // way, wherever they are. kRequeue from `work`, which is what its bios end with where a noflush
  // suspend pushes them back, has it called again after the resume, perhaps over another table.
  // Else its outcome, or kIoError where the device was removed first. Blocks; not for queue
  // threads.
  BlkStatus run_exclusive(sector_t sector, sector_t sectors,
                          const std::function<BlkStatus()>& work);

  // For who reads and writes the live table's one file past the engine, as FUSE passthrough does:
  // the file's descriptor, the device's own, and from now to end_bypass() the live table stays;
  // suspend, swap and wipe are EBUSY. Any number at once. Else the sentence says why this table, or
  // the device now, cannot be served so. Statistics do not see that I/O. Control threads; do not
  // wait.
  Result<int> begin_bypass();
  void end_bypass();
  [[nodiscard]] bool bypassed() const;

  // Statistics regions (@stats_ messages) account bios while this is not null; engine/stats.h.
  void set_stats(StatsRegions* stats);
  StatsRegions& stats() { return *stats_owner_; }

 private:
  friend class Bio;
  friend class Engine;
  friend class PieceJoin;

  // The way of a bio: engine/bio_path.cc. Returns true when the bio goes on to bio.dev.
  // `now_ns`: the coarse clock, asked once a submit; 0 before.
  bool enter(Bio& bio, std::uint64_t& now_ns) noexcept;
  friend void submit_bio(Bio& bio) noexcept;
  bool route(Bio& bio, const Table& table) noexcept;
  bool route_data(Bio& bio, const Table& table) noexcept;
  bool route_flush(Bio& bio, const Table& table) noexcept;
  bool route_abnormal(Bio& bio, const Table& table) noexcept;
  bool map_one(Bio& bio, Target& target, unsigned bio_nr) noexcept;
  static bool refuse(Bio& bio, BlkStatus status) noexcept;
  void turn_off(Bio& bio) noexcept;
  void leave(IoCounters::Slot& slot, std::uint32_t epoch) noexcept;
  // Pops the bio's innermost frame. False: someone else holds the bio now.
  static bool pop_frame(Bio& bio, std::uint64_t& now_ns) noexcept;

  // Holding bios back: engine/hold_back.cc. A drain looks again by itself after so long: a bio that
  // left without seeing the hold does not wake it.
  static constexpr std::chrono::microseconds kDrainPoll{200};
  [[nodiscard]] bool held_back(const Bio& bio, std::uint32_t gate) const noexcept;
  void defer(Bio& bio) noexcept;
  // False: the suspend was given up meanwhile, the bio goes in again.
  bool defer_requeued(Bio& bio) noexcept;
  void hold();
  void release();
  bool wait_idle(const std::function<bool()>& interrupted);
  bool wait_open();
  void close_range(sector_t sector, sector_t sectors);
  void open_range();
  void wait_settled(std::uint32_t epoch);
  bool begin_exclusive();
  // Without control_mutex_ where it was interrupted.
  std::unique_lock<std::mutex> lock_control(const std::function<bool()>& interrupted);
  Status suspend_locked(const SuspendOptions& options);
  Status resume_locked(const SuspendOptions& options);
  [[nodiscard]] QueueLimits limits_locked() const;  // table_mutex_ held
  Result<std::unique_ptr<Table>> swap_in_inactive();
  // EBUSY while anyone bypasses the engine; else nobody will until allow_bypass().
  Status bar_bypass();
  void allow_bypass();
  // Waits until no bio is under way, or until the environment's clock shows `until_ns`: false.
  [[nodiscard]] bool falls_idle(std::uint64_t until_ns);
  // Called by the engine after the name is gone and nothing is open.
  void destroy();
  // table_mutex_ held.
  [[nodiscard]] const Table* slot_table(Slot slot) const {
    return slot == Slot::kLive ? live_owner_.get() : inactive_.get();
  }
  // Empty where the slot is.
  [[nodiscard]] Table::Hold hold_table(Slot slot) const {
    const std::shared_lock<std::shared_mutex> lock(table_mutex_);
    return Table::Hold(slot_table(slot));
  }

  Engine& engine_;
  const std::uint64_t serial_;
  const unsigned minor_;

  // Bits of gate_. The epoch is that of counters_ in which bios that come are counted.
  static constexpr std::uint32_t kGateEpoch = 1;
  static constexpr std::uint32_t kGateRange = 2;
  static constexpr std::uint32_t kGateHold = 4;

  // The way of a bio reads these together; the range only with kGateRange.
  std::atomic<Table*> live_{nullptr};
  std::atomic<std::uint32_t> gate_{0};
  std::atomic<sector_t> range_sector_{0};
  std::atomic<sector_t> range_sectors_{0};
  std::atomic<bool> discard_off_{false};       // a device below said kTargetError
  std::atomic<bool> write_zeroes_off_{false};  //
  std::atomic<StatsRegions*> stats_{nullptr};
  IoCounters counters_;

  std::atomic<sector_t> size_{0};
  std::atomic<bool> read_only_{false};
  std::atomic<bool> noflush_suspending_{false};
  std::atomic<bool> removed_{false};
  std::atomic<bool> suspended_{false};
  std::atomic<std::uint32_t> event_nr_{0};

  std::mutex exclusive_mutex_;
  std::mutex control_mutex_;
  mutable std::shared_mutex table_mutex_;
  std::unique_ptr<Table> live_owner_;  // table_mutex_
  std::unique_ptr<Table> inactive_;    // table_mutex_
  Geometry geometry_;                  // table_mutex_
  bool typed_ = false;                 // table_mutex_: a table was loaded once
  std::unique_ptr<StatsRegions> stats_owner_;

  mutable std::mutex bypass_mutex_;
  int bypasses_ = 0;            // bypass_mutex_
  bool bypass_barred_ = false;  // bypass_mutex_: suspended, or about to be

  std::mutex deferred_mutex_;
  BioList deferred_;                 // deferred_mutex_
  bool exclusive_inside_ = false;    // deferred_mutex_: exclusive work runs
  std::condition_variable idle_cv_;  // with deferred_mutex_: someone left
  std::condition_variable open_cv_;  // with deferred_mutex_: kGateHold fell or removed_ rose

  // Under the engine's mutex.
  std::string name_;
  std::string uuid_;
  int open_count_ = 0;
  bool deferred_remove_ = false;
  std::vector<BlockDevice*> live_deps_;
  std::vector<BlockDevice*> inactive_deps_;
};

}  // namespace mapperfs
