#include "engine/limits.h"

#include <algorithm>
#include <numeric>

namespace mapperfs {

namespace {

// The smaller of two limits of which 0 means none.
std::uint32_t min_not_zero(std::uint32_t a, std::uint32_t b) {
  return a == 0 ? b : b == 0 ? a : std::min(a, b);
}

std::uint32_t lcm_not_zero(std::uint32_t a, std::uint32_t b) {
  if (a == 0 || b == 0) {
    return std::max(a, b);
  }
  const std::uint64_t lcm = std::lcm(std::uint64_t{a}, std::uint64_t{b});
  return lcm <= std::numeric_limits<std::uint32_t>::max() ? static_cast<std::uint32_t>(lcm)
                                                          : std::max(a, b);
}

}  // namespace

QueueLimits QueueLimits::stacking_defaults() {
  QueueLimits limits;
  limits.max_discard_sectors = kUnlimitedSectors;
  limits.max_secure_erase_sectors = kUnlimitedSectors;
  limits.max_write_zeroes_sectors = kUnlimitedSectors;
  limits.discard_zeroes = true;
  return limits;
}

bool stack_limits(QueueLimits& top, const QueueLimits& bottom, sector_t start) {
  const std::uint64_t granularity = std::max(bottom.physical_block_size, bottom.io_min);
  const bool aligned = (start << kSectorShift) % granularity == 0;

  top.logical_block_size = std::max(top.logical_block_size, bottom.logical_block_size);
  top.physical_block_size = std::max(top.physical_block_size, bottom.physical_block_size);
  top.io_min = std::max(top.io_min, bottom.io_min);
  top.io_opt = lcm_not_zero(top.io_opt, bottom.io_opt);
  if (top.physical_block_size % top.logical_block_size != 0) {
    top.physical_block_size = top.logical_block_size;
  }
  if (top.io_min % top.physical_block_size != 0) {
    top.io_min = top.physical_block_size;
  }
  if (top.io_opt % top.physical_block_size != 0) {
    top.io_opt = 0;
  }
  top.max_sectors = min_not_zero(top.max_sectors, bottom.max_sectors);
  top.chunk_sectors = top.chunk_sectors == 0 || bottom.chunk_sectors == 0
                          ? std::max(top.chunk_sectors, bottom.chunk_sectors)
                          : std::gcd(top.chunk_sectors, bottom.chunk_sectors);
  top.max_discard_sectors = std::min(top.max_discard_sectors, bottom.max_discard_sectors);
  top.max_secure_erase_sectors =
      std::min(top.max_secure_erase_sectors, bottom.max_secure_erase_sectors);
  top.max_write_zeroes_sectors =
      std::min(top.max_write_zeroes_sectors, bottom.max_write_zeroes_sectors);
  top.discard_granularity = std::max(top.discard_granularity, bottom.discard_granularity);
  top.discard_zeroes = top.discard_zeroes && bottom.discard_zeroes;
  top.write_cache = top.write_cache || bottom.write_cache;
  top.fua = top.fua || bottom.fua;
  top.rotational = top.rotational || bottom.rotational;
  return aligned;
}

}  // namespace mapperfs
