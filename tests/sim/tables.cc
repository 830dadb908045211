// Random tables, and where they put each sector.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "targets/targets.h"
#include "tests/sim/world.h"

namespace mapperfs::sim {

namespace {

constexpr sector_t kFakeSectors = 1 << 20;
constexpr sector_t kMaxLine = 160;

// linear that pushes bios back while a noflush suspend is under way, as multipath does.
class PushbackTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    const sector_t start = args.sector(1, "Invalid sector");
    DevRef dev = args.device(0, "Device lookup failed");
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<PushbackTarget>(ti, std::move(dev), start));
  }
  PushbackTarget(const TargetInfo& ti, DevRef dev, sector_t start)
      : Target(ti, features_of_pushback()), dev_(std::move(dev)), start_(start) {}
  MapIo map(Bio& bio) noexcept override {
    if (ti().host->noflush_suspending()) {
      return MapIo::kRequeue;
    }
    bio.remap(*dev_, start_ + ti().offset_of(bio));
    return MapIo::kRemapped;
  }
  // Reads go in again even where they went well, so that there is something to see without errors.
  EndIo end_io(Bio& bio, BlkStatus& status) noexcept override {
    const bool again =
        (status == BlkStatus::kIoError || bio.op == Op::kRead) && ti().host->noflush_suspending();
    return again ? EndIo::kRequeue : EndIo::kDone;
  }
  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return fmt::format("{} {}", dev_->table_name(), start_);
  }
  void iterate_devices(const DeviceFn& fn) const override { fn({dev_.get(), start_, ti().len}); }

 private:
  static TargetFeatures features_of_pushback() {
    TargetFeatures features;
    features.num_flush_bios = 1;
    features.num_discard_bios = 1;
    features.num_write_zeroes_bios = 1;
    features.wants_end_io = true;
    features.max_io_len = 13;
    return features;
  }
  const DevRef dev_;
  const sector_t start_;
};

constexpr TargetType kPushbackTarget = {"pushback", {1, 0, 0}, 0, &PushbackTarget::ctr};

}  // namespace

World::World(const Config& config) : config_(config), rng_(config.seed), env_(config.seed) {
  register_targets(registry_);
  registry_.add(kPushbackTarget);
  engine_ = std::make_unique<Engine>(env_, registry_, opener_);
  make_fake_devices();
  for (int i = 0; i < 3; ++i) {
    make_volume();
  }
  for (int i = 0; i < 5; ++i) {
    devices_.emplace_back();
    make_upper(static_cast<int>(devices_.size()) - 1);
  }
}

World::~World() { drain(); }

void World::make_fake_devices() {
  for (int i = 0; i < 4; ++i) {
    fake::FaultDev::Options options;
    options.seed = rng_();
    if (config_.delays) {
      options.min_delay_ns = 1000;
      options.max_delay_ns = 3'000'000;
    }
    if (config_.errors) {
      options.read_error_ppm = 10'000;
      options.write_error_ppm = 10'000;
    }
    const std::string name = fmt::format("/dev/fake{}", i);
    fakes_.push_back(std::make_unique<fake::FaultDev>(name, kFakeSectors, env_, options));
    fake_used_.push_back(0);
    opener_.add(name, *fakes_.back());
  }
}

// Space is never used twice: what is there reads as zeroes.
sector_t World::take_space(int fake, sector_t sectors) {
  sector_t& used = fake_used_[static_cast<std::size_t>(fake)];
  const sector_t at = used + random(4);
  used = at + sectors;
  return at;
}

// Lines of a volume: linear, loop and striped onto fresh space of the fake devices.
std::vector<Line> World::volume_lines(sector_t sectors, sector_t start) {
  std::vector<Line> lines;
  const sector_t end = start + sectors;
  while (start < end) {
    Line line;
    const int fake = static_cast<int>(random(fakes_.size()));
    const sector_t chunk = 1 + random(16);
    const std::uint64_t count = 1 + random(3);
    const sector_t stripe = chunk * (1 + random(4));
    if (chance(40) && count * stripe <= end - start) {
      line.type = "striped";
      line.chunk = chunk;
      line.len = count * stripe;
      for (std::uint64_t i = 0; i < count; ++i) {
        const int leg = static_cast<int>(random(fakes_.size()));
        line.legs.push_back({leg, take_space(leg, stripe)});
      }
    } else {
      const sector_t len = 1 + random(std::min(end - start, kMaxLine));
      line = like_linear(chance(50) ? "linear" : "loop", {fake, take_space(fake, len)}, len);
    }
    line.start = start;
    start += line.len;
    lines.push_back(line);
  }
  return lines;
}

void World::make_volume() {
  const int index = static_cast<int>(devices_.size());
  Device& device = devices_.emplace_back();
  device.name = fmt::format("volume{}", names_++);
  device.volume = true;
  device.md = engine_->create(device.name, {}).take();
  const sector_t sectors = 64 + random(400);
  std::vector<Line> lines;
  if (!config_.power_cuts && chance(25)) {
    Line& ram = lines.emplace_back();
    ram.type = "ram";
    ram.len = sectors;
  } else {
    lines = volume_lines(sectors, 0);
  }
  device.sectors.resize(sectors);
  check(load(index, lines), "load of a volume");
  check(device.md->resume({}), "resume of a volume");
  device.lines = lines;
}

void World::make_upper(int device) {
  Device& upper = devices_[static_cast<std::size_t>(device)];
  upper = Device();
  upper.name = fmt::format("upper{}", names_++);
  upper.md = engine_->create(upper.name, {}).take();
  std::vector<Line> lines = upper_lines(device);
  check(load(device, lines), "load of an upper device");
  check(upper.md->resume({}), "resume of an upper device");
  upper.lines = std::move(lines);
}

std::vector<Line> World::upper_lines(int device) {
  std::vector<Line> lines;
  sector_t start = 0;
  for (std::uint64_t i = 1 + random(4); i > 0; --i) {
    lines.push_back(random_line(device, start));
    start += lines.back().len;
  }
  return lines;
}

int World::random_below(int device) {
  return static_cast<int>(random(static_cast<std::uint64_t>(device)));
}

Line World::like_linear(const std::string& type, Line::Leg leg, sector_t len) {
  Line line;
  line.type = type;
  line.len = len;
  line.legs = {leg};
  if (type == "delay") {
    line.args = fmt::format(" {}", random(6));
  } else if (type == "dust") {
    line.args = len >= 8 && chance(50) ? " 4096" : " 512";
  } else if (type == "flakey") {
    static constexpr std::array<const char*, 4> kFeatures = {"", " 1 error_reads",
                                                             " 1 error_writes", " 1 drop_writes"};
    const std::uint64_t feature = random(kFeatures.size());
    line.args = fmt::format(" {} {}{}", random(3), 1 + random(2), kFeatures.at(feature));
    line.drops = feature == 3;
  }
  return line;
}

Line World::zero_or_error(sector_t start) {
  Line line;
  line.type = chance(70) ? "zero" : "error";
  line.start = start;
  line.len = 1 + random(32);
  return line;
}

Line World::random_line(int device, sector_t start) {
  Line line;
  const std::uint64_t kind = random(100);
  if (kind < 10) {
    return zero_or_error(start);
  }
  if (kind < 30) {
    line = striped(device);
  } else if (kind < 40) {
    line = unstriped(device);
  } else if (kind < 50) {
    line = switched(device);
  } else {
    static constexpr std::array<const char*, 6> kTypes = {"linear",   "loop", "delay",
                                                          "pushback", "dust", "flakey"};
    const char* type = kTypes.at(random(config_.errors ? 6 : 5));
    const int below = random_below(device);
    const sector_t size = devices_[static_cast<std::size_t>(below)].size();
    const sector_t at = random(size);
    line = like_linear(type, {below, at}, 1 + random(std::min(size - at, kMaxLine)));
  }
  if (line.len == 0) {
    return zero_or_error(start);
  }
  line.start = start;
  return line;
}

// In these, a length of 0 means that what chance wanted does not fit.
Line World::striped(int device) {
  Line line;
  line.type = "striped";
  line.chunk = 1 + random(12);
  const std::uint64_t count = 1 + random(3);
  const sector_t stripe = line.chunk * (1 + random(8));
  for (std::uint64_t i = 0; i < count; ++i) {
    const int below = random_below(device);
    const sector_t size = devices_[static_cast<std::size_t>(below)].size();
    if (size < stripe) {
      return {};
    }
    line.legs.push_back({below, random(size - stripe + 1)});
  }
  line.len = count * stripe;
  return line;
}

Line World::unstriped(int device) {
  Line line;
  line.type = "unstriped";
  line.chunk = 1 + random(12);
  line.stripes = 1 + random(3);
  line.index = random(line.stripes);
  const sector_t chunks = 1 + random(6);
  const int below = random_below(device);
  const sector_t size = devices_[static_cast<std::size_t>(below)].size();
  const sector_t needed = ((chunks - 1) * line.stripes + line.index + 1) * line.chunk;
  if (size < needed) {
    return {};
  }
  line.legs.push_back({below, random(size - needed + 1)});
  line.len = chunks * line.chunk;
  return line;
}

Line World::switched(int device) {
  Line line;
  line.type = "switch";
  line.chunk = 1 + random(20);
  line.len = 1 + random(100);
  const std::uint64_t count = 1 + random(3);
  for (std::uint64_t i = 0; i < count; ++i) {
    const int below = random_below(device);
    const sector_t size = devices_[static_cast<std::size_t>(below)].size();
    if (size < line.len) {
      return {};
    }
    line.legs.push_back({below, random(size - line.len + 1)});
  }
  for (sector_t region = 0; region * line.chunk < line.len; ++region) {
    line.paths.push_back(static_cast<unsigned>(region % count));
  }
  return line;
}

std::string World::words(const Line& line, bool volume) const {
  std::string text;
  if (line.type == "striped") {
    text = fmt::format("{} {}", line.legs.size(), line.chunk);
  } else if (line.type == "unstriped") {
    text = fmt::format("{} {} {}", line.stripes, line.chunk, line.index);
  } else if (line.type == "switch") {
    text = fmt::format("{} {} 0", line.legs.size(), line.chunk);
  }
  for (const Line::Leg& leg : line.legs) {
    const auto index = static_cast<std::size_t>(leg.device);
    text +=
        fmt::format(" {} {}", volume ? fakes_[index]->table_name() : devices_[index].name, leg.at);
  }
  return text + line.args;
}

Status World::load(int device, const std::vector<Line>& lines) {
  const Device& target = devices_[static_cast<std::size_t>(device)];
  std::vector<TableLine> table;
  table.reserve(lines.size());
  for (const Line& line : lines) {
    table.push_back({line.start, line.len, line.type, words(line, target.volume)});
  }
  return target.md->load(table, DeviceMode::kReadWrite);
}

Line::Leg World::leg_of(const Line& line, sector_t offset) {
  if (line.type == "striped") {
    const sector_t chunk = offset / line.chunk;
    const Line::Leg& leg = line.legs[chunk % line.legs.size()];
    return {leg.device, leg.at + chunk / line.legs.size() * line.chunk + offset % line.chunk};
  }
  if (line.type == "unstriped") {
    const Line::Leg& leg = line.legs.front();
    const sector_t chunk = offset / line.chunk * line.stripes + line.index;
    return {leg.device, leg.at + chunk * line.chunk + offset % line.chunk};
  }
  const Line::Leg& leg =
      line.type == "switch" ? line.legs[line.paths[offset / line.chunk]] : line.legs.front();
  return {leg.device, leg.at + offset};
}

const Line& World::line_at(int device, sector_t sector) const {
  const std::vector<Line>& lines = devices_[static_cast<std::size_t>(device)].lines;
  return *std::find_if(lines.begin(), lines.end(),
                       [sector](const Line& line) { return sector < line.start + line.len; });
}

Place World::resolve(int device, sector_t sector) const {
  Place place;
  if (devices_[static_cast<std::size_t>(device)].volume) {
    place.volume = device;
    place.sector = sector;
    return place;
  }
  const Line& line = line_at(device, sector);
  if (line.legs.empty()) {
    place.error = line.type == "error";
    place.flushes = false;
    return place;
  }
  const Line::Leg leg = leg_of(line, sector - line.start);
  place = resolve(leg.device, leg.at);
  // switch and unstriped pass no flush; flakey may lose it.
  if (line.type == "switch" || line.type == "unstriped" || line.type == "flakey") {
    place.flushes = false;
  }
  place.fails |= line.type == "flakey" || line.bad_blocks;
  place.drops |= line.drops;
  return place;
}

void World::collect_below(int device, std::set<int>& below) const {
  const Device& top = devices_[static_cast<std::size_t>(device)];
  if (!below.insert(device).second || top.volume) {
    return;
  }
  for (const Line& line : top.lines) {
    for (const Line::Leg& leg : line.legs) {
      collect_below(leg.device, below);
    }
  }
}

bool World::stands_on(int device, int below) const {
  std::set<int> all;
  collect_below(device, all);
  return all.count(below) != 0;
}

bool World::busy(int device) const {
  return std::any_of(ios_.begin(), ios_.end(),
                     [&](const auto& io) { return !io->done && stands_on(io->device, device); });
}

bool World::any_line(int device, const std::string& type) const {
  std::set<int> below;
  collect_below(device, below);
  return std::any_of(below.begin(), below.end(), [&](int each) {
    const std::vector<Line>& lines = devices_[static_cast<std::size_t>(each)].lines;
    return std::any_of(lines.begin(), lines.end(),
                       [&](const Line& line) { return line.type == type; });
  });
}

}  // namespace mapperfs::sim
