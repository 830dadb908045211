// Regions of I/O statistics as @stats messages word them, and the units in which dmstats takes and
// shows sizes and times.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mapperctl {

struct Region {
  uint64_t id = 0;
  uint64_t start = 0;   // sectors
  uint64_t length = 0;  // sectors
  uint64_t step = 1;    // sectors
  std::string program;
  std::string user_data;
  bool precise = false;
  std::string bounds;  // as the message gives them

  uint64_t areas() const { return step == 0 ? 0 : (length + step - 1) / step; }
};

// A line of @stats_list; nothing when it is none.
std::optional<Region> parse_region(const std::string& line);
// Sectors as 0, 512b, 128.00k.
std::string size_text(uint64_t sectors);
// Sectors of a number with or without a unit (s, b, k, m, g, t, p, e).
std::optional<uint64_t> parse_size(std::string_view text);
// 10ms,20ms in the unit of a region: milliseconds, nanoseconds when precise.
std::optional<std::string> parse_bounds(std::string_view text, bool precise);
// The bounds of a region with units: 0s,10ms,20ms.
std::string bounds_text(const Region& region);

}  // namespace mapperctl
