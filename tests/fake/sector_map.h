// Sparse contents of a fake device: what was never written reads as zeroes and takes no memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "engine/types.h"

namespace mapperfs::fake {

// Not thread-safe: the device that owns it has a lock.
class SectorMap {
 public:
  static constexpr sector_t kPageSectors = 8;

  void read(sector_t sector, sector_t sectors, std::byte* to) const;
  void write(sector_t sector, sector_t sectors, const std::byte* from);
  // The range reads back as zeroes; pages inside it are forgotten.
  void punch(sector_t sector, sector_t sectors);
  // True where the page of `sector` was written since it was punched.
  [[nodiscard]] bool has(sector_t sector) const { return pages_.count(sector / kPageSectors) != 0; }
  [[nodiscard]] std::size_t pages() const { return pages_.size(); }

 private:
  using Page = std::array<std::byte, kPageSectors * kSectorBytes>;
  std::unordered_map<sector_t, Page> pages_;
};

}  // namespace mapperfs::fake
