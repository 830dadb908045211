#include "tools/mapperctl_regions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <sstream>

namespace mapperctl {
namespace {

constexpr uint64_t kSectorBytes = 512;

// One bound in the largest unit that leaves it whole.
std::string time_text(uint64_t ns) {
  constexpr std::array<std::pair<uint64_t, std::string_view>, 3> kUnits = {
      {{1000000000, "s"}, {1000000, "ms"}, {1000, "us"}}};
  for (const auto& [size, unit] : kUnits) {
    if (ns % size == 0) return fmt::format("{}{}", ns / size, unit);
  }
  return fmt::format("{}ns", ns);
}

}  // namespace

// `ID: START+LEN STEP PROGRAM AUX[ precise_timestamps][ histogram:...]`
std::optional<Region> parse_region(const std::string& line) {
  std::istringstream words(line);
  Region region;
  char colon = 0;
  char plus = 0;
  if (!(words >> region.id >> colon >> region.start >> plus >> region.length >> region.step >>
        region.program >> region.user_data)) {
    return std::nullopt;
  }
  for (std::string word; words >> word;) {
    region.precise = region.precise || word == "precise_timestamps";
    if (word.rfind("histogram:", 0) == 0) region.bounds = word.substr(word.find(':') + 1);
  }
  return region;
}

// Bytes the way dmstats shows sizes: 0, 512b, 128.00k.
std::string size_text(uint64_t sectors) {
  if (sectors == 0) return "0";
  double value = static_cast<double>(sectors) * static_cast<double>(kSectorBytes);
  constexpr std::string_view kUnits = "bkmgtpe";
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f}b", value) : fmt::format("{:.2f}{}", value, kUnits[unit]);
}

// A number of sectors, or of the unit behind it. A lower case unit is a power of 1024.
std::optional<uint64_t> parse_size(std::string_view text) {
  uint64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc()) return std::nullopt;
  const std::string_view unit(parsed.ptr,
                              static_cast<size_t>(text.data() + text.size() - parsed.ptr));
  if (unit.empty() || unit == "s") return number;
  constexpr std::string_view kUnits = "bkmgtpe";
  const size_t power =
      unit.size() == 1
          ? kUnits.find(static_cast<char>(std::tolower(static_cast<unsigned char>(unit[0]))))
          : std::string_view::npos;
  if (power == std::string_view::npos) return std::nullopt;
  return power == 0 ? number / kSectorBytes : number << (10 * power) >> 9;
}

// Histogram bounds in the unit of the region: 10ms,20ms -> 10,20 (ns when precise).
std::optional<std::string> parse_bounds(std::string_view text, bool precise) {
  std::string bounds;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    uint64_t number = 0;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), number);
    const std::string_view unit = word.substr(static_cast<size_t>(parsed.ptr - word.data()));
    const uint64_t ns = unit.empty() || unit == "ns" ? 1
                        : unit == "us"               ? 1000
                        : unit == "ms"               ? 1000000
                        : unit == "s"                ? 1000000000
                                                     : 0;
    if (parsed.ec != std::errc() || ns == 0) return std::nullopt;
    bounds +=
        (bounds.empty() ? "" : ",") + std::to_string(precise ? number * ns : number * ns / 1000000);
  }
  return bounds;
}

// 10,20 of a region in milliseconds -> 0s,10ms,20ms.
std::string bounds_text(const Region& region) {
  if (region.bounds.empty()) return {};
  std::string text = time_text(0);
  std::istringstream numbers(region.bounds);
  for (std::string number; std::getline(numbers, number, ',');) {
    const uint64_t value = std::strtoull(number.c_str(), nullptr, 10);
    text += "," + time_text(region.precise ? value : value * 1000000);
  }
  return text;
}

}  // namespace mapperctl
