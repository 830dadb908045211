// A device in memory that ends every bio inside submit(), and remembers what it was asked.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "tests/fake/sector_map.h"

namespace mapperfs::fake {

// A bio as a device saw it.
struct SeenBio {
  Op op = Op::kRead;
  sector_t sector = 0;
  sector_t sectors = 0;
  std::uint8_t flags = 0;
  bool operator==(const SeenBio&) const = default;
};

// Any thread.
class MemDev : public BlockDevice {
 public:
  // Discards, secure erases and zeroes without limit.
  static QueueLimits default_limits();

  MemDev(std::string name, sector_t sectors, QueueLimits limits = default_limits())
      : name_(std::move(name)), sectors_(sectors), limits_(limits) {}

  void submit(Bio& bio) noexcept override { bio.end_io(handle(bio)); }
  [[nodiscard]] sector_t size_sectors() const override { return sectors_; }
  [[nodiscard]] QueueLimits limits() const override { return limits_; }
  [[nodiscard]] std::string table_name() const override { return name_; }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override;
  [[nodiscard]] bool is_memory() const override { return true; }

  // What a bio asks for; does not end it. kIoError past the end.
  BlkStatus handle(const Bio& bio) noexcept;

  // Past the bios, for tests to look and to prepare.
  [[nodiscard]] std::vector<std::byte> peek(sector_t sector, sector_t sectors) const;
  void poke(sector_t sector, const std::vector<std::byte>& bytes);
  // The bios since the last call, in order.
  std::vector<SeenBio> take_seen();

 private:
  const std::string name_;
  const sector_t sectors_;
  const QueueLimits limits_;
  mutable std::mutex mutex_;
  SectorMap map_;              // mutex_
  std::vector<SeenBio> seen_;  // mutex_
};

}  // namespace mapperfs::fake
