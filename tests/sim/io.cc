// Random bios, and what the model says of their ends.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/sim/world.h"

namespace mapperfs::sim {

namespace {

constexpr std::size_t kMaxIos = 24;  // at once
constexpr sector_t kMaxIoSectors = 80;
constexpr int kMaxTries = 200;  // of a read that compares, where devices fail by chance

}  // namespace

void Io::complete(Bio& ended) noexcept {
  static_cast<void>(ended);
  world.io_done(*this);
}

void World::fail(const std::string& what) {
  if (failure_.empty()) {
    failure_ = fmt::format("seed {}: {}", config_.seed, what);
  }
}

void World::check(const Status& status, const std::string& what) {
  if (!status.ok()) {
    fail(fmt::format("{}: {}", what, status.message()));
  }
}

void World::submit_random() {
  std::erase_if(ios_, [](const auto& io) { return io->done; });
  if (ios_.size() >= kMaxIos) {
    return;
  }
  const int device = static_cast<int>(random(devices_.size()));
  if (chance(8)) {
    submit_flush(device);
    return;
  }
  auto io = std::make_unique<Io>(*this, device);
  const sector_t size = devices_[at(device)].size();
  io->bio.sector = random(size);
  io->bio.sectors = 1 + random(std::min(size - io->bio.sector, kMaxIoSectors));
  const std::uint64_t kind = random(100);
  io->bio.op = kind < 40   ? Op::kRead
               : kind < 85 ? Op::kWrite
               : kind < 93 ? Op::kDiscard
                           : Op::kWriteZeroes;
  if (io->bio.op == Op::kDiscard && any_line(device, "switch")) {
    return;  // a discard across regions goes down the first one's path alone: as the kernel's
  }
  if (io->bio.op == Op::kWrite) {
    io->bio.flags =
        static_cast<std::uint8_t>((chance(20) ? kBioFua : 0) | (chance(15) ? kBioPreflush : 0));
  }
  if (chance(3)) {
    io->bio.flags |= kBioNowait;
  }
  for (sector_t i = 0; i < io->bio.sectors; ++i) {
    io->places.push_back(resolve(device, io->bio.sector + i));
  }
  if (io->bio.has_data()) {
    io->data.resize(io->bio.len_bytes());
    io->bio.data = io->data.data();
  }
  if (io->bio.is_write() && !prepare_write(*io)) {
    return;
  }
  if (io->bio.op == Op::kRead) {
    for (const Place& place : io->places) {
      if (place.volume >= 0) {
        devices_[at(place.volume)].sectors[place.sector].read_begins();
      }
    }
  }
  submit(std::move(io));
}

// Locks every sector, each for one write; then says what they may hold from now on.
bool World::prepare_write(Io& io) {
  for (std::size_t i = 0; i < io.places.size(); ++i) {
    const Place& place = io.places[i];
    if (place.volume >= 0 && !devices_[at(place.volume)].sectors[place.sector].lock()) {
      while (i-- > 0) {
        if (io.places[i].volume >= 0) {
          devices_[at(io.places[i].volume)].sectors[io.places[i].sector].unlock();
        }
      }
      return false;
    }
  }
  if ((io.bio.flags & kBioPreflush) != 0) {
    prepare_flush(io);
  }
  for (std::size_t i = 0; i < io.places.size(); ++i) {
    const Content content = {next_id_++, io.bio.op != Op::kWrite};
    io.contents.push_back(content);
    if (io.bio.op == Op::kWrite) {
      fill_sector(std::span(io.data).subspan(i * kSectorBytes, kSectorBytes), content);
    }
    if (io.places[i].volume >= 0) {
      devices_[at(io.places[i].volume)].sectors[io.places[i].sector].write_begins(content);
    }
  }
  return true;
}

void World::prepare_flush(Io& io) {
  io.flushes = true;
  io.last_id = next_id_ - 1;
  for (sector_t i = 0; i < devices_[at(io.device)].size(); ++i) {
    const Place place = resolve(io.device, i);
    if (place.volume >= 0 && place.flushes && !place.drops) {
      io.before.push_back(
          {place.volume, place.sector, devices_[at(place.volume)].sectors[place.sector].now()});
    }
  }
}

void World::submit_flush(int device) {
  auto io = std::make_unique<Io>(*this, device);
  io->bio.op = Op::kFlush;
  prepare_flush(*io);
  submit(std::move(io));
}

void World::submit(std::unique_ptr<Io> io) {
  Io& ref = *ios_.emplace_back(std::move(io));
  ref.bio.dev = devices_[at(ref.device)].md.get();
  ref.bio.completion = &ref;
  submit_bio(ref.bio);
  if (devices_[at(ref.device)].suspended && ref.done && (ref.bio.flags & kBioNowait) == 0) {
    fail("a bio did not wait for the resume of " + devices_[at(ref.device)].name);
  }
}

bool World::may_fail(const Io& io) const {
  return config_.errors || (io.bio.flags & kBioNowait) != 0 ||
         std::any_of(io.places.begin(), io.places.end(),
                     [](const Place& place) { return place.error || place.fails; });
}

void World::io_done(Io& io) {
  io.done = true;
  ++ios_done_;
  const BlkStatus status = io.bio.status();
  const auto what = [&] {
    return fmt::format("{} {}+{} flags {} of {}: {}", static_cast<int>(io.bio.op), io.bio.sector,
                       io.bio.sectors, io.bio.flags, devices_[at(io.device)].name,
                       errno_name(errno_of(status)));
  };
  const bool abnormal = !io.bio.has_data() && io.bio.op != Op::kFlush;
  if (status != BlkStatus::kOk && !may_fail(io) &&
      !(abnormal && status == BlkStatus::kNotSupported)) {
    fail("failed without a reason: " + what());
  }
  const bool must_fail = std::any_of(io.places.begin(), io.places.end(), [](const Place& place) {
    return place.error && !place.drops;
  });
  if (status == BlkStatus::kOk && must_fail) {
    fail("succeeded on an error target: " + what());
  }
  if (io.flushes && status == BlkStatus::kOk) {
    flush_done(io);
  }
  if (io.bio.op == Op::kRead) {
    read_done(io);
  } else if (io.bio.op != Op::kFlush) {
    write_done(io);
  }
}

void World::read_done(Io& io) {
  for (std::size_t i = 0; i < io.places.size(); ++i) {
    const Place& place = io.places[i];
    const auto bytes = std::span<const std::byte>(io.data).subspan(i * kSectorBytes, kSectorBytes);
    if (place.volume < 0) {
      if (io.bio.status() == BlkStatus::kOk && !holds(bytes, {})) {
        fail(fmt::format("read of zeroes gave {}", describe_sector(bytes)));
      }
      continue;
    }
    Sector& sector = devices_[at(place.volume)].sectors[place.sector];
    const std::vector<Content>& readable = sector.readable();
    const bool known = std::any_of(readable.begin(), readable.end(),
                                   [&](const Content& content) { return holds(bytes, content); });
    if (io.bio.status() == BlkStatus::kOk && !known) {
      fail(fmt::format("{} sector {} ({} sector {}) reads {}, may hold{}",
                       devices_[at(io.device)].name, io.bio.sector + i,
                       devices_[at(place.volume)].name, place.sector, describe_sector(bytes),
                       describe(readable)));
    }
    sector.read_ends();
  }
}

void World::write_done(Io& io) {
  for (std::size_t i = 0; i < io.places.size(); ++i) {
    const Place& place = io.places[i];
    if (place.volume < 0) {
      continue;
    }
    Sector& sector = devices_[at(place.volume)].sectors[place.sector];
    sector.unlock();
    if (io.bio.status() != BlkStatus::kOk || place.drops) {
      continue;
    }
    // A discard may leave what was there.
    if (io.bio.op != Op::kDiscard) {
      sector.write_succeeded(io.contents[i]);
    }
    if ((io.bio.flags & kBioFua) != 0) {
      sector.became_durable(io.contents[i]);
    }
  }
}

void World::flush_done(Io& io) {
  for (const Io::Before& before : io.before) {
    devices_[at(before.volume)].sectors[before.sector].flushed(before.now, io.last_id);
  }
}

// Reads past all chance errors. False: it fails for good.
bool World::read_now(int device, sector_t sector, sector_t sectors, std::vector<std::byte>& data) {
  class Done final : public Completion {
   public:
    void complete(Bio& bio) noexcept override {
      static_cast<void>(bio);
      done = true;
    }
    bool done = false;
  };
  data.resize(sectors << kSectorShift);
  for (int i = 0; i < kMaxTries; ++i) {
    Done done;
    Bio bio;
    bio.dev = devices_[at(device)].md.get();
    bio.sector = sector;
    bio.sectors = sectors;
    bio.data = data.data();
    bio.completion = &done;
    submit_bio(bio);
    while (!done.done && env_.advance_to_next_timer()) {
    }
    if (!done.done) {
      fail("a read hangs");
      std::abort();  // the bio is on the stack
    }
    if (bio.status() == BlkStatus::kOk || !config_.errors) {
      return bio.status() == BlkStatus::kOk;
    }
  }
  return false;
}

// Every bio comes back once nothing is suspended.
void World::drain() {
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    if (devices_[i].suspended) {
      resume(static_cast<int>(i));
    }
  }
  const auto all_done = [&] {
    return std::all_of(ios_.begin(), ios_.end(), [](const auto& io) { return io->done; });
  };
  while (!all_done()) {
    if (!env_.advance_to_next_timer()) {
      fail("bios hang though nothing is suspended");
      std::abort();  // the engine still holds them
    }
  }
  ios_.clear();
}

void World::settle_and_compare() {
  drain();
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    if (devices_[i].md->io_sums().in_flight != 0) {
      fail(devices_[i].name + ": bios in flight after all have ended");
    }
    compare_device(static_cast<int>(i));
  }
}

void World::compare_device(int device) {
  std::vector<std::byte> data;
  for (sector_t sector = 0; sector < devices_[at(device)].size(); ++sector) {
    const Place place = resolve(device, sector);
    if (place.error || place.fails) {
      continue;
    }
    if (!read_now(device, sector, 1, data)) {
      fail(fmt::format("{} sector {} cannot be read", devices_[at(device)].name, sector));
      return;
    }
    std::vector<Content> expected = {{}};
    if (place.volume >= 0) {
      expected = devices_[at(place.volume)].sectors[place.sector].now();
    }
    if (std::none_of(expected.begin(), expected.end(),
                     [&](const Content& content) { return holds(data, content); })) {
      fail(fmt::format("{} sector {} (volume {} sector {}) holds {}, should{}",
                       devices_[at(device)].name, sector, place.volume, place.sector,
                       describe_sector(data), describe(expected)));
      return;
    }
  }
}

void World::cut_power() {
  settle_and_compare();
  for (const auto& dev : fakes_) {
    dev->crash();
  }
  std::vector<std::byte> data;
  for (std::size_t i = 0; i < devices_.size() && failure_.empty(); ++i) {
    if (!devices_[i].volume) {
      continue;
    }
    for (sector_t s = 0; s < devices_[i].sectors.size(); ++s) {
      Sector& sector = devices_[i].sectors[s];
      if (!read_now(static_cast<int>(i), s, 1, data)) {
        fail("a volume cannot be read after the power cut");
        return;
      }
      const std::vector<Content>& durable = sector.durable();
      const auto found = std::find_if(durable.begin(), durable.end(),
                                      [&](const Content& content) { return holds(data, content); });
      if (found == durable.end()) {
        fail(fmt::format("after a power cut {} sector {} holds {}, may hold{}", devices_[i].name, s,
                         describe_sector(data), describe(durable)));
        return;
      }
      sector.reset(*found);
    }
  }
}

}  // namespace mapperfs::sim
