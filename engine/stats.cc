#include "engine/stats.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <limits>
#include <utility>

#include "engine/mapped_device.h"
#include "engine/queue.h"
#include "engine/target_args.h"
#include "engine/words.h"

namespace mapperfs {

namespace {

constexpr std::uint64_t kNanosPerMilli = 1'000'000;
constexpr std::uint32_t kMaxEpoch = std::numeric_limits<std::uint32_t>::max() >> 1;
constexpr auto kRelaxed = std::memory_order_relaxed;

using Counter = std::atomic<std::uint64_t>;
using Argv = std::span<const std::string_view>;

// Bytes that the regions of all devices take.
std::atomic<std::uint64_t> g_stats_bytes{0};

std::uint64_t most_stats_bytes() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 4;
}

Status invalid(std::string_view message, std::string_view why) {
  return {EINVAL, fmt::format("Invalid parameters for message {}: {}", message, why)};
}

// "START+LEN".
bool parse_range(std::string_view word, sector_t& start, sector_t& len) {
  const std::size_t plus = word.find('+');
  return plus != std::string_view::npos && parse_decimal(word.substr(0, plus), start) &&
         parse_decimal(word.substr(plus + 1), len);
}

// "N1,N2,...": above 0 and ascending.
bool parse_bounds(std::string_view text, std::vector<std::uint64_t>& bounds) {
  std::uint64_t last = 0;
  while (true) {
    const std::size_t comma = text.find(',');
    std::uint64_t bound = 0;
    if (!parse_decimal(text.substr(0, comma), bound) || bound <= last) {
      return false;
    }
    bounds.push_back(bound);
    if (comma == std::string_view::npos) {
      return true;
    }
    last = bound;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

// What a message asks for.
struct StatsRegions::RegionSpec {
  sector_t start = 0;
  sector_t end = 0;
  sector_t step = 0;
  bool precise = false;               // times are printed in ns, else in ms
  std::vector<std::uint64_t> bounds;  // of the histogram, in the same unit; empty: none
  std::string program = "-";
  std::string aux = "-";

  [[nodiscard]] std::uint64_t areas() const {
    return (end - start) / step + ((end - start) % step != 0 ? 1 : 0);
  }
};

// The counters of one area; [0] is reads, [1] writes. Times in ns.
struct StatsRegions::Area {
  std::array<Counter, 2> ios{};
  std::array<Counter, 2> merges{};
  std::array<Counter, 2> sectors{};
  std::array<Counter, 2> ticks{};
  std::array<Counter, 2> io_ticks{};
  Counter io_ticks_total{};
  Counter time_in_queue{};
  std::array<Counter, 2> in_flight{};
  Counter stamp_ns{};  // up to when the last four times are counted

  // Counts the time since the last call, by what was in flight meanwhile.
  void round(std::uint64_t now_ns) noexcept {
    std::uint64_t stamp = stamp_ns.load(kRelaxed);
    if (now_ns <= stamp || !stamp_ns.compare_exchange_strong(stamp, now_ns, kRelaxed)) {
      return;  // another thread is counting just that time
    }
    const std::uint64_t elapsed = now_ns - stamp;
    const std::uint64_t reads = in_flight[0].load(kRelaxed);
    const std::uint64_t writes = in_flight[1].load(kRelaxed);
    if (reads != 0) {
      io_ticks[0].fetch_add(elapsed, kRelaxed);
    }
    if (writes != 0) {
      io_ticks[1].fetch_add(elapsed, kRelaxed);
    }
    if (reads + writes != 0) {
      io_ticks_total.fetch_add(elapsed, kRelaxed);
      time_in_queue.fetch_add((reads + writes) * elapsed, kRelaxed);
    }
  }
  // Everything but what is in flight.
  void clear() noexcept {
    for (std::size_t i = 0; i < 2; ++i) {
      for (Counter* counter : {&ios[i], &merges[i], &sectors[i], &ticks[i], &io_ticks[i]}) {
        counter->store(0, kRelaxed);
      }
    }
    io_ticks_total.store(0, kRelaxed);
    time_in_queue.store(0, kRelaxed);
  }
};

// What of a bio is to be counted.
struct StatsRegions::IoPart {
  sector_t begin;
  sector_t end;
  std::size_t direction;      // 0: read, 1: write
  bool at_end;                // else at its start
  bool merged;                //
  std::uint64_t now_ns;       //
  std::uint64_t duration_ns;  // at its end
};

struct StatsRegions::Region {
  Region(RegionSpec wanted, int new_id, std::uint32_t new_epoch, std::uint64_t now_ns)
      : spec(std::move(wanted)),
        id(new_id),
        epoch(new_epoch),
        area_count(spec.areas()),
        bytes(bytes_of(spec)),
        areas(std::make_unique<Area[]>(area_count)),
        histogram(spec.bounds.empty() ? 0 : area_count * buckets()) {
    for (std::uint64_t i = 0; i < area_count; ++i) {
      areas[i].stamp_ns.store(now_ns, kRelaxed);
    }
  }
  ~Region() { g_stats_bytes.fetch_sub(bytes, kRelaxed); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  static std::uint64_t bytes_of(const RegionSpec& spec) {
    const std::uint64_t buckets = spec.bounds.empty() ? 0 : spec.bounds.size() + 1;
    return spec.areas() * (sizeof(Area) + buckets * sizeof(Counter));
  }
  [[nodiscard]] std::size_t buckets() const { return spec.bounds.size() + 1; }
  [[nodiscard]] std::uint64_t in_unit(std::uint64_t time_ns) const {
    return spec.precise ? time_ns : time_ns / kNanosPerMilli;
  }

  // Apportions a bio to the areas that it touches.
  void count(const IoPart& io) noexcept {
    if (io.end <= spec.start || io.begin >= spec.end) {
      return;
    }
    const sector_t from = std::max(io.begin, spec.start) - spec.start;
    sector_t todo = std::min(io.end, spec.end) - spec.start - from;
    std::uint64_t area = from / spec.step;
    sector_t room = spec.step - from % spec.step;
    while (todo != 0) {
      const sector_t part = std::min(todo, room);
      count_in(area, part, io);
      todo -= part;
      ++area;
      room = spec.step;
    }
  }

  void append_line(std::uint64_t index, std::uint64_t now_ns, std::string& text) {
    Area& area = areas[index];
    area.round(now_ns);
    const auto get = [](const Counter& counter) { return counter.load(kRelaxed); };
    fmt::format_to(std::back_inserter(text), "{}+{} {} {} {} {} {} {} {} {} {} {} {} {} {}",
                   spec.start + index * spec.step, spec.step, get(area.ios[0]), get(area.merges[0]),
                   get(area.sectors[0]), in_unit(get(area.ticks[0])), get(area.ios[1]),
                   get(area.merges[1]), get(area.sectors[1]), in_unit(get(area.ticks[1])),
                   get(area.in_flight[0]) + get(area.in_flight[1]),
                   in_unit(get(area.io_ticks_total)), in_unit(get(area.time_in_queue)),
                   in_unit(get(area.io_ticks[0])), in_unit(get(area.io_ticks[1])));
    if (!spec.bounds.empty()) {
      for (std::size_t i = 0; i < buckets(); ++i) {
        fmt::format_to(std::back_inserter(text), "{}{}", i == 0 ? ' ' : ':',
                       get(histogram[index * buckets() + i]));
      }
    }
    text += '\n';
  }

  void clear(std::uint64_t from, std::uint64_t to, std::uint64_t now_ns) {
    for (std::uint64_t i = from; i < to; ++i) {
      areas[i].round(now_ns);
      areas[i].clear();
      for (std::size_t j = 0; !spec.bounds.empty() && j < buckets(); ++j) {
        histogram[i * buckets() + j].store(0, kRelaxed);
      }
    }
  }

  RegionSpec spec;
  const int id;
  const std::uint32_t epoch;  // counts bios that started in this epoch or later
  const std::uint64_t area_count;
  const std::uint64_t bytes;  // in g_stats_bytes
  std::unique_ptr<Area[]> areas;
  std::vector<Counter> histogram;  // buckets() for each area

 private:
  void count_in(std::uint64_t index, sector_t sectors, const IoPart& io) noexcept {
    Area& area = areas[index];
    area.round(io.now_ns);
    if (!io.at_end) {
      area.in_flight[io.direction].fetch_add(1, kRelaxed);
      return;
    }
    area.in_flight[io.direction].fetch_sub(1, kRelaxed);
    area.ios[io.direction].fetch_add(1, kRelaxed);
    area.merges[io.direction].fetch_add(io.merged ? 1 : 0, kRelaxed);
    area.sectors[io.direction].fetch_add(sectors, kRelaxed);
    area.ticks[io.direction].fetch_add(io.duration_ns, kRelaxed);
    if (!spec.bounds.empty()) {
      const auto bucket =
          std::upper_bound(spec.bounds.begin(), spec.bounds.end(), in_unit(io.duration_ns)) -
          spec.bounds.begin();
      histogram[index * buckets() + static_cast<std::size_t>(bucket)].fetch_add(1, kRelaxed);
    }
  }
};

// All shards at once: the list of regions may change, and counters are still.
class StatsRegions::AllShards {
 public:
  explicit AllShards(Shards* shards) : shards_(shards) {
    if (shards_ != nullptr) {
      for (Shard& shard : *shards_) {
        shard.mutex.lock();
      }
    }
  }
  ~AllShards() {
    if (shards_ != nullptr) {
      for (Shard& shard : *shards_) {
        shard.mutex.unlock();
      }
    }
  }
  AllShards(const AllShards&) = delete;
  AllShards& operator=(const AllShards&) = delete;

 private:
  Shards* const shards_;
};

StatsRegions::StatsRegions(MappedDevice& md, Env& env) : md_(md), env_(env) {}
StatsRegions::~StatsRegions() = default;

// The way of a bio --------------------------------------------------------------------------------

StatsRegions::Shard& StatsRegions::shard() noexcept {
  return (*shards_)[Queue::current().index() % kShards];
}

void StatsRegions::start(const Bio& bio, Frame& frame) noexcept {
  if (frame.sectors == 0 || active_.load(std::memory_order_acquire) == 0) {
    return;
  }
  const sector_t end = frame.sector + frame.sectors;
  Shard& own = shard();
  const std::lock_guard<std::mutex> lock(own.mutex);
  const std::uint64_t way = bio.is_write() ? 1 : 0;
  const bool merged =
      last_.exchange(end << 1 | way, std::memory_order_relaxed) == (frame.sector << 1 | way);
  frame.stats_start_ns = env_.now_ns();
  frame.stats_epoch = epoch_ << 1 | (merged ? 1 : 0);
  const IoPart io = {frame.sector,         end, static_cast<std::size_t>(way), false, merged,
                     frame.stats_start_ns, 0};
  for (const auto& region : regions_) {
    region->count(io);
  }
}

void StatsRegions::end(const Bio& bio, Frame& frame) noexcept {
  const std::uint32_t mark = std::exchange(frame.stats_epoch, 0);
  if (mark == 0) {
    return;
  }
  const std::lock_guard<std::mutex> lock(shard().mutex);
  const std::uint64_t now_ns = env_.now_ns();
  const IoPart io = {frame.sector,
                     frame.sector + frame.sectors,
                     bio.is_write() ? std::size_t{1} : std::size_t{0},
                     true,
                     (mark & 1) != 0,
                     now_ns,
                     now_ns - frame.stats_start_ns};
  for (const auto& region : regions_) {
    if (region->epoch <= mark >> 1) {
      region->count(io);
    }
  }
}

// Messages ----------------------------------------------------------------------------------------

Result<std::string> StatsRegions::message(Argv argv) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::string_view name = argv.front();
  if (same_word(name, "@stats_create")) {
    return create(argv);
  }
  if (same_word(name, "@stats_delete")) {
    return remove(argv);
  }
  if (same_word(name, "@stats_clear")) {
    return clear(argv);
  }
  if (same_word(name, "@stats_list")) {
    return list(argv);
  }
  if (same_word(name, "@stats_print")) {
    return print(argv, false);
  }
  if (same_word(name, "@stats_print_clear")) {
    return print(argv, true);
  }
  if (same_word(name, "@stats_set_aux")) {
    return set_aux(argv);
  }
  return Status(EINVAL, fmt::format("Unsupported message sent to DM core: {}", name));
}

// RANGE STEP [N OPT...] [PROGRAM_ID [AUX]]
Result<std::unique_ptr<StatsRegions::RegionSpec>> StatsRegions::parse_create(Argv argv) const {
  const std::string_view name = argv.front();
  if (argv.size() < 3) {
    return invalid(name, "a range and a step are needed");
  }
  auto spec = std::make_unique<RegionSpec>();
  sector_t len = 0;
  if (argv[1] == "-") {
    len = std::max<sector_t>(md_.size_sectors(), 1);
  } else if (!parse_range(argv[1], spec->start, len)) {
    return invalid(name, fmt::format("range \"{}\" is neither - nor START+LEN", argv[1]));
  }
  spec->end = spec->start + len;
  if (spec->start >= spec->end) {
    return invalid(name, fmt::format("range {} is empty or wraps", argv[1]));
  }
  std::uint64_t divisor = 0;
  if (argv[2].starts_with('/') && parse_decimal(argv[2].substr(1), divisor) && divisor != 0) {
    spec->step = len / divisor + (len % divisor != 0 ? 1 : 0);
  } else if (!parse_decimal(argv[2], spec->step) || spec->step == 0) {
    return invalid(name,
                   fmt::format("step \"{}\" is neither a number above 0 nor /COUNT", argv[2]));
  }
  std::size_t at = 3;
  std::uint64_t options = 0;
  if (at < argv.size() && parse_decimal(argv[at], options)) {
    ++at;
    for (; options != 0; --options, ++at) {
      constexpr std::string_view kHistogram = "histogram:";
      if (at >= argv.size()) {
        return invalid(name, fmt::format("{} more options were announced", options));
      }
      if (same_word(argv[at], "precise_timestamps")) {
        spec->precise = true;
      } else if (!same_word(argv[at].substr(0, kHistogram.size()), kHistogram) ||
                 !spec->bounds.empty() ||
                 !parse_bounds(argv[at].substr(kHistogram.size()), spec->bounds)) {
        return invalid(name, fmt::format("option \"{}\": wanted are precise_timestamps and one "
                                         "histogram: of ascending numbers above 0",
                                         argv[at]));
      }
    }
  }
  if (at < argv.size()) {
    spec->program = argv[at++];
  }
  if (at < argv.size()) {
    spec->aux = argv[at++];
  }
  if (at != argv.size()) {
    return invalid(name, fmt::format("\"{}\" is one word too many", argv[at]));
  }
  return spec;
}

Result<std::string> StatsRegions::create(Argv argv) {
  Result<std::unique_ptr<RegionSpec>> parsed = parse_create(argv);
  if (!parsed.ok()) {
    return parsed.status();
  }
  RegionSpec& spec = **parsed;
  const std::uint64_t areas = spec.areas();
  if (areas > kMaxAreas || areas * (spec.bounds.size() + 1) > kMaxBuckets) {
    return Status(EOVERFLOW,
                  fmt::format("{}: {} areas of {} buckets are more than {} areas or {} "
                              "buckets",
                              argv[0], areas, spec.bounds.size() + 1, kMaxAreas, kMaxBuckets));
  }
  if (epoch_ == kMaxEpoch) {
    return Status(ENFILE, fmt::format("{}: {} regions were made already", argv[0], epoch_));
  }
  const std::uint64_t bytes = Region::bytes_of(spec);
  if (g_stats_bytes.fetch_add(bytes, kRelaxed) + bytes > most_stats_bytes()) {
    g_stats_bytes.fetch_sub(bytes, kRelaxed);
    return Status(ENOMEM, fmt::format("{}: with {} bytes more, statistics would take above {}",
                                      argv[0], bytes, most_stats_bytes()));
  }
  int id = 0;
  auto place = regions_.begin();
  while (place != regions_.end() && (*place)->id == id) {
    ++place, ++id;
  }
  if (shards_ == nullptr) {
    shards_ = std::make_unique<Shards>();
  }
  auto region = std::make_unique<Region>(std::move(spec), id, epoch_ + 1, env_.now_ns());
  {
    const AllShards all(shards_.get());
    ++epoch_;
    regions_.insert(place, std::move(region));
  }
  active_.fetch_add(1, std::memory_order_release);
  md_.set_stats(this);
  return fmt::format("{}", id);
}

Result<StatsRegions::Region*> StatsRegions::find(std::string_view id) {
  for (const auto& region : regions_) {
    if (std::uint64_t number = 0;
        parse_decimal(id, number) && number == static_cast<std::uint64_t>(region->id)) {
      return region.get();
    }
  }
  return Status(ENOENT, fmt::format("there is no statistics region {}", id));
}

namespace {

// The kernel tells a wrong id (EINVAL) from one that does not exist.
bool is_id(std::string_view word) {
  std::uint64_t id = 0;
  return parse_decimal(word, id) &&
         id <= static_cast<std::uint64_t>(std::numeric_limits<int>::max());
}

}  // namespace

Result<std::string> StatsRegions::remove(Argv argv) {
  if (argv.size() != 2 || !is_id(argv[1])) {
    return invalid(argv[0], "wanted is the number of a region");
  }
  Result<Region*> found = find(argv[1]);
  if (!found.ok()) {
    return found.status();
  }
  std::unique_ptr<Region> gone;
  {
    const AllShards all(shards_.get());
    const auto place = std::find_if(regions_.begin(), regions_.end(),
                                    [&](const auto& region) { return region.get() == *found; });
    gone = std::move(*place);
    regions_.erase(place);
  }
  active_.fetch_sub(1, std::memory_order_release);
  return std::string();
}

Result<std::string> StatsRegions::clear(Argv argv) {
  if (argv.size() != 2 || !is_id(argv[1])) {
    return invalid(argv[0], "wanted is the number of a region");
  }
  Result<Region*> found = find(argv[1]);
  if (!found.ok()) {
    return found.status();
  }
  const AllShards all(shards_.get());
  (*found)->clear(0, (*found)->area_count, env_.now_ns());
  return std::string();
}

Result<std::string> StatsRegions::list(Argv argv) {
  if (argv.size() > 2) {
    return invalid(argv[0], "wanted is a program id at most");
  }
  std::string text;
  for (const auto& region : regions_) {
    const RegionSpec& spec = region->spec;
    if (argv.size() == 2 && argv[1] != spec.program) {
      continue;
    }
    text += fmt::format("{}: {}+{} {} {} {}", region->id, spec.start, spec.end - spec.start,
                        spec.step, spec.program, spec.aux);
    text += spec.precise ? " precise_timestamps" : "";
    if (!spec.bounds.empty()) {
      text += fmt::format(" histogram:{}", fmt::join(spec.bounds, ","));
    }
    text += '\n';
  }
  return text;
}

// ID [FIRST_LINE COUNT], "-" for all of either.
Result<std::string> StatsRegions::print(Argv argv, bool and_clear) {
  std::uint64_t first = 0;
  std::uint64_t count = std::numeric_limits<std::uint64_t>::max();
  const auto number_or_all = [](std::string_view word, std::uint64_t& value) {
    return word == "-" || parse_decimal(word, value);
  };
  if ((argv.size() != 2 && argv.size() != 4) || !is_id(argv[1]) ||
      (argv.size() == 4 && (!number_or_all(argv[2], first) || !number_or_all(argv[3], count)))) {
    return invalid(argv[0],
                   "wanted are the number of a region and, perhaps, a first line and a "
                   "number of lines");
  }
  Result<Region*> found = find(argv[1]);
  if (!found.ok()) {
    return found.status();
  }
  Region& region = **found;
  first = std::min(first, region.area_count);
  const std::uint64_t end = first + std::min(count, region.area_count - first);
  const std::uint64_t now_ns = env_.now_ns();
  std::string text;
  const AllShards all(shards_.get());
  for (std::uint64_t i = first; i < end; ++i) {
    region.append_line(i, now_ns, text);
  }
  if (and_clear) {
    region.clear(first, end, now_ns);
  }
  return text;
}

Result<std::string> StatsRegions::set_aux(Argv argv) {
  if (argv.size() != 3 || !is_id(argv[1])) {
    return invalid(argv[0], "wanted are the number of a region and a word");
  }
  Result<Region*> found = find(argv[1]);
  if (!found.ok()) {
    return found.status();
  }
  (*found)->spec.aux = argv[2];
  return std::string();
}

}  // namespace mapperfs
