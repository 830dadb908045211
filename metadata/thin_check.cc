#include "metadata/thin_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "metadata/block_counts.h"
#include "metadata/store.h"
#include "metadata/thin_format.h"
#include "metadata/thin_metadata.h"

namespace mapperfs {
namespace thin {
namespace {

constexpr std::uint64_t kProgressEvery = 4096;

class Checker {
 public:
  Checker(Store& store, const ThinCheckOptions& options)
      : store_(store), options_(options), data_counts_(0), in_place_(0) {}

  Status run() {
    if (Status s = read_superblock(); !s.ok() || options_.superblock_only) {
      return s;
    }
    for (const char prefix : {kDevicePrefix, kHeldPrefix, kDeadPrefix}) {
      if (Status s = check_table(prefix); !s.ok()) {
        return s;
      }
    }
    if (options_.skip_mappings) {
      return {};
    }
    for (Status (Checker::*step)() : {&Checker::check_page_counts, &Checker::check_pages,
                                      &Checker::check_data_counts, &Checker::check_summaries}) {
      if (Status s = (this->*step)(); !s.ok()) {
        return s;
      }
    }
    return repair();
  }

  ThinCheckReport report;

 private:
  struct Seen {
    std::uint32_t references = 0;
    unsigned level = 0;
    std::uint64_t mapped = 0;  // by the leaves under it
    std::uint32_t newest = 0;  // the latest time of these mappings
    // Who reached it first, if that is a device that may write; else kNoWriter.
    std::uint32_t writer = kNoWriter;
    std::uint32_t writer_snapped = 0;
  };
  static constexpr std::uint32_t kNoWriter = UINT32_MAX;
  // A device that I/O may go to, while its tree is walked.
  struct Writer {
    std::uint32_t id = kNoWriter;
    std::uint32_t snapped = 0;
    // What it takes for its own, and so writes in place.
    [[nodiscard]] bool owns(std::uint32_t time) const { return snapped <= time; }
  };

  void damage(std::string message) {
    ++report.damage;
    if (report.messages.size() < ThinCheckReport::kMaxMessages) {
      report.messages.push_back(std::move(message));
    }
  }

  void progress(std::string_view stage, std::uint64_t done, std::uint64_t total) const {
    if (options_.progress && (done % kProgressEvery == 0 || done == total)) {
      options_.progress(stage, done, total);
    }
  }

  Status read_superblock() {
    auto record = store_.get(kSuperblockKey);
    auto flag = store_.get(kNeedsCheckKey);
    if (!record.ok() || !flag.ok()) {
      return record.ok() ? flag.status() : record.status();
    }
    if (!record->has_value()) {
      return {EILSEQ, "thin metadata: the superblock is missing"};
    }
    auto superblock = decode_superblock(**record);
    if (!superblock.ok()) {
      return superblock.status();
    }
    superblock_ = *superblock;
    report.transaction_id = superblock_.transaction_id;
    report.needs_check = flag->has_value();
    if ((superblock_.flags & Superblock::kIncomplete) != 0) {
      damage("a restore into this metadata did not finish");
    }
    if (!options_.skip_mappings && !options_.superblock_only) {
      data_counts_ = BlockCounts(superblock_.nr_data_blocks);
      in_place_ = SparseBytes(superblock_.nr_data_blocks);
    }
    return {};
  }

  // Devices, held devices, or the roots of deleted ones; and the trees below them.
  Status check_table(char prefix) {
    std::vector<std::pair<std::uint64_t, std::string>> records;
    Status s = store_.scan({&prefix, 1}, [&](std::string_view key, std::string_view value) {
      const std::optional<std::uint64_t> number = number_of_key(key);
      if (number.has_value()) {
        records.emplace_back(*number, value);
      } else {
        damage(fmt::format("a record of kind '{}' has a damaged key", prefix));
      }
      return true;
    });
    if (!s.ok()) {
      return s;
    }
    if (prefix == kHeldPrefix) {
      check_held_root(records.size());
    }
    for (std::size_t i = 0; i < records.size(); ++i) {
      const auto& [number, value] = records[i];
      Status checked =
          prefix == kDeadPrefix ? check_dead(number, value) : check_device(prefix, number, value);
      if (!checked.ok()) {
        return checked;
      }
    }
    return {};
  }

  // A metadata snapshot of a pool without devices holds none.
  void check_held_root(std::size_t held_devices) {
    if (superblock_.held_root == 0 && held_devices != 0) {
      damage(fmt::format("{} devices are held, but there is no metadata snapshot", held_devices));
    }
    if (superblock_.held_root >= superblock_.next_page) {
      damage(fmt::format("metadata snapshot {}: its number was not given out yet",
                         superblock_.held_root));
    }
    if (superblock_.held_root != 0 && superblock_.held_time > superblock_.time) {
      damage(fmt::format("the metadata snapshot is of time {}, the pool's is {}",
                         superblock_.held_time, superblock_.time));
    }
  }

  Status check_dead(std::uint64_t number, const std::string& value) {
    auto root = decode_dead(value);
    if (!root.ok()) {
      damage(fmt::format("deleted device {}: its root is damaged", number));
      return {};
    }
    if (number >= superblock_.next_dead) {
      damage(fmt::format("deleted device {}: its number was not given out yet", number));
    }
    return options_.skip_mappings ? Status() : walk(*root).status_or_ok();
  }

  Status check_device(char prefix, std::uint64_t id, const std::string& value) {
    const char* kind = prefix == kHeldPrefix ? "held device" : "device";
    auto record = decode_device(value);
    if (!record.ok() || id > kThinMaxDeviceId) {
      damage(fmt::format("{} {}: its record is damaged", kind, id));
      return {};
    }
    if (record->snapshotted_time > superblock_.time || record->creation_time > superblock_.time) {
      damage(fmt::format("{} {}: is of time {}, the pool's is {}", kind, id,
                         std::max(record->snapshotted_time, record->creation_time),
                         superblock_.time));
    }
    report.devices += prefix == kDevicePrefix ? 1 : 0;
    report.mapped_blocks += prefix == kDevicePrefix ? record->mapped_blocks : 0;
    if (options_.skip_mappings) {
      return {};
    }
    if (prefix == kDevicePrefix) {
      writer_ = {static_cast<std::uint32_t>(id), record->snapshotted_time};
    }
    const Walked mapped = walk(record->root);
    writer_ = {};
    if (mapped.failed.has_value()) {
      return *mapped.failed;
    }
    if (mapped.count != record->mapped_blocks) {
      damage(fmt::format("{} {}: says that {} blocks are mapped, but {} are", kind, id,
                         record->mapped_blocks, mapped.count));
    }
    return {};
  }

  struct Walked {
    std::uint64_t count = 0;
    std::uint32_t newest = 0;
    std::optional<Status> failed;  // of reading; damage is reported, not returned
    [[nodiscard]] Status status_or_ok() const { return failed.value_or(Status()); }
  };

  Walked walk(Root root) {
    return root.empty() ? Walked{} : walk_page(root.page(), root.height() - 1);
  }

  // Counts a reference to a page and, at the first, what is under it.
  Walked walk_page(std::uint64_t id, unsigned level) {
    auto [it, is_new] = pages_.try_emplace(id);
    ++it->second.references;
    if (!is_new) {
      if (it->second.level != level) {
        damage(fmt::format("page {}: is used at levels {} and {}", id, it->second.level, level));
      }
      check_sharing(id, it->second);
      return {it->second.mapped, it->second.newest, {}};
    }
    it->second.level = level;
    it->second.writer = writer_.id;
    it->second.writer_snapped = writer_.snapped;
    progress("mapping trees", pages_.size(), superblock_.tree_pages);
    auto record = store_.get(page_key(PageKey::of(PageKind::kTree, id)));
    if (!record.ok()) {
      return {0, 0, record.status()};
    }
    DecodedPage page;
    if (!record->has_value()) {
      damage(fmt::format("page {}: is missing", id));
      return {};
    }
    if (Status s = decode_page(PageKind::kTree, **record, page); !s.ok() || page.level != level) {
      damage(fmt::format("page {}: is damaged", id));
      return {};
    }
    Walked all = level == 0 ? walk_leaf(id, page) : walk_children(page);
    Seen& seen = pages_[id];
    seen.mapped = all.count;
    seen.newest = all.newest;
    return all;
  }

  // A page that the device being walked shares with one before it, or with itself: neither may take
  // anything below for its own, or both write it in place. Devices are walked before all else, so
  // a page that none of them had reached is not seen here. What a metadata snapshot or a deleted
  // device shares is not protected, and need not be: nobody reads the data through these.
  void check_sharing(std::uint64_t id, Seen& seen) {
    if (writer_.id == kNoWriter || seen.mapped == 0) {
      return;
    }
    for (const Writer& writer : {Writer{seen.writer, seen.writer_snapped}, writer_}) {
      if (writer.id != kNoWriter && writer.owns(seen.newest)) {
        damage(
            fmt::format("page {}: is shared, but device {} of snap time {} would write blocks of "
                        "time {} below it in place",
                        id, writer.id, writer.snapped, seen.newest));
      }
    }
    seen.writer = kNoWriter;  // looked at
  }

  // The same for a data block that a leaf reached for the first time names. If a second device
  // reaches that leaf, check_sharing() sees it.
  void count_owner(std::uint64_t block, std::uint32_t time) {
    const bool known = data_counts_.at(block) >= 2 && in_place_.at(block) != 0;
    data_counts_.add(block);
    if (writer_.id == kNoWriter) {
      return;
    }
    if (writer_.owns(time)) {
      in_place_[block] = 1;
    }
    if (!known && data_counts_.at(block) >= 2 && in_place_.at(block) != 0) {
      damage(
          fmt::format("data block {}: device {} is not its only owner, and one of them would "
                      "write it in place",
                      block, writer_.id));
    }
  }

  Walked walk_children(const DecodedPage& page) {
    Walked all;
    for (const std::uint64_t child : page.words) {
      if (child == 0) {
        continue;
      }
      const Walked below = walk_page(child, page.level - 1);
      if (below.failed.has_value()) {
        return below;
      }
      all.count += below.count;
      all.newest = std::max(all.newest, below.newest);
    }
    return all;
  }

  Walked walk_leaf(std::uint64_t id, const DecodedPage& page) {
    Walked all;
    for (const std::uint64_t word : page.words) {
      if (word == 0) {
        continue;
      }
      ++all.count;
      if (Leaf::data_block(word) >= data_counts_.size()) {
        damage(fmt::format("page {}: maps to data block {}, the device has {}", id,
                           Leaf::data_block(word), data_counts_.size()));
      } else {
        count_owner(Leaf::data_block(word), Leaf::time(word));
      }
      all.newest = std::max(all.newest, Leaf::time(word));
      if (Leaf::time(word) > superblock_.time) {
        damage(fmt::format("page {}: has a mapping of time {}, the pool's is {}", id,
                           Leaf::time(word), superblock_.time));
      }
    }
    return all;
  }

  // Calls fn(page number, decoded) for each page of counts.
  template <typename Fn>
  Status each_count_page(PageKind kind, const Fn& fn) {
    const char prefix = static_cast<char>(kind);
    return store_.scan({&prefix, 1}, [&](std::string_view key, std::string_view value) {
      const std::optional<std::uint64_t> number = number_of_key(key);
      DecodedPage page;
      if (!number.has_value() || !decode_page(kind, value, page).ok()) {
        damage(fmt::format("a page of {} counts is damaged",
                           kind == PageKind::kPageRefs ? "page" : "data block"));
      } else {
        fn(*number, page);
      }
      return true;
    });
  }

  Status check_page_counts() {
    std::uint64_t matched = 0;
    Status s =
        each_count_page(PageKind::kPageRefs, [&](std::uint64_t number, const DecodedPage& page) {
          for (unsigned i = 0; i < kRefsPerPage; ++i) {
            const std::uint64_t id = number * kRefsPerPage + i;
            const std::uint32_t recorded = count_in(page.words, i);
            const auto it = pages_.find(id);
            const std::uint32_t counted = it == pages_.end() ? 0 : it->second.references;
            matched += counted != 0 ? 1 : 0;
            if (recorded < counted) {
              damage(fmt::format("page {}: is used {} times, but {} are counted", id, counted,
                                 recorded));
            }
            if (recorded != 0 && id >= superblock_.next_page) {
              damage(fmt::format("page {}: its id was not given out yet", id));
            }
            if (recorded > counted) {
              ++report.leaked_pages;
            }
          }
        });
    if (matched != pages_.size()) {
      damage(fmt::format("{} pages are used but not counted at all", pages_.size() - matched));
    }
    return s;
  }

  Status check_pages() {
    const char prefix = static_cast<char>(PageKind::kTree);
    Status s = store_.scan({&prefix, 1}, [&](std::string_view key, std::string_view) {
      const std::optional<std::uint64_t> id = number_of_key(key);
      if (!id.has_value()) {
        damage("a mapping page has a damaged key");
      } else if (!pages_.contains(*id)) {
        orphans_.push_back(*id);
      }
      return true;
    });
    report.tree_pages = pages_.size();
    if (superblock_.tree_pages < pages_.size()) {
      damage(fmt::format("the superblock counts {} pages, but {} are used", superblock_.tree_pages,
                         pages_.size()));
    }
    report.leaked_pages = std::max<std::uint64_t>(
        {report.leaked_pages, orphans_.size(),
         superblock_.tree_pages > pages_.size() ? superblock_.tree_pages - pages_.size() : 0});
    return s;
  }

  // How many blocks a page of counts counts.
  [[nodiscard]] std::uint16_t blocks_in(std::uint64_t page) const {
    const std::uint64_t begin = page * kRefsPerPage;
    return static_cast<std::uint16_t>(
        begin >= data_counts_.size()
            ? 0
            : std::min<std::uint64_t>(kRefsPerPage, data_counts_.size() - begin));
  }
  // Where there is no page of counts nothing was ever allocated.
  [[nodiscard]] std::uint16_t free_in(std::uint64_t page) const {
    const auto it = free_.find(page);
    return it == free_.end() ? blocks_in(page) : it->second;
  }

  Status check_data_counts() {
    const std::uint64_t nr_pages = (data_counts_.size() + kRefsPerPage - 1) / kRefsPerPage;
    Status s =
        each_count_page(PageKind::kDataRefs, [&](std::uint64_t number, const DecodedPage& page) {
          progress("data blocks", number, nr_pages);
          if (number < nr_pages) {
            free_.emplace(number, blocks_in(number));
          }
          for (unsigned i = 0; i < kRefsPerPage; ++i) {
            check_data_block(number * kRefsPerPage + i, count_in(page.words, i));
          }
        });
    for (std::uint64_t block = data_counts_.next(0); s.ok() && block < data_counts_.size();
         block = data_counts_.next(block + 1)) {
      if (!free_.contains(block / kRefsPerPage)) {
        check_data_block(block, 0);
      }
    }
    if (s.ok()) {
      progress("data blocks", nr_pages, nr_pages);
    }
    return s;
  }

  void check_data_block(std::uint64_t block, std::uint32_t recorded) {
    if (block >= data_counts_.size()) {
      if (recorded != 0) {
        damage(fmt::format("data block {}: is counted but past the end", block));
      }
      return;
    }
    const std::uint32_t counted = data_counts_.at(block);
    if (recorded != 0) {
      --free_.at(block / kRefsPerPage);
    }
    report.used_data_blocks += counted != 0 ? 1 : 0;
    if (recorded < counted) {
      damage(fmt::format("data block {}: has {} owners, but {} are counted", block, counted,
                         recorded));
    } else if (recorded > counted) {
      ++report.leaked_data_blocks;
    }
  }

  Status check_summaries() {
    Status s = store_.scan({&kSummaryPrefix, 1}, [&](std::string_view key, std::string_view value) {
      const std::optional<std::uint64_t> number = number_of_key(key);
      auto summary = decode_summary(value);
      if (!number.has_value() || !summary.ok()) {
        damage("a summary of free blocks is damaged");
        return true;
      }
      summaries_.insert(*number);
      for (std::uint64_t i = 0; i < kSummaryPages; ++i) {
        check_summary(*number * kSummaryPages + i, (*summary)[i]);
      }
      return true;
    });
    for (const auto& [page, free] : free_) {
      if (s.ok() && !summaries_.contains(page / kSummaryPages)) {
        check_summary(page, blocks_in(page));  // without a record all are free
      }
    }
    return s;
  }

  void check_summary(std::uint64_t page, std::uint64_t said) {
    const std::uint64_t begin = page * kRefsPerPage;
    if (said != 0 && begin >= data_counts_.size()) {
      damage(
          fmt::format("data blocks from {}: the summary says that {} are free, but they are past "
                      "the end",
                      begin, said));
    } else if (said != free_in(page)) {
      damage(fmt::format("data blocks {} to {}: the summary says that {} are free, but {} are",
                         begin, begin + blocks_in(page) - 1, said, free_in(page)));
    }
  }

  // Only leaks: they are mended by writing the counts that were found.
  Status repair() {
    const bool leaks = report.leaked_data_blocks != 0 || report.leaked_pages != 0;
    const bool mend = options_.repair_leaks && leaks && report.damage == 0;
    auto batch = store_.new_batch();
    if (mend) {
      if (Status s = put_counts(*batch); !s.ok()) {
        return s;
      }
    }
    const bool sound = report.damage == 0 && (mend || !leaks);
    const bool clear = options_.clear_needs_check && report.needs_check && sound;
    if (clear) {
      batch->erase(kNeedsCheckKey);
    }
    if (batch->empty()) {
      return {};
    }
    Status s = store_.write(*batch);
    report.leaks_repaired = s.ok() && mend;
    report.needs_check = report.needs_check && !(s.ok() && clear);
    return s;
  }

  Status put_counts(StoreBatch& batch) {
    for (const std::uint64_t id : orphans_) {
      batch.erase(page_key(PageKey::of(PageKind::kTree, id)));
    }
    const auto put = [&batch](PageKind kind, std::uint64_t number, const auto& count_of) {
      PageWords words{};
      for (unsigned i = 0; i < kRefsPerPage; ++i) {
        words[i / 2] |= std::uint64_t{count_of(number * kRefsPerPage + i)} << (32 * (i % 2));
      }
      batch.put(page_key(PageKey::of(kind, number)), encode_page(kind, 0, words));
    };
    Status s = each_count_page(PageKind::kPageRefs, [&](std::uint64_t number, const DecodedPage&) {
      put(PageKind::kPageRefs, number, [this](std::uint64_t id) {
        const auto it = pages_.find(id);
        return it == pages_.end() ? 0U : it->second.references;
      });
    });
    if (!s.ok()) {
      return s;
    }
    s = each_count_page(PageKind::kDataRefs, [&](std::uint64_t number, const DecodedPage&) {
      put(PageKind::kDataRefs, number, [this](std::uint64_t block) {
        return block < data_counts_.size() ? data_counts_.at(block) : 0U;
      });
    });
    for (auto& [page, free] : free_) {
      free = 0;
      for (std::uint64_t i = 0; i < blocks_in(page); ++i) {
        const bool is_free = data_counts_.at(page * kRefsPerPage + i) == 0;
        free = static_cast<std::uint16_t>(free + (is_free ? 1 : 0));
      }
      summaries_.insert(page / kSummaryPages);
    }
    for (const std::uint64_t number : summaries_) {
      Summary summary{};
      for (std::uint64_t i = 0; i < kSummaryPages; ++i) {
        summary[i] = free_in(number * kSummaryPages + i);
      }
      batch.put(number_key(kSummaryPrefix, number), encode(summary));
    }
    superblock_.tree_pages = pages_.size();
    batch.put(kSuperblockKey, encode(superblock_));
    return s;
  }

  Store& store_;
  const ThinCheckOptions& options_;
  Superblock superblock_;
  std::unordered_map<std::uint64_t, Seen> pages_;
  std::vector<std::uint64_t> orphans_;
  BlockCounts data_counts_;
  Writer writer_;
  SparseBytes in_place_;                         // blocks that some device takes for its own
  std::map<std::uint64_t, std::uint16_t> free_;  // as the counts say, by page of them
  std::set<std::uint64_t> summaries_;            // that there are
};

}  // namespace
}  // namespace thin

Result<ThinCheckReport> check_thin_metadata(const std::string& dir,
                                            const ThinCheckOptions& options) {
  StoreOptions store_options;
  const bool writes = options.repair_leaks || options.clear_needs_check;
  store_options.mode = options.live ? StoreMode::kLive
                       : writes     ? StoreMode::kReadWrite
                                    : StoreMode::kReadOnly;
  store_options.create = false;
  store_options.env = options.env;
  auto store = open_rocks_store(dir, store_options);
  if (!store.ok()) {
    return store.status();
  }
  thin::Checker checker(**store, options);
  if (Status s = checker.run(); !s.ok()) {
    return s.with_context(dir);
  }
  return std::move(checker.report);
}

}  // namespace mapperfs
