// Builds a pool's mapping trees from the bottom up, from mappings in order, for a restore. Pages
// that come out the same as one built before are shared with it, as they were between snapshots.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/assert.h"
#include "engine/status.h"
#include "metadata/pool_metadata.h"

namespace mapperfs::thin {

// One thread. Between begin_device() and end_device(), add() in ascending order. Commits now and
// then; an error leaves metadata that cannot be opened.
class Restorer {
 public:
  // `pool` has had start_restore() and outlives this. `pool_time` is what it will be given at the
  // end: a block of a later time would not count as shared after the next snapshot.
  Restorer(PoolMetadata& pool, std::uint32_t pool_time) : pool_(pool), pool_time_(pool_time) {
    MFS_ASSERT(pool_time <= kMaxTime);
  }
  Restorer(const Restorer&) = delete;
  Restorer& operator=(const Restorer&) = delete;

  // EEXIST: the id was there before; EINVAL: a time past the pool's.
  Status begin_device(const ThinDeviceDetails& details);
  // EINVAL: not behind the run before, past the limits, or of a time past the pool's.
  Status add(const ThinRun& run);
  // `mapped_blocks` of the details is what was added, whatever begin_device() was told.
  Status end_device();
  [[nodiscard]] std::uint64_t mapped() const { return mapped_; }

 private:
  // Hashes of pages remembered for sharing: 16 to 40 bytes each.
  static constexpr std::size_t kMaxKnown = std::size_t{4} << 20;
  static constexpr std::uint64_t kNoPage = UINT64_MAX;

  // The page being filled at one level, and which of its level it is.
  struct Filling {
    PageWords words{};
    std::uint64_t number = kNoPage;
  };

  Status put(std::uint64_t index, unsigned level, std::uint64_t word);
  Result<std::uint64_t> finish_page(unsigned level);
  Result<bool> is_known(std::uint64_t page, unsigned level, const PageWords& words);
  Status share_known(std::uint64_t page, unsigned level, const PageWords& words);
  Result<std::uint64_t> make_page(unsigned level, const PageWords& words);

  PoolMetadata& pool_;
  const std::uint32_t pool_time_;
  std::array<Filling, kMaxHeight> filling_;
  ThinDeviceDetails details_;
  std::uint64_t next_ = 0;  // the lowest virtual block that may come
  std::uint64_t mapped_ = 0;
  std::unordered_map<std::uint64_t, std::uint64_t> known_;  // hash to page
};

}  // namespace mapperfs::thin
