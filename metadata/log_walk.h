// RocksDB's log format, as far as it takes to tell how much of a log is sound: blocks of 32 KiB; in
// them pieces of {checksum (4), length (2), type (1)} and a payload; what is too short for a header
// at the end of a block is empty. A record is one piece, or a first, middle ones, and a last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mapperfs {

inline constexpr std::size_t kLogBlockBytes = std::size_t{32} << 10;

// Walks the records of one log. One thread.
class LogWalk {
 public:
  // `batches`: the records are write batches, which begin with the number of their first change.
  // Then what is past the first damage is searched for a record with a later one.
  explicit LogWalk(bool batches) : batches_(batches) {}

  // The next block of the log; the last one may be shorter. False: what follows does not matter.
  bool block(std::string_view bytes);

  // Where the last record ends before which all are sound.
  [[nodiscard]] std::uint64_t whole() const { return whole_; }
  // Whether damage follows it; else the end, or a record that the end cuts short.
  [[nodiscard]] bool damaged() const { return damaged_; }
  // Whether a batch that is sound and was written later follows the damage, or the record that
  // seemed to be cut short.
  [[nodiscard]] bool later_batch() const { return later_batch_; }
  // Whether a batch that is sound and not empty was found, before or behind damage. RocksDB writes
  // empty ones of its own.
  [[nodiscard]] bool has_changes() const { return has_changes_ || later_batch_; }

 private:
  bool walk(std::string_view bytes, std::size_t& at);
  bool search(std::string_view bytes, std::size_t at);
  [[nodiscard]] bool is_later(std::uint64_t number) const;

  const bool batches_;
  std::uint64_t before_ = 0;  // bytes of the blocks before this one
  std::uint64_t whole_ = 0;
  std::optional<std::uint64_t> number_;  // of the record that goes on, or else of the last one
  bool in_record_ = false;               // a record goes on in the next block
  bool searching_ = false;
  bool damaged_ = false;
  bool later_batch_ = false;
  bool changes_ = false;  // in the record that goes on, or else in the last one
  bool has_changes_ = false;
};

}  // namespace mapperfs
