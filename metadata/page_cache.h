// The pages of a thin pool in memory: a bounded cache in front of the store that also gathers what
// changed for the next commit.
//
// Finding a page takes no lock: readers walk the hash chains inside a ReadGuard of readers(), and a
// page that leaves a chain is used again only after a grace period. Everything slower works on
// pins: a pinned page stays. Pages that changed and are not yet on stable storage are pinned by the
// lists they are on, so that only pages which the store has are dropped.
//
// Page states: clean -> dirty (mark_dirty) -> writing (seal) -> clean (written); or dead (erase),
// recycled when its last pin goes. Ids are never used twice, so a key names one page for ever.
//
// Sealing only marks pages, since everybody waits for it. They are packed into the batch after
// that, by collect(), or by whoever wants to change one before its turn has come.
//
// Lock order: gate of the transaction, a shard, changed_mutex_, pack_mutex_, free_mutex_.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <vector>

#include "engine/status.h"
#include "metadata/sharded_lock.h"
#include "metadata/store.h"
#include "metadata/thin_format.h"

namespace mapperfs::thin {

// One page. The words of a tree page that is reachable from two roots never change; others change
// under the lock of the one device that reaches them, word by word, while readers look on. Counts
// change by atomic addition.
struct Page {
  // Key and level are constant while the page is in a chain; the clock looks at keys of others.
  std::atomic<std::uint64_t> key_word{0};
  unsigned level = 0;
  unsigned present = 0;  // words of a tree page that are not 0; guarded as the words
  std::atomic<std::uint32_t> pins{0};
  std::atomic<bool> hot{false};     // read since the clock last came by
  std::atomic<bool> dirty{false};   // on the list of changes
  std::atomic<bool> sealed{false};  // its words belong to the batch and are not in it yet
  std::atomic<bool> dead{false};
  bool fresh = false;     // in no sealed batch yet; guarded as the words
  bool compared = false;  // counts that were found to agree with their summary; DataMap's
  std::atomic<Page*> next{nullptr};
  // Apart from the above: pins come and go from everywhere.
  alignas(kCacheLineBytes) std::array<std::atomic<std::uint64_t>, kPageEntries> words{};

  [[nodiscard]] PageKey key() const { return {key_word.load(std::memory_order_relaxed)}; }
  [[nodiscard]] std::uint64_t word(std::uint64_t index) const {
    return words[index].load(std::memory_order_acquire);
  }
  [[nodiscard]] std::uint32_t count(std::uint64_t index) const {
    return static_cast<std::uint32_t>(word(index / 2) >> (32 * (index % 2)));
  }
  // Adds to a count, which must not pass 0 or 2^32 - 1. Returns the count before.
  std::uint32_t add(std::uint64_t index, int delta);
  // Takes one from a count that is more than 1; false and no change if it is 1.
  bool drop_if_shared(std::uint64_t index);
};

class PageCache;

// A pin on a page; lets go when destroyed.
class PagePin {
 public:
  PagePin() = default;
  PagePin(PageCache& cache, Page& page) : cache_(&cache), page_(&page) {}
  PagePin(PagePin&& other) noexcept : cache_(other.cache_), page_(other.page_) {
    other.page_ = nullptr;
  }
  PagePin& operator=(PagePin&& other) noexcept {
    if (this != &other) {
      reset();
      cache_ = other.cache_;
      page_ = other.page_;
      other.page_ = nullptr;
    }
    return *this;
  }
  PagePin(const PagePin&) = delete;
  PagePin& operator=(const PagePin&) = delete;
  ~PagePin() { reset(); }
  void reset();
  explicit operator bool() const { return page_ != nullptr; }
  Page* operator->() const { return page_; }
  Page& operator*() const { return *page_; }

 private:
  PageCache* cache_ = nullptr;
  Page* page_ = nullptr;
};

class PageCache {
 public:
  // `store` outlives the cache.
  PageCache(const Store& store, std::size_t limit_bytes);
  PageCache(const PageCache&) = delete;
  PageCache& operator=(const PageCache&) = delete;

  [[nodiscard]] ShardedLock& readers() const { return readers_; }
  // The page if it is in memory, without a pin: only inside a ReadGuard of readers().
  [[nodiscard]] const Page* find(PageKey key) const noexcept;
  // The page if it is in memory.
  [[nodiscard]] PagePin pin_cached(PageKey key);
  // The page, read from the store if need be. A page of counts that the store does not have is all
  // zero; a tree page that it does not have is ENOENT. Not inside a ReadGuard.
  Result<PagePin> pin(PageKey key);
  // A new, empty, dirty page. The key is new.
  PagePin create(PageKey key, unsigned level);
  // The page's words are about to change, or have. The caller is inside the transaction's gate.
  void mark_dirty(Page& page);
  // The page is no more; its record goes with the next commit.
  void erase(Page& page);

  // The transaction's gate is held for writing: what has changed belongs to `batch` from now on.
  // Changed pages stay pinned until written().
  void seal(StoreBatch& batch);
  // Puts the rest of what was sealed into the batch of seal(), which is complete then.
  void collect();
  void written();
  // Forgets everything, changes too. No transaction is open or being written. Pins stay valid, but
  // their pages are dead.
  void clear();

  [[nodiscard]] std::size_t dirty_bytes() const noexcept {
    return dirty_pages_.load(std::memory_order_relaxed) * sizeof(Page);
  }
  // Of the batch: from seal() to written(), for the thread whose turn it is.
  [[nodiscard]] std::size_t sealed_pages() const noexcept { return writing_.size(); }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return used_pages_.load(std::memory_order_relaxed) * sizeof(Page);
  }
  [[nodiscard]] bool changed() const noexcept {
    return dirty_pages_.load(std::memory_order_acquire) != 0 ||
           erased_pages_.load(std::memory_order_acquire) != 0;
  }

 private:
  friend class PagePin;
  static constexpr std::size_t kShards = 64;
  static constexpr std::size_t kSlabPages = 64;
  static constexpr std::size_t kTrimPages = 64;
  static constexpr std::size_t kTrimVisits = 512;

  struct alignas(kCacheLineBytes) Shard {
    std::mutex mutex;
    std::condition_variable loaded;
    std::unordered_set<std::uint64_t> loading;  // keys that one thread is reading now
  };
  using Slab = std::array<Page, kSlabPages>;

  [[nodiscard]] std::size_t bucket_of(PageKey key) const noexcept;
  Shard& shard_of(PageKey key) { return shards_[bucket_of(key) % kShards]; }
  [[nodiscard]] Page* find_in_chain(PageKey key) const noexcept;
  void link(Page& page);
  void unlink(Page& page);
  void unpin(Page& page);
  void retire(Page& page);
  Page& take_page();
  void pack(Page& page);
  void trim(std::size_t max_visits);
  void unlink_cold(std::size_t want, std::size_t max_visits);
  bool drop_if_cold(Page& page);
  void recycle();
  Status read(PageKey key, Page& page) const;

  const Store& store_;
  const std::size_t limit_pages_;
  mutable ShardedLock readers_;
  std::vector<std::atomic<Page*>> buckets_;
  std::array<Shard, kShards> shards_;
  std::atomic<std::uint64_t> generation_{0};  // of clear()

  std::mutex changed_mutex_;
  std::vector<Page*> dirty_;
  std::vector<Page*> writing_;
  std::vector<PageKey> erased_;
  std::atomic<std::size_t> dirty_pages_{0};
  std::atomic<std::size_t> erased_pages_{0};

  std::mutex pack_mutex_;
  StoreBatch* batch_ = nullptr;  // guarded by pack_mutex_; from seal() to collect()

  std::mutex trim_mutex_;
  std::size_t clock_ = 0;  // guarded by trim_mutex_

  mutable std::mutex free_mutex_;
  std::vector<std::unique_ptr<Slab>> slabs_;
  std::vector<Page*> free_;
  std::vector<Page*> retired_;  // out of every chain, waiting for a grace period
  std::atomic<std::size_t> used_pages_{0};
};

}  // namespace mapperfs::thin
