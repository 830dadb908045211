// What happens to devices while bios are on their way.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tests/sim/world.h"

namespace mapperfs::sim {

namespace {

constexpr sector_t kMaxVolume = 900;
constexpr std::size_t kMaxLines = 12;

}  // namespace

void World::step() {
  const std::uint64_t kind = random(100);
  if (kind < 62) {
    submit_random();
  } else if (kind < 80) {
    env_.advance(random(2'000'000));
  } else if (kind < 84) {
    env_.advance(random(1'500'000'000));  // flakey counts seconds
  } else {
    control_something();
  }
}

void World::control_something() {
  const int device = static_cast<int>(random(devices_.size()));
  switch (random(10)) {
    case 0:
    case 1:
      suspend(device);
      break;
    case 2:
    case 3:
      resume(device);
      break;
    case 4:
      recut(device);
      break;
    case 5:
      devices_[at(device)].volume ? move_volume(device) : remap_upper(device);
      break;
    case 6:
      grow(device);
      break;
    case 7:
      load_nonsense(device);
      break;
    case 8:
      message(device);
      break;
    default:
      chance(50) ? rename(device) : remove_upper(device);
      break;
  }
}

// While bios drain, time goes on; where it cannot (they wait at a suspended device below), the
// suspend is given up.
SuspendOptions World::suspend_options(bool noflush) {
  SuspendOptions options;
  options.noflush = noflush;
  options.interrupted = [this] { return !env_.advance_to_next_timer(); };
  return options;
}

bool World::suspend(int device) {
  Device& target = devices_[at(device)];
  const Status status = target.md->suspend(suspend_options(chance(40)));
  if (!status.ok() && status.error() != EINTR) {
    fail("suspend: " + status.message());
  }
  target.suspended = target.suspended || status.ok();
  return status.ok();
}

void World::resume(int device) {
  Device& target = devices_[at(device)];
  check(target.md->resume(suspend_options(false)), "resume of " + target.name);
  target.suspended = false;
}

bool World::swap_table(int device, std::vector<Line> lines) {
  Device& target = devices_[at(device)];
  if (Status status = load(device, lines); !status.ok()) {
    fail(fmt::format("load of {}: {}", target.name, status.message()));
    return false;
  }
  const Status status = target.md->resume(suspend_options(chance(30)));
  if (!status.ok()) {
    check(status.error() == EINTR ? Status() : status, "swap of " + target.name);
    check(target.md->clear(), "clear");
    return false;
  }
  target.suspended = false;
  target.lines = std::move(lines);
  return true;
}

// The same mapping in other lines, at any time.
void World::recut(int device) {
  if (any_line(device, "ram") && devices_[at(device)].volume) {
    return;  // a new table is a new memory
  }
  static constexpr std::array<const char*, 5> kSame = {"linear", "loop", "delay", "pushback",
                                                       "dust"};
  std::vector<Line> lines;
  for (const Line& line : devices_[at(device)].lines) {
    const bool same = std::find(kSame.begin(), kSame.end(), line.type) != kSame.end();
    if (!same || line.len < 2 || lines.size() > kMaxLines) {
      Line kept = line;
      for (std::size_t region = 0; region < kept.paths.size(); ++region) {
        if (kept.paths[region] != region % kept.legs.size()) {
          return;  // a new table's map starts round robin: not the same mapping
        }
      }
      kept.bad_blocks = false;  // a new table has none
      lines.push_back(std::move(kept));
      continue;
    }
    const sector_t first = 1 + random(line.len - 1);
    const Line::Leg leg = line.legs.front();
    const auto type = [&] { return kSame.at(random(devices_[at(device)].volume ? 2 : 5)); };
    Line left = like_linear(type(), leg, first);
    Line right = like_linear(type(), {leg.device, leg.at + first}, line.len - first);
    left.start = line.start;
    right.start = line.start + first;
    lines.push_back(std::move(left));
    lines.push_back(std::move(right));
  }
  swap_table(device, std::move(lines));
}

// Another mapping altogether, as large at least.
void World::remap_upper(int device) {
  if (busy(device)) {
    return;
  }
  const sector_t size = devices_[at(device)].size();
  std::vector<Line> lines = upper_lines(device);
  sector_t end = lines.back().start + lines.back().len;
  while (end < size) {
    lines.push_back(random_line(device, end));
    end += lines.back().len;
  }
  swap_table(device, std::move(lines));
}

void World::grow(int device) {
  Device& target = devices_[at(device)];
  if (target.lines.size() > kMaxLines || any_line(device, "ram") || target.size() > kMaxVolume) {
    return;
  }
  for (const Line& line : target.lines) {
    if (line.type == "switch" || line.bad_blocks) {
      return;  // a new table forgets them
    }
  }
  std::vector<Line> lines = target.lines;
  if (target.volume) {
    const std::vector<Line> more = volume_lines(1 + random(40), target.size());
    lines.insert(lines.end(), more.begin(), more.end());
  } else {
    lines.push_back(random_line(device, target.size()));
  }
  if (swap_table(device, std::move(lines)) && target.volume) {
    target.sectors.resize(target.size());
  }
}

// Copies a volume to fresh space while it is suspended, and puts the new table in.
void World::move_volume(int device) {
  Device& target = devices_[at(device)];
  if (busy(device) || any_line(device, "ram") || !suspend(device)) {
    return;
  }
  std::vector<Line> lines = volume_lines(target.size(), 0);
  const auto line_of = [](const std::vector<Line>& all, sector_t sector) -> const Line& {
    return *std::find_if(all.begin(), all.end(),
                         [sector](const Line& line) { return sector < line.start + line.len; });
  };
  std::vector<Content> moved;
  for (sector_t sector = 0; sector < target.size(); ++sector) {
    const Line& from = line_of(target.lines, sector);
    const Line& to = line_of(lines, sector);
    moved.push_back(copy_sector(leg_of(from, sector - from.start), leg_of(to, sector - to.start),
                                target.sectors[sector].now()));
  }
  if (swap_table(device, std::move(lines))) {
    for (sector_t sector = 0; sector < target.size(); ++sector) {
      target.sectors[sector].reset(moved[sector]);
    }
  }
}

Content World::copy_sector(Line::Leg from, Line::Leg to, const std::vector<Content>& expected) {
  class Done final : public Completion {
   public:
    void complete(Bio& bio) noexcept override {
      static_cast<void>(bio);
      done = true;
    }
    bool done = false;
  };
  std::array<std::byte, kSectorBytes> data{};
  for (const Op op : {Op::kRead, Op::kWrite}) {
    const Line::Leg& leg = op == Op::kRead ? from : to;
    BlkStatus status = BlkStatus::kIoError;
    while (status != BlkStatus::kOk) {
      Done done;
      Bio bio;
      bio.dev = fakes_[at(leg.device)].get();
      bio.op = op;
      bio.sector = leg.at;
      bio.sectors = 1;
      bio.data = data.data();
      bio.flags = op == Op::kWrite ? static_cast<std::uint8_t>(kBioFua) : std::uint8_t{0};
      bio.completion = &done;
      submit_bio(bio);
      while (!done.done && env_.advance_to_next_timer()) {
      }
      status = bio.status();
    }
  }
  for (const Content& content : expected) {
    if (holds(data, content)) {
      return content;
    }
  }
  fail(fmt::format("a moved sector holds {}, should{}", describe_sector(data), describe(expected)));
  return {};
}

// Tables that are refused change nothing; one that is cleared neither.
void World::load_nonsense(int device) {
  Device& target = devices_[at(device)];
  static const std::array<std::vector<TableLine>, 6> kBad = {{
      {},
      {{1, 8, "zero", ""}},
      {{0, 8, "zero", ""}, {9, 8, "zero", ""}},
      {{0, 8, "nonsense", ""}},
      {{0, 8, "linear", "/dev/fake0"}},
      {{0, 8, "linear", "/dev/none 0"}},
  }};
  const auto& bad = kBad.at(random(kBad.size()));
  if (target.md->load(bad, DeviceMode::kReadWrite).ok()) {
    fail("a bad table was taken");
  }
  const TableLine self = {0, 1, "linear", target.name + " 0"};
  if (target.md->load({&self, 1}, DeviceMode::kReadWrite).ok()) {
    fail("a device stands on itself");
  }
  const TableLine top = {0, 1, "linear", devices_.back().name + " 0"};
  if (stands_on(static_cast<int>(devices_.size()) - 1, device) &&
      target.md->load({&top, 1}, DeviceMode::kReadWrite).ok()) {
    fail("a cycle was taken");
  }
  const TableLine good = {0, 8, "linear", "/dev/fake0 0"};
  check(target.md->load({&good, 1}, DeviceMode::kReadWrite), "load");
  check(target.md->clear(), "clear");
}

void World::message(int device) {
  Device& target = devices_[at(device)];
  const auto send = [&](sector_t sector, std::vector<std::string_view> words) {
    return target.md->message(sector, words).ok();
  };
  for (Line& line : target.lines) {
    if (line.type == "dust" && config_.errors) {
      const std::string block = fmt::format("{}", (line.legs.front().at + random(line.len)) / 8);
      static constexpr std::array<const char*, 2> kVerbs = {"addbadblock", "removebadblock"};
      send(line.start, {kVerbs.at(random(2)), block});
      line.bad_blocks = send(line.start, {chance(70) ? "enable" : "disable"}) || line.bad_blocks;
    }
    if (line.type == "switch" && !busy(device)) {
      const std::size_t region = random(line.paths.size());
      const auto path = static_cast<unsigned>(random(line.legs.size()));
      const std::string words = fmt::format("{:x}:{:x}", region, path);
      if (!send(line.start, {"set_region_mappings", words})) {
        fail("switch refuses " + words);
      }
      line.paths[region] = path;
    }
  }
}

// A device that others stand on stays.
void World::remove_upper(int device) {
  Device& target = devices_[at(device)];
  const bool used = std::any_of(devices_.begin(), devices_.end(), [&](const Device& other) {
    return !other.volume && std::any_of(other.lines.begin(), other.lines.end(), [&](const Line& l) {
      return std::any_of(l.legs.begin(), l.legs.end(),
                         [&](const Line::Leg& leg) { return leg.device == device; });
    });
  });
  if (used) {
    if (engine_->remove(target.name, false).error() != EBUSY) {
      fail("a device in use was removed");
    }
    return;
  }
  if (target.volume || busy(device)) {
    return;
  }
  check(engine_->remove(target.name, false), "remove of " + target.name);
  make_upper(device);
}

void World::rename(int device) {
  Device& target = devices_[at(device)];
  const std::string name = fmt::format("renamed{}", names_++);
  check(engine_->rename(target.name, name), "rename");
  target.name = name;
}

}  // namespace mapperfs::sim
