#include "tests/fake/sector_map.h"

#include <algorithm>
#include <cstring>

namespace mapperfs::fake {

namespace {

// Calls fn(page, offset in the page in bytes, offset in the range in bytes, bytes) for each page.
template <typename Fn>
void for_pages(sector_t sector, sector_t sectors, Fn fn) {
  const sector_t end = sector + sectors;
  const sector_t begin = sector;
  while (sector < end) {
    const sector_t in_page = sector % SectorMap::kPageSectors;
    const sector_t part = std::min(SectorMap::kPageSectors - in_page, end - sector);
    fn(sector / SectorMap::kPageSectors, in_page << kSectorShift, (sector - begin) << kSectorShift,
       part << kSectorShift);
    sector += part;
  }
}

}  // namespace

void SectorMap::read(sector_t sector, sector_t sectors, std::byte* to) const {
  for_pages(sector, sectors,
            [&](sector_t page, std::size_t in_page, std::size_t at, std::size_t bytes) {
              const auto it = pages_.find(page);
              if (it == pages_.end()) {
                std::memset(to + at, 0, bytes);
              } else {
                std::memcpy(to + at, it->second.data() + in_page, bytes);
              }
            });
}

void SectorMap::write(sector_t sector, sector_t sectors, const std::byte* from) {
  for_pages(sector, sectors,
            [&](sector_t page, std::size_t in_page, std::size_t at, std::size_t bytes) {
              const auto it = pages_.try_emplace(page).first;
              std::memcpy(it->second.data() + in_page, from + at, bytes);
            });
}

void SectorMap::punch(sector_t sector, sector_t sectors) {
  if (sectors / kPageSectors > pages_.size()) {
    // A range much larger than what there is: look at what there is.
    for (auto it = pages_.begin(); it != pages_.end();) {
      const sector_t first = it->first * kPageSectors;
      const bool inside = first >= sector && first + kPageSectors <= sector + sectors;
      it = inside ? pages_.erase(it) : std::next(it);
    }
    const sector_t edge = sector + sectors - (sector + sectors) % kPageSectors;
    if (edge > sector && edge < sector + sectors) {
      punch(edge, sector + sectors - edge);
    }
    if (sector % kPageSectors != 0) {
      punch(sector, std::min(sectors, kPageSectors - sector % kPageSectors));
    }
    return;
  }
  for_pages(sector, sectors,
            [&](sector_t page, std::size_t in_page, std::size_t at, std::size_t bytes) {
              static_cast<void>(at);
              const auto it = pages_.find(page);
              if (it == pages_.end()) {
                return;
              }
              if (bytes == it->second.size()) {
                pages_.erase(it);
              } else {
                std::memset(it->second.data() + in_page, 0, bytes);
              }
            });
}

}  // namespace mapperfs::fake
