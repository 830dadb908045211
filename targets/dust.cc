// dust: blocks that fail until they are written, as bad sectors of a disk do.
//
//   START LEN dust DEV OFFSET BLOCK_SIZE      OFFSET in sectors, BLOCK_SIZE in bytes
//
// Blocks are numbered on DEV: (OFFSET + sector) / BLOCK_SIZE, so the numbers of a dust device with
// an OFFSET do not begin at 0. Messages keep the list of bad blocks and turn it on and off. While
// it is on, a read of a bad block fails; a write to one fails as often as its fail count says, and
// then mends it. max_io_len is a block, so that an I/O touches one.
//
// A discard is not cut: it counts as a write to its first block, as in the kernel. A flush touches
// no block. The list is kept in memory and is gone with the table.
//
// Threads: map() takes mutex_ only while the list is on.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <map>
#include <mutex>

#include "engine/target_args.h"
#include "engine/words.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

constexpr sector_t kMaxBlockSectors = 2097152;  // 1 GiB
constexpr std::uint64_t kMaxFailCount = 255;

class DustTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(3, 3, "Invalid argument count");
    const std::uint32_t block_bytes = args.u32(2, 1, "Invalid block size parameter", Sign::kPlus);
    if (args.failed()) {
      return args.status();
    }
    const sector_t most = std::min(ti.len, kMaxBlockSectors);
    if (block_bytes < kSectorBytes) {
      args.fail("Block size must be at least 512", fmt::format("{} given", block_bytes));
    } else if (!std::has_single_bit(block_bytes)) {
      args.fail("Block size must be a power of 2", fmt::format("{} given", block_bytes));
    } else if (block_bytes >> kSectorShift > most) {
      args.fail("Block size is too large",
                fmt::format("{} bytes are more than {} sectors", block_bytes, most));
    }
    const sector_t start = args.sector(1, "Invalid device offset sector");
    if (args.failed()) {
      return args.status();
    }
    DevRef dev = args.device(0, "Device lookup failed");
    if (args.failed()) {
      // The kernel's dust says EINVAL whatever the look-up said.
      return Status(EINVAL, args.status().message());
    }
    return std::unique_ptr<Target>(
        std::make_unique<DustTarget>(ti, std::move(dev), start, block_bytes));
  }

  DustTarget(const TargetInfo& ti, DevRef dev, sector_t start, std::uint32_t block_bytes)
      : Target(ti, features_of_dust(block_bytes)),
        dev_(std::move(dev)),
        start_(start),
        block_bytes_(block_bytes),
        block_shift_(std::countr_zero(block_bytes) - static_cast<int>(kSectorShift)) {}

  MapIo map(Bio& bio) noexcept override {
    bio.remap(*dev_, start_ + ti().offset_of(bio));
    if (!failing_.load(std::memory_order_relaxed) || bio.op == Op::kFlush) [[likely]] {
      return MapIo::kRemapped;
    }
    const std::uint64_t block = bio.sector >> block_shift_;
    const bool ok = bio.is_write() ? write_block(block) : !is_bad(block);
    return ok ? MapIo::kRemapped : MapIo::kKill;
  }

  [[nodiscard]] std::string status(bool noflush) const override {
    static_cast<void>(noflush);
    return fmt::format("{} {} {}", escape_word(dev_->table_name()),
                       failing_.load() ? "fail_read_on_bad_block" : "bypass",
                       quiet_.load() ? "quiet" : "verbose");
  }
  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return fmt::format("{} {} {}", escape_word(dev_->table_name()), start_, block_bytes_);
  }
  Result<std::string> message(std::span<const std::string_view> argv) override {
    if (argv.size() == 1) {
      return plain_message(argv[0]);
    }
    if (argv.size() == 2 || argv.size() == 3) {
      return block_message(argv);
    }
    return Status(EINVAL, fmt::format("invalid number of arguments '{}'", argv.size()));
  }
  void iterate_devices(const DeviceFn& fn) const override { fn({dev_.get(), start_, ti().len}); }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    return extent_below(*dev_, start_ + (sector - begin()), max);
  }

 private:
  static TargetFeatures features_of_dust(std::uint32_t block_bytes) {
    TargetFeatures features;
    features.max_io_len = block_bytes >> kSectorShift;
    features.num_flush_bios = 1;
    features.num_discard_bios = 1;
    return features;
  }

  bool is_bad(std::uint64_t block) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bad_.count(block) != 0;
  }
  // False: the write fails, and the block has one failure less to go.
  bool write_block(std::uint64_t block) noexcept {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto it = bad_.find(block);
      if (it == bad_.end()) {
        return true;
      }
      if (it->second > 0) {
        --it->second;
        return false;
      }
      bad_.erase(it);
    }
    say(fmt::format("block {} removed from badblocklist by write", block));
    return true;
  }

  // In quiet mode nothing is said about single blocks.
  void say(std::string_view sentence) noexcept {
    if (!quiet_.load(std::memory_order_relaxed)) {
      ti().host->log(fmt::format("dust: {}", sentence));
    }
  }

  Result<std::string> plain_message(std::string_view word) {
    for (const std::string_view needs_block : {"addbadblock", "removebadblock", "queryblock"}) {
      if (same_word(word, needs_block)) {
        return Status(EINVAL, fmt::format("{} requires an additional argument", word));
      }
    }
    if (same_word(word, "disable")) {
      failing_.store(false);
      ti().host->log("dust: disabling read failures on bad sectors");
      return std::string();
    }
    if (same_word(word, "enable")) {
      failing_.store(true);
      ti().host->log("dust: enabling read failures on bad sectors");
      return std::string();
    }
    if (same_word(word, "quiet")) {
      quiet_.store(!quiet_.load());
      return std::string();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (same_word(word, "countbadblocks")) {
      return fmt::format("countbadblocks: {} badblock(s) found", bad_.size());
    }
    if (same_word(word, "clearbadblocks")) {
      const bool none = bad_.empty();
      bad_.clear();
      return fmt::format("dust_clear_badblocks: {}",
                         none ? "no badblocks found" : "badblocks cleared");
    }
    if (same_word(word, "listbadblocks")) {
      return list();
    }
    return unrecognized(word);
  }

  static Status unrecognized(std::string_view word) {
    return {EINVAL, fmt::format("unrecognized message '{}' received", word)};
  }

  // mutex_ held.
  [[nodiscard]] std::string list() const {
    if (bad_.empty()) {
      return "No blocks in badblocklist";
    }
    std::string text;
    for (const auto& [block, fail_count] : bad_) {
      text += fmt::format("{}\n", block);
    }
    return text;
  }

  // Messages with a block number, and addbadblock with a fail count after it.
  Result<std::string> block_message(std::span<const std::string_view> argv) {
    std::uint64_t block = 0;
    std::uint64_t fail_count = 0;
    for (const std::string_view plain :
         {"disable", "enable", "quiet", "countbadblocks", "clearbadblocks", "listbadblocks"}) {
      if (same_word(argv[0], plain)) {
        return Status(EINVAL,
                      fmt::format("{} takes no argument, {} given", plain, argv.size() - 1));
      }
    }
    if (!parse_decimal(argv[1], block)) {
      return Status(EINVAL, fmt::format("{}: \"{}\" is not a block number", argv[0], argv[1]));
    }
    if (argv.size() == 3 && !parse_decimal(argv[2], fail_count)) {
      return Status(EINVAL, fmt::format("{}: \"{}\" is not a fail count", argv[0], argv[2]));
    }
    if (fail_count > kMaxFailCount) {
      return Status(EINVAL, fmt::format("selected write fail count out of range: {} > {}",
                                        fail_count, kMaxFailCount));
    }
    // One past the last block is taken, as the kernel takes it.
    const std::uint64_t blocks = dev_->size_sectors() >> block_shift_;
    if (block > blocks) {
      return Status(EINVAL,
                    fmt::format("selected block value out of range: {} > {}", block, blocks));
    }
    if (same_word(argv[0], "addbadblock")) {
      return add(block, static_cast<std::uint8_t>(fail_count));
    }
    if (argv.size() == 2 && same_word(argv[0], "removebadblock")) {
      return remove(block);
    }
    if (argv.size() == 2 && same_word(argv[0], "queryblock")) {
      return fmt::format("dust_query_block: block {} {}", block,
                         is_bad(block) ? "found in badblocklist" : "not found in badblocklist");
    }
    return unrecognized(argv[0]);
  }
  Result<std::string> add(std::uint64_t block, std::uint8_t fail_count) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!bad_.emplace(block, fail_count).second) {
        return Status(EINVAL,
                      fmt::format("dust_add_block: block {} already in badblocklist", block));
      }
    }
    say(fmt::format("dust_add_block: badblock added at block {} with write fail count {}", block,
                    fail_count));
    return std::string();
  }
  Result<std::string> remove(std::uint64_t block) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (bad_.erase(block) == 0) {
        return Status(EINVAL,
                      fmt::format("dust_remove_block: block {} not found in badblocklist", block));
      }
    }
    say(fmt::format("dust_remove_block: badblock removed at block {}", block));
    return std::string();
  }

  const DevRef dev_;
  const sector_t start_;
  const std::uint32_t block_bytes_;
  const int block_shift_;  // sectors to blocks

  std::atomic<bool> failing_{false};
  std::atomic<bool> quiet_{false};
  std::mutex mutex_;
  std::map<std::uint64_t, std::uint8_t> bad_;  // mutex_: block, writes that still fail
};

}  // namespace

constinit const TargetType kDustTarget = {"dust", {1, 0, 0}, 0, &DustTarget::ctr};

}  // namespace mapperfs
