// loop: a file as part of a device.
//
//   START LEN loop PATH [OFFSET]       OFFSET in sectors, 0 if not given
//
// PATH names a regular file or a block device. Several loop segments may form one table, each with
// a file of its own. It maps as linear does; what makes a file of it is the backing device that the
// opener makes for PATH: a discard punches a hole, write zeroes zeroes a range, a flush is one
// fdatasync, and the holes of a sparse file are told to whoever seeks for them.
//
// The kernel has no such target (it was proposed in 2018), so this file is the reference.
#include <fmt/format.h>

#include "engine/target_args.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

class LoopTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(1, 2, "Invalid argument count");
    const sector_t start = args.count() == 2 ? args.sector(1, "Invalid file offset") : 0;
    DevRef dev = args.device(0, "Device lookup failed");
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<LoopTarget>(ti, std::move(dev), start));
  }

  LoopTarget(const TargetInfo& ti, DevRef dev, sector_t start)
      : Target(ti, features_of_loop()), dev_(std::move(dev)), start_(start) {}

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
  static TargetFeatures features_of_loop() {
    TargetFeatures features;
    features.num_flush_bios = 1;
    features.num_discard_bios = 1;
    features.num_secure_erase_bios = 1;
    features.num_write_zeroes_bios = 1;
    // One fdatasync a file, however many segments of the table lie in it.
    features.flush_bypasses_map = true;
    return features;
  }

  const DevRef dev_;
  const sector_t start_;
};

}  // namespace

constinit const TargetType kLoopTarget = {"loop", {1, 0, 0}, 0, &LoopTarget::ctr};

}  // namespace mapperfs
