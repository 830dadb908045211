// Free blocks that are lent to one device, so that threads which give blocks to several devices at
// once do not meet at every block, and each device gets runs of blocks. A lot is what is free of a
// group of 64 blocks, behind the last block given out.
//
// Devices have lots only from when two threads met at the map of free blocks until the next commit,
// which ends all lots; one thread alone gives out one block after the other, whatever device they
// are for. What is left in a lot is free in every figure, and anybody's once nothing else is free.
// Lots are in memory only: after a crash a block is what its count says.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "engine/types.h"
#include "metadata/page_cache.h"

namespace mapperfs::thin {

inline constexpr unsigned kLotBlocks = 64;
// With so few blocks that are in no lot, none is lent any more.
inline constexpr std::uint64_t kScarceBlocks = 1024;
// A commit ends all of them with everybody kept out: a few cache lines each.
inline constexpr std::size_t kMostLots = 64;

// The map's mutex is taken inside a lot's. Whoever holds the gate for writing needs neither.
struct alignas(kCacheLineBytes) DataLot {
  static constexpr std::uint64_t kNone = UINT64_MAX;

  std::mutex mutex;  // not held over reading
  // Changed under both mutexes.
  PagePin page;  // of the blocks' counts
  std::uint64_t first = 0;
  bool listed = false;      // has blocks on loan; guarded by the map's mutex
  std::uint64_t given = 0;  // under `mutex`: bits of the blocks that wait for their first owner
  // Bits of the blocks that nobody has yet. Taken under `mutex`, recalled under the map's.
  std::atomic<std::uint64_t> left{0};

  [[nodiscard]] std::uint64_t bit_of(std::uint64_t block) const {
    return block >= first && block - first < kLotBlocks ? std::uint64_t{1} << (block - first) : 0;
  }
  // The next block; kNone: nothing is left. Under `mutex`.
  std::uint64_t take();
};

}  // namespace mapperfs::thin
