#include "engine/target_args.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <utility>

namespace mapperfs {
namespace {

bool all_digits(std::string_view word) {
  return !word.empty() && word.find_first_not_of("0123456789") == std::string_view::npos;
}

// The word behind the sign that it may have.
std::string_view without(Sign sign, std::string_view word) {
  return sign == Sign::kPlus && word.starts_with('+') ? word.substr(1) : word;
}

}  // namespace

TargetArgs::TargetArgs(std::vector<std::string> words, DeviceMode mode, DeviceOpener& opener)
    : words_(std::move(words)), mode_(mode), opener_(opener) {}

void TargetArgs::fail(std::string_view text, std::string_view detail) {
  fail(EINVAL, text, detail);
}

void TargetArgs::fail(int error, std::string_view text, std::string_view detail) {
  if (status_.ok()) {
    status_ = Status(error, fmt::format("{}: {}", text, detail));
  }
}

void TargetArgs::require_count(std::size_t min, std::size_t max, std::string_view text) {
  if (count() >= min && count() <= max) {
    return;
  }
  if (min == max) {
    fail(text, fmt::format("{} given, {} needed", count(), min));
  } else if (count() < min) {
    fail(text, fmt::format("{} given, at least {} needed", count(), min));
  } else {
    fail(text, fmt::format("{} given, at most {} taken", count(), max));
  }
}

bool TargetArgs::need(std::size_t i, std::string_view text) {
  if (failed()) {
    return false;
  }
  if (i >= count()) {
    fail(text, fmt::format("argument {} is missing", i + 1));
    return false;
  }
  return true;
}

std::string TargetArgs::word(std::size_t i, std::string_view text) {
  return need(i, text) ? words_[i] : std::string();
}

std::string TargetArgs::path(std::size_t i, std::string_view text) {
  if (!need(i, text)) {
    return {};
  }
  if (const Status status = opener_.outside_mount(words_[i]); !status.ok()) {
    fail(status.error(), text, status.message());
    return {};
  }
  return words_[i];
}

sector_t TargetArgs::sector(std::size_t i, std::string_view text, Sign sign) {
  std::uint64_t value = 0;
  if (need(i, text) && !parse_decimal(words_[i], value, sign)) {
    fail(text, no_decimal(words_[i], " of sectors"));
  }
  return failed() ? 0 : value;
}

std::uint64_t TargetArgs::number(std::size_t i, std::uint64_t min, std::uint64_t max,
                                 std::string_view text, Sign sign) {
  std::uint64_t value = 0;
  if (!need(i, text)) {
    return 0;
  }
  const bool decimal = parse_decimal(words_[i], value, sign);
  if (!decimal && !all_digits(without(sign, words_[i]))) {
    fail(text, no_decimal(words_[i], ""));
  } else if (!decimal || value < min || value > max) {
    fail(text, min == max ? fmt::format("{} is not {}", words_[i], min)
                          : fmt::format("{} is not between {} and {}", words_[i], min, max));
  }
  return failed() ? 0 : value;
}

std::uint32_t TargetArgs::u32(std::size_t i, std::uint32_t min, std::string_view text, Sign sign) {
  return static_cast<std::uint32_t>(
      number(i, min, std::numeric_limits<std::uint32_t>::max(), text, sign));
}

DevRef TargetArgs::device(std::size_t i, std::string_view text) { return device(i, mode_, text); }

DevRef TargetArgs::device(std::size_t i, DeviceMode mode, std::string_view text) {
  if (!need(i, text)) {
    return {};
  }
  Result<DevRef> dev = opener_.open(words_[i], mode);
  if (!dev.ok()) {
    fail(dev.status().error(), text, dev.status().message());
    return {};
  }
  return dev.take();
}

std::span<const std::string> TargetArgs::group(std::size_t i, std::size_t max,
                                               std::string_view text) {
  const std::uint64_t wanted = number(i, 0, max, text);
  if (failed()) {
    return {};
  }
  const std::size_t left = count() - i - 1;
  if (wanted > left) {
    fail(text, fmt::format("{} announced, {} follow", wanted, left));
    return {};
  }
  return std::span<const std::string>(words_).subspan(i + 1, wanted);
}

bool parse_decimal(std::string_view word, std::uint64_t& value, Sign sign) {
  word = without(sign, word);
  if (word.empty() || word.front() < '0' || word.front() > '9') {
    return false;
  }
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc() && end == word.data() + word.size();
}

std::string no_decimal(std::string_view word, std::string_view unit) {
  return all_digits(word) ? fmt::format("{} is too large for a number{}: at most {}", word, unit,
                                        std::numeric_limits<std::uint64_t>::max())
                          : fmt::format("\"{}\" is not a decimal number{}", word, unit);
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == ' ' || c == '\t' || c == '\n') {
      inside = false;
      continue;
    }
    if (c == '\\' && i + 1 < text.size()) {
      c = text[++i];
    }
    if (!inside) {
      words.emplace_back();
      inside = true;
    }
    words.back() += c;
  }
  return words;
}

std::string escape_word(std::string_view word) {
  std::string escaped;
  escaped.reserve(word.size());
  for (std::size_t i = 0; i < word.size(); ++i) {
    const char c = word[i];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\' || (c == '#' && i == 0)) {
      escaped += '\\';
    }
    escaped += c;
  }
  return escaped;
}

}  // namespace mapperfs
