#include "metadata/page_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

namespace mapperfs::thin {

std::uint32_t Page::add(std::uint64_t index, int delta) {
  const unsigned shift = 32 * (index % 2);
  const std::uint64_t by = static_cast<std::uint64_t>(delta < 0 ? -delta : delta) << shift;
  const std::uint64_t before =
      delta < 0 ? words[index / 2].fetch_sub(by) : words[index / 2].fetch_add(by);
  const auto count_before = static_cast<std::uint32_t>(before >> shift);
  // A borrow or carry would run into the neighbour's count.
  MFS_ASSERT(delta < 0 ? count_before >= static_cast<std::uint32_t>(-delta)
                       : count_before <= UINT32_MAX - static_cast<std::uint32_t>(delta));
  return count_before;
}

bool Page::drop_if_shared(std::uint64_t index) {
  const unsigned shift = 32 * (index % 2);
  std::uint64_t seen = words[index / 2].load();
  do {
    MFS_ASSERT(static_cast<std::uint32_t>(seen >> shift) != 0);
    if (static_cast<std::uint32_t>(seen >> shift) == 1) {
      return false;
    }
  } while (!words[index / 2].compare_exchange_weak(seen, seen - (std::uint64_t{1} << shift)));
  return true;
}

void PagePin::reset() {
  if (page_ != nullptr) {
    cache_->unpin(*page_);
    page_ = nullptr;
  }
}

PageCache::PageCache(const Store& store, std::size_t limit_bytes)
    : store_(store),
      limit_pages_(std::max<std::size_t>(limit_bytes / sizeof(Page), 4 * kTrimPages)),
      buckets_(std::bit_ceil(limit_pages_ + limit_pages_ / 2)) {
  MFS_ASSERT(buckets_.size() >= kShards);  // so that one bucket has one shard
}

std::size_t PageCache::bucket_of(PageKey key) const noexcept {
  // Multiplying spreads consecutive ids; the high bits are the well-mixed ones.
  const std::uint64_t mixed = key.word * 0x9E3779B97F4A7C15U;
  return static_cast<std::size_t>(mixed >> 20) & (buckets_.size() - 1);
}

Page* PageCache::find_in_chain(PageKey key) const noexcept {
  Page* page = buckets_[bucket_of(key)].load(std::memory_order_acquire);
  while (page != nullptr && page->key() != key) {
    page = page->next.load(std::memory_order_acquire);
  }
  return page;
}

const Page* PageCache::find(PageKey key) const noexcept {
  Page* page = find_in_chain(key);
  if (page != nullptr && !page->hot.load(std::memory_order_relaxed)) {
    page->hot.store(true, std::memory_order_relaxed);
  }
  return page;
}

PagePin PageCache::pin_cached(PageKey key) {
  const std::lock_guard<std::mutex> lock(shard_of(key).mutex);
  Page* page = find_in_chain(key);
  if (page == nullptr) {
    return {};
  }
  page->pins.fetch_add(1);
  page->hot.store(true, std::memory_order_relaxed);
  return {*this, *page};
}

Result<PagePin> PageCache::pin(PageKey key) {
  Shard& shard = shard_of(key);
  std::unique_lock<std::mutex> lock(shard.mutex);
  while (true) {
    if (Page* page = find_in_chain(key); page != nullptr) {
      page->pins.fetch_add(1);
      page->hot.store(true, std::memory_order_relaxed);
      return PagePin(*this, *page);
    }
    // One thread reads a page, the others wait. Were there two, the slower one could put an old
    // version in the place of one that was changed, written and dropped meanwhile.
    if (!shard.loading.insert(key.word).second) {
      shard.loaded.wait(lock);
      continue;
    }
    const std::uint64_t generation = generation_.load();
    lock.unlock();
    trim(kTrimVisits);
    Page& page = take_page();
    Status status = read(key, page);
    lock.lock();
    shard.loading.erase(key.word);
    shard.loaded.notify_all();
    if (!status.ok() || generation != generation_.load()) {
      retire(page);
      if (!status.ok()) {
        return status;
      }
      continue;  // what was read may have been reverted since
    }
    page.pins.store(1);
    link(page);
    return PagePin(*this, page);
  }
}

Status PageCache::read(PageKey key, Page& page) const {
  auto record = store_.get(page_key(key));
  if (!record.ok()) {
    return record.status();
  }
  page.key_word.store(key.word, std::memory_order_relaxed);
  page.fresh = false;
  page.compared = false;
  DecodedPage decoded;
  if (!record->has_value()) {
    if (key.kind() == PageKind::kTree) {
      return {ENOENT, fmt::format("thin metadata: page {} is missing", key.number())};
    }
  } else if (Status s = decode_page(key.kind(), **record, decoded); !s.ok()) {
    return s.with_context(fmt::format("page {}", key.number()));
  }
  page.level = decoded.level;
  page.present = 0;
  for (unsigned i = 0; i < kPageEntries; ++i) {
    page.present += decoded.words[i] != 0 ? 1 : 0;
    page.words[i].store(decoded.words[i], std::memory_order_relaxed);
  }
  return {};
}

PagePin PageCache::create(PageKey key, unsigned level) {
  trim(kTrimVisits);
  Page& page = take_page();
  page.key_word.store(key.word, std::memory_order_relaxed);
  page.level = level;
  page.present = 0;
  page.fresh = true;
  for (auto& word : page.words) {
    word.store(0, std::memory_order_relaxed);
  }
  page.pins.store(1);
  {
    const std::lock_guard<std::mutex> lock(shard_of(key).mutex);
    MFS_ASSERT(find_in_chain(key) == nullptr);
    link(page);
  }
  mark_dirty(page);
  return {*this, page};
}

void PageCache::mark_dirty(Page& page) {
  if (page.sealed.load()) {
    pack(page);  // as it was when it was sealed
  }
  // The caller's pin keeps the page here until the list has its own.
  if (page.dirty.load() || page.dirty.exchange(true)) {
    return;
  }
  page.pins.fetch_add(1);
  const std::lock_guard<std::mutex> lock(changed_mutex_);
  dirty_.push_back(&page);
  dirty_pages_.store(dirty_.size(), std::memory_order_release);
}

void PageCache::erase(Page& page) {
  if (!page.fresh) {
    const std::lock_guard<std::mutex> lock(changed_mutex_);
    erased_.push_back(page.key());
    erased_pages_.store(erased_.size(), std::memory_order_release);
  }
  const std::lock_guard<std::mutex> lock(shard_of(page.key()).mutex);
  MFS_ASSERT(!page.dead.load() && page.pins.load() != 0);
  unlink(page);
  page.dead.store(true);
}

void PageCache::seal(StoreBatch& batch) {
  const std::lock_guard<std::mutex> lock(changed_mutex_);
  MFS_ASSERT(writing_.empty());
  writing_.swap(dirty_);
  for (Page* page : writing_) {
    page->dirty.store(false, std::memory_order_relaxed);
    if (!page->dead.load(std::memory_order_relaxed)) {
      page->fresh = false;
      page->sealed.store(true);
    }
  }
  for (const PageKey key : erased_) {
    batch.erase(page_key(key));
  }
  erased_.clear();
  dirty_pages_.store(0, std::memory_order_release);
  erased_pages_.store(0, std::memory_order_release);
  const std::lock_guard<std::mutex> pack_lock(pack_mutex_);
  batch_ = &batch;
}

void PageCache::collect() {
  // Nobody but seal(), written() and clear(), which all have their turn, touches the list. In the
  // order of the keys: the store finds the place of each beside the one before.
  std::sort(writing_.begin(), writing_.end(), [](const Page* a, const Page* b) {
    return a->key_word.load(std::memory_order_relaxed) <
           b->key_word.load(std::memory_order_relaxed);
  });
  for (Page* page : writing_) {
    if (page->sealed.load()) {
      pack(*page);
    }
  }
  const std::lock_guard<std::mutex> lock(pack_mutex_);
  batch_ = nullptr;
}

void PageCache::pack(Page& page) {
  const std::lock_guard<std::mutex> lock(pack_mutex_);
  if (!page.sealed.load()) {
    return;
  }
  MFS_ASSERT(batch_ != nullptr);
  PageWords words;
  std::uint64_t any = 0;
  for (unsigned i = 0; i < kPageEntries; ++i) {
    words[i] = page.words[i].load(std::memory_order_relaxed);
    any |= words[i];
  }
  const PageKey key = page.key();
  if (any == 0 && key.kind() != PageKind::kTree) {
    batch_->erase(page_key(key));  // a missing page of counts reads as zeros
  } else {
    batch_->put(page_key(key), encode_page(key.kind(), page.level, words));
  }
  page.sealed.store(false);
}

void PageCache::written() {
  std::vector<Page*> pages;
  {
    const std::lock_guard<std::mutex> lock(changed_mutex_);
    pages.swap(writing_);
  }
  for (Page* page : pages) {
    unpin(*page);
  }
  trim(2 * (used_pages_.load() + kSlabPages));  // holds no lock: may go round twice
}

void PageCache::clear() {
  generation_.fetch_add(1);
  std::vector<Page*> listed;
  {
    const std::lock_guard<std::mutex> lock(changed_mutex_);
    listed.swap(dirty_);
    listed.insert(listed.end(), writing_.begin(), writing_.end());
    writing_.clear();
    for (Page* page : listed) {
      page->sealed.store(false);
    }
    erased_.clear();
    dirty_pages_.store(0);
    erased_pages_.store(0);
  }
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    const std::lock_guard<std::mutex> lock(shards_[bucket % kShards].mutex);
    while (Page* page = buckets_[bucket].load()) {
      unlink(*page);
      page->dead.store(true);
      if (page->pins.load() == 0) {
        retire(*page);
      }
    }
  }
  for (Page* page : listed) {
    unpin(*page);
  }
  recycle();
}

void PageCache::link(Page& page) {
  std::atomic<Page*>& head = buckets_[bucket_of(page.key())];
  page.next.store(head.load(std::memory_order_relaxed), std::memory_order_relaxed);
  head.store(&page, std::memory_order_release);
}

void PageCache::unlink(Page& page) {
  std::atomic<Page*>* place = &buckets_[bucket_of(page.key())];
  while (Page* at = place->load(std::memory_order_relaxed)) {
    if (at == &page) {
      // Readers that stand on the page go on along its own `next`, which stays.
      place->store(page.next.load(std::memory_order_relaxed), std::memory_order_release);
      return;
    }
    place = &at->next;
  }
  const bool page_is_in_its_chain = false;
  MFS_ASSERT(page_is_in_its_chain);
}

void PageCache::unpin(Page& page) {
  const std::lock_guard<std::mutex> lock(shard_of(page.key()).mutex);
  const std::uint32_t before = page.pins.fetch_sub(1);
  MFS_ASSERT(before != 0);
  if (before == 1 && page.dead.load()) {
    retire(page);
  }
}

// The page is in no chain and has no pin; happens once to each use of a page.
void PageCache::retire(Page& page) {
  used_pages_.fetch_sub(1);
  const std::lock_guard<std::mutex> lock(free_mutex_);
  retired_.push_back(&page);
}

Page& PageCache::take_page() {
  used_pages_.fetch_add(1);
  while (true) {
    {
      const std::lock_guard<std::mutex> lock(free_mutex_);
      if (free_.empty() && retired_.size() < kTrimPages) {
        slabs_.push_back(std::make_unique<Slab>());
        for (Page& page : *slabs_.back()) {
          free_.push_back(&page);
        }
      }
      if (!free_.empty()) {
        Page& page = *free_.back();
        free_.pop_back();
        page.dead.store(false);
        page.dirty.store(false);
        page.hot.store(true);
        page.pins.store(0);
        return page;
      }
    }
    recycle();
  }
}

// Makes retired pages free again. Not inside a ReadGuard: waits for all of them.
void PageCache::recycle() {
  std::vector<Page*> pages;
  {
    const std::lock_guard<std::mutex> lock(free_mutex_);
    pages.swap(retired_);
  }
  readers_.synchronize();
  const std::lock_guard<std::mutex> lock(free_mutex_);
  free_.insert(free_.end(), pages.begin(), pages.end());
}

// Drops cold pages while there are more than the limit. Changed pages come on top of it. Looks at
// no more than `max_visits`, since the caller may hold locks: as each new page pays for some
// visits, the limit is passed by a few hundred pages at most before the clock comes round.
void PageCache::trim(std::size_t max_visits) {
  const auto excess = [this] {
    const std::size_t used = used_pages_.load(std::memory_order_relaxed);
    const std::size_t limit = limit_pages_ + dirty_pages_.load(std::memory_order_relaxed);
    return used > limit ? used - limit : 0;
  };
  if (excess() == 0) {
    return;
  }
  const std::unique_lock<std::mutex> lock(trim_mutex_, std::try_to_lock);
  if (lock.owns_lock()) {
    unlink_cold(std::max(excess(), kTrimPages), max_visits);
  }
}

void PageCache::unlink_cold(std::size_t want, std::size_t max_visits) {
  for (std::size_t seen = 0, dropped = 0; seen < max_visits && dropped < want; seen += kSlabPages) {
    Slab* slab = nullptr;
    {
      const std::lock_guard<std::mutex> lock(free_mutex_);
      clock_ = (clock_ + 1) % slabs_.size();
      slab = slabs_[clock_].get();
    }
    for (Page& page : *slab) {
      dropped += drop_if_cold(page) ? 1 : 0;
    }
  }
}

// The second visit drops what nobody has read since the first.
bool PageCache::drop_if_cold(Page& page) {
  if (page.pins.load() != 0 || page.hot.exchange(false)) {
    return false;
  }
  // The key may be another one's by the time the lock is held; then the chain does not have it.
  const PageKey key = page.key();
  const std::lock_guard<std::mutex> lock(shard_of(key).mutex);
  if (page.key() != key || find_in_chain(key) != &page || page.pins.load() != 0) {
    return false;
  }
  unlink(page);
  retire(page);
  return true;
}

}  // namespace mapperfs::thin
