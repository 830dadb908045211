// switch: regions of a device, each served by one of several paths; the map is changed by message.
//
//   START LEN switch #PATHS REGION_SIZE 0 (DEV OFFSET){#PATHS}      sizes in sectors
//
// For storage that shows the same volume on many paths, each the best one for a part of it. A
// region's path takes as few bits as the number of paths needs, in words that hold a whole number
// of entries, so that a map of millions of regions stays small:
//
//     3 paths, 2 bits:   | r31 ... r2 r1 r0 |   one word of 64 bits, 32 entries
//
// The map is not part of the table line: a reload starts round robin again.
//
// Threads: map() reads words without a lock; messages write them under mutex_.
#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <limits>
#include <mutex>
#include <vector>

#include "engine/target_args.h"
#include "engine/words.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

// As many as the kernel allocates in one piece.
constexpr std::uint32_t kMaxPaths = 262141;
// 1 GiB of map; a device of 16 TiB in regions of one sector with two paths takes 4 GiB, and none is
// sensible.
constexpr std::uint64_t kMaxMapWords = std::uint64_t{1} << 27;

// Paths by region, packed.
class RegionMap {
 public:
  RegionMap(std::uint64_t regions, std::uint32_t paths)
      : bits_(bits_for(paths)), per_word_(64 / bits_), words_(words_for(regions, paths)) {}

  static std::uint64_t words_for(std::uint64_t regions, std::uint32_t paths) {
    const unsigned per_word = 64 / bits_for(paths);
    return regions / per_word + (regions % per_word != 0 ? 1 : 0);
  }
  [[nodiscard]] std::uint64_t get(std::uint64_t region) const noexcept {
    const std::uint64_t word = words_[region / per_word_].load(std::memory_order_relaxed);
    return word >> shift_of(region) & mask();
  }
  // One writer at a time.
  void set(std::uint64_t region, std::uint64_t path) noexcept {
    std::atomic<std::uint64_t>& word = words_[region / per_word_];
    std::uint64_t value = word.load(std::memory_order_relaxed);
    value &= ~(mask() << shift_of(region));
    value |= path << shift_of(region);
    word.store(value, std::memory_order_relaxed);
  }

 private:
  // The fewest bits, at least one, that tell `paths` apart.
  static unsigned bits_for(std::uint32_t paths) {
    unsigned bits = 1;
    while (bits < 32 && (std::uint64_t{1} << bits) < paths) {
      ++bits;
    }
    return bits;
  }
  [[nodiscard]] std::uint64_t mask() const { return (std::uint64_t{1} << bits_) - 1; }
  [[nodiscard]] unsigned shift_of(std::uint64_t region) const {
    return static_cast<unsigned>(region % per_word_) * bits_;
  }

  const unsigned bits_;
  const unsigned per_word_;
  std::vector<std::atomic<std::uint64_t>> words_;
};

// The hexadecimal digits at the front of `text`, which are taken off it; 0 where there are none.
std::uint64_t take_hex(std::string_view& text) {
  std::uint64_t value = 0;
  while (!text.empty()) {
    const char c = text.front();
    unsigned digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<unsigned>(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<unsigned>(c - 'A') + 10;
    } else {
      break;
    }
    value = value << 4 | digit;
    text.remove_prefix(1);
  }
  return value;
}

Status bad_argument(std::string_view argument) {
  return {EINVAL, fmt::format("invalid set_region_mappings argument: '{}'", argument)};
}

class SwitchTarget final : public Target {
 public:
  struct Path {
    DevRef dev;
    sector_t start = 0;
  };

  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    const auto count =
        static_cast<std::uint32_t>(args.number(0, 1, kMaxPaths, "Invalid number of paths"));
    const std::uint32_t region_size = args.u32(1, 1, "Invalid region size");
    static_cast<void>(args.group(2, 0, "Invalid number of optional args"));
    if (args.failed()) {
      return args.status();
    }
    const std::uint64_t words = 3 + 2 * std::uint64_t{count};
    args.require_count(words, words, "Incorrect number of path arguments");
    std::vector<Path> paths;
    for (std::size_t i = 0; i < count && !args.failed(); ++i) {
      Path path;
      path.dev = args.device(3 + 2 * i, "Device lookup failed");
      path.start = args.sector(3 + 2 * i + 1, "Invalid device starting offset", Sign::kPlus);
      paths.push_back(std::move(path));
    }
    const std::uint64_t map_words = RegionMap::words_for(regions_of(ti.len, region_size), count);
    if (map_words > kMaxMapWords) {
      args.fail(ENOMEM, "Cannot allocate region table",
                fmt::format("{} regions take {} words, at most {}", regions_of(ti.len, region_size),
                            map_words, kMaxMapWords));
    }
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(
        std::make_unique<SwitchTarget>(ti, region_size, std::move(paths)));
  }

  SwitchTarget(const TargetInfo& ti, std::uint32_t region_size, std::vector<Path> paths)
      : Target(ti, features_of_switch(region_size)),
        region_size_(region_size),
        paths_(std::move(paths)),
        regions_(regions_of(ti.len, region_size)),
        map_(regions_, static_cast<std::uint32_t>(paths_.size())) {
    for (std::uint64_t region = 0; region < regions_; ++region) {
      map_.set(region, region % paths_.size());
    }
  }

  MapIo map(Bio& bio) noexcept override {
    const sector_t offset = ti().offset_of(bio);
    const Path& path = paths_[map_.get(offset / region_size_)];
    bio.remap(*path.dev, path.start + offset);
    return MapIo::kRemapped;
  }

  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    std::string text = fmt::format("{} {} 0", paths_.size(), region_size_);
    for (const Path& path : paths_) {
      text += fmt::format(" {} {}", escape_word(path.dev->table_name()), path.start);
    }
    return text;
  }
  Result<std::string> message(std::span<const std::string_view> argv) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!same_word(argv[0], "set_region_mappings")) {
      return Status(EINVAL, fmt::format("Unrecognised message received: '{}'", argv[0]));
    }
    std::uint64_t region = 0;
    for (const std::string_view argument : argv.subspan(1)) {
      const bool repeats = !argument.empty() && (argument[0] == 'R' || argument[0] == 'r');
      if (Status status = repeats ? repeat(argument, region) : set(argument, region);
          !status.ok()) {
        return status;  // what came before stays
      }
    }
    return std::string();
  }
  void iterate_devices(const DeviceFn& fn) const override {
    for (const Path& path : paths_) {
      fn({path.dev.get(), path.start, ti().len});
    }
  }

 private:
  static TargetFeatures features_of_switch(std::uint32_t region_size) {
    TargetFeatures features;
    features.max_io_len = region_size;
    features.num_discard_bios = 1;  // down any path: they all show the same data
    return features;
  }
  static std::uint64_t regions_of(sector_t len, std::uint32_t region_size) {
    return len / region_size + (len % region_size != 0 ? 1 : 0);
  }

  [[nodiscard]] Status check_region(std::uint64_t region) const {
    if (region < regions_) {
      return {};
    }
    return {EINVAL,
            fmt::format("invalid set_region_mappings region number: {} >= {}", region, regions_)};
  }

  // "REGION:PATH", or ":PATH" for the region after the last one; numbers in hexadecimal.
  Status set(std::string_view argument, std::uint64_t& region) {
    std::string_view rest = argument;
    if (!rest.empty() && rest.front() == ':') {
      ++region;
    } else {
      region = take_hex(rest);
      if (rest.empty() || rest.front() != ':') {
        return bad_argument(argument);
      }
    }
    rest.remove_prefix(1);
    if (rest.empty()) {
      return bad_argument(argument);
    }
    const std::uint64_t path = take_hex(rest);
    if (!rest.empty()) {
      return bad_argument(argument);
    }
    if (Status status = check_region(region); !status.ok()) {
      return status;
    }
    if (path >= paths_.size()) {
      return {EINVAL,
              fmt::format("invalid set_region_mappings device: {} >= {}", path, paths_.size())};
    }
    map_.set(region, path);
    return {};
  }

  // "Rn,m": each of the next m regions gets the path of the one n before it.
  Status repeat(std::string_view argument, std::uint64_t& region) {
    std::string_view rest = argument.substr(1);
    if (rest.empty() || rest.front() == ',') {
      return bad_argument(argument);
    }
    const std::uint64_t cycle = take_hex(rest);
    if (rest.size() < 2 || rest.front() != ',') {
      return bad_argument(argument);
    }
    rest.remove_prefix(1);
    std::uint64_t count = take_hex(rest);
    if (!rest.empty()) {
      return bad_argument(argument);
    }
    if (cycle == 0) {  // the kernel counts it down past 0 before it says the same
      return {EINVAL, fmt::format("invalid set_region_mappings cycle length: 0 is not between 1 "
                                  "and {}",
                                  region + 1)};
    }
    if (cycle - 1 > region) {
      return {EINVAL,
              fmt::format("invalid set_region_mappings cycle length: {} > {}", cycle - 1, region)};
    }
    if (region + count < region) {
      return check_region(std::numeric_limits<std::uint64_t>::max());
    }
    if (Status status = check_region(region + count); !status.ok()) {
      return status;
    }
    for (; count != 0; --count) {
      ++region;
      map_.set(region, map_.get(region - cycle));
    }
    return {};
  }

  const std::uint32_t region_size_;  // sectors
  const std::vector<Path> paths_;
  const std::uint64_t regions_;
  std::mutex mutex_;
  RegionMap map_;  // written with mutex_ held
};

}  // namespace

constinit const TargetType kSwitchTarget = {"switch", {1, 1, 0}, 0, &SwitchTarget::ctr};

}  // namespace mapperfs
