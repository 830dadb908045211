#include "metadata/data_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>

namespace mapperfs::thin {
namespace {

constexpr std::uint64_t kNone = DataLot::kNone;

void append_block(std::vector<DataRun>& runs, std::uint64_t block) {
  if (!runs.empty() && runs.back().begin + runs.back().length == block) {
    ++runs.back().length;
  } else {
    runs.push_back({block, 1});
  }
}

}  // namespace

Result<CountPages> CountPages::load(PageCache& cache, PageKind kind,
                                    const std::vector<std::uint64_t>& numbers) {
  auto pages = load_any(cache, kind, numbers);
  for (const std::uint64_t number : numbers) {
    if (pages.ok() && pages->page_of(number).count(number % kRefsPerPage) == 0) {
      return Status(EILSEQ,
                    fmt::format("thin metadata: {} {} is used and has no references",
                                kind == PageKind::kPageRefs ? "page" : "data block", number));
    }
  }
  return pages;
}

Result<CountPages> CountPages::load_any(PageCache& cache, PageKind kind,
                                        const std::vector<std::uint64_t>& numbers) {
  std::vector<std::uint64_t> wanted;
  for (const std::uint64_t number : numbers) {
    if (wanted.empty() || wanted.back() != number / kRefsPerPage) {
      wanted.push_back(number / kRefsPerPage);
    }
  }
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  CountPages pages;
  pages.pages_.reserve(wanted.size());
  for (const std::uint64_t page : wanted) {
    auto pin = cache.pin(PageKey::of(kind, page));
    if (!pin.ok()) {
      return pin.status();
    }
    pages.pages_.emplace_back(page, pin.take());
  }
  return pages;
}

Page& CountPages::page_of(std::uint64_t number) const {
  const std::uint64_t page = number / kRefsPerPage;
  const auto it =
      std::lower_bound(pages_.begin(), pages_.end(), page,
                       [](const auto& entry, std::uint64_t n) { return entry.first < n; });
  MFS_ASSERT(it != pages_.end() && it->first == page);
  return *it->second;
}

void DataMap::reset(std::uint64_t nr_blocks) {
  const Changes changes(*this);
  for (const std::shared_ptr<DataLot>& lot : lots_) {
    lot->left = 0;
    lot->given = 0;
    lot->listed = false;
    lot->page.reset();
  }
  lots_.clear();
  lending_ = always_lend_;
  lent_ = 0;
  free_.assign(pages_for(nr_blocks), 0);
  nr_blocks_ = nr_blocks;
  for (std::uint64_t page = 0; page < free_.size(); ++page) {
    free_[page] = static_cast<std::uint16_t>(blocks_in(page));
  }
  summary_dirty_.assign((free_.size() + kSummaryPages - 1) / kSummaryPages, false);
  holds_.clear();
  cursor_ = 0;
  owned_ = 0;
  reserved_ = 0;
  held_ = 0;
  changed_ = false;
}

Status DataMap::load_summary(std::uint64_t record, const Summary& summary) {
  for (std::uint64_t i = 0; i < kSummaryPages; ++i) {
    const std::uint64_t page = record * kSummaryPages + i;
    if (page >= free_.size() ? summary[i] != 0 : summary[i] > blocks_in(page)) {
      return {EILSEQ, "thin metadata: a summary counts more free blocks than there are"};
    }
    if (page < free_.size()) {
      free_[page] = summary[i];
    }
  }
  return {};
}

void DataMap::finish_loading() {
  const Changes changes(*this);
  std::uint64_t free = 0;
  for (const std::uint16_t count : free_) {
    free += count;
  }
  owned_ = nr_blocks_ - free;
}

std::uint64_t DataMap::unlent() const {
  const std::uint64_t taken = owned_ + held_;
  const std::uint64_t blocks = nr_blocks_;
  return blocks > taken ? blocks - taken : 0;
}

unsigned DataMap::blocks_in(std::uint64_t page) const {
  const std::uint64_t begin = page * kRefsPerPage;
  return static_cast<unsigned>(std::min<std::uint64_t>(kRefsPerPage, nr_blocks_ - begin));
}

// The first page at or after `from`, wrapping, that may have a block to give.
std::uint64_t DataMap::next_candidate(std::uint64_t from) const {
  for (std::uint64_t i = 0; i < free_.size(); ++i) {
    const std::uint64_t page = (from + i) % free_.size();
    if (free_[page] == 0) {
      continue;
    }
    const auto holds = holds_.find(page);
    if (holds == holds_.end() || holds->second.held < free_[page]) {
      return page;
    }
  }
  return kNone;
}

std::uint64_t DataMap::find_free(const Page& page, std::uint64_t number, std::uint64_t from) const {
  const auto it = holds_.find(number);
  for (std::uint64_t i = from; i < blocks_in(number); ++i) {
    if (page.count(i) != 0) {
      continue;
    }
    if (it == holds_.end() || (it->second.any(i / 64) >> (i % 64) & 1U) == 0) {
      return number * kRefsPerPage + i;
    }
  }
  return kNone;
}

Result<std::uint64_t> DataMap::allocate(const std::shared_ptr<DataLot>& lot) {
  if (lending()) {
    const std::lock_guard<std::mutex> own(lot->mutex);
    if (const std::uint64_t block = take_lent(lot); block != kNone) {
      lot->given |= lot->bit_of(block);
      return block;
    }
  }
  return allocate();
}

Result<std::uint64_t> DataMap::allocate() {
  PagePin pin;  // of the page to look in; read without the mutex
  while (true) {
    std::uint64_t number = kNone;
    {
      const Changes changes(*this);
      auto block = reserve_next(pin, number);
      if (!block.ok() || *block != kNone) {
        return block;
      }
    }
    auto loaded = cache_.pin(PageKey::of(PageKind::kDataRefs, number));
    if (!loaded.ok()) {
      return loaded.status();
    }
    pin = loaded.take();
  }
}

// Under mutex_. The next free block, reserved; kNone: the page `number` is to be had in memory
// first.
Result<std::uint64_t> DataMap::reserve_next(const PagePin& pin, std::uint64_t& number) {
  while (unlent() != 0 || recall()) {
    // The rest of the cursor's page first; it comes again, from its start, after all others.
    std::uint64_t from = cursor_ % kRefsPerPage;
    number = next_candidate(cursor_ / kRefsPerPage);
    MFS_ASSERT(number != kNone);
    if (number != cursor_ / kRefsPerPage) {
      from = 0;
    }
    if (!pin || pin->key() != PageKey::of(PageKind::kDataRefs, number) || pin->dead.load()) {
      return kNone;
    }
    if (Status s = compare(*pin); !s.ok()) {
      return s;
    }
    const std::uint64_t block = find_free(*pin, number, from);
    if (block == kNone) {
      if (from == 0) {
        return Status(EILSEQ, fmt::format("thin metadata: the summary of page {} of the data map "
                                          "promises a free block that is not there",
                                          number));
      }
      // Nothing behind the cursor here: go on at the next page.
      cursor_ = number + 1 < free_.size() ? (number + 1) * kRefsPerPage : 0;
      continue;
    }
    set_hold(&Holds::reserved, block, true);
    ++reserved_;
    cursor_ = block + 1 < nr_blocks_ ? block + 1 : 0;
    return block;
  }
  return Status(ENOSPC, fmt::format("thin metadata: no free data block of {}", nr_blocks_.load()));
}

void DataMap::cancel(std::uint64_t block) {
  make_reserved(block);
  const Changes changes(*this);
  if (has_hold(&Holds::reserved, block)) {  // else an abort took it back before
    set_hold(&Holds::reserved, block, false);
    --reserved_;
  }
}

void DataMap::release(const std::vector<DataRun>& runs) {
  const Changes changes(*this);
  for (const DataRun& run : runs) {
    for (std::uint64_t block = run.begin; block < run.begin + run.length; ++block) {
      set_hold(&Holds::quarantined, block, false);
    }
  }
}

Status DataMap::take_reserved(DataLot& lot, std::uint64_t block) {
  if (lending()) {
    {
      const std::lock_guard<std::mutex> own(lot.mutex);
      if (const std::uint64_t bit = lot.bit_of(block); (lot.given & bit) != 0) {
        add_lent_owner(lot, block);
        lot.given &= ~bit;
        return {};
      }
    }
    make_reserved(block);  // of another device's lot, then
  }
  auto pin = cache_.pin(PageKey::of(PageKind::kDataRefs, block / kRefsPerPage));
  if (!pin.ok()) {
    return pin.status();
  }
  const Changes changes(*this);
  if (block >= nr_blocks_ || !has_hold(&Holds::reserved, block)) {
    return {EINVAL, fmt::format("thin metadata: data block {} is not allocated", block)};
  }
  if (Status s = compare(**pin); !s.ok()) {
    return s;
  }
  add_first_owner(**pin, block);
  set_hold(&Holds::reserved, block, false);
  --reserved_;
  return {};
}

std::optional<std::uint64_t> DataMap::take_cached(const std::shared_ptr<DataLot>& lot) {
  if (lending()) {
    const std::unique_lock<std::mutex> own = try_lock_briefly(lot->mutex);
    const std::uint64_t block = own.owns_lock() ? take_lent(lot) : kNone;
    if (block != kNone) {
      add_lent_owner(*lot, block);
      return block;
    }
  }
  return take_unlent();
}

// Only the page that the cursor is in: to find another may mean to look at many, and to read it.
std::optional<std::uint64_t> DataMap::take_unlent() {
  const Changes changes(*this);  // never held over reading
  if (unlent() == 0) {
    return std::nullopt;
  }
  const std::uint64_t number = cursor_ / kRefsPerPage;
  const PagePin pin = cache_.pin_cached(PageKey::of(PageKind::kDataRefs, number));
  const std::uint64_t block =
      pin && compare(*pin).ok() ? find_free(*pin, number, cursor_ % kRefsPerPage) : kNone;
  if (block == kNone) {
    return std::nullopt;
  }
  add_first_owner(*pin, block);
  cursor_ = block + 1 < nr_blocks_ ? block + 1 : 0;
  return block;
}

void DataMap::add_first_owner(Page& page, std::uint64_t block) {
  MFS_ASSERT(page.count(block % kRefsPerPage) == 0);
  cache_.mark_dirty(page);
  page.add(block % kRefsPerPage, 1);
  change_free(block / kRefsPerPage, -1);
  ++owned_;
}

void DataMap::untake(std::uint64_t block) {
  PagePin pin = cache_.pin_cached(PageKey::of(PageKind::kDataRefs, block / kRefsPerPage));
  MFS_ASSERT(pin);  // changed just now, so it cannot have been dropped
  const Changes changes(*this);
  const std::uint32_t before = pin->add(block % kRefsPerPage, -1);
  MFS_ASSERT(before == 1);
  set_hold(&Holds::reserved, block, true);
  lose_owner(block);
  ++reserved_;
}

// Under mutex_. Once is enough for as long as the page is in memory.
Status DataMap::compare(Page& page) {
  if (page.compared) {
    return {};
  }
  const std::uint64_t number = page.key().number();
  const unsigned blocks = number < free_.size() ? blocks_in(number) : 0;
  unsigned zeros = 0;
  for (unsigned i = 0; i < blocks; ++i) {
    zeros += page.count(i) == 0 ? 1 : 0;
  }
  if (blocks == 0 || zeros != free_[number]) {
    return {EILSEQ, fmt::format("thin metadata: page {} of the data map has {} free blocks, its "
                                "summary says {}",
                                number, zeros, blocks == 0 ? 0U : free_[number])};
  }
  page.compared = true;
  return {};
}

Result<CountPages> DataMap::load_counts(const std::vector<std::uint64_t>& blocks) {
  auto pages = CountPages::load(cache_, PageKind::kDataRefs, blocks);
  if (pages.ok()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [number, page] : pages->pages_) {
      if (Status s = compare(*page); !s.ok()) {
        return s;
      }
    }
  }
  return pages;
}

void DataMap::drop_owner(const CountPages& pages, const std::vector<std::uint64_t>& blocks,
                         std::vector<DataRun>* freed) {
  for (const std::uint64_t block : blocks) {
    Page& page = pages.page_of(block);
    cache_.mark_dirty(page);
    // 0 only if damaged metadata has a leaf name a block twice; then it is free already.
    if (page.count(block % kRefsPerPage) == 0 || page.drop_if_shared(block % kRefsPerPage)) {
      continue;
    }
    const Changes changes(*this);
    // The owner that saw 1 is the only one left, so it is still 1, if the metadata is sound.
    if (page.count(block % kRefsPerPage) != 0 && page.add(block % kRefsPerPage, -1) == 1) {
      free_block(block, freed);
    }
  }
}

// Under mutex_; the block is on hold for another reason already. That it had an owner is known only
// if its lot was folded since.
void DataMap::lose_owner(std::uint64_t block) {
  if (has_hold(&Holds::lent, block)) {
    set_hold(&Holds::lent, block, false);
    --lent_;
    return;
  }
  change_free(block / kRefsPerPage, 1);
  --owned_;
}

void DataMap::free_block(std::uint64_t block, std::vector<DataRun>* freed) {
  set_hold(&Holds::freed_now, block, true);
  lose_owner(block);
  if (freed != nullptr) {
    set_hold(&Holds::quarantined, block, true);
    append_block(*freed, block);
  }
}

Status DataMap::add_first_or_more(const std::vector<std::uint64_t>& blocks) {
  auto pages = CountPages::load_any(cache_, PageKind::kDataRefs, blocks);
  if (!pages.ok()) {
    return pages.status();
  }
  const Changes changes(*this);
  for (auto& [number, page] : pages->pages_) {
    if (Status s = compare(*page); !s.ok()) {
      return s;
    }
  }
  for (const std::uint64_t block : blocks) {
    MFS_ASSERT(block < nr_blocks_);
    Page& page = pages->page_of(block);
    cache_.mark_dirty(page);
    if (page.add(block % kRefsPerPage, 1) == 0) {
      change_free(block / kRefsPerPage, -1);
      ++owned_;
    }
  }
  return {};
}

Result<std::uint32_t> DataMap::owners(std::uint64_t block) {
  if (block >= nr_blocks()) {
    return Status(EINVAL, fmt::format("thin metadata: data block {} is past the end ({})", block,
                                      nr_blocks()));
  }
  auto pin = cache_.pin(PageKey::of(PageKind::kDataRefs, block / kRefsPerPage));
  if (!pin.ok()) {
    return pin.status();
  }
  return (*pin)->count(block % kRefsPerPage);
}

void DataMap::grow(std::uint64_t nr_blocks) {
  const Changes changes(*this);
  const std::uint64_t old_pages = free_.size();
  const unsigned old_last = old_pages == 0 ? 0 : blocks_in(old_pages - 1);
  MFS_ASSERT(nr_blocks >= nr_blocks_);
  nr_blocks_ = nr_blocks;
  free_.resize(pages_for(nr_blocks), 0);
  summary_dirty_.resize((free_.size() + kSummaryPages - 1) / kSummaryPages, false);
  if (old_pages != 0) {
    change_free(old_pages - 1, static_cast<int>(blocks_in(old_pages - 1) - old_last));
  }
  for (std::uint64_t page = old_pages; page < free_.size(); ++page) {
    change_free(page, static_cast<int>(blocks_in(page)));
  }
}

void DataMap::change_free(std::uint64_t page, int by) {
  free_[page] = static_cast<std::uint16_t>(free_[page] + by);
  MFS_ASSERT(free_[page] <= kRefsPerPage);
  summary_dirty_[page / kSummaryPages] = true;
  changed_ = true;
}

bool DataMap::has_hold(HoldBits Holds::*kind, std::uint64_t block) const {
  const auto it = holds_.find(block / kRefsPerPage);
  const std::uint64_t bit = block % kRefsPerPage;
  return it != holds_.end() && ((it->second.*kind)[bit / 64] >> (bit % 64) & 1U) != 0;
}

void DataMap::set_hold(HoldBits Holds::*kind, std::uint64_t block, bool on) {
  auto it = holds_.find(block / kRefsPerPage);
  if (it == holds_.end()) {
    if (!on) {
      return;
    }
    it = holds_.try_emplace(block / kRefsPerPage).first;
  }
  const std::uint64_t index = block % kRefsPerPage;
  const std::uint64_t bit = std::uint64_t{1} << (index % 64);
  const auto any = [&] { return (it->second.any(index / 64) & bit) != 0; };
  const bool before = any();
  std::uint64_t& word = (it->second.*kind)[index / 64];
  word = on ? word | bit : word & ~bit;
  if (before && !any()) {
    --held_;
    --it->second.held;
    if (it->second.empty()) {
      holds_.erase(it);
    }
  } else if (!before && any()) {
    ++held_;
    ++it->second.held;
  }
}

void DataMap::recount(std::unordered_map<std::uint64_t, Holds>::iterator it) {
  Holds& h = it->second;
  unsigned held = 0;
  for (std::size_t i = 0; i < kHoldWords; ++i) {
    held += static_cast<unsigned>(std::popcount(h.any(i)));
  }
  MFS_ASSERT(held <= h.held);
  held_ -= h.held - held;
  h.held = held;
}

void DataMap::seal(StoreBatch& batch) {
  const Changes changes(*this);
  end_lots();
  for (std::uint64_t record = 0; record < summary_dirty_.size(); ++record) {
    if (!summary_dirty_[record]) {
      continue;
    }
    Summary summary{};
    const std::uint64_t first = record * kSummaryPages;
    const std::uint64_t count = std::min<std::uint64_t>(kSummaryPages, free_.size() - first);
    std::copy_n(free_.begin() + static_cast<std::ptrdiff_t>(first), count, summary.begin());
    batch.put(number_key(kSummaryPrefix, record), encode(summary));
    summary_dirty_[record] = false;
  }
  for (auto& [page, holds] : holds_) {
    holds.freed_before = holds.freed_now;
    holds.freed_now = {};
  }
  changed_ = false;
}

void DataMap::written() {
  const Changes changes(*this);
  for (auto it = holds_.begin(); it != holds_.end();) {
    it->second.freed_before = {};
    recount(it);
    it = it->second.empty() ? holds_.erase(it) : std::next(it);
  }
}

}  // namespace mapperfs::thin
