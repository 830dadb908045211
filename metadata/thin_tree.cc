#include "metadata/thin_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

namespace mapperfs::thin {
namespace {

unsigned index_at(std::uint64_t virtual_block, unsigned level) {
  return static_cast<unsigned>(virtual_block >> (level * kPageBits)) & (kPageEntries - 1);
}

std::uint64_t span_of(unsigned level) { return std::uint64_t{1} << (level * kPageBits); }

PageKey tree_key(std::uint64_t page) { return PageKey::of(PageKind::kTree, page); }

// What the words of a page point to: pages or data blocks.
std::vector<std::uint64_t> children_of(const Page& page) {
  std::vector<std::uint64_t> children;
  children.reserve(kPageEntries);
  for (unsigned i = 0; i < kPageEntries; ++i) {
    if (const std::uint64_t word = page.word(i); word != 0) {
      children.push_back(page.level == 0 ? Leaf::data_block(word) : word);
    }
  }
  return children;
}

std::optional<unsigned> first_present(const Page& page) {
  for (unsigned i = 0; i < kPageEntries; ++i) {
    if (page.word(i) != 0) {
      return i;
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::uint64_t> data_blocks_of(const Page& leaf, unsigned first, unsigned last) {
  std::vector<std::uint64_t> blocks;
  for (unsigned i = first; i <= last; ++i) {
    if (const std::uint64_t word = leaf.word(i); word != 0) {
      blocks.push_back(Leaf::data_block(word));
    }
  }
  return blocks;
}

std::optional<std::uint64_t> Trees::find_cached(Root root,
                                                std::uint64_t virtual_block) const noexcept {
  if (!root.covers(virtual_block)) {
    return 0;
  }
  const ShardedLock::ReadGuard guard(cache_.readers());
  std::uint64_t page_id = root.page();
  for (unsigned level = root.height(); level-- > 0;) {
    const Page* page = cache_.find(tree_key(page_id));
    if (page == nullptr) {
      return std::nullopt;
    }
    page_id = page->word(index_at(virtual_block, level));
    if (page_id == 0) {
      return 0;
    }
  }
  return page_id;  // of level 0: the leaf's word
}

Result<PagePin> Trees::pin_page(std::uint64_t page, unsigned level) const {
  auto pin = cache_.pin(tree_key(page));
  if (pin.ok() && (*pin)->level != level) {
    return Status(EILSEQ, fmt::format("thin metadata: page {} has level {}, not {}", page,
                                      (*pin)->level, level));
  }
  return pin;
}

Result<std::uint64_t> Trees::find(Root root, std::uint64_t virtual_block) const {
  if (!root.covers(virtual_block)) {
    return std::uint64_t{0};
  }
  std::uint64_t word = root.page();
  for (unsigned level = root.height(); level-- > 0 && word != 0;) {
    auto page = pin_page(word, level);
    if (!page.ok()) {
      return page.status();
    }
    word = (*page)->word(index_at(virtual_block, level));
    stand_at("reading: knows what is below");
  }
  return word;
}

Result<std::optional<LeafView>> Trees::next_leaf(Root root, std::uint64_t virtual_block) const {
  if (!root.covers(virtual_block)) {
    return std::optional<LeafView>();
  }
  return next_leaf_under(root.page(), root.height() - 1, 0, virtual_block);
}

Result<std::optional<LeafView>> Trees::next_leaf_under(std::uint64_t page, unsigned level,
                                                       std::uint64_t base,
                                                       std::uint64_t from) const {
  auto pin = pin_page(page, level);
  if (!pin.ok()) {
    return pin.status();
  }
  for (unsigned i = from > base ? index_at(from, level) : 0; i < kPageEntries; ++i) {
    const std::uint64_t word = (*pin)->word(i);
    if (word == 0) {
      continue;
    }
    if (level == 0) {
      return std::optional<LeafView>(LeafView{pin.take(), base});
    }
    auto leaf = next_leaf_under(word, level - 1, base + i * span_of(level), from);
    if (!leaf.ok() || leaf->has_value()) {
      return leaf;
    }
  }
  return std::optional<LeafView>();
}

Result<std::optional<std::uint64_t>> Trees::highest(Root root) const {
  if (root.empty()) {
    return std::optional<std::uint64_t>();
  }
  return highest_under(root.page(), root.height() - 1, 0);
}

Result<std::optional<std::uint64_t>> Trees::highest_under(std::uint64_t page, unsigned level,
                                                          std::uint64_t base) const {
  auto pin = pin_page(page, level);
  if (!pin.ok()) {
    return pin.status();
  }
  for (unsigned i = kPageEntries; i-- > 0;) {
    const std::uint64_t word = (*pin)->word(i);
    if (word == 0) {
      continue;
    }
    if (level == 0) {
      return std::optional<std::uint64_t>(base + i);
    }
    auto found = highest_under(word, level - 1, base + i * span_of(level));
    if (!found.ok() || found->has_value()) {
      return found;
    }
  }
  return std::optional<std::uint64_t>();
}

Result<PagePin> Trees::create(unsigned level) {
  const std::uint64_t id = ids_.next.fetch_add(1);
  auto counts = cache_.pin(PageKey::of(PageKind::kPageRefs, id / kRefsPerPage));
  if (!counts.ok()) {
    return counts.status();  // the id stays unused for ever
  }
  cache_.mark_dirty(**counts);
  const std::uint32_t before = (*counts)->add(id % kRefsPerPage, 1);
  MFS_ASSERT(before == 0);
  ids_.pages.fetch_add(1);
  return cache_.create(tree_key(id), level);
}

void Trees::free_page(PagePin& page, Page& count_page) {
  const std::uint64_t id = page->key().number();
  cache_.mark_dirty(count_page);
  const std::uint32_t before = count_page.add(id % kRefsPerPage, -1);
  MFS_ASSERT(before == 1);
  ids_.pages.fetch_sub(1);
  cache_.erase(*page);
  page.reset();
}

void Trees::free_pages(std::vector<PagePin>& pages, const CountPages& counts) {
  for (PagePin& page : pages) {
    free_page(page, counts.page_of(page->key().number()));
  }
}

Status Trees::add_reference(std::uint64_t page) {
  auto counts = cache_.pin(PageKey::of(PageKind::kPageRefs, page / kRefsPerPage));
  if (!counts.ok()) {
    return counts.status();
  }
  if ((*counts)->count(page % kRefsPerPage) == 0) {
    return {EILSEQ, fmt::format("thin metadata: page {} is used and has no references", page)};
  }
  cache_.mark_dirty(**counts);
  (*counts)->add(page % kRefsPerPage, 1);
  return {};
}

Status Trees::share(Root root) { return root.empty() ? Status() : add_reference(root.page()); }

void Trees::point(std::atomic<std::uint64_t>& root, Slot slot, std::uint64_t page, unsigned level) {
  if (slot.parent == nullptr) {
    root.store(page == 0 ? 0 : Root::of(page, level + 1).word, std::memory_order_release);
    return;
  }
  cache_.mark_dirty(*slot.parent);
  std::atomic<std::uint64_t>& word = slot.parent->words[slot.index];
  slot.parent->present += (page != 0 ? 1U : 0U) - (word.load() != 0 ? 1U : 0U);
  word.store(page, std::memory_order_release);
}

// The page, made the tree's own: itself if nothing else points to it, else a copy, to which the
// slot then points.
Result<PagePin> Trees::own(std::atomic<std::uint64_t>& root, Slot slot, std::uint64_t page,
                           unsigned level) {
  auto counts = cache_.pin(PageKey::of(PageKind::kPageRefs, page / kRefsPerPage));
  if (!counts.ok()) {
    return counts.status();
  }
  auto pin = pin_page(page, level);
  if (!pin.ok()) {
    return pin;
  }
  const std::uint32_t count = (*counts)->count(page % kRefsPerPage);
  if (count == 1) {
    return pin;
  }
  if (count == 0) {
    return Status(EILSEQ,
                  fmt::format("thin metadata: page {} is used and has no references", page));
  }
  return own_by_copy(root, slot, pin.take(), **counts);
}

Result<PagePin> Trees::own_by_copy(std::atomic<std::uint64_t>& root, Slot slot, PagePin page,
                                   Page& count_page) {
  const unsigned level = page->level;
  const PageKind kind = level == 0 ? PageKind::kDataRefs : PageKind::kPageRefs;
  const std::vector<std::uint64_t> children = children_of(*page);
  auto counts = CountPages::load(cache_, kind, children);
  if (!counts.ok()) {
    return counts.status();
  }
  auto copy = create(level);
  if (!copy.ok()) {
    return copy;
  }
  (*copy)->present = page->present;
  for (unsigned i = 0; i < kPageEntries; ++i) {
    (*copy)->words[i].store(page->word(i), std::memory_order_relaxed);
  }
  // One more or one less for each child; none of them can come to 0, since page and copy count.
  const auto count_children = [&](int delta) {
    for (const std::uint64_t child : children) {
      Page& child_counts = counts->page_of(child);
      cache_.mark_dirty(child_counts);
      const std::uint32_t before = child_counts.add(child % kRefsPerPage, delta);
      MFS_ASSERT(delta > 0 ? before >= 1 : before >= 2);
    }
  };
  count_children(1);
  stand_at("leaving a page: copied");
  point(root, slot, (*copy)->key().number(), level);
  stand_at("leaving a page: pointed elsewhere");
  depart();
  stand_at("leaving a page: departed");
  cache_.mark_dirty(count_page);
  if (!count_page.drop_if_shared(page->key().number() % kRefsPerPage)) {
    // The other owner let go meanwhile, so the page was this tree's alone, and is nobody's now.
    count_children(-1);
    free_page(page, count_page);
  }
  stand_at("leaving a page: let go");
  return copy;
}

// Makes the tree high enough for `virtual_block` and returns its root page, owned.
Result<PagePin> Trees::grow_root(std::atomic<std::uint64_t>& root, std::uint64_t virtual_block) {
  Root r{root.load()};
  if (r.empty()) {
    unsigned height = 1;
    while (!Root::of(1, height).covers(virtual_block)) {
      ++height;
    }
    auto page = create(height - 1);
    if (page.ok()) {
      point(root, {}, (*page)->key().number(), height - 1);
    }
    return page;
  }
  while (!r.covers(virtual_block)) {
    auto page = create(r.height());
    if (!page.ok()) {
      return page;
    }
    point(root, {page.ok() ? &**page : nullptr, 0}, r.page(), r.height() - 1);
    point(root, {}, (*page)->key().number(), r.height());
    r = Root{root.load()};
  }
  return own(root, {}, r.page(), r.height() - 1);
}

Result<std::uint64_t> Trees::put(std::atomic<std::uint64_t>& root, std::uint64_t virtual_block,
                                 std::uint64_t word) {
  MFS_ASSERT(word != 0);
  auto page = grow_root(root, virtual_block);
  while (page.ok() && (*page)->level != 0) {
    const unsigned level = (*page)->level;
    const Slot slot{&**page, index_at(virtual_block, level)};
    const std::uint64_t child = (*page)->word(slot.index);
    auto below = child != 0 ? own(root, slot, child, level - 1) : create(level - 1);
    if (!below.ok()) {
      return below.status();
    }
    if (child == 0) {
      point(root, slot, (*below)->key().number(), level - 1);
    }
    page = std::move(below);
  }
  if (!page.ok()) {
    return page.status();
  }
  Page& leaf = **page;
  const unsigned index = index_at(virtual_block, 0);
  const std::uint64_t before = leaf.word(index);
  std::optional<CountPages> counts;
  std::vector<std::uint64_t> old;
  if (before != 0) {
    old.push_back(Leaf::data_block(before));
    auto loaded = data_.load_counts(old);
    if (!loaded.ok()) {
      return loaded.status();
    }
    counts = loaded.take();
  }
  point(root, {&leaf, index}, word, 0);
  if (counts.has_value()) {
    data_.drop_owner(*counts, old, nullptr);
  }
  return before;
}

PagePin Trees::place_for_new(Root root, std::uint64_t virtual_block) const {
  if (!root.covers(virtual_block)) {
    return {};
  }
  const ShardedLock::ReadGuard guard(cache_.readers());
  std::uint64_t id = root.page();
  for (unsigned level = root.height(); level-- > 0;) {
    const Page* counts = cache_.find(PageKey::of(PageKind::kPageRefs, id / kRefsPerPage));
    const Page* page = cache_.find(tree_key(id));
    if (counts == nullptr || counts->count(id % kRefsPerPage) != 1 || page == nullptr ||
        page->level != level) {
      return {};
    }
    const std::uint64_t word = page->word(index_at(virtual_block, level));
    if (word == 0) {
      return level <= 1 ? cache_.pin_cached(tree_key(id)) : PagePin();
    }
    id = word;
  }
  return {};  // it has a word
}

bool Trees::put_new(std::atomic<std::uint64_t>& root, PagePin place, std::uint64_t virtual_block,
                    std::uint64_t word) {
  if (place->level == 1) {
    PagePin leaf = create_cached(0);
    if (!leaf) {
      return false;
    }
    point(root, {&*place, index_at(virtual_block, 1)}, leaf->key().number(), 0);
    place = std::move(leaf);
  }
  point(root, {&*place, index_at(virtual_block, 0)}, word, 0);
  return true;
}

// As create(), if the page of the next id's count is in memory; else no page.
PagePin Trees::create_cached(unsigned level) {
  std::uint64_t id = ids_.next.load();
  const PagePin counts = cache_.pin_cached(PageKey::of(PageKind::kPageRefs, id / kRefsPerPage));
  if (!counts || !ids_.next.compare_exchange_strong(id, id + 1)) {
    return {};
  }
  cache_.mark_dirty(*counts);
  const std::uint32_t before = counts->add(id % kRefsPerPage, 1);
  MFS_ASSERT(before == 0);
  ids_.pages.fetch_add(1);
  return cache_.create(tree_key(id), level);
}

Trees::Slot Trees::slot_below(const Path& path) {
  return path.empty() ? Slot{} : Slot{&*path.back().page, path.back().index};
}

// The counts of all pages of a path and of the one below it, which unlink() may need.
Result<CountPages> Trees::counts_of(const Path& path, std::uint64_t page) {
  std::vector<std::uint64_t> ids{page};
  for (const Step& step : path) {
    ids.push_back(step.page->key().number());
  }
  return CountPages::load(cache_, PageKind::kPageRefs, ids);
}

// Owns every page above the leaf of `virtual_block`, which is there.
Result<Trees::Path> Trees::own_parents(std::atomic<std::uint64_t>& root,
                                       std::uint64_t virtual_block) {
  const Root r{root.load()};
  Path path;
  std::uint64_t page = r.page();
  for (unsigned level = r.height() - 1; level > 0; --level) {
    auto pin = own(root, slot_below(path), page, level);
    if (!pin.ok()) {
      return pin.status();
    }
    const unsigned index = index_at(virtual_block, level);
    page = (*pin)->word(index);
    MFS_ASSERT(page != 0);
    path.push_back({pin.take(), index});
  }
  return path;
}

// Takes the page below `path` out of the tree, and parents that are empty then, which it returns:
// they are the caller's to free.
std::vector<PagePin> Trees::unlink(std::atomic<std::uint64_t>& root, Path& path) {
  std::vector<PagePin> empty;
  point(root, slot_below(path), 0, 0);
  while (!path.empty() && path.back().page->present == 0) {
    empty.push_back(std::move(path.back().page));
    path.pop_back();
    point(root, slot_below(path), 0, 0);
  }
  return empty;
}

// The page and the page of its count; false: it cannot be had.
bool Trees::load_page(Loaded& loaded, std::uint64_t page, unsigned level) const {
  auto pin = pin_page(page, level);
  if (!pin.ok() || !load_counts(loaded, PageKind::kPageRefs, {page})) {
    pin.status().ignore();
    return false;
  }
  loaded.pages.push_back(pin.take());
  return true;
}

bool Trees::load_counts(Loaded& loaded, PageKind kind,
                        const std::vector<std::uint64_t>& numbers) const {
  auto counts = CountPages::load_any(cache_, kind, numbers);
  if (!counts.ok()) {
    counts.status().ignore();
    return false;
  }
  loaded.counts.push_back(counts.take());
  return true;
}

// The path to a leaf; with the children's counts of all that would have to be copied, which are the
// first shared page and all below it.
void Trees::load_path(Loaded& loaded, Root root, std::uint64_t virtual_block) const {
  if (!root.covers(virtual_block)) {
    return;
  }
  bool shared = false;
  std::uint64_t id = root.page();
  for (unsigned level = root.height(); level-- > 0 && id != 0;) {
    if (!load_page(loaded, id, level)) {
      return;
    }
    const Page& page = *loaded.pages.back();
    shared = shared || loaded.counts.back().page_of(id).count(id % kRefsPerPage) != 1;
    if (shared) {
      load_counts(loaded, level == 0 ? PageKind::kDataRefs : PageKind::kPageRefs,
                  children_of(page));
    }
    id = page.word(index_at(virtual_block, level));
  }
}

bool Trees::put_reads_nothing(Root root, std::uint64_t virtual_block) const noexcept {
  const ShardedLock::ReadGuard guard(cache_.readers());
  std::uint64_t id = root.covers(virtual_block) ? root.page() : 0;
  for (unsigned level = root.height(); level-- > 0 && id != 0;) {
    const Page* counts = cache_.find(PageKey::of(PageKind::kPageRefs, id / kRefsPerPage));
    const Page* page = cache_.find(tree_key(id));
    if (counts == nullptr || counts->count(id % kRefsPerPage) != 1 || page == nullptr) {
      return false;
    }
    id = page->word(index_at(virtual_block, level));
  }
  // Of the leaf: what is mapped there loses an owner.
  return id == 0 || cache_.find(PageKey::of(PageKind::kDataRefs,
                                            Leaf::data_block(id) / kRefsPerPage)) != nullptr;
}

Loaded Trees::load_for_put(Root root, std::uint64_t virtual_block) const {
  Loaded loaded;
  load_path(loaded, root, virtual_block);
  if (!loaded.pages.empty() && loaded.pages.back()->level == 0) {
    const std::uint64_t word = loaded.pages.back()->word(index_at(virtual_block, 0));
    if (word != 0) {
      load_counts(loaded, PageKind::kDataRefs, {Leaf::data_block(word)});
    }
  }
  return loaded;
}

Loaded Trees::load_for_remove(Root root, std::uint64_t begin, std::uint64_t end) const {
  Loaded loaded;
  auto leaf = next_leaf(root, begin);
  if (!leaf.ok()) {
    leaf.status().ignore();
    return loaded;
  }
  if (leaf->has_value() && (*leaf)->base < end) {
    load_path(loaded, root, (*leaf)->base);
    load_counts(loaded, PageKind::kDataRefs, data_blocks_of(*(*leaf)->page, 0, kPageEntries - 1));
  }
  return loaded;
}

Loaded Trees::load_for_reclaim(Root root) const {
  Loaded loaded;
  std::uint64_t id = root.empty() ? 0 : root.page();
  for (unsigned level = root.height(); level-- > 0 && id != 0;) {
    if (!load_page(loaded, id, level) ||
        loaded.counts.back().page_of(id).count(id % kRefsPerPage) != 1) {
      return loaded;
    }
    const Page& page = *loaded.pages.back();
    if (level == 0) {
      load_counts(loaded, PageKind::kDataRefs, data_blocks_of(page, 0, kPageEntries - 1));
      return loaded;
    }
    const std::optional<unsigned> child = first_present(page);
    id = child.has_value() ? page.word(*child) : 0;
  }
  return loaded;
}

Result<RemoveStep> Trees::remove_step(std::atomic<std::uint64_t>& root, std::uint64_t begin,
                                      std::uint64_t end, std::vector<DataRun>* freed) {
  MFS_ASSERT(begin < end);
  auto found = next_leaf(Root{root.load()}, begin);
  if (!found.ok()) {
    return found.status();
  }
  if (!found->has_value() || (*found)->base >= end) {
    return RemoveStep{end, true, 0};
  }
  LeafView leaf = std::move(**found);
  const unsigned first = begin > leaf.base ? static_cast<unsigned>(begin - leaf.base) : 0;
  const unsigned last =
      static_cast<unsigned>(std::min<std::uint64_t>(end - leaf.base, kPageEntries) - 1);
  const std::uint64_t next = leaf.base + kPageEntries;
  const auto in_range = static_cast<unsigned>(data_blocks_of(*leaf.page, first, last).size());
  Result<RemoveStep> step = RemoveStep{};
  if (in_range == leaf.page->present) {
    step = remove_whole_leaf(root, std::move(leaf), freed);
  } else if (in_range != 0) {
    step = remove_part(root, std::move(leaf), first, last, freed);
  }
  if (step.ok()) {
    step->next = std::min(next, end);
    step->done = step->next == end;
  }
  return step;
}

Result<RemoveStep> Trees::remove_whole_leaf(std::atomic<std::uint64_t>& root, LeafView leaf,
                                            std::vector<DataRun>* freed) {
  auto path = own_parents(root, leaf.base);
  if (!path.ok()) {
    return path.status();
  }
  const std::uint64_t id = leaf.page->key().number();
  auto counts = counts_of(*path, id);
  if (!counts.ok()) {
    return counts.status();
  }
  const std::vector<std::uint64_t> blocks = data_blocks_of(*leaf.page, 0, kPageEntries - 1);
  auto data_counts = data_.load_counts(blocks);
  if (!data_counts.ok()) {
    return data_counts.status();
  }
  std::vector<PagePin> empty = unlink(root, *path);
  stand_at("leaving a page: pointed elsewhere");
  depart();
  stand_at("leaving a page: departed");
  Page& own_count = counts->page_of(id);
  cache_.mark_dirty(own_count);
  if (!own_count.drop_if_shared(id % kRefsPerPage)) {
    data_.drop_owner(*data_counts, blocks, freed);
    free_page(leaf.page, own_count);
  }
  free_pages(empty, *counts);
  stand_at("leaving a page: let go");
  return RemoveStep{0, false, blocks.size()};
}

Result<RemoveStep> Trees::remove_part(std::atomic<std::uint64_t>& root, LeafView leaf,
                                      unsigned first, unsigned last, std::vector<DataRun>* freed) {
  auto path = own_parents(root, leaf.base);
  if (!path.ok()) {
    return path.status();
  }
  const std::vector<std::uint64_t> blocks = data_blocks_of(*leaf.page, first, last);
  auto data_counts = data_.load_counts(blocks);
  if (!data_counts.ok()) {
    return data_counts.status();
  }
  auto owned = own(root, slot_below(*path), leaf.page->key().number(), 0);
  if (!owned.ok()) {
    return owned.status();
  }
  for (unsigned i = first; i <= last; ++i) {
    point(root, {&**owned, i}, 0, 0);
  }
  data_.drop_owner(*data_counts, blocks, freed);
  return RemoveStep{0, false, blocks.size()};
}

Status Trees::reclaim_step(std::atomic<std::uint64_t>& root) {
  const Root r{root.load()};
  MFS_ASSERT(!r.empty());
  Path path;
  std::uint64_t id = r.page();
  for (unsigned level = r.height(); level-- > 0;) {
    auto counts = counts_of(path, id);
    if (!counts.ok()) {
      return counts.status();
    }
    Page& own_count = counts->page_of(id);
    if (own_count.count(id % kRefsPerPage) == 0) {
      return {EILSEQ, fmt::format("thin metadata: page {} is used and has no references", id)};
    }
    cache_.mark_dirty(own_count);
    if (own_count.drop_if_shared(id % kRefsPerPage)) {
      std::vector<PagePin> empty = unlink(root, path);
      free_pages(empty, *counts);
      return {};
    }
    auto page = pin_page(id, level);
    if (!page.ok()) {
      return page.status();
    }
    const std::optional<unsigned> child = first_present(**page);
    if (level != 0 && child.has_value()) {
      id = (*page)->word(*child);
      path.push_back({page.take(), *child});
      continue;
    }
    const std::vector<std::uint64_t> blocks =
        level == 0 ? data_blocks_of(**page, 0, kPageEntries - 1) : std::vector<std::uint64_t>();
    auto data_counts = data_.load_counts(blocks);
    if (!data_counts.ok()) {
      return data_counts.status();
    }
    std::vector<PagePin> empty = unlink(root, path);
    data_.drop_owner(*data_counts, blocks, nullptr);
    free_page(*page, own_count);
    free_pages(empty, *counts);
    return {};
  }
  return {};
}

}  // namespace mapperfs::thin
