// Units and small types that every room of the house uses.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mapperfs {

// A count or an address in sectors. A sector is always 512 bytes, whatever a device's logical
// block size is (include/linux/blk_types.h).
using sector_t = std::uint64_t;

inline constexpr unsigned kSectorShift = 9;
inline constexpr std::size_t kSectorBytes = std::size_t{1} << kSectorShift;

// The largest device: its size in bytes must fit a signed 64-bit file offset (dm-table.c).
inline constexpr sector_t kMaxDeviceSectors = ((std::uint64_t{1} << 63) - 1) >> kSectorShift;

inline constexpr std::size_t kCacheLineBytes = 64;

}  // namespace mapperfs
