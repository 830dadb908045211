// The words of a table line after the target's name, read with the kernel's conventions (core.md
// section 1): decimal numbers, whole words, limits, grouped counts.
//
// The first thing wrong sticks: later calls return zeroes or empty references, and status() names
// it, so that a ctr reads its arguments in the kernel's order and asks once. Each call takes the
// kernel's own text for the error ("Invalid device sector"), which heads the sentence; the rest of
// it says which word, which value and which limit.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/block_device.h"
#include "engine/status.h"

namespace mapperfs {

// Opens what a table's word names: a path, MAJOR:MINOR, a mapped device's name. Implemented by the
// engine for real tables and by a map of fakes in tests. Control threads.
class DeviceOpener {
 public:
  virtual Result<DevRef> open(const std::string& word, DeviceMode mode) = 0;
  // Whether a target may use the file or folder itself, there or not yet: EINVAL where the path
  // leads into the own mount, which would have to answer itself.
  virtual Status outside_mount(const std::string& path) {
    static_cast<void>(path);
    return {};
  }

 protected:
  ~DeviceOpener() = default;
};

// What may stand before a number. The kernel reads some with sscanf(), which takes digits alone,
// and some with kstrtoull() and its like, which take one plus sign: each target does as it does
// there.
enum class Sign : std::uint8_t { kNone, kPlus };

class TargetArgs {
 public:
  // `words` are unescaped. `mode` is the table's. `opener` outlives this.
  TargetArgs(std::vector<std::string> words, DeviceMode mode, DeviceOpener& opener);

  [[nodiscard]] std::size_t count() const { return words_.size(); }
  [[nodiscard]] bool failed() const { return !status_.ok(); }
  // Ok, or the first thing that was wrong.
  [[nodiscard]] const Status& status() const { return status_; }

  // Records `text: detail` with EINVAL unless something was wrong before.
  void fail(std::string_view text, std::string_view detail);
  void fail(int error, std::string_view text, std::string_view detail);
  // The count must lie in [min, max]; else `text`.
  void require_count(std::size_t min, std::size_t max, std::string_view text);

  // Word i (from 0). Missing words are the empty string and an error `text`.
  std::string word(std::size_t i, std::string_view text);
  // Word i as the path of a file or folder that the target uses itself; not in the own mount.
  std::string path(std::size_t i, std::string_view text);
  // Word i as a number of sectors: u64, decimal.
  sector_t sector(std::size_t i, std::string_view text, Sign sign = Sign::kNone);
  // Word i as an unsigned number in [min, max].
  std::uint64_t number(std::size_t i, std::uint64_t min, std::uint64_t max, std::string_view text,
                       Sign sign = Sign::kNone);
  // Word i as a 32-bit number, as most of the kernel's arguments are.
  std::uint32_t u32(std::size_t i, std::uint32_t min, std::string_view text,
                    Sign sign = Sign::kNone);
  // Word i opened as a device in the table's mode, or in the given one; the lookup's errno is kept.
  DevRef device(std::size_t i, std::string_view text);
  DevRef device(std::size_t i, DeviceMode mode, std::string_view text);
  // A grouped count at word i: in [0, max] and no more than the words that follow. The words of the
  // group.
  std::span<const std::string> group(std::size_t i, std::size_t max, std::string_view text);

  [[nodiscard]] std::span<const std::string> words() const { return words_; }

 private:
  bool need(std::size_t i, std::string_view text);

  const std::vector<std::string> words_;
  const DeviceMode mode_;
  DeviceOpener& opener_;
  Status status_;
};

// The whole word as an unsigned decimal number. False: not one, or larger than 64 bits.
bool parse_decimal(std::string_view word, std::uint64_t& value, Sign sign = Sign::kNone);

// What is wrong with a word that parse_decimal() refuses, as the end of a sentence: it is none
// ("x" is not a decimal number of sectors), or larger than 64 bits. `unit` is "" or " of things".
std::string no_decimal(std::string_view word, std::string_view unit);

// Splits a line at blanks and tabs; a backslash takes the next character literally. A backslash at
// the end stands for itself.
std::vector<std::string> split_words(std::string_view text);
// A word as split_words() reads it back in one piece.
std::string escape_word(std::string_view word);

}  // namespace mapperfs
