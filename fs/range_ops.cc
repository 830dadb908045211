#include "fs/range_ops.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "engine/bio.h"
#include "fs/edge_writer.h"
#include "fs/io_request.h"

namespace mapperfs {
namespace {

// Zeroes that are written as data, at once.
constexpr std::size_t kZeroBytes = std::size_t{256} << 10;
constexpr std::size_t kMaxExtentsCounted = 256;

BlkStatus submit_range(MappedDevice& device, Op op, sector_t sector, sector_t sectors,
                       std::byte* data) {
  Bio bio;
  bio.dev = &device;
  bio.op = op;
  bio.sector = sector;
  bio.sectors = sectors;
  bio.data = data;
  return submit_bio_and_wait(bio);
}

BlkStatus write_zeroes_as_data(MappedDevice& device, sector_t sector, sector_t sectors) {
  const std::size_t most = std::min(kZeroBytes, static_cast<std::size_t>(sectors) << kSectorShift);
  const AlignedBuffer zeroes = make_aligned_buffer(most);
  std::fill_n(zeroes.get(), most, std::byte{0});
  while (sectors > 0) {
    const sector_t now = std::min<sector_t>(sectors, most >> kSectorShift);
    const BlkStatus status = submit_range(device, Op::kWrite, sector, now, zeroes.get());
    if (status != BlkStatus::kOk) {
      return status;
    }
    sector += now;
    sectors -= now;
  }
  return BlkStatus::kOk;
}

// A range cut where blocks begin and end: the edges are parts of a block.
struct CutRange {
  std::uint64_t from, to;              // bytes, all of it
  std::uint64_t whole_from, whole_to;  // bytes, equal where no whole block lies inside

  CutRange(std::uint64_t begin, std::uint64_t end, std::uint64_t block) : from(begin), to(end) {
    whole_from = (begin + block - 1) & ~(block - 1);
    whole_to = std::max(end & ~(block - 1), whole_from);
    if (whole_from >= end) {
      whole_from = whole_to = end;
    }
  }
  [[nodiscard]] sector_t sector() const { return whole_from >> kSectorShift; }
  [[nodiscard]] sector_t sectors() const { return (whole_to - whole_from) >> kSectorShift; }
};

BlkStatus zero_edge(MappedDevice& device, std::uint32_t block_bytes, std::uint64_t from,
                    std::uint64_t to) {
  if (from >= to) {
    return BlkStatus::kOk;
  }
  const AlignedBuffer zeroes = make_aligned_buffer(static_cast<std::size_t>(to - from));
  std::fill_n(zeroes.get(), to - from, std::byte{0});
  return write_unaligned(device, block_bytes, from,
                         std::span(zeroes.get(), static_cast<std::size_t>(to - from)), 0);
}

BlkStatus zero_edges(MappedDevice& device, std::uint32_t block_bytes, const CutRange& range) {
  const BlkStatus head =
      zero_edge(device, block_bytes, range.from, std::min(range.whole_from, range.to));
  return head != BlkStatus::kOk ? head : zero_edge(device, block_bytes, range.whole_to, range.to);
}

// What a discard left as it was must be written: it has to read as zeroes.
BlkStatus zero_what_stayed(MappedDevice& device, sector_t sector, sector_t sectors) {
  while (sectors > 0) {
    Extent extent = device.extent(sector, sectors);
    extent.sectors = std::clamp<sector_t>(extent.sectors, 1, sectors);
    if (!extent.hole) {
      const BlkStatus status = write_zeroes_as_data(device, sector, extent.sectors);
      if (status != BlkStatus::kOk) {
        return status;
      }
    }
    sector += extent.sectors;
    sectors -= extent.sectors;
  }
  return BlkStatus::kOk;
}

int punch_hole(MappedDevice& device, std::uint32_t block_bytes, const CutRange& range) {
  const QueueLimits limits = device.limits();
  if (limits.max_discard_sectors == 0) {
    return EOPNOTSUPP;
  }
  BlkStatus status = BlkStatus::kOk;
  if (range.sectors() > 0) {
    status = submit_range(device, Op::kDiscard, range.sector(), range.sectors(), nullptr);
    if (status == BlkStatus::kOk && !limits.discard_zeroes) {
      status = zero_what_stayed(device, range.sector(), range.sectors());
    }
  }
  return errno_of(status != BlkStatus::kOk ? status : zero_edges(device, block_bytes, range));
}

int zero_range(MappedDevice& device, std::uint32_t block_bytes, const CutRange& range) {
  BlkStatus status = BlkStatus::kOk;
  if (range.sectors() > 0) {
    status = device.limits().max_write_zeroes_sectors == 0
                 ? BlkStatus::kNotSupported
                 : submit_range(device, Op::kWriteZeroes, range.sector(), range.sectors(), nullptr);
    // kTargetError: a device below has just learned that it cannot.
    if (status == BlkStatus::kNotSupported || status == BlkStatus::kTargetError) {
      status = write_zeroes_as_data(device, range.sector(), range.sectors());
    }
  }
  return errno_of(status != BlkStatus::kOk ? status : zero_edges(device, block_bytes, range));
}

}  // namespace

int allocate_range(MappedDevice& device, std::uint32_t block_bytes, int mode,
                   std::uint64_t offset_bytes, std::uint64_t len_bytes) {
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int what = mode & ~FALLOC_FL_KEEP_SIZE;
  if (what != 0 && what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE) {
    return EOPNOTSUPP;
  }
  const std::uint64_t size = device.size_sectors() << kSectorShift;
  std::uint64_t end = offset_bytes + len_bytes;
  if (end > size || end < offset_bytes) {
    if (!keep_size) {
      return ENOSPC;
    }
    end = size;
  }
  if (what == 0 || offset_bytes >= end) {
    return 0;  // a device's sectors are all there already
  }
  if (device.read_only()) {
    return EPERM;
  }
  const CutRange range(offset_bytes, end, block_bytes);
  return what == FALLOC_FL_PUNCH_HOLE ? punch_hole(device, block_bytes, range)
                                      : zero_range(device, block_bytes, range);
}

int seek_extent(const MappedDevice& device, bool hole, std::uint64_t offset_bytes,
                std::uint64_t& found_bytes, const std::function<bool()>& interrupted) {
  const sector_t size = device.size_sectors();
  if (offset_bytes >= size << kSectorShift) {
    return ENXIO;
  }
  for (sector_t at = offset_bytes >> kSectorShift; at < size;) {
    Extent extent = device.extent(at, size - at);
    if (extent.hole == hole) {
      found_bytes = std::max(offset_bytes, at << kSectorShift);
      return 0;
    }
    at += std::clamp<sector_t>(extent.sectors, 1, size - at);
    if (interrupted && interrupted()) {
      return EINTR;
    }
  }
  if (!hole) {
    return ENXIO;
  }
  found_bytes = size << kSectorShift;  // every file ends in a hole
  return 0;
}

sector_t allocated_sectors(const MappedDevice& device) {
  const sector_t size = device.size_sectors();
  sector_t allocated = 0;
  sector_t at = 0;
  for (std::size_t i = 0; i < kMaxExtentsCounted && at < size; ++i) {
    const Extent extent = device.extent(at, size - at);
    const sector_t sectors = std::clamp<sector_t>(extent.sectors, 1, size - at);
    allocated += extent.hole ? 0 : sectors;
    at += sectors;
  }
  return allocated + (size - std::min(at, size));
}

}  // namespace mapperfs
