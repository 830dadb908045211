#include "metadata/restorer.h"

#include <fmt/format.h>

#include <cerrno>
#include <string_view>
#include <utility>

namespace mapperfs::thin {
namespace {

std::uint64_t hash_of(unsigned level, const PageWords& words) {
  std::uint64_t hash = 0xCBF29CE484222325U + level;
  for (const std::uint64_t word : words) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
    hash ^= hash >> 29;
  }
  return hash;
}

std::vector<std::uint64_t> children_of(unsigned level, const PageWords& words) {
  std::vector<std::uint64_t> children;
  for (const std::uint64_t word : words) {
    if (word != 0) {
      children.push_back(level == 0 ? Leaf::data_block(word) : word);
    }
  }
  return children;
}

}  // namespace

Status Restorer::begin_device(const ThinDeviceDetails& details) {
  if (Status s = pool_.check_new_id(details.id); !s.ok()) {
    return s;
  }
  const std::pair<std::string_view, std::uint32_t> times[] = {
      {"creation_time", details.creation_time}, {"snap_time", details.snapshotted_time}};
  for (const auto& [name, time] : times) {
    if (time > pool_time_) {
      return {EINVAL, fmt::format("device {}: {} {} is past the pool's time, {}", details.id, name,
                                  time, pool_time_)};
    }
  }
  details_ = details;
  next_ = 0;
  mapped_ = 0;
  for (Filling& filling : filling_) {
    filling.number = kNoPage;
  }
  return {};
}

Status Restorer::add(const ThinRun& run) {
  const std::uint64_t blocks = pool_.data_.nr_blocks();
  if (run.length == 0 || run.virtual_begin < next_ || run.virtual_begin >= kThinMaxVirtualBlocks ||
      run.length > kThinMaxVirtualBlocks - run.virtual_begin) {
    return {EINVAL, fmt::format("device {}: {} blocks at {} are out of order or out of range (the "
                                "next may be {})",
                                details_.id, run.length, run.virtual_begin, next_)};
  }
  if (run.data_begin >= blocks || run.length > blocks - run.data_begin) {
    return {EINVAL,
            fmt::format("device {}: {} blocks at {} map to data block {}, past the end of "
                        "the data device ({} blocks)",
                        details_.id, run.length, run.virtual_begin, run.data_begin, blocks)};
  }
  if (run.time > pool_time_) {
    return {EINVAL, fmt::format("device {}: time {} is past the pool's, {}", details_.id, run.time,
                                pool_time_)};
  }
  for (std::uint64_t i = 0; i < run.length; ++i) {
    Status s = put(run.virtual_begin + i, 0, Leaf::pack(run.data_begin + i, run.time));
    if (!s.ok()) {
      return s;
    }
  }
  mapped_ += run.length;
  next_ = run.virtual_begin + run.length;
  return {};
}

// Sets entry `index` of a level, counted over all pages of it.
Status Restorer::put(std::uint64_t index, unsigned level, std::uint64_t word) {
  Filling& filling = filling_[level];
  const std::uint64_t number = index / kPageEntries;
  if (filling.number != number) {
    if (filling.number != kNoPage) {
      const std::uint64_t finished = filling.number;
      auto page = finish_page(level);
      if (!page.ok()) {
        return page.status();
      }
      if (Status s = put(finished, level + 1, *page); !s.ok()) {
        return s;
      }
    }
    filling.number = number;
    filling.words.fill(0);
  }
  filling.words[index % kPageEntries] = word;
  return {};
}

Status Restorer::end_device() {
  Root root;
  for (unsigned level = 0; level < kMaxHeight && mapped_ != 0; ++level) {
    const std::uint64_t number = filling_[level].number;
    MFS_ASSERT(number != kNoPage);
    auto page = finish_page(level);
    if (!page.ok()) {
      return page.status();
    }
    const bool is_only = level + 1 == kMaxHeight || filling_[level + 1].number == kNoPage;
    if (number == 0 && is_only) {
      root = Root::of(*page, level + 1);
      break;
    }
    if (Status s = put(number, level + 1, *page); !s.ok()) {
      return s;
    }
  }
  DeviceRecord record;
  record.root = root;
  record.mapped_blocks = mapped_;
  record.transaction_id = details_.transaction_id;
  record.creation_time = details_.creation_time;
  record.snapshotted_time = details_.snapshotted_time;
  pool_.add_device(details_.id, record);
  return {};
}

// The page of a full or final filling, new or shared, with a reference for whoever asked.
Result<std::uint64_t> Restorer::finish_page(unsigned level) {
  const PageWords& words = filling_[level].words;
  const std::uint64_t hash = hash_of(level, words);
  if (const auto it = known_.find(hash); it != known_.end()) {
    auto same = is_known(it->second, level, words);
    if (!same.ok()) {
      return same.status();
    }
    if (*same) {
      if (Status s = share_known(it->second, level, words); !s.ok()) {
        return s;
      }
      return it->second;
    }
  }
  auto page = make_page(level, words);
  if (page.ok() && known_.size() < kMaxKnown) {
    known_[hash] = *page;
  }
  return page;
}

Result<bool> Restorer::is_known(std::uint64_t page, unsigned level, const PageWords& words) {
  auto pin = pool_.cache_.pin(PageKey::of(PageKind::kTree, page));
  if (!pin.ok()) {
    return pin.status();
  }
  bool same = (*pin)->level == level;
  for (unsigned i = 0; same && i < kPageEntries; ++i) {
    same = (*pin)->word(i) == words[i];
  }
  return same;
}

Status Restorer::share_known(std::uint64_t page, unsigned level, const PageWords& words) {
  if (Status s = pool_.trees_.add_reference(page); !s.ok() || level == 0) {
    return s;
  }
  // The children were given a reference for the page that is not needed now.
  const std::vector<std::uint64_t> children = children_of(level, words);
  auto counts = CountPages::load(pool_.cache_, PageKind::kPageRefs, children);
  if (!counts.ok()) {
    return counts.status();
  }
  for (const std::uint64_t child : children) {
    Page& count_page = counts->page_of(child);
    pool_.cache_.mark_dirty(count_page);
    const bool dropped = count_page.drop_if_shared(child % kRefsPerPage);
    MFS_ASSERT(dropped);  // the known page has a reference of its own
  }
  return {};
}

Result<std::uint64_t> Restorer::make_page(unsigned level, const PageWords& words) {
  if (Status s = pool_.make_room(); !s.ok()) {
    return s;
  }
  if (pool_.used_metadata() >= pool_.metadata_blocks_) {
    return Status(ENOSPC, "thin metadata: all blocks are used");
  }
  if (level == 0) {
    if (Status s = pool_.data_.add_first_or_more(children_of(0, words)); !s.ok()) {
      return s;
    }
  }
  auto page = pool_.trees_.create(level);
  if (!page.ok()) {
    return page.status();
  }
  for (unsigned i = 0; i < kPageEntries; ++i) {
    (*page)->words[i].store(words[i], std::memory_order_relaxed);
    (*page)->present += words[i] != 0 ? 1 : 0;
  }
  return (*page)->key().number();
}

}  // namespace mapperfs::thin
