#include "tools/mapperctl_options.h"

#include <fmt/format.h>
#include <fmt/ostream.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "tools/mapperctl_help.h"
#include "tools/mapperctl_option_table.h"

namespace mapperctl {
namespace {

std::string join_lines(const std::optional<std::string>& before, const char* line) {
  return before ? *before + '\n' + line : std::string(line);
}

class Parser {
 public:
  Parser(Options& options, std::ostream& err) : opt_(options), err_(err) {}

  // False: printed what is wrong.
  bool take(int letter, const char* argument) {
    return take_switch(letter) || take_text(letter, argument) || take_checked(letter, argument);
  }

  bool finish() {
    if (opt_.major.has_value() != opt_.minor.has_value()) {
      return fail("Please specify both major number and minor number.");
    }
    if (opt_.table && opt_.notable) return fail("--table and --notable are incompatible.");
    if (add_node_on_resume_ && add_node_on_create_) {
      return fail("--addnodeonresume and --addnodeoncreate are incompatible.");
    }
    return finish_output_options();
  }

 private:
  bool fail(std::string_view sentence) {
    fmt::print(err_, "{}\n", sentence);
    return false;
  }

  // Every switch that needs no look at an argument.
  bool take_switch(int letter) {
    switch (letter) {
      case 'f':
        return ++opt_.force, true;
      case 'v':
        return ++opt_.verbose, true;
      case kAddNode:
        return add_node_on_resume_ = true;
      case kAddNodeOnCreate:
        return add_node_on_create_ = true;
      case kNoheadings:
        return opt_.headings = Headings::kNone, true;
      case kIgnored:
        return true;
      default:
        break;
    }
    bool* const flag = flag_of(letter);
    return flag != nullptr && (*flag = true);
  }

  bool* flag_of(int letter) {
    switch (letter) {
      case 'c':
      case 'C':
        return &opt_.columns;
      case 'h':
        return &opt_.help;
      case 'n':
        return &opt_.notable;
      case 'r':
        return &opt_.read_only;
      case 'y':
        return &opt_.yes;
      case kAllDevices:
        return &opt_.all_devices;
      case kAllPrograms:
        return &opt_.all_programs;
      case kAllRegions:
        return &opt_.all_regions;
      case kClear:
        return &opt_.clear;
      case kConcise:
        return &opt_.concise;
      case kDeferred:
        return &opt_.deferred;
      case kHistogram:
        return &opt_.histogram;
      case kInactive:
        return &opt_.inactive;
      case kJson:
        return &opt_.json;
      case kNameprefixes:
        return &opt_.name_prefixes;
      case kNoflush:
        return &opt_.noflush;
      case kNolockfs:
        return &opt_.nolockfs;
      case kPassthrough:
        return &opt_.passthrough;
      case kPrecise:
        return &opt_.precise;
      case kRetry:
        return &opt_.retry;
      case kRows:
        return &opt_.rows;
      case kSegments:
        return &opt_.segments;
      case kSetuuid:
        return &opt_.set_uuid;
      case kShowkeys:
        return &opt_.showkeys;
      case kTree:
        return &opt_.tree;
      case kUnquoted:
        return &opt_.unquoted;
      case kVersion:
        return &opt_.version;
      default:
        return nullptr;
    }
  }

  bool take_text(int letter, const char* argument) {
    if (letter == kMount) return opt_.mount = argument, true;
    if (letter == kUdevCookie) return opt_.udev_cookie = argument, true;
    if (letter == kTable) return opt_.table = join_lines(opt_.table, argument), true;
    std::optional<std::string>* const text = text_of(letter);
    if (text != nullptr) *text = argument;
    return text != nullptr;
  }

  std::optional<std::string>* text_of(int letter) {
    switch (letter) {
      case 'o':
        return &opt_.fields;
      case 'O':
        return &opt_.sort;
      case 'S':
        return &opt_.select;
      case 'u':
        return &opt_.uuid;
      case kAlias:
        return &opt_.alias;
      case kAreas:
        return &opt_.areas;
      case kAreaSize:
        return &opt_.area_size;
      case kBounds:
        return &opt_.bounds;
      case kExec:
        return &opt_.exec;
      case kLength:
        return &opt_.length;
      case kProgramId:
        return &opt_.program_id;
      case kRegionId:
        return &opt_.region_id;
      case kSeparator:
        return &opt_.separator;
      case kStart:
        return &opt_.start;
      case kTarget:
        return &opt_.target;
      case kUnits:
        return &opt_.units;
      case kUserData:
        return &opt_.user_data;
      default:
        return nullptr;
    }
  }

  // Numbers go through atoi, as there: what is no number is 0.
  bool take_checked(int letter, const char* argument) {
    switch (letter) {
      case 'j':
        return opt_.major = std::atoi(argument), true;
      case 'm':
        return opt_.minor = std::atoi(argument), true;
      case 'U':
        return opt_.uid = static_cast<unsigned>(std::atoi(argument)), true;
      case 'G':
        return opt_.gid = static_cast<unsigned>(std::atoi(argument)), true;
      case 'M':
        return take_mode(argument);
      case kCount:
        opt_.count = std::atoi(argument);
        return *opt_.count >= 0 || fail("Count must be zero or greater.");
      case kInterval:
        opt_.interval_seconds = std::atoi(argument);
        return *opt_.interval_seconds > 0 || fail("Interval must be a positive integer.");
      case kMangleName:
        return take_mangling(argument);
      case kReadahead:
        return take_read_ahead(argument);
      case kHeadings:
        return take_headings(argument);
      default:
        return false;
    }
  }

  bool take_mode(const char* argument) {
    char* end = nullptr;
    errno = 0;
    const long mode = std::strtol(argument, &end, 8);
    if (*end == '\0' && errno == 0) return opt_.mode = static_cast<unsigned>(mode), true;
    return fail(fmt::format("Invalid argument for --mode: {}. {}", argument,
                            errno != 0 ? std::strerror(errno) : ""));
  }

  bool take_mangling(const char* argument) {
    const auto mode = parse_mangling(argument);
    if (mode) opt_.mangling = *mode;
    return mode.has_value() || fail("Unknown name mangling mode.");
  }

  bool take_read_ahead(const char* argument) {
    const int sectors = std::atoi(*argument == '+' ? argument + 1 : argument);
    opt_.read_ahead = argument;
    return sectors >= 0 ||
           fail(fmt::format("Negative read ahead value ({}) is not understood.", sectors));
  }

  bool take_headings(std::string_view word) {
    if (word == "none" || word == "0") return opt_.headings = Headings::kNone, true;
    if (word == "abbrev" || word == "1") return opt_.headings = Headings::kAbbreviated, true;
    if (word == "full" || word == "2") return opt_.headings = Headings::kFull, true;
    return fail(fmt::format("Invalid argument for --headings: {}.", word));
  }

  // -o means columns of a report, the look of a tree, or how devices are called. What comes with an
  // unknown verb is not looked at: the verb is what is wrong.
  bool finish_output_options() {
    if (!opt_.fields || opt_.words.empty()) return true;
    const std::string& verb = opt_.words.front();
    if (opt_.tree || verb == "tree") return parse_tree_options(*opt_.fields);
    if (opt_.columns || verb == "splitname" || verb == "stats" || find_usage(verb) == nullptr) {
      return true;
    }
    return parse_naming(*opt_.fields);
  }

  bool parse_naming(std::string_view list) {
    if (list.empty()) return true;
    for (const std::string_view word : split(list)) {
      if (word == "devno") {
        opt_.device_naming = DeviceNaming::kDevno;
      } else if (word == "blkdevname") {
        opt_.device_naming = DeviceNaming::kBlkdevname;
      } else if (word == "devname") {
        opt_.device_naming = DeviceNaming::kDevname;
      } else {
        return fail(fmt::format("Option not recognised: {}.", word));
      }
    }
    return true;
  }

  bool parse_tree_options(std::string_view list) {
    std::string unknown;
    for (const std::string_view word : split(list)) {
      if (!word.empty() && !take_tree_word(word)) {
        unknown += (unknown.empty() ? "" : ",") + std::string(word);
      }
    }
    return unknown.empty() || fail(fmt::format("Tree options not recognised: {}.", unknown));
  }

  bool take_tree_word(std::string_view word) {
    TreeOptions& tree = opt_.tree_options;
    using Symbols = TreeOptions::Symbols;
    if (word == "ascii") return tree.symbols = Symbols::kAscii, true;
    if (word == "utf") return tree.symbols = Symbols::kUtf, true;
    if (word == "vt100") return tree.symbols = Symbols::kVt100, true;
    if (word == "compact") return tree.compact = true;
    if (word == "inverted") return tree.inverted = true;
    if (word == "notrunc") return tree.notrunc = true;
    if (word == "device") return tree.device = true;
    if (word == "nodevice") return tree.device = false, true;
    if (word == "blkdevname") return tree.blkdevname = true;
    if (word == "active") return tree.active = true;
    if (word == "open") return tree.open = true;
    if (word == "rw") return tree.rw = true;
    if (word == "uuid") return tree.uuid = true;
    return false;
  }

  static std::vector<std::string_view> split(std::string_view list) {
    std::vector<std::string_view> words;
    for (size_t from = 0; from <= list.size();) {
      const size_t comma = std::min(list.find(',', from), list.size());
      words.push_back(list.substr(from, comma - from));
      from = comma + 1;
    }
    return words;
  }

  Options& opt_;
  std::ostream& err_;
  bool add_node_on_create_ = false;
  bool add_node_on_resume_ = false;
};

std::string base_name(std::string_view path) {
  return std::string(path.substr(path.rfind('/') + 1));
}

}  // namespace

std::optional<Options> parse_options(int argc, char** argv, std::ostream& err) {
  Options options;
  options.program = argc > 0 ? base_name(argv[0]) : "mapperctl";
  const char* const mangling = std::getenv("DM_DEFAULT_NAME_MANGLING_MODE");
  if (mangling != nullptr) options.mangling = parse_mangling(mangling).value_or(Mangling::kAuto);
  Parser parser(options, err);
  optind = 0;  // a second parse in one process, as tests do, starts anew
  for (;;) {
    const int letter = ::getopt_long(argc, argv, kShortOptions, kLongOptions.data(), nullptr);
    if (letter == -1) break;
    if (letter == '?' || !parser.take(letter, optarg)) return std::nullopt;
  }
  options.words.assign(argv + optind, argv + argc);
  if (!parser.finish()) return std::nullopt;
  return options;
}

}  // namespace mapperctl
