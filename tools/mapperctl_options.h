// The command line of dmsetup: every option it has, whether it means something here or is only
// taken. getopt_long reads it rather than CLI11, since scripts rely on what getopt does: options
// anywhere, unique abbreviations, and its own wording of errors.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "tools/mapperctl_names.h"

namespace mapperctl {

enum class DeviceNaming { kDevno, kBlkdevname, kDevname };
enum class Headings { kNone, kAbbreviated, kFull };

struct TreeOptions {
  enum class Symbols { kByLocale, kAscii, kUtf, kVt100 };
  Symbols symbols = Symbols::kByLocale;
  bool compact = false;
  bool inverted = false;
  bool notrunc = false;
  bool device = true;
  bool blkdevname = false;
  bool active = false;
  bool open = false;
  bool rw = false;
  bool uuid = false;
};

struct Options {
  std::string program;             // how we were called: "mapperctl" or "dmsetup"
  std::vector<std::string> words;  // the verb and its arguments

  std::string mount;
  bool json = false;
  bool help = false;
  bool version = false;
  int verbose = 0;
  int force = 0;
  bool yes = false;

  // Which device, and what a new one is to be.
  std::optional<int> major;
  std::optional<int> minor;
  std::optional<std::string> uuid;
  std::optional<unsigned> uid;
  std::optional<unsigned> gid;
  std::optional<unsigned> mode;
  std::optional<std::string> read_ahead;
  Mangling mangling = Mangling::kAuto;
  bool read_only = false;
  bool notable = false;
  bool concise = false;
  bool passthrough = false;
  bool set_uuid = false;
  std::optional<std::string> table;  // several --table are lines of one table

  // How to act.
  bool deferred = false;
  bool retry = false;
  bool noflush = false;
  bool nolockfs = false;
  bool inactive = false;
  std::string udev_cookie;

  // What to print, and how.
  bool columns = false;
  bool showkeys = false;
  bool tree = false;
  std::optional<std::string> fields;
  std::optional<std::string> sort;
  std::optional<std::string> select;
  std::optional<std::string> target;
  std::optional<std::string> exec;
  std::optional<std::string> separator;
  Headings headings = Headings::kAbbreviated;
  bool name_prefixes = false;
  bool rows = false;
  bool unquoted = false;
  std::optional<int> count;
  std::optional<int> interval_seconds;
  DeviceNaming device_naming = DeviceNaming::kDevno;
  TreeOptions tree_options;

  // dmsetup stats.
  bool all_devices = false;
  bool all_programs = false;
  bool all_regions = false;
  bool clear = false;
  bool precise = false;
  bool segments = false;
  bool histogram = false;
  std::optional<std::string> alias;
  std::optional<std::string> areas;
  std::optional<std::string> area_size;
  std::optional<std::string> bounds;
  std::optional<std::string> length;
  std::optional<std::string> program_id;
  std::optional<std::string> region_id;
  std::optional<std::string> start;
  std::optional<std::string> units;
  std::optional<std::string> user_data;
};

// Reads argv. Returns nothing after printing what was wrong with it (dmsetup then says "Couldn't
// process command line.", which the caller does).
std::optional<Options> parse_options(int argc, char** argv, std::ostream& err);

}  // namespace mapperctl
