// Which data blocks have how many owners, which are free, and who may have one next.
//
// Counts live in pages of the cache (kDataRefs), of which a 16-bit summary each, the number of
// counts that are 0, is always in memory: 2 bytes for 512 blocks. A block with count 0 is still not
// free while it is on hold:
//   reserved     handed out by allocate(), not inserted yet
//   freed now    lost its last owner in the open transaction
//   freed before ... in the transaction that is being written
//   quarantined  handed out by a removal for discarding, not released yet
// Holds are only in memory: after a crash a block is what its count says, so nothing leaks.
// A page that comes from the store is compared with its summary before its counts change from or to
// 0; from then on the two change together.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/status.h"
#include "metadata/page_cache.h"
#include "metadata/thin_metadata.h"

namespace mapperfs::thin {

// The pages of counts that some ids fall into, pinned, so that changing those counts cannot fail.
class CountPages {
 public:
  // `numbers` are ids in use; reads what is missing. EILSEQ: one of them has count 0; EIO.
  static Result<CountPages> load(PageCache& cache, PageKind kind,
                                 const std::vector<std::uint64_t>& numbers);
  // The same for ids that may have count 0.
  static Result<CountPages> load_any(PageCache& cache, PageKind kind,
                                     const std::vector<std::uint64_t>& numbers);
  // The page that `number`'s count is in; must be one of load()'s.
  [[nodiscard]] Page& page_of(std::uint64_t number) const;

 private:
  friend class DataMap;
  std::vector<std::pair<std::uint64_t, PagePin>> pages_;  // by page number
};

// Any thread. "In the gate" means that the caller holds the transaction's gate for reading.
class DataMap {
 public:
  explicit DataMap(PageCache& cache) : cache_(cache) {}
  DataMap(const DataMap&) = delete;
  DataMap& operator=(const DataMap&) = delete;

  // Opening and reverting: no other call at the same time.
  void reset(std::uint64_t nr_blocks);
  Status load_summary(std::uint64_t record, const Summary& summary);
  void finish_loading();

  // In the gate.
  Result<std::uint64_t> allocate();
  void cancel(std::uint64_t block);
  void release(const std::vector<DataRun>& runs);
  // In the gate. The first owner of a block that allocate() gave out; EINVAL: it did not.
  Status take_reserved(std::uint64_t block);
  // In the gate. Both at once, if that takes no reading and no search; nullopt: not now.
  std::optional<std::uint64_t> take_cached();
  // Undoes take_reserved() as if it had not been.
  void untake(std::uint64_t block);
  // In the gate. The counts of blocks in use, for drop_owner(). EILSEQ: one has count 0, or a
  // summary is wrong; EIO.
  Result<CountPages> load_counts(const std::vector<std::uint64_t>& blocks);
  // In the gate; one owner less of each. `pages` are load_counts()'s of `blocks`. Blocks that lost
  // their last owner are appended to `freed`, if given, and quarantined.
  void drop_owner(const CountPages& pages, const std::vector<std::uint64_t>& blocks,
                  std::vector<DataRun>* freed);
  // In the gate. An owner for a block whatever it has, as a restore makes.
  Status add_first_or_more(const std::vector<std::uint64_t>& blocks);
  Result<std::uint32_t> owners(std::uint64_t block);
  // In the gate; only ever more.
  void grow(std::uint64_t nr_blocks);

  // The gate is held for writing. Blocks freed before the seal are free after written().
  void seal(StoreBatch& batch);
  void written();

  struct Usage {
    std::uint64_t blocks = 0;
    std::uint64_t used = 0;
    std::uint64_t allocatable = 0;
  };
  // All of one moment.
  [[nodiscard]] Usage usage() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {nr_blocks_, owned_ + reserved_, allocatable()};
  }
  [[nodiscard]] std::uint64_t nr_blocks() const noexcept { return nr_blocks_.load(); }
  [[nodiscard]] std::uint64_t allocatable() const noexcept {
    // Three numbers of three moments, unless under mutex_.
    const std::uint64_t taken = owned_.load() + held_.load();
    const std::uint64_t blocks = nr_blocks_.load();
    return blocks > taken ? blocks - taken : 0;
  }
  [[nodiscard]] bool changed() const noexcept { return changed_.load(); }

 private:
  static constexpr std::size_t kHoldWords = kRefsPerPage / 64;
  using HoldBits = std::array<std::uint64_t, kHoldWords>;
  struct Holds {
    HoldBits reserved{};
    HoldBits freed_now{};
    HoldBits freed_before{};
    HoldBits quarantined{};
    unsigned held = 0;  // blocks with any of these
  };

  [[nodiscard]] std::uint64_t pages_for(std::uint64_t blocks) const {
    return (blocks + kRefsPerPage - 1) / kRefsPerPage;
  }
  [[nodiscard]] unsigned blocks_in(std::uint64_t page) const;
  [[nodiscard]] std::uint64_t find_free(const Page& page, std::uint64_t number,
                                        std::uint64_t from) const;
  void set_hold(HoldBits Holds::*kind, std::uint64_t block, bool on);
  [[nodiscard]] bool has_hold(HoldBits Holds::*kind, std::uint64_t block) const;
  void recount(std::unordered_map<std::uint64_t, Holds>::iterator it);
  Status compare(Page& page);
  void change_free(std::uint64_t page, int by);
  void add_first_owner(Page& page, std::uint64_t block);
  [[nodiscard]] std::uint64_t next_candidate(std::uint64_t from) const;
  void free_block(std::uint64_t block, std::vector<DataRun>* freed);

  PageCache& cache_;

  // Guards all below and every change of a count from or to 0.
  mutable std::mutex mutex_;
  std::vector<std::uint16_t> free_;  // counts of 0, by page
  std::vector<bool> summary_dirty_;  // by summary record
  std::unordered_map<std::uint64_t, Holds> holds_;
  std::uint64_t cursor_ = 0;  // the block after the last allocation

  // Written under mutex_.
  std::atomic<std::uint64_t> nr_blocks_{0};
  std::atomic<std::uint64_t> owned_{0};
  std::atomic<std::uint64_t> reserved_{0};
  std::atomic<std::uint64_t> held_{0};
  std::atomic<bool> changed_{false};
};

}  // namespace mapperfs::thin
