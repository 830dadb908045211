// unstriped: one stripe of a striped device as a device of its own.
//
//   START LEN unstriped N CHUNK INDEX DEV OFFSET       CHUNK and OFFSET in sectors
//
// Chunk c of the target is chunk c * N + INDEX of DEV. The kernel takes an INDEX equal to N, which
// maps every chunk one further than the last stripe's; so it is taken here. Such an I/O may pass
// the end of DEV, which then fails it. There are no flushes and discards: the striped device below
// has to be flushed by itself.
#include <fmt/format.h>

#include <limits>

#include "engine/target_args.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

class UnstripedTarget final : public Target {
 public:
  struct Options {
    std::uint32_t stripes = 0;
    std::uint32_t chunk = 0;
    std::uint32_t index = 0;
    DevRef dev;
    sector_t start = 0;
  };

  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(5, 5, "Invalid number of arguments");
    Options options;
    options.stripes = args.u32(0, 1, "Invalid stripe count", Sign::kPlus);
    options.chunk = args.u32(1, 1, "Invalid chunk_size", Sign::kPlus);
    options.index = args.u32(2, 0, "Invalid stripe number", Sign::kPlus);
    if (!args.failed() && options.index > options.stripes && options.stripes > 1) {
      args.fail("Please provide stripe between [0, # of stripes]",
                fmt::format("{} is past {}", options.index, options.stripes));
    }
    options.dev = args.device(3, "Couldn't get striped device");
    options.start = args.sector(4, "Invalid striped device offset");
    if (!args.failed() && ti.len % options.chunk != 0) {
      args.fail("Target length not divisible by chunk size",
                fmt::format("{} sectors in chunks of {}", ti.len, options.chunk));
    }
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<UnstripedTarget>(ti, std::move(options)));
  }

  UnstripedTarget(const TargetInfo& ti, Options options)
      : Target(ti, features_of_unstriped(options.chunk)), options_(std::move(options)) {}

  MapIo map(Bio& bio) noexcept override {
    bio.remap(*options_.dev, sector_below(ti().offset_of(bio)));
    return MapIo::kRemapped;
  }

  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return fmt::format("{} {} {} {} {}", options_.stripes, options_.chunk, options_.index,
                       escape_word(options_.dev->table_name()), options_.start);
  }
  // The kernel's, which checks no more than that OFFSET + LEN lies in the device.
  void iterate_devices(const DeviceFn& fn) const override {
    fn({options_.dev.get(), options_.start, ti().len});
  }
  void io_hints(QueueLimits& limits) const override { limits.chunk_sectors = options_.chunk; }

 private:
  static TargetFeatures features_of_unstriped(std::uint32_t chunk) {
    TargetFeatures features;
    features.max_io_len = chunk;
    return features;
  }

  [[nodiscard]] sector_t sector_below(sector_t offset) const noexcept {
    const sector_t others = sector_t{options_.stripes - 1} * options_.chunk;
    return options_.start + offset + offset / options_.chunk * others +
           sector_t{options_.index} * options_.chunk;
  }

  const Options options_;
};

}  // namespace

constinit const TargetType kUnstripedTarget = {"unstriped", {1, 1, 0}, 0, &UnstripedTarget::ctr};

}  // namespace mapperfs
