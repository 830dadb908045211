#include "targets/thin/copier.h"

#include <algorithm>

namespace mapperfs::thinp {

namespace {

constexpr std::size_t kZeroSectors = 512;
// Bios want writable memory, though nobody writes to what a device is to be given.
alignas(4096) std::array<std::byte, kZeroSectors * kSectorBytes> zeroes{};

}  // namespace

BlkStatus Copier::transfer(BlockDevice& dev, Op op, sector_t sector, sector_t sectors,
                           std::byte* data, std::uint8_t flags) {
  Bio bio;
  bio.dev = &dev;
  bio.op = op;
  bio.sector = sector;
  bio.sectors = sectors;
  bio.data = data;
  bio.flags = flags;
  return submit_bio_and_wait(bio);
}

BlkStatus Copier::copy(BlockDevice& from, sector_t from_sector, BlockDevice& to, sector_t to_sector,
                       sector_t sectors) {
  buffer_.resize(kChunkSectors * kSectorBytes / sizeof(Page));
  std::byte* const data = buffer_.front().bytes.data();
  for (sector_t done = 0; done < sectors;) {
    const sector_t now = std::min(kChunkSectors, sectors - done);
    BlkStatus status = transfer(from, Op::kRead, from_sector + done, now, data);
    if (status == BlkStatus::kOk) {
      status = transfer(to, Op::kWrite, to_sector + done, now, data);
    }
    if (status != BlkStatus::kOk) {
      return status;
    }
    done += now;
  }
  return BlkStatus::kOk;
}

BlkStatus Copier::zero(BlockDevice& to, sector_t sector, sector_t sectors) {
  for (sector_t done = 0; done < sectors;) {
    const sector_t now = std::min<sector_t>(kZeroSectors, sectors - done);
    if (const BlkStatus status = transfer(to, Op::kWrite, sector + done, now, zeroes.data());
        status != BlkStatus::kOk) {
      return status;
    }
    done += now;
  }
  return BlkStatus::kOk;
}

}  // namespace mapperfs::thinp
