// The udev verbs. There is no udev behind a mapperfs: nothing waits for a cookie, so that scripts
// which make, pass and complete cookies go on. What a cookie means is in its bits and needs no
// udev.
#include <fmt/ostream.h>

#include <array>
#include <cstdlib>

#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

constexpr unsigned kFlagsShift = 16;
constexpr unsigned kFlagCount = 16;
constexpr unsigned kFirstSubsystemFlag = 8;
constexpr unsigned kCookieMagic = 0x0D4D;

constexpr std::array<std::string_view, 7> kFlagNames = {
    "DISABLE_DM_RULES", "DISABLE_SUBSYSTEM_RULES",  "DISABLE_DISK_RULES", "DISABLE_OTHER_RULES",
    "LOW_PRIORITY",     "DISABLE_LIBRARY_FALLBACK", "PRIMARY_SOURCE"};

std::optional<unsigned long> parse_cookie(Session& session, const std::string& word) {
  char* end = nullptr;
  const unsigned long cookie = std::strtoul(word.c_str(), &end, 0);
  if (cookie != 0 && *end == '\0') return cookie;
  session.fail("Incorrect cookie value.");
  return std::nullopt;
}

}  // namespace

bool verb_udevcookies(Session& session, const Args&) {
  fmt::print(session.out(),
             "Cookie       Semid      Value      Last semop time           Last change time\n");
  return true;
}

bool verb_udevcreatecookie(Session&, const Args&) { return true; }

bool verb_udevreleasecookie(Session& session, const Args& args) {
  const char* const environment = std::getenv("DM_UDEV_COOKIE");
  const bool given = environment != nullptr && *environment != '\0';
  if (args.empty() && !given) return session.fail("No udev transaction cookie given.");
  return parse_cookie(session, args.empty() ? environment : args[0]).has_value();
}

bool verb_udevflags(Session& session, const Args& args) {
  const auto cookie = parse_cookie(session, args[0]);
  if (!cookie) return false;
  const unsigned long flags = *cookie >> kFlagsShift;
  for (unsigned bit = 0; bit < kFlagCount; ++bit) {
    if ((flags >> bit & 1U) == 0) continue;
    if (bit < kFlagNames.size()) {
      fmt::print(session.out(), "DM_UDEV_{}_FLAG='1'\n", kFlagNames[bit]);
    } else if (bit < kFirstSubsystemFlag) {
      fmt::print(session.out(), "DM_UDEV_FLAG{}='1'\n", bit);
    } else {
      fmt::print(session.out(), "DM_SUBSYSTEM_UDEV_FLAG{}='1'\n", bit - kFirstSubsystemFlag);
    }
  }
  return true;
}

bool verb_udevcomplete(Session& session, const Args& args) {
  const auto cookie = parse_cookie(session, args[0]);
  if (!cookie) return false;
  fmt::print(session.out(), "DM_COOKIE_COMPLETED=0x{:<10x}\n", *cookie);
  return true;
}

bool verb_udevcomplete_all(Session& session, const Args& args) {
  if (!args.empty()) {
    char* end = nullptr;
    std::strtoul(args[0].c_str(), &end, 10);
    if (args[0].empty() || *end != '\0') {
      return session.fail("Failed to read age_in_minutes parameter.");
    }
  }
  fmt::print(session.out(),
             "0 semaphores with keys prefixed by {} (0x{:x}) destroyed. 0 skipped.\n", kCookieMagic,
             kCookieMagic);
  return true;
}

}  // namespace mapperctl
