// Table: load, checks, look-up (drivers/md/dm-table.c; reference core.md section 2).
#include "engine/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

namespace mapperfs {

namespace {

constexpr std::size_t kMaxBuckets = std::size_t{1} << 17;
// Roughly: half to twice as many on average.
constexpr std::size_t kTargetsPerBucket = 8;
// Bits of a place in a bucket that a guess multiplies by an index of kMaxTargets.
constexpr unsigned kGuessBits = 40;
static_assert(kMaxTargets < std::size_t{1} << (64 - kGuessBits));

// Opens each word once for a table, and remembers the devices in the order opened.
class CachingOpener final : public DeviceOpener {
 public:
  explicit CachingOpener(DeviceOpener& below) : below_(below) {}

  Result<DevRef> open(const std::string& word, DeviceMode mode) override {
    const std::string key = (mode == DeviceMode::kReadOnly ? "r" : "w") + word;
    if (const auto it = opened_.find(key); it != opened_.end()) {
      return it->second;
    }
    Result<DevRef> dev = below_.open(word, mode);
    if (dev.ok()) {
      opened_.emplace(key, *dev);
      if (seen_.insert(dev->get()).second) {
        order_.push_back(dev->get());
      }
    }
    return dev;
  }
  Status outside_mount(const std::string& path) override { return below_.outside_mount(path); }
  [[nodiscard]] const std::vector<BlockDevice*>& order() const { return order_; }

 private:
  DeviceOpener& below_;
  std::unordered_map<std::string, DevRef> opened_;
  std::unordered_set<BlockDevice*> seen_;
  std::vector<BlockDevice*> order_;
};

std::string errno_suffix(int error) { return fmt::format(" (-{})", errno_name(error)); }

}  // namespace

Result<TableLine> parse_table_line(std::string_view text) {
  TableLine line;
  std::size_t at = 0;
  const auto next_word = [&]() -> std::string_view {
    at = text.find_first_not_of(" \t", at);
    if (at == std::string_view::npos) {
      at = text.size();
      return {};
    }
    const std::size_t from = at;
    at = std::min(text.find_first_of(" \t", at), text.size());
    return text.substr(from, at - from);
  };
  const std::string_view start = next_word();
  const std::string_view len = next_word();
  const std::string_view type = next_word();
  if (start.empty()) {
    return Status(EINVAL, "an empty table line: START LENGTH TARGET must follow the name");
  }
  if (type.empty()) {
    return Status(EINVAL, fmt::format("table line \"{}\" has fewer than the three words START "
                                      "LENGTH TARGET",
                                      text.substr(text.find_first_not_of(" \t")).substr(0, 200)));
  }
  if (!parse_decimal(start, line.start)) {
    return Status(EINVAL, fmt::format("start {}", no_decimal(start, " of sectors")));
  }
  if (!parse_decimal(len, line.len)) {
    return Status(EINVAL, fmt::format("length {}", no_decimal(len, " of sectors")));
  }
  if (type.size() > kMaxTypeName) {
    return Status(EINVAL, fmt::format("target type name {} is too long: {} bytes, at most {}",
                                      type.substr(0, 64), type.size(), kMaxTypeName));
  }
  line.type = type;
  at = std::min(text.find_first_not_of(" \t", at), text.size());
  line.args = text.substr(at);
  return line;
}

const TargetType* TargetRegistry::find(std::string_view name) const {
  for (const TargetType* type : types_) {
    if (type->name == name) {
      return type;
    }
  }
  return nullptr;
}

// Builds one table; the half-built one goes away with it when a step fails.
class Table::Builder {
 public:
  explicit Builder(const Options& options) : options_(options), opener_(*options.opener) {}

  Result<std::unique_ptr<Table>> build(std::span<const TableLine> lines) {
    if (lines.empty()) {
      return Status(EINVAL, "no targets specified: the table is empty");
    }
    if (lines.size() > kMaxTargets) {
      return Status(EOVERFLOW, fmt::format("{} targets are more than a table holds ({})",
                                           lines.size(), kMaxTargets));
    }
    table_->mode_ = options_.mode;
    table_->targets_.reserve(lines.size());
    for (const TableLine& line : lines) {
      if (Status status = add(line); !status.ok()) {
        return status;
      }
    }
    table_->single_ = table_->targets_.size() == 1 ? table_->targets_.front().get() : nullptr;
    table_->devices_ = opener_.order();
    if (options_.check_limits) {
      if (Status status = table_->calculate_limits(); !status.ok()) {
        return status;
      }
    }
    collect_flushes();
    index();
    return std::move(table_);
  }

 private:
  Status add(const TableLine& line) {
    const std::size_t number = table_->targets_.size() + 1;
    const auto at_line = [number](const Status& status) {
      return status.with_context(fmt::format("table line {}", number));
    };
    const TargetType* type = options_.registry->find(line.type);
    if (Status status = check_place(line, type); !status.ok()) {
      return at_line(status);
    }
    TargetInfo ti;
    ti.begin = line.start;
    ti.len = line.len;
    ti.mode = options_.mode;
    ti.host = options_.host;
    ti.env = options_.env;
    ti.type = type;
    TargetArgs args(split_words(line.args), options_.mode, opener_);
    Result<std::unique_ptr<Target>> target = type->ctr(ti, args);
    if (!target.ok()) {
      return at_line(Status(target.status().error(),
                            fmt::format("{}: {}{}", line.type, target.status().message(),
                                        errno_suffix(target.status().error()))));
    }
    MFS_ASSERT(!args.failed());
    table_->targets_.push_back(target.take());
    table_->size_ = line.start + line.len;
    return {};
  }

  // The kernel's checks of dm_table_add_target(), in its order.
  Status check_place(const TableLine& line, const TargetType* type) {
    const Table& table = *table_;
    if (singleton_ != nullptr) {
      return {EINVAL, fmt::format("target type {} must appear alone in table", singleton_->name)};
    }
    if (line.len == 0) {
      return {EINVAL, fmt::format("zero-length target: {} at sector {}", line.type, line.start)};
    }
    if (line.start + line.len < line.start || line.start + line.len > kMaxDeviceSectors) {
      return {EINVAL, fmt::format("too large device: start {} and length {} pass {} sectors",
                                  line.start, line.len, kMaxDeviceSectors)};
    }
    if (type == nullptr) {
      return {EINVAL, fmt::format("{}: unknown target type", line.type)};
    }
    if ((type->flags & kTargetSingleton) != 0 && !table.targets_.empty()) {
      return {EINVAL, fmt::format("{}: singleton target type must appear alone in table{}",
                                  line.type, errno_suffix(EINVAL))};
    }
    if ((type->flags & kTargetAlwaysWriteable) != 0 && options_.mode == DeviceMode::kReadOnly) {
      return {EINVAL, fmt::format("{}: target type may not be included in a read-only table{}",
                                  line.type, errno_suffix(EINVAL))};
    }
    if (immutable_ != nullptr && immutable_ != type) {
      return {EINVAL, fmt::format("{}: immutable target type {} cannot be mixed with other "
                                  "target types{}",
                                  line.type, immutable_->name, errno_suffix(EINVAL))};
    }
    if ((type->flags & kTargetImmutable) != 0) {
      if (!table.targets_.empty() && immutable_ == nullptr) {
        return {EINVAL, fmt::format("{}: immutable target type {} cannot be mixed with other "
                                    "target types{}",
                                    line.type, type->name, errno_suffix(EINVAL))};
      }
      immutable_ = type;
      table_->immutable_type_ = type;
    }
    if (line.start != table.size_) {
      return {EINVAL, fmt::format("{}: Gap in table: starts at sector {}, the table so far ends "
                                  "at {}{}",
                                  line.type, line.start, table.size_, errno_suffix(EINVAL))};
    }
    singleton_ = (type->flags & kTargetSingleton) != 0 ? type : nullptr;
    return {};
  }

  void collect_flushes() {
    Table& table = *table_;
    table.flush_bypasses_map_ = true;
    std::unordered_set<BlockDevice*> seen;
    for (const auto& target : table.targets_) {
      table.flush_bios_ += target->features().num_flush_bios;
      if (!target->features().flush_bypasses_map) {
        table.flush_bypasses_map_ = false;
        continue;
      }
      target->iterate_devices([&](const TargetDevice& area) {
        if (seen.insert(area.dev).second) {
          table.flush_devices_.push_back(area.dev);
        }
      });
    }
  }

  void index() {
    Table& table = *table_;
    table.places_.reserve(table.targets_.size());
    for (const auto& target : table.targets_) {
      table.places_.push_back(place_of(*target));
    }
    if (table.single_ != nullptr) {
      return;
    }
    const std::size_t wanted =
        std::min(kMaxBuckets, std::bit_ceil(table.targets_.size() / kTargetsPerBucket + 1));
    while ((table.size_ >> table.bucket_shift_) >= wanted) {
      ++table.bucket_shift_;
    }
    table.guess_shift_ = std::max(table.bucket_shift_, kGuessBits) - kGuessBits;
    const std::size_t buckets = (table.size_ >> table.bucket_shift_) + 2;
    table.buckets_.resize(buckets);
    std::uint32_t target = 0;
    const auto last = static_cast<std::uint32_t>(table.targets_.size() - 1);
    for (std::size_t i = 0; i < buckets; ++i) {
      const sector_t first = static_cast<sector_t>(i) << table.bucket_shift_;
      while (target < last && table.places_[target].end <= first) {
        ++target;
      }
      table.buckets_[i] = target;
    }
  }

  static Place place_of(Target& target) {
    Place place;
    place.begin = target.begin();
    place.end = target.end();
    const TargetDevice area = target.straight();
    place.dev = area.dev;
    if (area.dev == nullptr) {
      place.target = &target;
    } else {
      MFS_ASSERT(area.len == target.ti().len);
      MFS_ASSERT(target.features().max_io_len == 0);  // nobody would cut
      MFS_ASSERT(!target.features().wants_end_io);    // nobody would call
      place.start = area.start;
    }
    return place;
  }

  const Options options_;
  CachingOpener opener_;
  std::unique_ptr<Table> table_{new Table};  // NOLINT: private constructor
  const TargetType* immutable_ = nullptr;
  const TargetType* singleton_ = nullptr;
};

Result<std::unique_ptr<Table>> Table::load(std::span<const TableLine> lines,
                                           const Options& options) {
  Builder builder(options);
  return builder.build(lines);
}

Table::~Table() {
  wait_unheld();
  // The last target first, as they were made the other way round.
  while (!targets_.empty()) {
    targets_.pop_back();
  }
}

void Table::take_hold() const {
  const std::lock_guard<std::mutex> lock(hold_mutex_);
  ++holds_;
}

// Told under the lock: the waiter destroys what they wait on.
void Table::let_go() const {
  const std::lock_guard<std::mutex> lock(hold_mutex_);
  MFS_ASSERT(holds_ > 0);
  if (--holds_ == 0) {
    unheld_cv_.notify_all();
  }
}

void Table::wait_unheld() const {
  std::unique_lock<std::mutex> lock(hold_mutex_);
  unheld_cv_.wait(lock, [this] { return holds_ == 0; });
}

const Table::Place& Table::place_among_many(sector_t sector) const noexcept {
  const std::size_t bucket = sector >> bucket_shift_;
  const sector_t inside = sector - (static_cast<sector_t>(bucket) << bucket_shift_);
  const Place* first = places_.data() + buckets_[bucket];
  const Place* last = places_.data() + buckets_[bucket + 1];
  const auto among = static_cast<sector_t>(last - first);
  // Right where the targets of the bucket are of one length, and next to it where they nearly are.
  const Place* at = first + ((inside >> guess_shift_) * among >> (bucket_shift_ - guess_shift_));
  if (sector >= at->end) {
    first = ++at;
    if (sector < at->end) {
      return *at;
    }
  } else if (sector < at->begin) {
    last = --at;
    if (sector >= at->begin) {
      return *at;
    }
  } else {
    return *at;
  }
  return *std::upper_bound(first, last, sector,
                           [](sector_t wanted, const Place& place) { return wanted < place.end; });
}

void Table::presuspend() const {
  for (const auto& target : targets_) {
    target->presuspend();
  }
}

void Table::presuspend_undo() const {
  for (const auto& target : targets_) {
    target->presuspend_undo();
  }
}

void Table::postsuspend() const {
  for (const auto& target : targets_) {
    target->postsuspend();
  }
}

Status Table::preresume() const {
  for (const auto& target : targets_) {
    if (Status status = target->preresume(); !status.ok()) {
      return status.with_context(fmt::format("{}: preresume failed", target->ti().type->name));
    }
  }
  return {};
}

void Table::resume() const {
  for (const auto& target : targets_) {
    target->resume();
  }
}

}  // namespace mapperfs
