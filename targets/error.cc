// error: fails every I/O.
//
//   START LEN error [DEV OFFSET]
//
// With exactly two arguments the device is opened, so that its limits are inherited and it shows as
// a dependency; no I/O goes there. Any other arguments are taken and ignored, as the kernel does:
// the table that replaces a broken one must not fail on its own. A discard fails too, rather than
// being called unsupported. It may replace any table, also one of an immutable target.
#include <limits>

#include "engine/target_args.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

class ErrorTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    DevRef dev;
    sector_t start = 0;
    if (args.count() == 2) {
      start = args.sector(1, "Invalid device sector");
      dev = args.device(0, "Device lookup failed");
    }
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<ErrorTarget>(ti, std::move(dev), start));
  }

  ErrorTarget(const TargetInfo& ti, DevRef dev, sector_t start)
      : Target(ti, features_of_error()), dev_(std::move(dev)), start_(start) {}

  MapIo map(Bio& bio) noexcept override {
    static_cast<void>(bio);
    return MapIo::kKill;
  }

  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return {};
  }
  void iterate_devices(const DeviceFn& fn) const override {
    if (dev_) {
      fn({dev_.get(), start_, ti().len});
    }
  }
  void io_hints(QueueLimits& limits) const override {
    limits.max_discard_sectors = std::numeric_limits<std::uint32_t>::max();
    limits.discard_granularity = kSectorBytes;
  }

 private:
  static TargetFeatures features_of_error() {
    TargetFeatures features;
    features.num_discard_bios = 1;
    features.discards_supported = true;
    return features;
  }

  const DevRef dev_;  // empty where none was given
  const sector_t start_;
};

}  // namespace

constinit const TargetType kErrorTarget = {
    "error", {1, 7, 0}, kTargetWildcard | kTargetMayLackDevices, &ErrorTarget::ctr};

}  // namespace mapperfs
