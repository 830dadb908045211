// Fills blocks: copies from one device to another, or zeroes. For workers; blocks.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "engine/bio.h"
#include "engine/block_device.h"

namespace mapperfs::thinp {

// One thread. Keeps a buffer of kChunkSectors once it was needed.
class Copier {
 public:
  static constexpr sector_t kChunkSectors = 512;

  // The first error ends it; what was written until then stays.
  BlkStatus copy(BlockDevice& from, sector_t from_sector, BlockDevice& to, sector_t to_sector,
                 sector_t sectors);
  static BlkStatus zero(BlockDevice& to, sector_t sector, sector_t sectors);
  // Reads or writes `data` and waits. `flags`: BioFlags.
  static BlkStatus transfer(BlockDevice& dev, Op op, sector_t sector, sector_t sectors,
                            std::byte* data, std::uint8_t flags = 0);

 private:
  // Aligned for direct I/O.
  struct alignas(4096) Page {
    std::array<std::byte, 4096> bytes;
  };
  std::vector<Page> buffer_;
};

}  // namespace mapperfs::thinp
