// ram: memory as a device.
//
//   START LEN ram
//
// The only target of its table. Each table owns its memory: it reads as zeroes at first, takes no
// space until it is written, and is gone when the table is (a reload starts empty). Memory speed:
// every bio is a copy inside map() and ends there. A discard and write zeroes give whole pages back
// to the system. A flush has nothing to do, since nothing outlives the process.
//
// The kernel has no such target (it was proposed in 2018), so this file is the reference.
#include "engine/memory_store.h"
#include "engine/target_args.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

// The unit in which memory is given back.
constexpr std::uint32_t kDiscardGranularityBytes = 4096;

class RamTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(0, 0, "No arguments required");
    if (args.failed()) {
      return args.status();
    }
    Result<std::unique_ptr<MemoryStore>> store = MemoryStore::make(ti.len);
    if (!store.ok()) {
      return store.status().with_context("Cannot allocate memory");
    }
    return std::unique_ptr<Target>(std::make_unique<RamTarget>(ti, store.take()));
  }

  RamTarget(const TargetInfo& ti, std::unique_ptr<MemoryStore> store)
      : Target(ti, features_of_ram()), store_(std::move(store)) {}

  // A singleton starts at sector 0, so a sector of the device is one of the store.
  MapIo map(Bio& bio) noexcept override {
    bio.end_io(store_->handle(bio));
    return MapIo::kSubmitted;
  }

  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return {};
  }
  void io_hints(QueueLimits& limits) const override {
    limits.discard_granularity = kDiscardGranularityBytes;
    limits.discard_zeroes = true;
  }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    return store_->extent(sector, max);
  }
  [[nodiscard]] Result<int> whole_file() override {
    const int fd = store_->share_memfd();
    if (fd < 0) {
      return Status(EOPNOTSUPP, "its memory is no file: there was no descriptor left for one");
    }
    return fd;
  }

 private:
  static TargetFeatures features_of_ram() {
    TargetFeatures features;
    features.num_discard_bios = 1;
    features.num_write_zeroes_bios = 1;
    features.discards_supported = true;
    return features;
  }

  const std::unique_ptr<MemoryStore> store_;
};

}  // namespace

constinit const TargetType kRamTarget = {"ram", {1, 0, 0}, kTargetSingleton, &RamTarget::ctr};

}  // namespace mapperfs
