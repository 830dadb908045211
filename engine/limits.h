// What a block device can do and likes: block sizes, largest requests, discard and write-zeroes.
// Stacking follows blk_stack_limits() of block/blk-settings.c (reference: core.md section 8).
#pragma once

#include <cstdint>
#include <limits>

#include "engine/types.h"

namespace mapperfs {

struct QueueLimits {
  // Bytes.
  std::uint32_t logical_block_size = 512;
  std::uint32_t physical_block_size = 512;
  std::uint32_t io_min = 512;
  std::uint32_t io_opt = 0;  // 0: none
  // Sectors; 0: no limit (chunk_sectors: none).
  std::uint32_t max_sectors = 0;
  std::uint32_t chunk_sectors = 0;
  // Abnormal operations: largest request in sectors, 0 where the device does not do them.
  sector_t max_discard_sectors = 0;
  sector_t max_secure_erase_sectors = 0;
  sector_t max_write_zeroes_sectors = 0;
  std::uint32_t discard_granularity = 0;  // bytes
  bool discard_zeroes = false;            // what was discarded whole reads back as zeroes
  bool write_cache = false;               // volatile: a flush means something
  bool fua = false;
  bool rotational = false;

  // Everything maximal: what a table starts from before its targets take away.
  static QueueLimits stacking_defaults();
};

inline constexpr sector_t kUnlimitedSectors = std::numeric_limits<sector_t>::max() >> kSectorShift;

// Combines what lies below (starting `start` sectors into the lower device) into `top`. Returns
// false where the two do not align, which is worth a warning and no error.
bool stack_limits(QueueLimits& top, const QueueLimits& bottom, sector_t start);

}  // namespace mapperfs
