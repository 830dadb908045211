// striped: spreads a device over N others in chunks, without redundancy (RAID 0).
//
//   START LEN striped N CHUNK (DEV OFFSET){N}      CHUNK and OFFSET in sectors
//
// Chunk c of the target lies on stripe c % N at OFFSET + (c / N) * CHUNK. An ordinary I/O never
// crosses a chunk, since max_io_len is one. A discard, secure erase or write zeroes comes once for
// every stripe with the whole range; each copy cuts out the run that its stripe holds of it.
//
// An error counts against the stripe's device: from the first on its letter in the status line is D
// instead of A, and each of the first kMaxErrorEvents raises an event. I/O still goes there.
#include <fmt/format.h>

#include <atomic>
#include <bit>
#include <limits>
#include <vector>

#include "engine/target_args.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

// Errors of one stripe that raise an event: below 15, as the kernel's DM_IO_ERROR_THRESHOLD says.
constexpr std::uint32_t kMaxErrorEvents = 14;
// A flush goes to the stripes in numbered copies, and the number has 16 bits.
constexpr std::uint64_t kMaxStripes = std::numeric_limits<std::uint16_t>::max();

struct Stripe {
  DevRef dev;
  sector_t start = 0;
  std::atomic<std::uint32_t> errors{0};
};

// A division by a number that is often a power of two.
class Divisor {
 public:
  explicit Divisor(std::uint32_t value)
      : value_(value), shift_(std::has_single_bit(value) ? std::countr_zero(value) : -1) {}
  [[nodiscard]] std::uint32_t value() const { return value_; }
  // Divides `n` and returns the remainder.
  std::uint32_t divide(sector_t& n) const noexcept {
    if (shift_ >= 0) {
      const auto remainder = static_cast<std::uint32_t>(n & (value_ - 1));
      n >>= shift_;
      return remainder;
    }
    const auto remainder = static_cast<std::uint32_t>(n % value_);
    n /= value_;
    return remainder;
  }

 private:
  std::uint32_t value_;
  int shift_;
};

class StripedTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    args.require_count(2, std::numeric_limits<std::size_t>::max(), "Not enough arguments");
    const auto count = static_cast<std::uint32_t>(
        args.number(0, 1, kMaxStripes, "Invalid stripe count", Sign::kPlus));
    const std::uint32_t chunk = args.u32(1, 1, "Invalid chunk_size", Sign::kPlus);
    if (args.failed()) {
      return args.status();
    }
    check_length(ti.len, count, chunk, args);
    const std::uint64_t words = 2 + 2 * std::uint64_t{count};
    args.require_count(words, words, "Not enough destinations specified");
    if (args.failed()) {
      return args.status();
    }
    std::vector<Stripe> stripes(count);
    for (std::size_t i = 0; i < count; ++i) {
      constexpr std::string_view kText = "Couldn't parse stripe destination";
      stripes[i].start = args.sector(2 + 2 * i + 1, kText);
      stripes[i].dev = args.device(2 + 2 * i, kText);
    }
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<StripedTarget>(ti, chunk, std::move(stripes)));
  }

  StripedTarget(const TargetInfo& ti, std::uint32_t chunk, std::vector<Stripe> stripes)
      : Target(ti, features_of_striped(chunk, stripes.size())),
        stripes_(std::move(stripes)),
        chunk_(chunk),
        count_(static_cast<std::uint32_t>(stripes_.size())),
        width_(ti.len / stripes_.size()) {}

  MapIo map(Bio& bio) noexcept override {
    switch (bio.op) {
      case Op::kRead:
      case Op::kWrite: {
        const Place place = place_of(ti().offset_of(bio));
        const Stripe& stripe = stripes_[place.stripe];
        bio.remap(*stripe.dev, stripe.start + place.sector);
        return MapIo::kRemapped;
      }
      case Op::kFlush:
        bio.remap(*stripes_[bio.bio_nr()].dev, 0);
        return MapIo::kRemapped;
      case Op::kDiscard:
      case Op::kSecureErase:
      case Op::kWriteZeroes:
        return map_range(bio);
    }
    return MapIo::kKill;
  }

  EndIo end_io(Bio& bio, BlkStatus& status) noexcept override {
    if (status == BlkStatus::kOk || status == BlkStatus::kNotSupported ||
        status == BlkStatus::kRequeue || (bio.flags & kBioReadahead) != 0) [[likely]] {
      return EndIo::kDone;
    }
    const std::uint32_t failed =
        bio.has_data() ? place_of(ti().offset_of(bio)).stripe : bio.bio_nr();
    count_error(*stripes_[failed].dev);
    return EndIo::kDone;
  }

  [[nodiscard]] std::string status(bool noflush) const override {
    static_cast<void>(noflush);
    std::string text = fmt::format("{} ", stripes_.size());
    for (const Stripe& stripe : stripes_) {
      text += escape_word(stripe.dev->table_name());
      text += ' ';
    }
    text += "1 ";
    for (const Stripe& stripe : stripes_) {
      text += stripe.errors.load(std::memory_order_relaxed) != 0 ? 'D' : 'A';
    }
    return text;
  }
  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    std::string text = fmt::format("{} {}", stripes_.size(), chunk_.value());
    for (const Stripe& stripe : stripes_) {
      text += fmt::format(" {} {}", escape_word(stripe.dev->table_name()), stripe.start);
    }
    return text;
  }
  void iterate_devices(const DeviceFn& fn) const override {
    for (const Stripe& stripe : stripes_) {
      fn({stripe.dev.get(), stripe.start, width_});
    }
  }
  void io_hints(QueueLimits& limits) const override {
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
    const std::uint64_t io_min = std::uint64_t{chunk_.value()} << kSectorShift;
    const std::uint64_t io_opt = io_min * count_.value();
    limits.chunk_sectors = chunk_.value();
    // Both or none, as the kernel: a hint that wrapped would mislead.
    if (io_min <= kMost && io_opt <= kMost) {
      limits.io_min = static_cast<std::uint32_t>(io_min);
      limits.io_opt = static_cast<std::uint32_t>(io_opt);
    }
  }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    const sector_t offset = sector - begin();
    const Place place = place_of(offset);
    const sector_t room = chunk_.value() - offset % chunk_.value();
    const Stripe& stripe = stripes_[place.stripe];
    return extent_below(*stripe.dev, stripe.start + place.sector, std::min(max, room));
  }

 private:
  struct Place {
    std::uint32_t stripe;
    sector_t sector;  // on the stripe, from its start
  };

  static void check_length(sector_t len, std::uint32_t count, std::uint32_t chunk,
                           TargetArgs& args) {
    if (len % count != 0) {
      args.fail("Target length not divisible by number of stripes",
                fmt::format("{} sectors over {} stripes", len, count));
    } else if (len / count % chunk != 0) {
      args.fail("Target length not divisible by chunk size",
                fmt::format("{} sectors a stripe in chunks of {}", len / count, chunk));
    }
  }
  static TargetFeatures features_of_striped(std::uint32_t chunk, std::size_t stripes) {
    const auto copies = static_cast<std::uint16_t>(stripes);
    TargetFeatures features;
    features.max_io_len = chunk;
    features.num_flush_bios = copies;
    features.num_discard_bios = copies;
    features.num_secure_erase_bios = copies;
    features.num_write_zeroes_bios = copies;
    features.flush_bypasses_map = true;
    features.wants_end_io = true;
    return features;
  }

  [[nodiscard]] Place place_of(sector_t offset) const noexcept {
    const std::uint32_t in_chunk = chunk_.divide(offset);  // offset: now a chunk of the target
    const std::uint32_t stripe = count_.divide(offset);    // offset: now a chunk of the stripe
    return {stripe, offset * chunk_.value() + in_chunk};
  }

  // Where the part that `stripe` holds of a range begins or ends, if the range begins or ends at
  // `offset`. With N = 3, an edge inside chunk 4 (on stripe 1): stripe 0 has chunk 3 before it and
  // goes on at chunk 6; stripe 2 goes on at chunk 5, the row that the edge is in.
  [[nodiscard]] sector_t edge_on(std::uint32_t stripe, sector_t offset) const noexcept {
    const Place place = place_of(offset);
    if (place.stripe == stripe) {
      return place.sector;
    }
    const sector_t row = place.sector - place.sector % chunk_.value();
    return stripe < place.stripe ? row + chunk_.value() : row;
  }

  MapIo map_range(Bio& bio) noexcept {
    const Stripe& stripe = stripes_[bio.bio_nr()];
    const sector_t offset = ti().offset_of(bio);
    const sector_t from = edge_on(bio.bio_nr(), offset);
    const sector_t to = edge_on(bio.bio_nr(), offset + bio.sectors);
    if (from >= to) {
      bio.end_io(BlkStatus::kOk);
      return MapIo::kSubmitted;
    }
    bio.remap(*stripe.dev, stripe.start + from);
    bio.sectors = to - from;
    return MapIo::kRemapped;
  }

  // Every stripe on the device that failed counts the error; one event tells of them all.
  void count_error(const BlockDevice& failed) noexcept {
    bool tell = false;
    for (Stripe& stripe : stripes_) {
      if (stripe.dev.get() == &failed) {
        tell |= stripe.errors.fetch_add(1, std::memory_order_relaxed) < kMaxErrorEvents;
      }
    }
    if (tell) {
      ti().host->table_event();
    }
  }

  std::vector<Stripe> stripes_;
  const Divisor chunk_;
  const Divisor count_;
  const sector_t width_;  // sectors a stripe
};

}  // namespace

constinit const TargetType kStripedTarget = {"striped", {1, 7, 0}, 0, &StripedTarget::ctr};

}  // namespace mapperfs
