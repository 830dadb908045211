// The mapping trees: radix trees of pages with reference counts, in which a page that two trees
// reach is copied before one of them changes it.
//
//   device 1's root ---> A --+--> B --+--> leaf      counts: A 1, A' 1, B 2, C 1, C' 1, and 1 for
//   device 2's root ---> A'--+        +--> leaf      each leaf under B; what is under B is shared
//                        |                           though its own count is 1
//                        +--> C'
//
// A page's count is the number of roots and pages that point to it; a data block's is the number of
// leaves. So sharing a tree is one count, and copying a page adds one to each of its children.
//
// Invariants: 1. a page with count 1 on a path of pages with count 1 belongs to one tree, and only
// under that tree's lock do its words change; 2. all that can fail (reading pages) is done before
// the first change of a step, so that an error leaves every count right; 3. a tree leaves a page in
// three steps, in this order:
//
//   point    what pointed to the page points elsewhere
//   depart   departures() goes up
//   let go   the page's count goes down, or the page is freed
//
// Only letting go allows others to do what a reader of this tree must not see: who shared the page
// finds count 1 and writes to it as its own, and a page that is freed is forgotten, so that who
// still asks for it gets what the last commit had. A reader takes the number before the root and
// again behind the last word. If the first number has the departure, the reader comes by the new
// pointer. If not, and it saw what came of letting go, the second number has it. Every link of that
// is acquired and released: pointers and words are stored with release and loaded with acquire; the
// number and the counts change by read-modify-write alone, so that whoever loads a 1 knows all that
// those did who let go; a page leaves the cache under the lock under which it is looked for.
// Going back to the last commit is a departure of all trees at once: roots, depart, gate.
// A tree that is being reclaimed has no readers and need not depart.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/status.h"
#include "metadata/data_map.h"
#include "metadata/page_cache.h"
#include "metadata/thin_format.h"

namespace mapperfs::thin {

// Ids of tree pages and how many there are. Written to the superblock at each commit.
struct PageIds {
  std::atomic<std::uint64_t> next{1};
  std::atomic<std::uint64_t> pages{0};
};

// A leaf in memory and the virtual block of its first word.
struct LeafView {
  PagePin page;
  std::uint64_t base = 0;
};

// Pins on what a change is going to look at, read before anybody is kept waiting for it. If the
// tree changes before its lock is held, the change reads what else it needs: a few pages.
struct Loaded {
  std::vector<PagePin> pages;
  std::vector<CountPages> counts;
};

// What one step of a removal did.
struct RemoveStep {
  std::uint64_t next = 0;  // where to go on
  bool done = false;       // nothing is mapped from there to the end of the range
  std::uint64_t unmapped = 0;
};

// Reading needs no lock, but what a reader follows may be changed under it. It then sees the state
// before or after; or a page that is gone (ENOENT), upon which it starts again at the root; or a
// page that the tree has left to another one, which writes to it or is being deleted. So whoever
// reads asks for departures() first, then for the root, and believes nothing of what it found, no
// error either, if the number is another one afterwards. Changes of one tree are serialised by the
// caller, who is inside the transaction's gate.
class Trees {
 public:
  // `at_place` as in ThinMetadataOptions; outlives the trees.
  Trees(PageCache& cache, DataMap& data, PageIds& ids,
        const std::function<void(std::string_view)>& at_place)
      : cache_(cache), data_(data), ids_(ids), at_place_(at_place) {}
  Trees(const Trees&) = delete;
  Trees& operator=(const Trees&) = delete;

  // How often a tree has left a page to others. Read before a root and after the last word.
  [[nodiscard]] std::uint64_t departures() const noexcept {
    return departures_.load(std::memory_order_acquire);
  }
  // The second of the three steps; what was left is pointed to no more.
  void depart() noexcept { departures_.fetch_add(1); }

  // The leaf's word for `virtual_block`, 0 if unmapped; nullopt if a page is not in memory.
  [[nodiscard]] std::optional<std::uint64_t> find_cached(
      Root root, std::uint64_t virtual_block) const noexcept;
  Result<std::uint64_t> find(Root root, std::uint64_t virtual_block) const;
  // The first leaf that has a mapping at or after `virtual_block`.
  Result<std::optional<LeafView>> next_leaf(Root root, std::uint64_t virtual_block) const;
  Result<std::optional<std::uint64_t>> highest(Root root) const;

  // Sets a leaf's word (not 0), for whose data block the caller has counted an owner; the owner of
  // the word before, if any, is dropped. Returns that word.
  Result<std::uint64_t> put(std::atomic<std::uint64_t>& root, std::uint64_t virtual_block,
                            std::uint64_t word);
  // The page that a word for `virtual_block`, which has none, can be put in at once: its leaf, or
  // the page that a new leaf would be pointed to from. It and all above it are in memory and the
  // tree's own. Else no page. Neither this nor put_new() reads.
  [[nodiscard]] PagePin place_for_new(Root root, std::uint64_t virtual_block) const;
  // Sets the word, as put() does. False, and no change: a new leaf would take reading.
  bool put_new(std::atomic<std::uint64_t>& root, PagePin place, std::uint64_t virtual_block,
               std::uint64_t word);
  // Unmaps what one leaf maps within [begin, end). `freed` as in DataMap::drop_owner().
  Result<RemoveStep> remove_step(std::atomic<std::uint64_t>& root, std::uint64_t begin,
                                 std::uint64_t end, std::vector<DataRun>* freed);
  // One more root for the tree.
  Status share(Root root);
  // For put(), remove_step() and reclaim_step(), without the tree's lock: reads what they will.
  // What cannot be read is left out; the change itself finds out.
  [[nodiscard]] bool put_reads_nothing(Root root, std::uint64_t virtual_block) const noexcept;
  [[nodiscard]] Loaded load_for_put(Root root, std::uint64_t virtual_block) const;
  [[nodiscard]] Loaded load_for_remove(Root root, std::uint64_t begin, std::uint64_t end) const;
  [[nodiscard]] Loaded load_for_reclaim(Root root) const;
  // Takes one page, or one share of one, off a tree that nobody reads any more; the root is 0 when
  // nothing is left. Each step leaves a smaller, whole tree.
  Status reclaim_step(std::atomic<std::uint64_t>& root);

  // A new page with count 1; what it points to is the caller's to count.
  Result<PagePin> create(unsigned level);
  // One more pointer to a page.
  Status add_reference(std::uint64_t page);

 private:
  // Where a page is pointed to from: a word of its parent or a root.
  struct Slot {
    Page* parent = nullptr;  // null: the root
    unsigned index = 0;
  };
  struct Step {
    PagePin page;
    unsigned index = 0;  // of the child that the path goes on with
  };
  using Path = std::vector<Step>;

  Result<PagePin> own(std::atomic<std::uint64_t>& root, Slot slot, std::uint64_t page,
                      unsigned level);
  Result<PagePin> own_by_copy(std::atomic<std::uint64_t>& root, Slot slot, PagePin page,
                              Page& count_page);
  Result<PagePin> grow_root(std::atomic<std::uint64_t>& root, std::uint64_t virtual_block);
  Result<Path> own_parents(std::atomic<std::uint64_t>& root, std::uint64_t virtual_block);
  void point(std::atomic<std::uint64_t>& root, Slot slot, std::uint64_t page, unsigned level);
  std::vector<PagePin> unlink(std::atomic<std::uint64_t>& root, Path& path);
  void stand_at(std::string_view place) const {
    if (at_place_) {
      at_place_(place);
    }
  }
  PagePin create_cached(unsigned level);
  static Slot slot_below(const Path& path);
  Result<CountPages> counts_of(const Path& path, std::uint64_t page);
  Result<RemoveStep> remove_whole_leaf(std::atomic<std::uint64_t>& root, LeafView leaf,
                                       std::vector<DataRun>* freed);
  Result<RemoveStep> remove_part(std::atomic<std::uint64_t>& root, LeafView leaf, unsigned first,
                                 unsigned last, std::vector<DataRun>* freed);
  Result<std::optional<LeafView>> next_leaf_under(std::uint64_t page, unsigned level,
                                                  std::uint64_t base, std::uint64_t from) const;
  Result<std::optional<std::uint64_t>> highest_under(std::uint64_t page, unsigned level,
                                                     std::uint64_t base) const;
  Result<PagePin> pin_page(std::uint64_t page, unsigned level) const;
  bool load_page(Loaded& loaded, std::uint64_t page, unsigned level) const;
  bool load_counts(Loaded& loaded, PageKind kind, const std::vector<std::uint64_t>& numbers) const;
  void load_path(Loaded& loaded, Root root, std::uint64_t virtual_block) const;
  void free_page(PagePin& page, Page& count_page);
  void free_pages(std::vector<PagePin>& pages, const CountPages& counts);

  PageCache& cache_;
  DataMap& data_;
  PageIds& ids_;
  const std::function<void(std::string_view)>& at_place_;
  alignas(kCacheLineBytes) std::atomic<std::uint64_t> departures_{0};
};

// The data blocks that a leaf's words from `first` up to `last` name, in order.
std::vector<std::uint64_t> data_blocks_of(const Page& leaf, unsigned first, unsigned last);

}  // namespace mapperfs::thin
