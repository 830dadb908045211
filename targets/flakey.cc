// flakey: a device that works for some seconds and then does not.
//
//   START LEN flakey DEV OFFSET UP DOWN [#FEATURE_ARGS FEATURE...]      OFFSET in sectors
//
// Counted in whole seconds since the table was loaded, the device is up for UP, down for DOWN, and
// so on. While down, features say what goes wrong:
//
//   error_reads                        reads fail
//   drop_writes | error_writes         writes, discards and flushes vanish | fail
//   corrupt_bio_byte N r|w VALUE FLAGS byte N (from 1) of each bio becomes VALUE, where the bio has
//                                      all bits of FLAGS (the kernel's REQ_* bits)
//   random_read_corrupt P, random_write_corrupt P
//                                      with probability P / 10^9 one random byte of a bio changes
//
// Without features all reads and writes fail. A write is corrupted in a copy: the submitter's
// buffer stays as it is. Chance comes from a seed of the environment's (`mapperfs -o seed=N`).
#include <fmt/format.h>

#include <atomic>
#include <cstring>
#include <limits>
#include <memory>

#include "engine/env.h"
#include "engine/target_args.h"
#include "engine/words.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

constexpr std::uint64_t kNanosPerSecond = 1'000'000'000;
constexpr std::uint32_t kProbabilityBase = 1'000'000'000;
constexpr std::size_t kMaxFeatureArgs = 11;
constexpr std::size_t kPageBytes = 4096;

// Of a corrupting copy: aligned as O_DIRECT wants it below.
struct alignas(kPageBytes) Page {
  std::byte bytes[kPageBytes];
};

// The operation and flags as the kernel has them in bi_opf (include/linux/blk_types.h), as far as a
// bio of ours carries them.
std::uint32_t kernel_opf(const Bio& bio) noexcept {
  static constexpr struct {
    std::uint8_t flag;
    unsigned bit;
  } kFlags[] = {
      {kBioMeta, 12}, {kBioFua, 17}, {kBioPreflush, 18}, {kBioReadahead, 19}, {kBioNowait, 21}};
  std::uint32_t opf = 0;
  switch (bio.op) {
    case Op::kRead:
      break;
    case Op::kWrite:
      opf = 1;
      break;
    case Op::kFlush:
      opf = 2;
      break;
    case Op::kDiscard:
      opf = 3;
      break;
    case Op::kSecureErase:
      opf = 5;
      break;
    case Op::kWriteZeroes:
      opf = 9;
      break;
  }
  for (const auto& each : kFlags) {
    if ((bio.flags & each.flag) != 0) {
      opf |= std::uint32_t{1} << each.bit;
    }
  }
  return opf;
}

// Random numbers for any thread without a lock: SplitMix64 over an atomic counter.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() noexcept {
    constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15;
    std::uint64_t z = state_.fetch_add(kStep, std::memory_order_relaxed) + kStep;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  bool happens(std::uint32_t probability) noexcept {
    return probability != 0 && next() % kProbabilityBase < probability;
  }

 private:
  std::atomic<std::uint64_t> state_;
};

struct FlakeyFeatures {
  bool error_reads = false;
  bool drop_writes = false;
  bool error_writes = false;
  std::uint32_t corrupt_byte = 0;  // from 1; 0: no corrupt_bio_byte
  bool corrupt_write = false;      // direction of corrupt_bio_byte
  std::uint32_t corrupt_value = 0;
  std::uint32_t corrupt_flags = 0;
  std::uint32_t random_read = 0;  // probabilities
  std::uint32_t random_write = 0;

  [[nodiscard]] bool none() const {
    return !error_reads && !drop_writes && !error_writes && corrupt_byte == 0 && random_read == 0 &&
           random_write == 0;
  }
  [[nodiscard]] std::string text() const {
    const int count = int{error_reads} + int{drop_writes} + int{error_writes} +
                      (corrupt_byte != 0 ? 5 : 0) + (random_read != 0 ? 2 : 0) +
                      (random_write != 0 ? 2 : 0);
    std::string text = fmt::format("{}", count);
    text += error_reads ? " error_reads" : "";
    text += drop_writes ? " drop_writes" : "";
    text += error_writes ? " error_writes" : "";
    if (corrupt_byte != 0) {
      text += fmt::format(" corrupt_bio_byte {} {} {} {}", corrupt_byte, corrupt_write ? 'w' : 'r',
                          corrupt_value, corrupt_flags);
    }
    if (random_read != 0) {
      text += fmt::format(" random_read_corrupt {}", random_read);
    }
    if (random_write != 0) {
      text += fmt::format(" random_write_corrupt {}", random_write);
    }
    return text;
  }
};

// Reads the feature arguments, which begin with their count at word kCountWord, in the kernel's
// order of checks.
class FeatureParser {
 public:
  explicit FeatureParser(TargetArgs& args) : args_(args) {}

  FlakeyFeatures parse() {
    if (args_.count() > kCountWord) {
      const std::size_t count =
          args_.group(kCountWord, kMaxFeatureArgs, "Invalid number of feature args").size();
      end_ = at_ + count;
      while (at_ < end_ && !args_.failed()) {
        feature(args_.words()[at_++]);
      }
      check_together();
    }
    if (features_.none()) {
      features_.error_reads = true;
      features_.error_writes = true;
    }
    return features_;
  }

 private:
  static constexpr std::size_t kCountWord = 4;

  [[nodiscard]] std::size_t left() const { return end_ - at_; }
  void fail(std::string_view text) { args_.fail(text, fmt::format("at argument {}", at_)); }

  void feature(const std::string& name) {
    if (same_word(name, "error_reads")) {
      set_once(features_.error_reads, "Feature error_reads duplicated");
    } else if (same_word(name, "drop_writes")) {
      set_once(features_.drop_writes, "Feature drop_writes duplicated");
      if (features_.error_writes) {
        fail("Feature drop_writes conflicts with feature error_writes");
      }
    } else if (same_word(name, "error_writes")) {
      set_once(features_.error_writes, "Feature error_writes duplicated");
      if (features_.drop_writes) {
        fail("Feature error_writes conflicts with feature drop_writes");
      }
    } else if (same_word(name, "corrupt_bio_byte")) {
      corrupt_bio_byte();
    } else if (same_word(name, "random_read_corrupt")) {
      probability(features_.random_read, "Feature random_read_corrupt duplicated",
                  "Feature random_read_corrupt requires a parameter");
    } else if (same_word(name, "random_write_corrupt")) {
      probability(features_.random_write, "Feature random_write_corrupt duplicated",
                  "Feature random_write_corrupt requires a parameter");
    } else {
      args_.fail("Unrecognised flakey feature requested", fmt::format("\"{}\"", name));
    }
  }
  void set_once(bool& flag, std::string_view duplicated) {
    if (flag) {
      fail(duplicated);
    }
    flag = true;
  }
  void corrupt_bio_byte() {
    if (features_.corrupt_byte != 0) {
      fail("Feature corrupt_bio_byte duplicated");
      return;
    }
    if (left() < 4) {
      args_.fail("Feature corrupt_bio_byte requires 4 parameters", fmt::format("{} given", left()));
      return;
    }
    features_.corrupt_byte = args_.u32(at_++, 1, "Invalid corrupt bio byte");
    const std::string& direction = args_.words()[at_++];
    features_.corrupt_write = same_word(direction, "w");
    if (!features_.corrupt_write && !same_word(direction, "r")) {
      args_.fail("Invalid corrupt bio direction (r or w)", fmt::format("\"{}\"", direction));
    }
    features_.corrupt_value = static_cast<std::uint32_t>(
        args_.number(at_++, 0, 255, "Invalid corrupt value to write into bio byte (0-255)"));
    features_.corrupt_flags = args_.u32(at_++, 0, "Invalid corrupt bio flags mask");
  }
  void probability(std::uint32_t& value, std::string_view duplicated, std::string_view missing) {
    if (value != 0) {
      fail(duplicated);
    } else if (left() == 0) {
      fail(missing);
    } else {
      value = static_cast<std::uint32_t>(
          args_.number(at_++, 0, kProbabilityBase, "Invalid random corrupt argument"));
    }
  }
  void check_together() {
    const bool corrupts_writes =
        (features_.corrupt_byte != 0 && features_.corrupt_write) || features_.random_write != 0;
    const bool corrupts_reads =
        (features_.corrupt_byte != 0 && !features_.corrupt_write) || features_.random_read != 0;
    if (features_.drop_writes && corrupts_writes) {
      fail(
          "drop_writes is incompatible with random_write_corrupt or corrupt_bio_byte with the "
          "WRITE flag set");
    } else if (features_.error_writes && corrupts_writes) {
      fail(
          "error_writes is incompatible with random_write_corrupt or corrupt_bio_byte with the "
          "WRITE flag set");
    } else if (features_.error_reads && corrupts_reads) {
      fail(
          "error_reads is incompatible with random_read_corrupt or corrupt_bio_byte with the "
          "READ flag set");
    }
  }

  TargetArgs& args_;
  FlakeyFeatures features_;
  std::size_t at_ = kCountWord + 1;  // the next word
  std::size_t end_ = kCountWord + 1;
};

class FlakeyTarget final : public Target {
 public:
  struct Options {
    DevRef dev;
    sector_t start = 0;
    std::uint32_t up_s = 0;
    std::uint32_t down_s = 0;
    FlakeyFeatures features;
  };

  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(4, std::numeric_limits<std::size_t>::max(), "Invalid argument count");
    Options options;
    options.start = args.sector(1, "Invalid device sector");
    options.up_s = args.u32(2, 0, "Invalid up interval");
    options.down_s = args.u32(3, 0, "Invalid down interval");
    const std::uint64_t period = std::uint64_t{options.up_s} + options.down_s;
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
    if (period == 0) {
      args.fail("Total (up + down) interval is zero", "one of them must not be");
    } else if (period > kMost) {
      args.fail("Interval overflow", fmt::format("{} s are more than {}", period, kMost));
    }
    if (args.failed()) {
      return args.status();
    }
    options.features = FeatureParser(args).parse();
    options.dev = args.device(0, "Device lookup failed");
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<FlakeyTarget>(ti, std::move(options)));
  }

  FlakeyTarget(const TargetInfo& ti, Options options)
      : Target(ti, features_of_flakey()),
        options_(std::move(options)),
        start_ns_(ti.env->now_ns()),
        chance_(ti.env->random_seed()) {}

  MapIo map(Bio& bio) noexcept override {
    PerIo& io = bio.make_per_io<PerIo>();
    if (down()) {
      const FlakeyFeatures& features = options_.features;
      if (!bio.is_write()) {
        if (features.error_reads) {
          return MapIo::kKill;
        }
        io.corrupt_read =
            features.random_read != 0 || (features.corrupt_byte != 0 && !features.corrupt_write);
      } else if (features.drop_writes) {
        bio.end_io(BlkStatus::kOk);
        return MapIo::kSubmitted;
      } else if (features.error_writes) {
        return MapIo::kKill;
      } else if (bio.has_data()) {
        corrupt_write(bio, io);
      }
    }
    bio.remap(*options_.dev, options_.start + ti().offset_of(bio));
    return MapIo::kRemapped;
  }

  EndIo end_io(Bio& bio, BlkStatus& status) noexcept override {
    const PerIo& io = bio.per_io<PerIo>();
    if (io.copy != nullptr) {
      bio.data = io.data;
      const std::unique_ptr<Page[]> freed(io.copy);
    } else if (io.corrupt_read && status == BlkStatus::kOk) {
      const FlakeyFeatures& features = options_.features;
      if (features.corrupt_byte != 0 && !features.corrupt_write && flags_match(bio)) {
        corrupt_fixed(bio);
      }
      if (chance_.happens(features.random_read)) {
        corrupt_random(bio);
      }
    }
    return EndIo::kDone;
  }

  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return fmt::format("{} {} {} {} {}", escape_word(options_.dev->table_name()), options_.start,
                       options_.up_s, options_.down_s, options_.features.text());
  }
  void iterate_devices(const DeviceFn& fn) const override {
    fn({options_.dev.get(), options_.start, ti().len});
  }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    return extent_below(*options_.dev, options_.start + (sector - begin()), max);
  }

 private:
  // What end_io() has to undo or do.
  struct PerIo {
    Page* copy = nullptr;       // owned: what goes down in place of `data`
    std::byte* data = nullptr;  // the submitter's
    bool corrupt_read = false;  // the read came while the device was down
  };

  static TargetFeatures features_of_flakey() {
    TargetFeatures features;
    features.num_flush_bios = 1;
    features.num_discard_bios = 1;
    features.wants_end_io = true;
    return features;
  }

  [[nodiscard]] bool down() const noexcept {
    const std::uint64_t elapsed_s = (ti().env->now_ns() - start_ns_) / kNanosPerSecond;
    return elapsed_s % (std::uint64_t{options_.up_s} + options_.down_s) >= options_.up_s;
  }
  [[nodiscard]] bool flags_match(const Bio& bio) const noexcept {
    const std::uint32_t wanted = options_.features.corrupt_flags;
    return (kernel_opf(bio) & wanted) == wanted;
  }

  void corrupt_fixed(Bio& bio) const noexcept {
    const std::size_t at = options_.features.corrupt_byte - 1;
    if (at < bio.len_bytes()) {
      bio.data[at] = static_cast<std::byte>(options_.features.corrupt_value);
    }
  }
  void corrupt_random(Bio& bio) noexcept {
    bio.data[chance_.next() % bio.len_bytes()] = static_cast<std::byte>(chance_.next());
  }
  void corrupt_write(Bio& bio, PerIo& io) noexcept {
    const FlakeyFeatures& features = options_.features;
    const bool fixed = features.corrupt_byte != 0 && features.corrupt_write && flags_match(bio);
    const bool random = chance_.happens(features.random_write);
    if (!fixed && !random) {
      return;
    }
    const std::size_t pages = (bio.len_bytes() + kPageBytes - 1) / kPageBytes;
    io.copy = std::make_unique_for_overwrite<Page[]>(pages).release();
    io.data = bio.data;
    std::memcpy(io.copy, bio.data, bio.len_bytes());
    bio.data = io.copy->bytes;
    if (fixed) {
      corrupt_fixed(bio);
    }
    if (random) {
      corrupt_random(bio);
    }
  }

  const Options options_;
  const std::uint64_t start_ns_;
  Chance chance_;
};

}  // namespace

constinit const TargetType kFlakeyTarget = {"flakey", {1, 5, 0}, 0, &FlakeyTarget::ctr};

}  // namespace mapperfs
