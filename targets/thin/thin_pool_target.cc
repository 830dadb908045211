// thin-pool: the space that thin devices share, and their metadata.
//
//   START LEN thin-pool META DATA BLOCK_SIZE LOW_WATER [N FEATURE...]
//
// META is a directory (made if missing) that holds the metadata, DATA any device, BLOCK_SIZE in
// sectors, LOW_WATER in blocks. The target is the handle of a Pool (pool.h), which belongs to the
// directory and outlives table swaps; its table says how large the pool is and which features are
// on. I/O to the target itself goes straight to DATA.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <limits>
#include <system_error>

#include "engine/target_args.h"
#include "engine/words.h"
#include "targets/targets.h"
#include "targets/thin/pool.h"

namespace mapperfs {

namespace {

using thinp::Pool;
using thinp::PoolControl;
using thinp::PoolMode;

constexpr std::size_t kMaxFeatures = 4;

// As the words of the table ask for them.
struct Features {
  bool skip_block_zeroing = false;
  bool ignore_discard = false;
  bool no_discard_passdown = false;
  bool read_only = false;
  bool error_if_no_space = false;
};

struct FeatureWord {
  std::string_view word;
  bool Features::*member;
};
// In the order in which a table prints them.
constexpr std::array<FeatureWord, 5> kFeatureWords = {{
    {"skip_block_zeroing", &Features::skip_block_zeroing},
    {"ignore_discard", &Features::ignore_discard},
    {"no_discard_passdown", &Features::no_discard_passdown},
    {"read_only", &Features::read_only},
    {"error_if_no_space", &Features::error_if_no_space},
}};

class ThinPoolTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(4, std::numeric_limits<std::size_t>::max(), "Invalid argument count");
    if (!args.failed() && args.words()[0] == args.words()[1]) {
      args.fail("Error setting metadata or data device",
                fmt::format("both are {}", args.words()[0]));
    }
    const Features features = read_features(args);
    thinp::PoolKey key;
    key.host = ti.host;
    key.env = ti.env;
    key.read_only = features.read_only;
    key.metadata_dir = args.path(0, "Error opening metadata block device");
    check_directory(key, args);
    key.data = args.device(1, DeviceMode::kReadWrite, "Error getting data device");
    key.block_sectors = read_block_size(args);
    const std::uint64_t low_water = args.number(3, 0, std::numeric_limits<std::uint64_t>::max(),
                                                "Invalid low water mark", Sign::kPlus);
    if (args.failed()) {
      return args.status();
    }
    bool created = false;
    Result<std::shared_ptr<Pool>> pool = find_or_open_pool(key, created);
    if (!pool.ok()) {
      return pool.status();
    }
    if (created) {
      (*pool)->set_discard_enabled(!features.ignore_discard);
    } else if ((*pool)->discard_enabled() == features.ignore_discard) {
      args.fail("Discard support cannot be disabled once enabled",
                "the pool's discards cannot be changed while it is there");
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<ThinPoolTarget>(
        ti, pool.take(), features, std::move(key.metadata_dir), std::move(key.data), low_water));
  }

  ThinPoolTarget(const TargetInfo& ti, std::shared_ptr<Pool> pool, const Features& features,
                 std::string metadata_dir, DevRef data, std::uint64_t low_water)
      : Target(ti, features_of_pool(features)),
        pool_(std::move(pool)),
        asked_(features),
        metadata_dir_(std::move(metadata_dir)),
        data_(std::move(data)) {
    control_.data_blocks = ti.len / pool_->block_sectors();
    control_.low_water_blocks = low_water;
    control_.zero_new_blocks = !features.skip_block_zeroing;
    control_.discard_enabled = !features.ignore_discard;
    control_.error_if_no_space = features.error_if_no_space;
    control_.mode = features.read_only ? PoolMode::kReadOnly : PoolMode::kWrite;
  }
  ~ThinPoolTarget() override { pool_->unbind(control_); }

  MapIo map(Bio& bio) noexcept override {
    bio.remap(*data_, ti().offset_of(bio));
    return MapIo::kRemapped;
  }

  void presuspend() override { pool_->presuspend(); }
  void presuspend_undo() override { pool_->resume(); }
  void postsuspend() override { pool_->postsuspend(); }
  Status preresume() override {
    control_.discard_passdown = passes_discards(true);
    return pool_->bind(control_);
  }
  void resume() override { pool_->resume(); }

  [[nodiscard]] std::string status(bool noflush) const override {
    if (!noflush && pool_->mode() < PoolMode::kOutOfMetadataSpace) {
      pool_->commit().ignore();  // the line says what came of it
    }
    if (pool_->mode() == PoolMode::kFail) {
      return "Fail";
    }
    const ThinPoolStatus now = pool_->metadata().status();
    const std::string held = now.held_root != 0 ? fmt::format("{}", now.held_root) : "-";
    return fmt::format("{} {}/{} {}/{} {} {} {} {} {} {} ", now.transaction_id,
                       now.used_metadata_blocks, now.total_metadata_blocks, now.used_data_blocks,
                       now.total_data_blocks, held, mode_word(), discard_word(),
                       pool_->error_if_no_space() ? "error_if_no_space" : "queue_if_no_space",
                       now.needs_check ? "needs_check" : "-", Pool::metadata_low_water(now));
  }
  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    std::string words;
    std::size_t count = 0;
    for (const FeatureWord& feature : kFeatureWords) {
      if (asked_.*feature.member) {
        words += fmt::format("{} ", feature.word);
        ++count;
      }
    }
    return fmt::format("{} {} {} {} {} {}", escape_word(metadata_dir_),
                       escape_word(data_->table_name()), pool_->block_sectors(),
                       control_.low_water_blocks, count, words);
  }
  Result<std::string> message(std::span<const std::string_view> argv) override;

  void iterate_devices(const DeviceFn& fn) const override { fn({data_.get(), 0, ti().len}); }
  void io_hints(QueueLimits& limits) const override {
    const std::uint32_t block_bytes = pool_->block_sectors() << kSectorShift;
    // A hint of the data device that fits into blocks is kept (a RAID's stripe).
    if (limits.io_opt < block_bytes || limits.io_opt % block_bytes != 0) {
      limits.io_min = block_bytes;
      limits.io_opt = block_bytes;
    }
    if (asked_.ignore_discard || !passes_discards(false)) {
      limits.max_discard_sectors = 0;
      limits.discard_zeroes = false;
    }
    if (asked_.ignore_discard) {
      limits.discard_granularity = 0;
    }
  }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    return extent_below(*data_, sector - begin(), max);
  }

 private:
  static TargetFeatures features_of_pool(const Features& asked) {
    TargetFeatures features;
    features.num_flush_bios = 1;
    if (!asked.ignore_discard && !asked.no_discard_passdown) {
      features.num_discard_bios = 1;
      features.discards_supported = true;
    }
    return features;
  }

  static Features read_features(TargetArgs& args) {
    Features features;
    if (args.failed() || args.count() == 4) {
      return features;
    }
    for (const std::string& word :
         args.group(4, kMaxFeatures, "Invalid number of pool feature arguments")) {
      const auto it =
          std::find_if(kFeatureWords.begin(), kFeatureWords.end(),
                       [&](const FeatureWord& feature) { return same_word(feature.word, word); });
      if (it == kFeatureWords.end()) {
        args.fail("Unrecognised pool feature requested", word);
        break;
      }
      features.*(it->member) = true;
    }
    return features;
  }

  static std::uint32_t read_block_size(TargetArgs& args) {
    const std::uint64_t sectors =
        args.number(2, kThinBlockSizeStep, kThinMaxBlockSize, "Invalid block size", Sign::kPlus);
    if (!args.failed() && sectors % kThinBlockSizeStep != 0) {
      args.fail("Invalid block size",
                fmt::format("{} is no multiple of {} sectors", sectors, kThinBlockSizeStep));
    }
    return static_cast<std::uint32_t>(sectors);
  }

  // A directory that is there, or one that can be made.
  static void check_directory(const thinp::PoolKey& key, TargetArgs& args) {
    if (args.failed()) {
      return;
    }
    constexpr std::string_view kText = "Error opening metadata block device";
    std::error_code error;
    const std::filesystem::path path(key.metadata_dir);
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (std::filesystem::is_directory(status)) {
      return;
    }
    if (std::filesystem::exists(status)) {
      args.fail(ENOTDIR, kText, fmt::format("{} is no directory", key.metadata_dir));
      return;
    }
    const std::filesystem::path parent = std::filesystem::absolute(path, error).parent_path();
    if (key.read_only) {
      args.fail(
          EPERM, "Error creating metadata object",
          fmt::format("{} does not exist, and read_only forbids to make it", key.metadata_dir));
    } else if (!std::filesystem::is_directory(parent, error)) {
      args.fail(ENOENT, kText, fmt::format("{} does not exist", key.metadata_dir));
    }
  }

  // Whether blocks that nobody has any more are discarded on the data device. `tell`: log why not.
  [[nodiscard]] bool passes_discards(bool tell) const {
    if (asked_.ignore_discard || asked_.no_discard_passdown) {
      return false;
    }
    const sector_t most = data_->limits().max_discard_sectors;
    if (most >= pool_->block_sectors()) {
      return true;
    }
    if (tell) {
      ti().host->log(fmt::format(
          "Data device ({}) {}: Disabling discard passdown.", data_->display_name(),
          most == 0 ? "discard unsupported" : "max discard sectors smaller than a block"));
    }
    return false;
  }

  [[nodiscard]] std::string_view mode_word() const {
    switch (pool_->mode()) {
      case PoolMode::kWrite:
        return "rw";
      case PoolMode::kOutOfDataSpace:
        return "out_of_data_space";
      case PoolMode::kOutOfMetadataSpace:
      case PoolMode::kReadOnly:
      case PoolMode::kFail:
        return "ro";
    }
    return "ro";
  }
  [[nodiscard]] std::string_view discard_word() const {
    if (!pool_->discard_enabled()) {
      return "ignore_discard";
    }
    return pool_->discard_passdown() ? "discard_passdown" : "no_discard_passdown";
  }

  const std::shared_ptr<Pool> pool_;
  const Features asked_;
  const std::string metadata_dir_;
  const DevRef data_;
  PoolControl control_;
};

// Messages ----------------------------------------------------------------------------------------

using Words = std::span<const std::string_view>;

Status wrong_count(std::size_t got, std::size_t want) {
  return {EINVAL, fmt::format("Message received with {} arguments instead of {}.", got, want)};
}

// Word 1, and word 2 where there is one, as device ids.
Result<std::array<std::uint32_t, 2>> read_ids(Words argv) {
  std::array<std::uint32_t, 2> ids{};
  for (std::size_t i = 1; i < argv.size(); ++i) {
    std::uint64_t id = 0;
    if (!parse_decimal(argv[i], id, Sign::kPlus) || id > kThinMaxDeviceId) {
      return Status(EINVAL, fmt::format("Message received with invalid device id: {}", argv[i]));
    }
    ids.at(i - 1) = static_cast<std::uint32_t>(id);
  }
  return ids;
}

Status create_thin(ThinMetadata& metadata, Words argv) {
  const auto ids = read_ids(argv);
  if (!ids.ok()) {
    return ids.status();
  }
  return metadata.create_thin((*ids)[0]).with_context(
      fmt::format("Creation of new thinly-provisioned device with id {} failed.", argv[1]));
}

Status create_snap(ThinMetadata& metadata, Words argv) {
  const auto ids = read_ids(argv);
  if (!ids.ok()) {
    return ids.status();
  }
  return metadata.create_snap((*ids)[0], (*ids)[1])
      .with_context(
          fmt::format("Creation of new snapshot {} of device {} failed.", argv[1], argv[2]));
}

Status delete_device(ThinMetadata& metadata, Words argv) {
  const auto ids = read_ids(argv);
  if (!ids.ok()) {
    return ids.status();
  }
  return metadata.delete_device((*ids)[0]).with_context(
      fmt::format("Deletion of thin device {} failed.", argv[1]));
}

Status set_transaction_id(ThinMetadata& metadata, Words argv) {
  std::uint64_t current = 0;
  std::uint64_t next = 0;
  if (!parse_decimal(argv[1], current, Sign::kPlus)) {
    return {EINVAL, fmt::format("set_transaction_id message: Unrecognised id {}.", argv[1])};
  }
  if (!parse_decimal(argv[2], next, Sign::kPlus)) {
    return {EINVAL, fmt::format("set_transaction_id message: Unrecognised new id {}.", argv[2])};
  }
  return metadata.set_transaction_id(current, next)
      .with_context(
          fmt::format("Failed to change transaction id from {} to {}.", argv[1], argv[2]));
}

Status reserve_metadata_snap(ThinMetadata& metadata, Words argv) {
  static_cast<void>(argv);
  return metadata.reserve_metadata_snap().with_context("reserve_metadata_snap message failed.");
}

Status release_metadata_snap(ThinMetadata& metadata, Words argv) {
  static_cast<void>(argv);
  return metadata.release_metadata_snap().with_context("release_metadata_snap message failed.");
}

struct MessageType {
  std::string_view word;
  std::size_t words;  // it and its arguments
  Status (*run)(ThinMetadata& metadata, Words argv);
  bool shares = false;  // devices' blocks with another device
};
constexpr std::array<MessageType, 6> kMessages = {{
    {"create_thin", 2, &create_thin},
    {"create_snap", 3, &create_snap, true},
    {"delete", 2, &delete_device},
    {"set_transaction_id", 3, &set_transaction_id},
    {"reserve_metadata_snap", 1, &reserve_metadata_snap},
    {"release_metadata_snap", 1, &release_metadata_snap},
}};

Result<std::string> ThinPoolTarget::message(std::span<const std::string_view> argv) {
  if (pool_->mode() >= PoolMode::kOutOfMetadataSpace) {
    return Status(EOPNOTSUPP, fmt::format("{}: unable to service pool target messages in "
                                          "READ_ONLY or FAIL mode",
                                          ti().host->numbers()));
  }
  for (const MessageType& type : kMessages) {
    if (!same_word(type.word, argv.front())) {
      continue;
    }
    if (argv.size() != type.words) {
      return wrong_count(argv.size(), type.words);
    }
    Status status = pool_->change([&](ThinMetadata& metadata) { return type.run(metadata, argv); },
                                  type.shares);
    if (!status.ok()) {
      return status;
    }
    return std::string();
  }
  return Status(EINVAL,
                fmt::format("Unrecognised thin pool target message received: {}", argv.front()));
}

}  // namespace

constinit const TargetType kThinPoolTarget = {
    "thin-pool",
    {1, 23, 0},
    kTargetSingleton | kTargetAlwaysWriteable | kTargetImmutable,
    &ThinPoolTarget::ctr};

}  // namespace mapperfs
