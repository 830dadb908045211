// The table text that dmsetup reads from a file, stdin or --table, and the concise form that puts
// whole devices on one line. Parsing only: what the words of a target mean is the daemon's affair.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mapperctl {

inline constexpr size_t kMaxTargetTypeBytes = 15;

struct TableLine {
  uint64_t start = 0;   // sectors
  uint64_t length = 0;  // sectors
  std::string type;
  std::string params;
};

struct ParsedTable {
  std::vector<TableLine> lines;
  std::string error;  // not empty: the sentence that dmsetup prints
};

// Parses lines of START LENGTH TYPE PARAMS. `source` names where the text came from in an error
// ("on stdin", a file's name, or empty for --table). Numbers are read as scanf reads them: a sign
// wraps, too large saturates, and what follows the digits belongs to the next field.
ParsedTable parse_table(std::string_view text, std::string_view source);

struct ConciseDevice {
  std::string name;
  std::string uuid;
  std::string minor;
  bool read_only = false;
  std::string table;  // lines separated by newlines
};

// The devices before the first error are whole: dmsetup creates them before it complains.
struct ParsedConcise {
  std::vector<ConciseDevice> devices;
  std::string error;  // may be two lines
};

// name,uuid,minor,flags,table[,table...][;...]
ParsedConcise parse_concise(std::string_view text);

// Escapes what separates fields and devices in the concise form: comma, semicolon, backslash.
std::string escape_concise(std::string_view field);

}  // namespace mapperctl
