// Work on ranges of a device that is not a plain read or write: punching holes, zeroing, seeking
// data and holes, counting what is allocated. Everything here waits for I/O.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/mapped_device.h"
#include "engine/status.h"

namespace mapperfs {

// fallocate(2) with the kernel's FALLOC_FL_ mode bits. 0 or an errno: EOPNOTSUPP for what the table
// or this file system cannot do, ENOSPC beyond the end.
int allocate_range(MappedDevice& device, std::uint32_t block_bytes, int mode,
                   std::uint64_t offset_bytes, std::uint64_t len_bytes);

// lseek(2) with SEEK_DATA (`hole` false) or SEEK_HOLE. Returns 0 and the offset, or ENXIO or EINTR.
int seek_extent(const MappedDevice& device, bool hole, std::uint64_t offset_bytes,
                std::uint64_t& found_bytes, const std::function<bool()>& interrupted);

// Sectors that take space, for st_blocks. Looks at a bounded number of extents; what lies behind
// them counts as data.
sector_t allocated_sectors(const MappedDevice& device);

}  // namespace mapperfs
