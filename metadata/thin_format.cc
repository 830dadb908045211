#include "metadata/thin_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "metadata/thin_metadata.h"

namespace mapperfs::thin {
namespace {

enum Packing : std::uint8_t { kPlain = 0, kRuns = 1, kWidth2 = 2, kWidth8 = 3, kWidth32 = 4 };

constexpr std::size_t kSuperblockBytes = 76;
constexpr std::size_t kDeviceBytes = 32;
constexpr std::size_t kPageHeadBytes = 2;
constexpr std::size_t kBitmapBytes = kPageEntries / 8;
constexpr std::size_t kRunBytes = 10;  // first, length, word

template <typename T>
void put_little(char* at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    at[i] = static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
  }
}

template <typename T>
void append(std::string& out, T value) {
  std::array<char, sizeof(T)> bytes;
  put_little(bytes.data(), value);
  out.append(bytes.data(), bytes.size());
}

// Reads little-endian numbers off the front; past the end it gives 0 and is no longer ok().
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  template <typename T>
  T take() {
    if (in_.size() < sizeof(T)) {
      in_ = {};
      ok_ = false;
      return 0;
    }
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(in_[i])) << (8 * i);
    }
    in_.remove_prefix(sizeof(T));
    return static_cast<T>(value);
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return in_.empty(); }

 private:
  std::string_view in_;
  bool ok_ = true;
};

Status damaged(std::string_view what) {
  return {EILSEQ, fmt::format("thin metadata: {} is damaged", what)};
}

// How far apart the words of consecutive blocks are.
std::uint64_t run_step(unsigned level) { return level == 0 ? std::uint64_t{1} << kTimeBits : 1; }

// Puts little-endian numbers where there is room for them. A commit packs hundreds of pages, so
// each is looked through once, and its bytes are put once.
class Writer {
 public:
  explicit Writer(std::string& out) : at_(out.data()) {}
  template <typename T>
  void put(T value) {
    put_little(at_, value);
    at_ += sizeof(T);
  }
  [[nodiscard]] const char* at() const { return at_; }

 private:
  char* at_;
};

void put_runs(Writer& out, unsigned level, const PageWords& words) {
  const std::uint64_t step = run_step(level);
  for (unsigned i = 0; i < kPageEntries;) {
    if (words[i] == 0) {
      ++i;
      continue;
    }
    unsigned end = i + 1;
    while (end < kPageEntries && words[end] != 0 && words[end] == words[end - 1] + step) {
      ++end;
    }
    out.put(static_cast<std::uint8_t>(i));
    out.put(static_cast<std::uint8_t>(end - i - 1));
    out.put(words[i]);
    i = end;
  }
}

void put_plain(Writer& out, const PageWords& words) {
  for (unsigned byte = 0; byte < kBitmapBytes; ++byte) {
    unsigned bits = 0;
    for (unsigned bit = 0; bit < 8; ++bit) {
      bits |= words[byte * 8 + bit] != 0 ? 1U << bit : 0;
    }
    out.put(static_cast<std::uint8_t>(bits));
  }
  for (const std::uint64_t word : words) {
    if (word != 0) {
      out.put(word);
    }
  }
}

std::string encode_tree(unsigned level, const PageWords& words) {
  const std::uint64_t step = run_step(level);
  std::size_t present = 0;
  std::size_t runs = 0;
  std::uint64_t before = 0;
  for (const std::uint64_t word : words) {
    present += word != 0 ? 1 : 0;
    runs += word != 0 && (before == 0 || word != before + step) ? 1 : 0;
    before = word;
  }
  const std::size_t runs_bytes = runs * kRunBytes;
  const std::size_t plain_bytes = kBitmapBytes + present * sizeof(std::uint64_t);
  const bool as_runs = runs_bytes <= plain_bytes;
  std::string page(kPageHeadBytes + std::min(runs_bytes, plain_bytes), '\0');
  Writer out(page);
  out.put(static_cast<std::uint8_t>(as_runs ? kRuns : kPlain));
  out.put(static_cast<std::uint8_t>(level));
  if (as_runs) {
    put_runs(out, level, words);
  } else {
    put_plain(out, words);
  }
  MFS_ASSERT(out.at() == page.data() + page.size());
  return page;
}

std::string encode_counts(const PageWords& words) {
  std::uint32_t most = 0;  // as wide as the largest, which is all that is asked
  for (const std::uint64_t word : words) {
    most |= static_cast<std::uint32_t>(word) | static_cast<std::uint32_t>(word >> 32);
  }
  const Packing packing = most < 4 ? kWidth2 : most < 256 ? kWidth8 : kWidth32;
  std::string out{static_cast<char>(packing), 0};
  if (packing == kWidth32) {
    for (unsigned i = 0; i < kRefsPerPage; ++i) {
      append(out, count_in(words, i));
    }
    return out;
  }
  out.resize(2 + (packing == kWidth8 ? kRefsPerPage : kRefsPerPage / 4));
  char* at = out.data() + 2;
  for (unsigned i = 0; i < kPageEntries; i += packing == kWidth8 ? 1 : 2) {
    if (packing == kWidth8) {
      *at++ = static_cast<char>(words[i]);
      *at++ = static_cast<char>(words[i] >> 32);
    } else {
      *at++ = static_cast<char>(words[i] | words[i] >> 30 | words[i + 1] << 4 | words[i + 1] >> 26);
    }
  }
  return out;
}

Status decode_runs(Reader& in, unsigned level, PageWords& words) {
  unsigned next = 0;
  while (!in.at_end()) {
    const unsigned first = in.take<std::uint8_t>();
    const unsigned length = in.take<std::uint8_t>() + 1U;
    const auto word = in.take<std::uint64_t>();
    if (!in.ok() || first < next || first + length > kPageEntries || word == 0) {
      return damaged("a run of a mapping page");
    }
    for (unsigned i = 0; i < length; ++i) {
      words[first + i] = word + i * run_step(level);
    }
    next = first + length;
  }
  return {};
}

Status decode_plain(Reader& in, PageWords& words) {
  std::array<std::uint8_t, kBitmapBytes> bitmap{};
  for (std::uint8_t& byte : bitmap) {
    byte = in.take<std::uint8_t>();
  }
  for (unsigned i = 0; i < kPageEntries; ++i) {
    if ((bitmap[i / 8] >> (i % 8) & 1U) != 0) {
      words[i] = in.take<std::uint64_t>();
      if (words[i] == 0) {
        return damaged("an entry of a mapping page");
      }
    }
  }
  return in.ok() && in.at_end() ? Status() : damaged("a mapping page");
}

Status decode_counts(Reader& in, Packing packing, PageWords& words) {
  const auto set = [&words](unsigned index, std::uint64_t count) {
    words[index / 2] |= count << (32 * (index % 2));
  };
  for (unsigned i = 0; i < kRefsPerPage;) {
    if (packing == kWidth32) {
      set(i++, in.take<std::uint32_t>());
    } else if (packing == kWidth8) {
      set(i++, in.take<std::uint8_t>());
    } else {
      unsigned byte = in.take<std::uint8_t>();
      for (unsigned part = 0; part < 4; ++part, byte >>= 2) {
        set(i++, byte & 3U);
      }
    }
  }
  return in.ok() && in.at_end() ? Status() : damaged("a page of reference counts");
}

bool root_is_sane(Root root) {
  return root.empty() || (root.page() != 0 && root.height() >= 1 && root.height() <= kMaxHeight);
}

}  // namespace

std::string page_key(PageKey key) {
  return number_key(static_cast<char>(key.kind()), key.number());
}

std::string number_key(char prefix, std::uint64_t number) {
  std::string key{prefix};
  for (int shift = 56; shift >= 0; shift -= 8) {  // big end first: RocksDB's order is the numbers'
    key.push_back(static_cast<char>(number >> shift));
  }
  return key;
}

std::optional<std::uint64_t> number_of_key(std::string_view key) {
  if (key.size() != 1 + sizeof(std::uint64_t)) {
    return std::nullopt;
  }
  std::uint64_t number = 0;
  for (const char c : key.substr(1)) {
    number = number << 8 | static_cast<unsigned char>(c);
  }
  return number;
}

std::string encode(const Superblock& s) {
  std::string out;
  append(out, s.version);
  append(out, s.data_block_size);
  append(out, s.nr_data_blocks);
  append(out, s.transaction_id);
  append(out, s.time);
  append(out, s.flags);
  append(out, s.next_page);
  append(out, s.tree_pages);
  append(out, s.next_dead);
  append(out, s.held_root);
  append(out, s.held_transaction_id);
  append(out, s.held_time);
  MFS_ASSERT(out.size() == kSuperblockBytes);
  return out;
}

Result<Superblock> decode_superblock(std::string_view value) {
  Reader in(value);
  Superblock s;
  s.version = in.take<std::uint32_t>();
  if (in.ok() && s.version != kFormatVersion) {
    return Status(EINVAL, fmt::format("thin metadata: version {} is unknown, only {} is supported",
                                      s.version, kFormatVersion));
  }
  s.data_block_size = in.take<std::uint32_t>();
  s.nr_data_blocks = in.take<std::uint64_t>();
  s.transaction_id = in.take<std::uint64_t>();
  s.time = in.take<std::uint32_t>();
  s.flags = in.take<std::uint32_t>();
  s.next_page = in.take<std::uint64_t>();
  s.tree_pages = in.take<std::uint64_t>();
  s.next_dead = in.take<std::uint64_t>();
  s.held_root = in.take<std::uint64_t>();
  s.held_transaction_id = in.take<std::uint64_t>();
  s.held_time = in.take<std::uint32_t>();
  if (!in.ok() || !in.at_end() || s.data_block_size == 0 || s.next_page == 0 ||
      s.nr_data_blocks > kThinMaxDataBlocks || s.time > kMaxTime ||
      (s.flags & ~Superblock::kIncomplete) != 0) {
    return damaged("the superblock");
  }
  return s;
}

std::string encode(const DeviceRecord& device) {
  std::string out;
  append(out, device.root.word);
  append(out, device.mapped_blocks);
  append(out, device.transaction_id);
  append(out, device.creation_time);
  append(out, device.snapshotted_time);
  MFS_ASSERT(out.size() == kDeviceBytes);
  return out;
}

Result<DeviceRecord> decode_device(std::string_view value) {
  Reader in(value);
  DeviceRecord device;
  device.root.word = in.take<std::uint64_t>();
  device.mapped_blocks = in.take<std::uint64_t>();
  device.transaction_id = in.take<std::uint64_t>();
  device.creation_time = in.take<std::uint32_t>();
  device.snapshotted_time = in.take<std::uint32_t>();
  if (!in.ok() || !in.at_end() || !root_is_sane(device.root)) {
    return damaged("a device");
  }
  return device;
}

std::string encode(const Summary& summary) {
  std::string out;
  for (const std::uint16_t free : summary) {
    append(out, free);
  }
  return out;
}

Result<Summary> decode_summary(std::string_view value) {
  Reader in(value);
  Summary summary{};
  for (std::uint16_t& free : summary) {
    free = in.take<std::uint16_t>();
    if (free > kRefsPerPage) {
      return damaged("a summary of free blocks");
    }
  }
  if (!in.ok() || !in.at_end()) {
    return damaged("a summary of free blocks");
  }
  return summary;
}

std::string encode_dead(Root root) {
  std::string out;
  append(out, root.word);
  return out;
}

Result<Root> decode_dead(std::string_view value) {
  Reader in(value);
  const Root root{in.take<std::uint64_t>()};
  if (!in.ok() || !in.at_end() || root.empty() || !root_is_sane(root)) {
    return damaged("the root of a deleted device");
  }
  return root;
}

std::string encode_page(PageKind kind, unsigned level, const PageWords& words) {
  return kind == PageKind::kTree ? encode_tree(level, words) : encode_counts(words);
}

Status decode_page(PageKind kind, std::string_view value, DecodedPage& page) {
  Reader in(value);
  const auto packing = static_cast<Packing>(in.take<std::uint8_t>());
  page.level = in.take<std::uint8_t>();
  page.words.fill(0);
  if (!in.ok() || page.level >= kMaxHeight) {
    return damaged("a page's head");
  }
  if (kind == PageKind::kTree) {
    if (packing == kRuns) {
      return decode_runs(in, page.level, page.words);
    }
    return packing == kPlain ? decode_plain(in, page.words) : damaged("a mapping page's packing");
  }
  if (page.level != 0 || packing < kWidth2 || packing > kWidth32) {
    return damaged("a page of reference counts");
  }
  return decode_counts(in, packing, page.words);
}

}  // namespace mapperfs::thin
