// A device that goes wrong, by order or by chance.
//
//   - Errors: of chosen operations in a chosen range, so many times; or with a probability.
//   - A volatile cache: writes are lost, kept or torn by crash() unless a flush or FUA came after.
//   - Time: bios wait for a random while on the environment's timer, and may end in another order;
//     or hold() keeps them until release().
//
// Chance comes from one seed, so that a run with one thread is the same each time.
#pragma once

#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/env.h"
#include "tests/fake/sector_map.h"

namespace mapperfs::fake {

// Any thread.
class FaultDev final : public BlockDevice, public Timer {
 public:
  struct Options {
    std::uint64_t seed = 1;
    QueueLimits limits;  // FaultDev adds a write cache
    // Chance of an error, of a million.
    std::uint32_t read_error_ppm = 0;
    std::uint32_t write_error_ppm = 0;
    // Every bio ends after a time between these two; 0: at once.
    std::uint64_t min_delay_ns = 0;
    std::uint64_t max_delay_ns = 0;

    Options();
  };
  // Bios of operation `op` that touch [first, end) fail `times` times with `status`, after `skip`
  // of them have gone well.
  struct Fault {
    Op op = Op::kRead;
    sector_t first = 0;
    sector_t end = ~sector_t{0};
    BlkStatus status = BlkStatus::kIoError;
    std::uint64_t times = ~std::uint64_t{0};
    std::uint64_t skip = 0;
  };

  // `env` outlives it; needed for delays alone.
  FaultDev(std::string name, sector_t sectors, Env& env, Options options = Options());
  ~FaultDev() override;

  void submit(Bio& bio) noexcept override;
  void fire() noexcept override;  // the timer's
  [[nodiscard]] sector_t size_sectors() const override { return sectors_; }
  [[nodiscard]] QueueLimits limits() const override { return options_.limits; }
  [[nodiscard]] std::string table_name() const override { return name_; }

  void add_fault(const Fault& fault);
  void clear_faults();
  // Bios that a fault has failed so far.
  [[nodiscard]] std::uint64_t struck() const;
  // Bios wait from here on, until release() ends them in order (or in reverse).
  void hold();
  void release(bool reverse = false);
  [[nodiscard]] std::size_t waiting() const;

  // The power goes: of what was written since the last flush, each write is lost, kept, or torn
  // after one of its sectors, by chance; FUA writes are kept. Nothing may be in flight.
  void crash();
  // Everything written so far counts as durable.
  void sync();

  // What a read would see now.
  [[nodiscard]] std::vector<std::byte> peek(sector_t sector, sector_t sectors) const;

 private:
  // A write that a crash may lose.
  struct Unflushed {
    Op op;
    bool fua;  // a crash keeps it
    sector_t sector;
    sector_t sectors;
    std::vector<std::byte> data;  // kWrite
  };

  // mutex_ held, in all of these.
  BlkStatus handle(Bio& bio);
  BlkStatus injected(const Bio& bio);
  static void apply(SectorMap& map, const Unflushed& write, sector_t sectors);
  std::uint64_t random(std::uint64_t below);

  const std::string name_;
  const sector_t sectors_;
  Env& env_;
  const Options options_;

  mutable std::mutex mutex_;
  std::mt19937_64 rng_;               // mutex_, as all below
  std::vector<Fault> faults_;         //
  std::uint64_t struck_ = 0;          //
  SectorMap now_;                     // what reads see
  SectorMap durable_;                 // what survives for sure
  std::vector<Unflushed> unflushed_;  // now_ without durable_, in order
  bool holding_ = false;
  std::vector<Bio*> held_;
  std::multimap<std::uint64_t, Bio*> delayed_;  // by when they end
};

}  // namespace mapperfs::fake
