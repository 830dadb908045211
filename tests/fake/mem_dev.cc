#include "tests/fake/mem_dev.h"

#include <algorithm>

namespace mapperfs::fake {

QueueLimits MemDev::default_limits() {
  QueueLimits limits;
  limits.max_discard_sectors = kUnlimitedSectors;
  limits.max_secure_erase_sectors = kUnlimitedSectors;
  limits.max_write_zeroes_sectors = kUnlimitedSectors;
  limits.discard_granularity = kSectorBytes;
  limits.discard_zeroes = true;
  return limits;
}

BlkStatus MemDev::handle(const Bio& bio) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  seen_.push_back({bio.op, bio.sector, bio.sectors, bio.flags});
  if (bio.op == Op::kFlush) {
    return BlkStatus::kOk;
  }
  if (bio.sector > sectors_ || bio.sectors > sectors_ - bio.sector) {
    return BlkStatus::kIoError;
  }
  switch (bio.op) {
    case Op::kRead:
      map_.read(bio.sector, bio.sectors, bio.data);
      break;
    case Op::kWrite:
      map_.write(bio.sector, bio.sectors, bio.data);
      break;
    case Op::kDiscard:
    case Op::kSecureErase:
    case Op::kWriteZeroes:
      map_.punch(bio.sector, bio.sectors);
      break;
    case Op::kFlush:
      break;
  }
  return BlkStatus::kOk;
}

Extent MemDev::extent(sector_t sector, sector_t max) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool data = map_.has(sector);
  sector_t sectors = SectorMap::kPageSectors - sector % SectorMap::kPageSectors;
  while (sectors < max && map_.has(sector + sectors) == data) {
    sectors += SectorMap::kPageSectors;
  }
  return {std::min(sectors, max), !data};
}

std::vector<std::byte> MemDev::peek(sector_t sector, sector_t sectors) const {
  std::vector<std::byte> bytes(sectors << kSectorShift);
  const std::lock_guard<std::mutex> lock(mutex_);
  map_.read(sector, sectors, bytes.data());
  return bytes;
}

void MemDev::poke(sector_t sector, const std::vector<std::byte>& bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  map_.write(sector, bytes.size() >> kSectorShift, bytes.data());
}

std::vector<SeenBio> MemDev::take_seen() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(seen_, {});
}

}  // namespace mapperfs::fake
