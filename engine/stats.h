// Statistics regions: the @stats_* messages of a mapped device (reference: core.md section 6.1,
// drivers/md/dm-stats.c). A region is a run of sectors cut into areas; each area counts the bios
// that touch it.
//
// How bios are counted. start() notes in the frame when the bio came in and which regions there
// were; end() counts it in exactly those. A region that is made while bios are in flight does not
// see them end, so making and deleting one holds nobody back, on a suspended device neither.
//
// Invariants
//  1. Frame::stats_epoch is 0 except between start() and end(); so a frame whose start() was never
//     called costs end() one comparison.
//  2. Once set, MappedDevice's pointer to its StatsRegions stays set: every start() gets its end().
//
// Threads. start() and end() run on queue threads: one uncontended lock of the thread's own shard
// keeps the list of regions in place, counters are atomic. message() runs on control threads, any
// number at once; it takes mutex_ and then, to change the list, every shard in ascending order.
//
// Limits: kMaxAreas areas a region, kMaxBuckets histogram buckets a region, a quarter of the
// machine's memory for all regions of all devices.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/bio.h"
#include "engine/env.h"
#include "engine/status.h"
#include "engine/types.h"

namespace mapperfs {

class MappedDevice;

class StatsRegions {
 public:
  static constexpr std::uint64_t kMaxAreas = 8388608;
  static constexpr std::uint64_t kMaxBuckets = 134217728;

  // Both outlive this.
  StatsRegions(MappedDevice& md, Env& env);
  ~StatsRegions();
  StatsRegions(const StatsRegions&) = delete;
  StatsRegions& operator=(const StatsRegions&) = delete;

  // argv[0] begins with "@". The reply, or EINVAL (with the kernel's text), ENOENT (no such
  // region), EOVERFLOW (too many areas), ENOMEM. Calls md.set_stats(this) when the first region is
  // made. Control threads; any number at once.
  Result<std::string> message(std::span<const std::string_view> argv);

  // A bio entered the device: after its (counted) frame was pushed, with the bio's op and the
  // frame's sector and sectors as they came in. Queue threads.
  void start(const Bio& bio, Frame& frame) noexcept;
  // The bio leaves: before its counted frame is given back. Takes the op from the bio. May be
  // called on another thread than start(); needs no start() before. Queue threads.
  void end(const Bio& bio, Frame& frame) noexcept;

  // True where there are no regions. Any thread.
  [[nodiscard]] bool empty() const { return active_.load(std::memory_order_relaxed) == 0; }

 private:
  struct Area;
  struct Region;
  struct RegionSpec;
  struct IoPart;
  // A shard per group of queues: its lock keeps regions_ in place.
  struct alignas(kCacheLineBytes) Shard {
    std::mutex mutex;
  };
  static constexpr std::size_t kShards = 32;
  using Shards = std::array<Shard, kShards>;
  class AllShards;

  // mutex_ held, in all of these.
  Result<std::string> create(std::span<const std::string_view> argv);
  Result<std::string> remove(std::span<const std::string_view> argv);
  Result<std::string> clear(std::span<const std::string_view> argv);
  Result<std::string> list(std::span<const std::string_view> argv);
  Result<std::string> print(std::span<const std::string_view> argv, bool and_clear);
  Result<std::string> set_aux(std::span<const std::string_view> argv);
  Result<std::unique_ptr<RegionSpec>> parse_create(std::span<const std::string_view> argv) const;
  Result<Region*> find(std::string_view id);

  Shard& shard() noexcept;

  MappedDevice& md_;
  Env& env_;
  std::mutex mutex_;  // outermost: one message at a time
  // Made with the first region and never changed after: most devices have none.
  std::unique_ptr<Shards> shards_;
  // By id. Changed with mutex_ and all shards held, read with mutex_ or one shard.
  std::vector<std::unique_ptr<Region>> regions_;
  std::uint32_t epoch_ = 0;             // as regions_: raised by each new region
  std::atomic<std::size_t> active_{0};  // how many regions_ has
  // Where the last bio ended, shifted by one, with 1 for a write: the next one that begins there
  // counts as merged. The kernel has one per CPU; here one program's bios come on whichever of the
  // transport's threads is free, so there is one for all.
  alignas(kCacheLineBytes) std::atomic<std::uint64_t> last_{~std::uint64_t{0}};
};

}  // namespace mapperfs
