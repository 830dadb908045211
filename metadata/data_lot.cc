// Lending blocks to devices: the part of DataMap that has to do with lots.
#include "metadata/data_lot.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "metadata/data_map.h"

namespace mapperfs::thin {

std::uint64_t DataLot::take() {
  for (std::uint64_t seen = left.load(); seen != 0; seen = left.load()) {
    const std::uint64_t bit = seen & (~seen + 1);
    if ((left.fetch_and(~bit) & bit) != 0) {  // else it was recalled just now
      return first + static_cast<unsigned>(std::countr_zero(bit));
    }
  }
  return kNone;
}

DataMap::Changes::Changes(DataMap& map) : map_(map), lock_(map.mutex_, std::try_to_lock) {
  if (lock_.owns_lock()) {
    return;
  }
  map.lending_.store(true, std::memory_order_relaxed);
  lock_ = try_lock_briefly(map.mutex_);  // it is held for moments: less than it takes to sleep
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
}

DataMap::Usage DataMap::usage() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::uint64_t left = 0;
  for (const std::shared_ptr<DataLot>& lot : lots_) {
    left += static_cast<unsigned>(std::popcount(lot->left.load()));
  }
  MFS_ASSERT(left <= lent_);
  return {nr_blocks_, owned_ + reserved_ + lent_ - left, unlent() + left};
}

// A block of the device's lot, which gets other blocks when it is empty; DataLot::kNone: there is
// none to be had that way now. Under the lot's mutex.
std::uint64_t DataMap::take_lent(const std::shared_ptr<DataLot>& lot) {
  const std::uint64_t block = lot->take();
  if (block != DataLot::kNone) {
    return block;
  }
  const Changes changes(*this);
  fold(*lot);
  if (lend(lot)) {
    return lot->take();  // who would recall it needs the mutex
  }
  unlist(*lot);
  return DataLot::kNone;
}

// What is free from the cursor to the end of its group, if that takes no reading and no search.
// Under both mutexes; the lot is folded.
bool DataMap::lend(const std::shared_ptr<DataLot>& lot) {
  const std::uint64_t scarce = always_lend_ ? 0 : kScarceBlocks;
  if (unlent() <= scarce || (!lot->listed && lots_.size() >= kMostLots)) {
    return false;
  }
  const std::uint64_t number = cursor_ / kRefsPerPage;
  PagePin pin = cache_.pin_cached(PageKey::of(PageKind::kDataRefs, number));
  const std::uint64_t block =
      pin && compare(*pin).ok() ? find_free(*pin, number, cursor_ % kRefsPerPage) : DataLot::kNone;
  if (block == DataLot::kNone) {
    return false;
  }
  Holds& holds = holds_[number];
  const std::size_t word = block % kRefsPerPage / kLotBlocks;
  if ((holds.loans >> word & 1U) != 0) {
    return false;
  }
  lot->first = block - block % kLotBlocks;
  const std::uint64_t end = std::min<std::uint64_t>(lot->first + kLotBlocks, nr_blocks_);
  std::uint64_t bits = 0;
  for (std::uint64_t at = block; at < end; ++at) {
    bits |= pin->count(at % kRefsPerPage) == 0 ? lot->bit_of(at) : 0;
  }
  bits &= ~holds.any(word);
  const auto count = static_cast<unsigned>(std::popcount(bits));
  holds.loans |= 1U << word;
  holds.lent[word] = bits;
  holds.held += count;
  held_ += count;
  lent_ += count;
  cursor_ = end < nr_blocks_ ? end : 0;
  lot->page = std::move(pin);
  lot->left.store(bits);
  if (!lot->listed) {
    lot->listed = true;
    lots_.push_back(lot);
  }
  return true;
}

// Ends the loan: what is left is free, what was given out becomes reserved, the rest has owners.
// Under both mutexes, or with the gate held for writing under the map's. The lowest of what was
// left; kNone: nothing was.
std::uint64_t DataMap::fold(DataLot& lot) {
  if (!lot.page) {
    return DataLot::kNone;
  }
  const std::uint64_t left = lot.left.exchange(0);
  const std::uint64_t given = std::exchange(lot.given, 0);
  const std::uint64_t number = lot.first / kRefsPerPage;
  const auto it = holds_.find(number);
  MFS_ASSERT(it != holds_.end());
  Holds& holds = it->second;
  const std::size_t word = lot.first % kRefsPerPage / kLotBlocks;
  const std::uint64_t lent = std::exchange(holds.lent[word], 0);
  MFS_ASSERT((lent & given) == given && (lent & left) == left && (left & given) == 0);
  holds.reserved[word] |= given;
  holds.loans &= ~(1U << word);
  const auto taken = static_cast<unsigned>(std::popcount(lent & ~left & ~given));
  const auto waiting = static_cast<unsigned>(std::popcount(given));
  const auto all = static_cast<unsigned>(std::popcount(lent));
  owned_ += taken;
  reserved_ += waiting;
  lent_ -= all;
  held_ -= all - waiting;
  holds.held -= all - waiting;
  if (taken != 0) {
    change_free(number, -static_cast<int>(taken));
  }
  if (holds.empty()) {
    holds_.erase(it);
  }
  lot.page.reset();
  return left == 0 ? DataLot::kNone : lot.first + static_cast<unsigned>(std::countr_zero(left));
}

// Under the map's mutex; the lot is folded.
void DataMap::unlist(DataLot& lot) {
  if (lot.listed) {
    lot.listed = false;
    std::erase_if(lots_, [&lot](const auto& listed) { return listed.get() == &lot; });
  }
}

void DataMap::give_back(DataLot& lot) {
  const std::lock_guard<std::mutex> own(lot.mutex);
  const Changes changes(*this);
  fold(lot);
  unlist(lot);
}

// With the gate held for writing, under mutex_. What is left is given out first afterwards, so that
// lots leave no holes.
void DataMap::end_lots() {
  for (const std::shared_ptr<DataLot>& lot : lots_) {
    cursor_ = std::min(cursor_, fold(*lot));
    lot->listed = false;
  }
  lots_.clear();
  MFS_ASSERT(lent_ == 0);
  lending_.store(always_lend_, std::memory_order_relaxed);
}

// Makes what is left in lots free for all. False: nothing is. Under mutex_.
bool DataMap::recall() {
  std::uint64_t recalled = 0;
  for (const std::shared_ptr<DataLot>& lot : lots_) {
    const std::uint64_t left = lot->left.exchange(0);
    if (left == 0) {
      continue;
    }
    const auto it = holds_.find(lot->first / kRefsPerPage);
    MFS_ASSERT(it != holds_.end());
    it->second.lent[lot->first % kRefsPerPage / kLotBlocks] &= ~left;
    const auto count = static_cast<unsigned>(std::popcount(left));
    it->second.held -= count;  // the loan stays, for the fold
    recalled += count;
  }
  held_ -= recalled;
  lent_ -= recalled;
  return recalled != 0;
}

// A block that a lot gave out becomes one that the map gave out, if it is one.
void DataMap::make_reserved(std::uint64_t block) {
  std::shared_ptr<DataLot> lot;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = std::find_if(lots_.begin(), lots_.end(), [block](const auto& listed) {
      return listed->bit_of(block) != 0;
    });
    if (it == lots_.end() || !has_hold(&Holds::lent, block)) {
      return;
    }
    lot = *it;
  }
  const std::lock_guard<std::mutex> own(lot->mutex);
  const std::uint64_t bit = lot->bit_of(block);
  if ((lot->given & bit) == 0) {
    return;  // folded meanwhile, or never given out
  }
  lot->given &= ~bit;
  const Changes changes(*this);
  set_hold(&Holds::reserved, block, true);
  set_hold(&Holds::lent, block, false);
  --lent_;
  ++reserved_;
}

// Under the lot's mutex. The summary and the map's figures learn of it when the lot is folded.
void DataMap::add_lent_owner(DataLot& lot, std::uint64_t block) {
  cache_.mark_dirty(*lot.page);
  const std::uint32_t before = lot.page->add(block % kRefsPerPage, 1);
  MFS_ASSERT(before == 0);
}

}  // namespace mapperfs::thin
