// The engine with every simple target over fake devices on virtual time, and the model beside it.
//
// Volumes are mapped devices that lie on fake devices; each has its contents in the model. Upper
// devices stand on volumes and on one another; the model knows where each of their sectors lies and
// never what it holds. So a mistake anywhere on the way down shows as wrong contents at the end.
//
// One thread. Nothing happens but in step(), and everything follows from the seed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tests/fake/fake_opener.h"
#include "tests/fake/fault_dev.h"
#include "tests/fake/sim_env.h"
#include "tests/sim/model.h"

namespace mapperfs::sim {

inline std::size_t at(int index) { return static_cast<std::size_t>(index); }

// What goes wrong in a run.
struct Config {
  std::uint64_t seed = 1;
  bool delays = false;      // fake devices answer late and out of order
  bool errors = false;      // fake devices fail now and then; dust and flakey do their worst
  bool power_cuts = false;  // what was not flushed may be lost
  int steps = 400;
};

// Where a sector of a device lies in the end, and what may become of it on the way.
struct Place {
  int volume = -1;  // index of the device; -1: nowhere (zero, error)
  sector_t sector = 0;
  bool error = false;   // I/O must fail
  bool fails = false;   // I/O may fail
  bool drops = false;   // a write may vanish, though it succeeds
  bool flushes = true;  // a flush from the top arrives here
};

// A line of a table in the model: what the text says, understood.
struct Line {
  struct Leg {
    int device = -1;  // index of a device; in a volume's own lines, of a fake one
    sector_t at = 0;
  };
  std::string type;
  sector_t start = 0;
  sector_t len = 0;
  std::string args;
  std::vector<Leg> legs;
  sector_t chunk = 0;           // striped, unstriped; region of switch
  sector_t stripes = 0;         // unstriped
  sector_t index = 0;           // unstriped
  std::vector<unsigned> paths;  // switch: by region
  bool bad_blocks = false;      // dust: was turned on
  bool drops = false;           // flakey
};

struct Device {
  std::string name;
  bool volume = false;
  bool suspended = false;
  std::shared_ptr<MappedDevice> md;
  std::vector<Line> lines;
  std::vector<Sector> sectors;  // of a volume
  [[nodiscard]] sector_t size() const {
    return lines.empty() ? 0 : lines.back().start + lines.back().len;
  }
};

class World;

// A bio of the driver's, with what the model expects of it.
class Io final : public Completion {
 public:
  Io(World& its_world, int its_device) : world(its_world), device(its_device) {}
  void complete(Bio& bio) noexcept override;

  World& world;
  const int device;
  Bio bio;
  std::vector<std::byte> data;
  std::vector<Place> places;      // of each sector
  std::vector<Content> contents;  // that a write gives them
  // A flush: what every sector below held when it began.
  struct Before {
    int volume = 0;
    sector_t sector = 0;
    std::vector<Content> now;
  };
  std::vector<Before> before;
  std::uint64_t last_id = 0;
  bool flushes = false;
  bool done = false;
};

class World {
 public:
  explicit World(const Config& config);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // One thing of all that may happen, by chance.
  void step();
  // Resumes everything, lets every bio end and compares every sector of every device.
  void settle_and_compare();
  // As after a power cut: settles, cuts the power of every fake device, compares.
  void cut_power();
  // The first thing that was not as the model says, or empty.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  [[nodiscard]] std::uint64_t ios_done() const { return ios_done_; }

 private:
  friend class Io;

  std::uint64_t random(std::uint64_t below) { return below == 0 ? 0 : rng_() % below; }
  bool chance(unsigned percent) { return random(100) < percent; }
  void fail(const std::string& what);
  void check(const Status& status, const std::string& what);

  // Tables: tables.cc.
  void make_fake_devices();
  void make_volume();
  void make_upper(int device);
  std::vector<Line> volume_lines(sector_t sectors, sector_t start);
  std::vector<Line> upper_lines(int device);
  Line random_line(int device, sector_t start);
  Line zero_or_error(sector_t start);
  Line like_linear(const std::string& type, Line::Leg leg, sector_t len);
  Line striped(int device);
  Line unstriped(int device);
  Line switched(int device);
  int random_below(int device);
  sector_t take_space(int fake, sector_t sectors);
  // What a line's words are now that devices may have other names.
  [[nodiscard]] std::string words(const Line& line, bool volume) const;
  Status load(int device, const std::vector<Line>& lines);
  // Loads, resumes, and takes the lines over; or leaves all as it was.
  bool swap_table(int device, std::vector<Line> lines);
  // Which leg holds a sector of a line, and where.
  static Line::Leg leg_of(const Line& line, sector_t offset);
  [[nodiscard]] const Line& line_at(int device, sector_t sector) const;
  [[nodiscard]] Place resolve(int device, sector_t sector) const;
  // All devices that a bio to `device` may pass, itself included.
  void collect_below(int device, std::set<int>& below) const;
  [[nodiscard]] bool stands_on(int device, int below) const;
  [[nodiscard]] bool busy(int device) const;  // a bio may be inside
  [[nodiscard]] bool any_line(int device, const std::string& type) const;

  // Bios: io.cc.
  void submit_random();
  void submit_flush(int device);
  bool prepare_write(Io& io);
  void prepare_flush(Io& io);
  void submit(std::unique_ptr<Io> io);
  void io_done(Io& io);
  void read_done(Io& io);
  void write_done(Io& io);
  void flush_done(Io& io);
  [[nodiscard]] bool may_fail(const Io& io) const;
  bool read_now(int device, sector_t sector, sector_t sectors, std::vector<std::byte>& data);
  void drain();
  void compare_device(int device);

  // Control: control.cc.
  void control_something();
  bool suspend(int device);
  void resume(int device);
  void recut(int device);
  void remap_upper(int device);
  void grow(int device);
  void move_volume(int device);
  Content copy_sector(Line::Leg from, Line::Leg to, const std::vector<Content>& expected);
  void load_nonsense(int device);
  void message(int device);
  void remove_upper(int device);
  void rename(int device);
  SuspendOptions suspend_options(bool noflush);

  const Config config_;
  std::mt19937_64 rng_;
  fake::SimEnv env_;
  fake::FakeOpener opener_;
  TargetRegistry registry_;
  std::vector<std::unique_ptr<fake::FaultDev>> fakes_;
  std::vector<sector_t> fake_used_;  // below it all is taken, for good
  std::unique_ptr<Engine> engine_;
  std::vector<Device> devices_;  // in an order in which none stands on a later one
  std::vector<std::unique_ptr<Io>> ios_;
  std::uint64_t next_id_ = 1;
  std::uint64_t ios_done_ = 0;
  int names_ = 0;
  std::string failure_;
};

}  // namespace mapperfs::sim
