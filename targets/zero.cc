// zero: reads as zeroes, swallows what is written.
//
//   START LEN zero
//
// Memory speed: every bio ends inside map(). A read ahead is refused, since zeroes are not worth
// reading early. There is nothing to flush, so a flush of a table of zero targets does nothing.
#include <cstring>
#include <limits>

#include "engine/target_args.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

class ZeroTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(0, 0, "No arguments required");
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<ZeroTarget>(ti));
  }

  explicit ZeroTarget(const TargetInfo& ti) : Target(ti, features_of_zero()) {}

  MapIo map(Bio& bio) noexcept override {
    switch (bio.op) {
      case Op::kRead:
        if ((bio.flags & kBioReadahead) != 0) {
          return MapIo::kKill;
        }
        std::memset(bio.data, 0, bio.len_bytes());
        break;
      case Op::kWrite:
      case Op::kDiscard:
        break;
      case Op::kFlush:
      case Op::kSecureErase:
      case Op::kWriteZeroes:
        return MapIo::kKill;
    }
    bio.end_io(BlkStatus::kOk);
    return MapIo::kSubmitted;
  }

  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return {};
  }
  void io_hints(QueueLimits& limits) const override {
    limits.max_discard_sectors = std::numeric_limits<std::uint32_t>::max();
    limits.discard_granularity = kSectorBytes;
  }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    static_cast<void>(sector);
    return {max, true};
  }

 private:
  static TargetFeatures features_of_zero() {
    TargetFeatures features;
    features.num_discard_bios = 1;
    features.discards_supported = true;
    return features;
  }
};

}  // namespace

constinit const TargetType kZeroTarget = {"zero", {1, 2, 0}, 0, &ZeroTarget::ctr};

}  // namespace mapperfs
