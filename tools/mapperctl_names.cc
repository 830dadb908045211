#include "tools/mapperctl_names.h"

#include <fmt/format.h>

#include <cctype>

namespace mapperctl {
namespace {

constexpr std::string_view kPlainPunctuation = "#+-.:=@_";
constexpr size_t kSequenceBytes = 4;  // \xNN

bool is_sequence_start(std::string_view text, size_t at) {
  return text[at] == '\\' && at + 1 < text.size() && text[at + 1] == 'x';
}

std::optional<char> decode_sequence(std::string_view text, size_t at) {
  if (text.size() - at < kSequenceBytes || !is_sequence_start(text, at)) return std::nullopt;
  int value = 0;
  for (const char c : text.substr(at + 2, 2)) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isxdigit(u) == 0) return std::nullopt;
    const int digit = std::isdigit(u) != 0 ? c - '0' : std::tolower(u) - 'a' + 10;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

std::string mixed_error(std::string_view raw, std::string_view what) {
  return fmt::format(
      "The {} \"{}\" contains mixed mangled and unmangled characters or it's already mangled "
      "improperly.",
      what, raw);
}

}  // namespace

std::optional<Mangling> parse_mangling(std::string_view word) {
  if (word == "auto") return Mangling::kAuto;
  if (word == "hex") return Mangling::kHex;
  if (word == "none") return Mangling::kNone;
  return std::nullopt;
}

bool is_plain_name_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
         kPlainPunctuation.find(c) != std::string_view::npos;
}

Mangled mangle(std::string_view raw, std::string_view what, size_t max_bytes, Mangling mode) {
  Mangled result;
  if (mode == Mangling::kNone) {
    result.text = raw;
    return result;
  }
  bool kept_sequence = false;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (mode == Mangling::kAuto && is_sequence_start(raw, i)) {
      if (raw.size() - i < kSequenceBytes || result.changed) {
        return {{}, false, mixed_error(raw, what)};
      }
      result.text.append(raw.substr(i, kSequenceBytes));
      i += kSequenceBytes - 1;
      kept_sequence = true;
    } else if (is_plain_name_char(raw[i])) {
      result.text.push_back(raw[i]);
    } else {
      if (kept_sequence) return {{}, false, mixed_error(raw, what)};
      result.text += fmt::format("\\x{:02x}", static_cast<unsigned char>(raw[i]));
      result.changed = true;
    }
  }
  if (result.text.size() > max_bytes) {
    return {{}, false, fmt::format("Mangled form of the {} too long for \"{}\".", what, raw)};
  }
  return result;
}

std::string unmangle(std::string_view mangled) {
  std::string raw;
  raw.reserve(mangled.size());
  for (size_t i = 0; i < mangled.size(); ++i) {
    if (const auto c = decode_sequence(mangled, i)) {
      raw.push_back(*c);
      i += kSequenceBytes - 1;
    } else {
      raw.push_back(mangled[i]);
    }
  }
  return raw;
}

bool is_mangled_twice(std::string_view mangled) {
  const std::string once = unmangle(mangled);
  return once != mangled && unmangle(once) != once;
}

LvmName split_lvm_name(std::string_view name) {
  std::string* part[] = {nullptr, nullptr, nullptr};
  LvmName result;
  part[0] = &result.vg;
  part[1] = &result.lv;
  part[2] = &result.layer;
  size_t current = 0;
  for (size_t i = 0; i < name.size() && current < 3; ++i) {
    const bool hyphen = name[i] == '-';
    // A hyphen that nothing follows separates nothing and stays, as dmsetup leaves it.
    const bool last = i + 1 == name.size();
    if (hyphen && !last && name[i + 1] == '-') {
      part[current]->push_back('-');
      ++i;
    } else if (hyphen && !last) {
      ++current;
    } else {
      part[current]->push_back(name[i]);
    }
  }
  return result;
}

std::string uuid_prefix(std::string_view uuid) {
  const size_t hyphen = uuid.find('-');
  return hyphen == std::string_view::npos ? std::string() : std::string(uuid.substr(0, hyphen));
}

}  // namespace mapperctl
