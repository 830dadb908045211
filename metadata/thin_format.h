// The records of a thin pool's database, as docs/formats/thin.md describes them: their keys and how
// their values are packed. Nothing here knows of caches or transactions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/status.h"

namespace mapperfs::thin {

inline constexpr std::uint32_t kFormatVersion = 1;

// A tree page has 2^kPageBits entries of 64 bits; a page of reference counts, of the same size,
// twice as many counts of 32 bits.
inline constexpr unsigned kPageBits = 8;
inline constexpr unsigned kPageEntries = 1U << kPageBits;
inline constexpr unsigned kRefsPerPage = kPageEntries * 2;
inline constexpr unsigned kMaxHeight = 48 / kPageBits;
inline constexpr unsigned kTimeBits = 24;
inline constexpr std::uint32_t kMaxTime = (std::uint32_t{1} << kTimeBits) - 1;
// Summaries of this many data-reference pages make one record.
inline constexpr std::uint64_t kSummaryPages = 1024;

// What a page is, and the first byte of its key. The number in the key is the page's id, or, for
// reference counts, the first counted thing divided by kRefsPerPage.
enum class PageKind : std::uint8_t {
  kTree = 'P',
  kPageRefs = 'R',
  kDataRefs = 'C',
};

// The words of a page in memory. A tree page's word is 0 for "nothing", else a child's id or, in a
// leaf, (data_block << 24 | time) + 1. A reference page's word holds two counts, the lower first.
using PageWords = std::array<std::uint64_t, kPageEntries>;

// A page's key in memory: kind and number in one word.
struct PageKey {
  std::uint64_t word = 0;
  static PageKey of(PageKind kind, std::uint64_t number) {
    return {(static_cast<std::uint64_t>(kind) << 56) | number};
  }
  [[nodiscard]] PageKind kind() const { return static_cast<PageKind>(word >> 56); }
  [[nodiscard]] std::uint64_t number() const { return word & ((std::uint64_t{1} << 56) - 1); }
  bool operator==(const PageKey&) const = default;
};

struct Leaf {
  static std::uint64_t pack(std::uint64_t data_block, std::uint32_t time) {
    return ((data_block << kTimeBits) | time) + 1;
  }
  static std::uint64_t data_block(std::uint64_t word) { return (word - 1) >> kTimeBits; }
  static std::uint32_t time(std::uint64_t word) {
    return static_cast<std::uint32_t>(word - 1) & kMaxTime;
  }
};

// The root of a tree: its page and its height in one word; 0 is an empty tree. Height 1 is a leaf.
struct Root {
  std::uint64_t word = 0;
  static Root of(std::uint64_t page, unsigned height) {
    return {(static_cast<std::uint64_t>(height) << 56) | page};
  }
  [[nodiscard]] bool empty() const { return word == 0; }
  [[nodiscard]] std::uint64_t page() const { return word & ((std::uint64_t{1} << 56) - 1); }
  [[nodiscard]] unsigned height() const { return static_cast<unsigned>(word >> 56); }
  [[nodiscard]] bool covers(std::uint64_t virtual_block) const {
    return height() != 0 && (virtual_block >> (height() * kPageBits)) == 0;
  }
  bool operator==(const Root&) const = default;
};

struct Superblock {
  std::uint32_t version = kFormatVersion;
  std::uint32_t data_block_size = 0;
  std::uint64_t nr_data_blocks = 0;
  std::uint64_t transaction_id = 0;
  std::uint32_t time = 0;
  std::uint32_t flags = 0;
  std::uint64_t next_page = 1;   // ids are never used twice
  std::uint64_t tree_pages = 0;  // that exist
  std::uint64_t next_dead = 1;
  std::uint64_t held_root = 0;            // of the metadata snapshot; 0: none
  std::uint64_t held_transaction_id = 0;  // the pool's when it was taken
  std::uint32_t held_time = 0;
  static constexpr std::uint32_t kIncomplete = 1;  // a restore has not finished
};

struct DeviceRecord {
  Root root;
  std::uint64_t mapped_blocks = 0;
  std::uint64_t transaction_id = 0;
  std::uint32_t creation_time = 0;
  std::uint32_t snapshotted_time = 0;
};

// Free counts of kSummaryPages data-reference pages.
using Summary = std::array<std::uint16_t, kSummaryPages>;

inline constexpr std::string_view kSuperblockKey = "S";
inline constexpr std::string_view kNeedsCheckKey = "N";
inline constexpr char kDevicePrefix = 'D';
inline constexpr char kHeldPrefix = 'H';
inline constexpr char kDeadPrefix = 'X';
inline constexpr char kSummaryPrefix = 'F';

std::string page_key(PageKey key);
std::string number_key(char prefix, std::uint64_t number);
// The number at the end of a key of either form; nullopt: not such a key.
std::optional<std::uint64_t> number_of_key(std::string_view key);

std::string encode(const Superblock& superblock);
std::string encode(const DeviceRecord& device);
std::string encode(const Summary& summary);
std::string encode_dead(Root root);
// Tree pages by runs or plainly, counts by the narrowest width that holds all: whichever is less.
// `level` is 0 for leaves and counts.
std::string encode_page(PageKind kind, unsigned level, const PageWords& words);

// Each refuses with EILSEQ what encode() cannot have made (EINVAL for an unknown version).
Result<Superblock> decode_superblock(std::string_view value);
Result<DeviceRecord> decode_device(std::string_view value);
Result<Summary> decode_summary(std::string_view value);
Result<Root> decode_dead(std::string_view value);
struct DecodedPage {
  unsigned level = 0;
  PageWords words{};
};
Status decode_page(PageKind kind, std::string_view value, DecodedPage& page);

// Count `index` of a page of counts.
inline std::uint32_t count_in(const PageWords& words, std::uint64_t index) {
  return static_cast<std::uint32_t>(words[index / 2] >> (32 * (index % 2)));
}

}  // namespace mapperfs::thin
