// linear: maps a run of sectors one to one onto a run of another device.
//
//   START LEN linear DEV OFFSET        OFFSET in sectors
//
// Every operation passes. The device below is checked by the engine: OFFSET + LEN must lie in it.
#include <fmt/format.h>

#include "engine/target_args.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

class LinearTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(2, 2, "Invalid argument count");
    const sector_t start = args.sector(1, "Invalid device sector");
    DevRef dev = args.device(0, "Device lookup failed");
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<LinearTarget>(ti, std::move(dev), start));
  }

  LinearTarget(const TargetInfo& ti, DevRef dev, sector_t start)
      : Target(ti, features_of_linear()), dev_(std::move(dev)), start_(start) {}

  MapIo map(Bio& bio) noexcept override {
    bio.remap(*dev_, start_ + ti().offset_of(bio));
    return MapIo::kRemapped;
  }

  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return fmt::format("{} {}", escape_word(dev_->table_name()), start_);
  }
  void iterate_devices(const DeviceFn& fn) const override { fn(straight()); }
  [[nodiscard]] TargetDevice straight() const override { return {dev_.get(), start_, ti().len}; }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    return extent_below(*dev_, start_ + (sector - begin()), max);
  }
  [[nodiscard]] Result<int> whole_file() override {
    return whole_file_below(*dev_, start_, ti().len);
  }

 private:
  static TargetFeatures features_of_linear() {
    TargetFeatures features;
    features.num_flush_bios = 1;
    features.num_discard_bios = 1;
    features.num_secure_erase_bios = 1;
    features.num_write_zeroes_bios = 1;
    features.flush_bypasses_map = true;
    return features;
  }

  const DevRef dev_;
  const sector_t start_;
};

}  // namespace

constinit const TargetType kLinearTarget = {"linear", {1, 5, 0}, 0, &LinearTarget::ctr};

}  // namespace mapperfs
