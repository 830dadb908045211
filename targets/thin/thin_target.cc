// thin: a device whose blocks come from a pool when they are first written.
//
//   START LEN thin POOL DEV_ID [ORIGIN]
//
// POOL is the mapped device of a thin-pool table. ORIGIN, read only, holds what blocks without a
// mapping read as (its end, and everything without it: zeroes).
//
// map() answers what the metadata in memory can: a block of its own goes straight to the data
// device, under no lock and without an allocation. The rest is the pool's (pool.h).
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "engine/mapped_device.h"
#include "engine/target_args.h"
#include "targets/targets.h"
#include "targets/thin/pool.h"

namespace mapperfs {

namespace {

using thinp::InFlight;
using thinp::Pool;
using thinp::PoolMode;
using thinp::ThinIo;

// Blocks of one discard (BIO_PRISON_MAX_RANGE of drivers/md/dm-bio-prison-v1.h).
constexpr sector_t kMaxDiscardBlocks = 1024;

class ThinTarget final : public Target {
 public:
  struct Parts {
    DevRef pool_dev;
    DevRef origin;
    std::shared_ptr<Pool> pool;
    std::shared_ptr<thinp::Volume> volume;
    std::uint32_t id = 0;
  };

  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(2, 3, "Invalid argument count");
    Parts parts;
    if (!args.failed() && args.count() == 3) {
      if (args.words()[0] == args.words()[2]) {
        args.fail("Error setting origin device", "it is the pool");
      }
      parts.origin = args.device(2, DeviceMode::kReadOnly, "Error opening origin device");
    }
    parts.pool_dev = args.device(0, "Error opening pool device");
    parts.id = static_cast<std::uint32_t>(
        args.number(1, 0, kThinMaxDeviceId, "Invalid device id", Sign::kPlus));
    if (args.failed()) {
      return args.status();
    }
    find_parts(parts, args);
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<ThinTarget>(ti, std::move(parts)));
  }

  ThinTarget(const TargetInfo& ti, Parts parts)
      : Target(ti, features_of_thin(*parts.pool)),
        pool_dev_(std::move(parts.pool_dev)),
        origin_(std::move(parts.origin)),
        pool_(std::move(parts.pool)),
        id_(parts.id) {
    thin_.volume = std::move(parts.volume);
    thin_.begin = ti.begin;
    thin_.origin = origin_.get();
    note_origin_size();
  }

  MapIo map(Bio& bio) noexcept override {
    auto& io = bio.make_per_io<ThinIo>();
    io.thin = &thin_;
    if (thin_.requeue.load(std::memory_order_acquire)) [[unlikely]] {
      return MapIo::kRequeue;
    }
    if (pool_->mode() == PoolMode::kFail) [[unlikely]] {
      return MapIo::kKill;
    }
    if (bio.has_data()) [[likely]] {
      const sector_t offset = ti().offset_of(bio);
      io.block = offset / pool_->block_sectors();
      const bool fua = (bio.flags & kBioFua) != 0;
      const InFlight::Section section = pool_->in_flight().enter();
      // After enter(): a suspend waits for whoever did not see it.
      if (!pool_->suspended()) [[likely]] {
        if (const auto mapping = thin_.volume->dev->lookup_cached(io.block)) {
          if (mapping->mapped && !(bio.is_write() && mapping->shared)) [[likely]] {
            if (!fua || !thin_.volume->dev->changed()) [[likely]] {
              io.section = section;
              bio.remap(pool_->data(), mapping->data_block * pool_->block_sectors() +
                                           offset % pool_->block_sectors());
              return MapIo::kRemapped;
            }
            if ((bio.flags & kBioNowait) == 0) {
              pool_->in_flight().leave(section);
              pool_->commit_first(bio, *mapping);
              return MapIo::kSubmitted;
            }
          }
          if (!mapping->mapped && !bio.is_write()) {
            pool_->in_flight().leave(section);
            return read_unmapped(bio);
          }
          if (!mapping->mapped && !fua && pool_->provision_now(bio)) {
            io.section = section;
            return MapIo::kRemapped;
          }
        }
      }
      pool_->in_flight().leave(section);
    }
    if ((bio.flags & kBioNowait) != 0) {
      bio.end_io(BlkStatus::kAgain);
      return MapIo::kSubmitted;
    }
    pool_->defer(bio);
    return MapIo::kSubmitted;
  }

  EndIo end_io(Bio& bio, BlkStatus& status) noexcept override {
    static_cast<void>(status);
    const ThinIo& io = bio.per_io<ThinIo>();
    if (io.section != InFlight::kNone) [[likely]] {
      pool_->in_flight().leave(io.section);
    }
    return EndIo::kDone;
  }

  void presuspend() override {
    if (ti().host->noflush_suspending()) {
      thin_.requeue = true;
      pool_->requeue_waiting(thin_);
    }
  }
  void presuspend_undo() override { thin_.requeue = false; }
  void postsuspend() override { thin_.requeue = false; }
  Status preresume() override {
    note_origin_size();
    return {};
  }

  [[nodiscard]] std::string status(bool noflush) const override {
    static_cast<void>(noflush);
    if (pool_->mode() == PoolMode::kFail) {
      return "Fail";
    }
    const ThinDevice& dev = *thin_.volume->dev;
    const auto highest = dev.highest_mapped();
    if (!highest.ok()) {
      return "Error";
    }
    const sector_t block = pool_->block_sectors();
    const std::string last =
        highest->has_value() ? fmt::format("{}", (**highest + 1) * block - 1) : "-";
    return fmt::format("{} {}", dev.mapped_blocks() * block, last);
  }
  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    if (pool_->mode() == PoolMode::kFail) {
      return "Fail";  // as the kernel
    }
    std::string text = fmt::format("{} {}", escape_word(pool_dev_->table_name()), id_);
    if (origin_) {
      text += fmt::format(" {}", escape_word(origin_->table_name()));
    }
    return text;
  }
  void iterate_devices(const DeviceFn& fn) const override {
    if (const std::uint64_t blocks = pool_->table_blocks(); blocks != 0) {
      fn({pool_dev_.get(), 0, blocks * pool_->block_sectors()});
    }
  }
  void io_hints(QueueLimits& limits) const override {
    if (pool_->discard_enabled()) {
      limits.discard_granularity = pool_->block_sectors() << kSectorShift;
      limits.max_discard_sectors = pool_->block_sectors() * kMaxDiscardBlocks;
      // A discard that covers a part of a block leaves that part.
      limits.discard_zeroes = false;
    }
  }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override;

 private:
  static void find_parts(Parts& parts, TargetArgs& args) {
    const MappedDevice* device = parts.pool_dev->mapped();
    if (device == nullptr) {
      args.fail("Couldn't get pool mapped device",
                fmt::format("{} is no mapped device", parts.pool_dev->table_name()));
      return;
    }
    parts.pool = thinp::find_pool(*device);
    if (parts.pool == nullptr) {
      args.fail("Couldn't find pool object",
                fmt::format("{} has no thin-pool table", parts.pool_dev->table_name()));
      return;
    }
    if (parts.pool->mode() == PoolMode::kFail) {
      args.fail("Couldn't open thin device, Pool is in fail mode", parts.pool_dev->table_name());
      return;
    }
    Result<std::shared_ptr<thinp::Volume>> volume = parts.pool->open_volume(parts.id);
    if (!volume.ok()) {
      args.fail(volume.status().error(), "Couldn't open thin internal device",
                volume.status().message());
      return;
    }
    parts.volume = volume.take();
    if (parts.pool->suspended()) {
      args.fail("Unable to activate thin device while pool is suspended",
                parts.pool_dev->table_name());
    }
  }
  static TargetFeatures features_of_thin(const Pool& pool) {
    TargetFeatures features;
    features.max_io_len = pool.block_sectors();
    features.num_flush_bios = 1;
    features.flush_supported = true;
    features.wants_end_io = true;
    if (pool.discard_enabled()) {
      features.num_discard_bios = 1;
      features.discards_supported = true;
      features.max_discard_granularity = true;
    }
    return features;
  }
  void note_origin_size() { thin_.origin_sectors = origin_ ? origin_->size_sectors() : 0; }

  MapIo read_unmapped(Bio& bio) noexcept {
    if (Pool::remap_unmapped_read(bio, thin_)) {
      return MapIo::kRemapped;
    }
    bio.end_io(BlkStatus::kOk);
    return MapIo::kSubmitted;
  }

  // In order of destruction from below: the volume goes before its pool, the pool before the
  // mapped device that it reports to.
  const DevRef pool_dev_;
  const DevRef origin_;
  const std::shared_ptr<Pool> pool_;
  const std::uint32_t id_;
  thinp::Thin thin_;
};

// What is mapped is data, the rest a hole, or what the external origin has there.
Extent ThinTarget::extent(sector_t sector, sector_t max) const {
  const sector_t block = pool_->block_sectors();
  const sector_t offset = sector - begin();
  const sector_t stop = offset + max;
  sector_t hole_end = stop;
  sector_t data_end = 0;
  const Status status = thin_.volume->dev->for_each_run(
      offset / block, (stop + block - 1) / block, [&](const ThinRun& run) {
        const sector_t from = run.virtual_begin * block;
        const sector_t to = from + run.length * block;
        if (from > offset && data_end == 0) {
          hole_end = std::min(hole_end, from);
          return false;
        }
        if (data_end != 0 && from != data_end) {
          return false;
        }
        data_end = to;
        return to < stop;
      });
  if (!status.ok()) {
    return {max, false};
  }
  if (data_end != 0) {
    return {std::min(data_end, stop) - offset, false};
  }
  const sector_t origin = thin_.origin_sectors;
  if (offset >= origin) {
    return {hole_end - offset, true};
  }
  return extent_below(*origin_, offset, std::min(hole_end, origin) - offset);
}

}  // namespace

constinit const TargetType kThinTarget = {"thin", {1, 23, 0}, 0, &ThinTarget::ctr};

}  // namespace mapperfs
