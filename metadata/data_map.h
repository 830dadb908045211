// Which data blocks have how many owners, which are free, and who may have one next.
//
// Counts live in pages of the cache (kDataRefs), of which a 16-bit summary each, the number of
// counts that are 0, is always in memory: 2 bytes for 512 blocks. A block with count 0 is still not
// free while it is on hold:
//   reserved     handed out by allocate(), not inserted yet
//   freed now    lost its last owner in the open transaction
//   freed before ... in the transaction that is being written
//   quarantined  handed out by a removal for discarding, not released yet
//   lent         in a device's lot, see metadata/data_lot.h
// Holds are only in memory: after a crash a block is what its count says, so nothing leaks.
// A page that comes from the store is compared with its summary before its counts change from or to
// 0; from then on the two change together.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/status.h"
#include "metadata/data_lot.h"
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
  // `always_lend`: though no threads get in each other's way, and to the last block; for tests.
  explicit DataMap(PageCache& cache, bool always_lend = false)
      : cache_(cache), always_lend_(always_lend) {}
  DataMap(const DataMap&) = delete;
  DataMap& operator=(const DataMap&) = delete;

  // Opening and reverting: no other call at the same time.
  void reset(std::uint64_t nr_blocks);
  Status load_summary(std::uint64_t record, const Summary& summary);
  void finish_loading();

  // In the gate. With a lot: a block for its device.
  Result<std::uint64_t> allocate();
  Result<std::uint64_t> allocate(const std::shared_ptr<DataLot>& lot);
  void cancel(std::uint64_t block);
  void release(const std::vector<DataRun>& runs);
  // In the gate. The first owner of a block that allocate() gave out, most likely from this lot;
  // EINVAL: it did not.
  Status take_reserved(DataLot& lot, std::uint64_t block);
  // In the gate. Both at once, if that takes no reading and no search; nullopt: not now.
  std::optional<std::uint64_t> take_cached(const std::shared_ptr<DataLot>& lot);
  // In the gate. The lot's device is gone: what it has left is anybody's.
  void give_back(DataLot& lot);
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
  // All of one moment, but for what is just being taken from lots: that is in one of the two.
  [[nodiscard]] Usage usage() const;
  [[nodiscard]] std::uint64_t nr_blocks() const noexcept { return nr_blocks_.load(); }
  // Whether more than `blocks` are allocatable; exact, and cheap where the answer is clear.
  [[nodiscard]] bool allocatable_exceeds(std::uint64_t blocks) const {
    return unlent_.load(std::memory_order_relaxed) > blocks || usage().allocatable > blocks;
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
    HoldBits lent{};
    unsigned held = 0;   // blocks with any of these
    unsigned loans = 0;  // bits of the words that are a listed lot's, whatever is left of it

    [[nodiscard]] bool empty() const { return held == 0 && loans == 0; }
    [[nodiscard]] std::uint64_t any(std::size_t word) const {
      return reserved[word] | freed_now[word] | freed_before[word] | quarantined[word] | lent[word];
    }
  };
  static_assert(kRefsPerPage % kLotBlocks == 0 && kLotBlocks == 64);  // a lot is a word of each

  // mutex_, for who changes anything; who has to wait for it lets devices have lots.
  class Changes {
   public:
    explicit Changes(DataMap& map);
    ~Changes() { map_.publish(); }
    Changes(const Changes&) = delete;
    Changes& operator=(const Changes&) = delete;

   private:
    DataMap& map_;
    std::unique_lock<std::mutex> lock_;
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
  [[nodiscard]] std::uint64_t unlent() const;
  void publish() { unlent_.store(unlent(), std::memory_order_relaxed); }
  std::optional<std::uint64_t> take_unlent();
  Result<std::uint64_t> reserve_next(const PagePin& pin, std::uint64_t& number);
  Status compare(Page& page);
  void change_free(std::uint64_t page, int by);
  void add_first_owner(Page& page, std::uint64_t block);
  [[nodiscard]] std::uint64_t next_candidate(std::uint64_t from) const;
  void lose_owner(std::uint64_t block);
  void free_block(std::uint64_t block, std::vector<DataRun>* freed);

  // data_lot.cc
  [[nodiscard]] bool lending() const { return lending_.load(std::memory_order_relaxed); }
  std::uint64_t take_lent(const std::shared_ptr<DataLot>& lot);
  bool lend(const std::shared_ptr<DataLot>& lot);
  std::uint64_t fold(DataLot& lot);
  void unlist(DataLot& lot);
  void end_lots();
  bool recall();
  void make_reserved(std::uint64_t block);
  void add_lent_owner(DataLot& lot, std::uint64_t block);

  PageCache& cache_;
  const bool always_lend_;
  std::atomic<bool> lending_{false};      // set where threads meet, until the next seal
  std::atomic<std::uint64_t> unlent_{0};  // allocatable and in no lot; written under mutex_

  // Guards all below and every change of a count from or to 0, but for those of blocks in lots.
  alignas(kCacheLineBytes) mutable std::mutex mutex_;
  std::vector<std::uint16_t> free_;  // counts of 0, by page
  std::vector<bool> summary_dirty_;  // by summary record
  std::unordered_map<std::uint64_t, Holds> holds_;
  std::uint64_t cursor_ = 0;  // the block after the last allocation

  std::vector<std::shared_ptr<DataLot>> lots_;  // those with blocks on loan, at most kMostLots
  std::uint64_t owned_ = 0;                     // but for what was taken from lots_
  std::uint64_t reserved_ = 0;                  // likewise
  std::uint64_t held_ = 0;
  std::uint64_t lent_ = 0;  // held_ for lots_, whether taken or left

  // Written under mutex_.
  std::atomic<std::uint64_t> nr_blocks_{0};
  std::atomic<bool> changed_{false};
};

}  // namespace mapperfs::thin
