// Device names and UUIDs as dmsetup treats them: mangling of characters that udev does not like
// into \xNN, limits, and LVM's way of joining names with hyphens. Pure functions, no I/O.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace mapperctl {

// Bytes that a name and a UUID may have, mangled.
inline constexpr size_t kMaxNameBytes = 127;
inline constexpr size_t kMaxUuidBytes = 128;

enum class Mangling { kAuto, kHex, kNone };

// "auto", "hex" or "none"; nothing for any other word.
std::optional<Mangling> parse_mangling(std::string_view word);

// True for characters that are never mangled: 0-9 A-Z a-z # + - . : = @ _
bool is_plain_name_char(char c);

struct Mangled {
  std::string text;
  bool changed = false;  // false: the input was in its mangled form already
  std::string error;     // not empty: the sentence that dmsetup prints; text is empty then
};

// Mangles `raw`, which is called `what` ("name", "UUID") in an error. `max_bytes` limits the
// result. kAuto leaves an already mangled string alone and refuses a mixture; kHex mangles whatever
// is not plain, backslashes included; kNone returns the input.
Mangled mangle(std::string_view raw, std::string_view what, size_t max_bytes, Mangling mode);

// The opposite: \xNN becomes the character. Malformed sequences stay as they are.
std::string unmangle(std::string_view mangled);

// True when the string was mangled twice: taking one layer off leaves another one.
bool is_mangled_twice(std::string_view mangled);

struct LvmName {
  std::string vg;
  std::string lv;
  std::string layer;
};

// Takes VG-LV-LAYER apart; a doubled hyphen is a hyphen of the name itself.
LvmName split_lvm_name(std::string_view name);

// The letters before the first hyphen of a UUID ("LVM-abc" -> "LVM"), empty without one.
std::string uuid_prefix(std::string_view uuid);

}  // namespace mapperctl
