#include "tools/thin_options.h"

#include <fmt/ostream.h>
#include <getopt.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

namespace mapperthin {
namespace {

using mapperfs::kThinMaxDeviceId;

struct VerbInfo {
  ThinVerb verb;
  std::string_view name;
  const char* letters;  // of its options, for getopt
  std::string_view operand;
  std::string_view about;
};

constexpr std::array<VerbInfo, 7> kVerbs = {{
    {ThinVerb::kCheck, "thin-check", "qm::", "DIR", "look for damage and leaks"},
    {ThinVerb::kDump, "thin-dump", "f:m::o:", "DIR", "print metadata as XML"},
    {ThinVerb::kRestore, "thin-restore", "i:o:q", "", "make metadata from XML"},
    {ThinVerb::kLs, "thin-ls", "m::o:", "DIR", "list thin devices"},
    {ThinVerb::kDelta, "thin-delta", "m::", "DIR", "compare two thin devices"},
    {ThinVerb::kRmap, "thin-rmap", "m::", "DIR", "tell who maps data blocks"},
    {ThinVerb::kTrim, "thin-trim", "q", "", "discard free data blocks"},
}};

// Options without a letter.
enum LongOnly : int {
  kAutoRepair = 256,
  kClearNeedsCheck,
  kDataBlockSize,
  kDataDev,
  kDevId,
  kIgnoreNonFatal,
  kLive,
  kMetadataDev,
  kNoHeaders,
  kNrDataBlocks,
  kProgress,
  kRegion,
  kSkipMappings,
  kSnap1,
  kSnap2,
  kSuperBlockOnly,
  kTransactionId,
  kVerbose,
};

constexpr unsigned bit(ThinVerb verb) { return 1U << static_cast<unsigned>(verb); }
constexpr unsigned kCheck = bit(ThinVerb::kCheck);
constexpr unsigned kDump = bit(ThinVerb::kDump);
constexpr unsigned kRestore = bit(ThinVerb::kRestore);
constexpr unsigned kLs = bit(ThinVerb::kLs);
constexpr unsigned kDelta = bit(ThinVerb::kDelta);
constexpr unsigned kRmap = bit(ThinVerb::kRmap);
constexpr unsigned kTrim = bit(ThinVerb::kTrim);
constexpr unsigned kReaders = kCheck | kDump | kLs | kDelta | kRmap;
constexpr unsigned kAll = kReaders | kRestore | kTrim;

struct OptionInfo {
  const char* name;
  int argument;  // as getopt's has_arg
  int letter;
  unsigned verbs;
  std::string_view value;  // for the help
  std::string_view about;  // empty: another name for the one before, not listed
};

constexpr std::array<OptionInfo, 30> kOptions = {{
    {"help", no_argument, 'h', kAll, "", "this text"},
    {"version", no_argument, 'V', kAll, "", "the version"},
    {"quiet", no_argument, 'q', kCheck | kRestore | kTrim, "",
     "print nothing; the exit code tells"},
    {"metadata-snap", optional_argument, 'm', kReaders, "[=ROOT]",
     "what the metadata snapshot holds; the pool may be in use"},
    {"live", no_argument, kLive, kReaders, "", "the last commit of a pool that is in use"},
    {"progress", no_argument, kProgress, kAll, "", "tell how far it is, even if not to a terminal"},
    {"auto-repair", no_argument, kAutoRepair, kCheck, "", "mend leaks if nothing else is wrong"},
    {"clear-needs-check-flag", no_argument, kClearNeedsCheck, kCheck, "",
     "clear the flag if nothing is wrong"},
    {"ignore-non-fatal-errors", no_argument, kIgnoreNonFatal, kCheck, "", "leaks are no failure"},
    {"super-block-only", no_argument, kSuperBlockOnly, kCheck, "", "look at the superblock only"},
    {"skip-mappings", no_argument, kSkipMappings, kCheck | kDump, "", "leave mappings out"},
    {"format", required_argument, 'f', kDump, "FORMAT", "xml (default) or human_readable"},
    {"dev-id", required_argument, kDevId, kDump, "ID", "this device only"},
    {"output", required_argument, 'o', kDump, "FILE", "write there"},
    {"input", required_argument, 'i', kRestore, "FILE", "the XML; - is standard input"},
    {"output", required_argument, 'o', kRestore, "DIR", "missing or empty: the metadata to make"},
    {"transaction-id", required_argument, kTransactionId, kDump | kRestore, "N",
     "in place of the one there is"},
    {"data-block-size", required_argument, kDataBlockSize, kDump | kRestore, "SECTORS",
     "in place of the one there is"},
    {"nr-data-blocks", required_argument, kNrDataBlocks, kDump | kRestore, "N",
     "in place of the one there is"},
    {"format", required_argument, 'o', kLs, "FIELDS", "columns, with commas between"},
    {"no-headers", no_argument, kNoHeaders, kLs, "", "no line of headers"},
    {"snap1", required_argument, kSnap1, kDelta, "ID", "the left device; also --thin1"},
    {"thin1", required_argument, kSnap1, kDelta, "", ""},
    {"snap2", required_argument, kSnap2, kDelta, "ID", "the right device; also --thin2"},
    {"thin2", required_argument, kSnap2, kDelta, "", ""},
    {"verbose", no_argument, kVerbose, kDelta, "", "data blocks too"},
    {"region", required_argument, kRegion, kRmap, "A..B",
     "data blocks A to B - 1; may be repeated"},
    {"metadata-dev", required_argument, kMetadataDev, kTrim, "DIR", "the metadata"},
    {"data-dev", required_argument, kDataDev, kTrim, "DEVICE", "the data device or file"},
    {nullptr, 0, 0, 0, "", ""},
}};

void print_usage(std::ostream& out, const VerbInfo& verb) {
  fmt::print(out, "Usage: {} [options]{}{}\nOptions:\n", verb.name, verb.operand.empty() ? "" : " ",
             verb.operand);
  for (const OptionInfo& option : kOptions) {
    if ((option.verbs & bit(verb.verb)) == 0 || option.about.empty()) {
      continue;
    }
    const std::string letter =
        option.letter < 256 ? fmt::format("-{}, ", static_cast<char>(option.letter)) : "    ";
    const bool attached = option.argument == optional_argument;
    const std::string left = fmt::format("{}--{}{}{}", letter, option.name,
                                         option.value.empty() || attached ? "" : " ", option.value);
    fmt::print(out, "  {:<32} {}\n", left, option.about);
  }
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty()
             ? std::optional(value)
             : std::nullopt;
}

class Parser {
 public:
  Parser(const VerbInfo& verb, std::ostream& err) : verb_(verb), err_(err) {
    args.verb = verb.verb;
    args.name = verb.name;
  }

  // Each false: what is wrong was printed.
  bool take(int letter, const char* value);
  bool finish(int argc, char** argv, int first);
  bool fail(std::string_view sentence) {
    fmt::print(err_, "{}\n", sentence);
    print_usage(err_, verb_);
    return false;
  }

  ThinArgs args;

 private:
  bool take_switch(int letter);
  bool take_number(const char* value, std::optional<std::uint64_t>& to) {
    to = number(value);
    return to.has_value() || fail(fmt::format("{}: \"{}\" is no number", args.name, value));
  }
  bool take_id(const char* value, std::optional<std::uint32_t>& to) {
    const auto id = number(value);
    if (!id.has_value() || *id > kThinMaxDeviceId) {
      return fail(
          fmt::format("{}: \"{}\" is no device id (0 to {})", args.name, value, kThinMaxDeviceId));
    }
    to = static_cast<std::uint32_t>(*id);
    return true;
  }
  bool take_region(std::string_view text);

  const VerbInfo& verb_;
  std::ostream& err_;
};

bool Parser::take_switch(int letter) {
  switch (letter) {
    case 'q':
      return args.quiet = true;
    case kLive:
      return args.live = true;
    case kProgress:
      return args.show_progress = true;
    case kAutoRepair:
      return args.auto_repair = true;
    case kClearNeedsCheck:
      return args.clear_needs_check = true;
    case kIgnoreNonFatal:
      return args.ignore_non_fatal = true;
    case kSuperBlockOnly:
      return args.superblock_only = true;
    case kSkipMappings:
      return args.skip_mappings = true;
    case kNoHeaders:
      return args.no_headers = true;
    case kVerbose:
      return args.verbose = true;
    default:
      return false;
  }
}

bool Parser::take(int letter, const char* value) {
  switch (letter) {
    case 'm':
      args.metadata_snap = true;
      return value == nullptr || take_number(value, args.snapshot_root);
    case 'f':
      args.human_readable = std::strcmp(value, "human_readable") == 0;
      return args.human_readable || std::strcmp(value, "xml") == 0 ||
             fail(fmt::format("unknown format \"{}\"; there are xml and human_readable", value));
    case 'i':
      args.input = value;
      return true;
    case 'o':
      (args.verb == ThinVerb::kDump ? args.output
       : args.verb == ThinVerb::kLs ? args.fields
                                    : args.metadata) = value;
      return true;
    case kDevId:
      return take_id(value, args.device_id);
    case kSnap1:
      return take_id(value, args.left);
    case kSnap2:
      return take_id(value, args.right);
    case kTransactionId:
      return take_number(value, args.transaction_id);
    case kDataBlockSize:
      return take_number(value, args.data_block_size);
    case kNrDataBlocks:
      return take_number(value, args.nr_data_blocks);
    case kRegion:
      return take_region(value);
    case kMetadataDev:
      args.metadata = value;
      return true;
    case kDataDev:
      args.data_device = value;
      return true;
    default:
      return take_switch(letter);
  }
}

bool Parser::take_region(std::string_view text) {
  const std::size_t dots = text.find("..");
  if (dots == std::string_view::npos) {
    return fail("badly formed region (no dots)");
  }
  const auto begin = number(text.substr(0, dots));
  const auto end = number(text.substr(dots + 2));
  if (!begin.has_value() || !end.has_value()) {
    return fail("badly formed region (not numbers)");
  }
  if (*end <= *begin) {
    return fail("badly formed region (end <= begin)");
  }
  args.regions.push_back({*begin, *end - *begin});
  return true;
}

bool Parser::finish(int argc, char** argv, int first) {
  if (!verb_.operand.empty()) {
    if (first >= argc) {
      return fail(args.verb == ThinVerb::kDelta || args.verb == ThinVerb::kRmap ||
                          args.verb == ThinVerb::kLs
                      ? "No input device provided."
                      : "No input file provided.");
    }
    args.metadata = argv[first++];
  }
  if (first < argc) {
    return fail(fmt::format("{}: one argument too many: {}", args.name, argv[first]));
  }
  if (args.verb == ThinVerb::kRestore && args.input.empty()) {
    return fail("No input file provided.");
  }
  if (args.verb == ThinVerb::kRestore && args.metadata.empty()) {
    return fail("No output file provided.");
  }
  if (args.verb == ThinVerb::kDelta && !args.left.has_value()) {
    return fail("--snap1 not specified.");
  }
  if (args.verb == ThinVerb::kDelta && !args.right.has_value()) {
    return fail("--snap2 not specified.");
  }
  if (args.verb == ThinVerb::kRmap && args.regions.empty()) {
    return fail("No regions provided.");
  }
  if (args.verb == ThinVerb::kTrim && (args.metadata.empty() || args.data_device.empty())) {
    return fail("--metadata-dev and --data-dev are both needed.");
  }
  if ((args.live || args.metadata_snap) && (args.auto_repair || args.clear_needs_check)) {
    return fail("What a pool has in use cannot be changed: not with --metadata-snap or --live.");
  }
  return true;
}

const VerbInfo* find_verb(std::string_view called) {
  std::string name(called.substr(called.rfind('/') + 1));
  std::replace(name.begin(), name.end(), '_', '-');
  const auto found = std::find_if(kVerbs.begin(), kVerbs.end(),
                                  [&name](const VerbInfo& verb) { return verb.name == name; });
  return found == kVerbs.end() ? nullptr : &*found;
}

}  // namespace

std::optional<ThinParse> parse_thin_command(int argc, char** argv, std::ostream& out,
                                            std::ostream& err) {
  const VerbInfo* const verb = find_verb(argv[0]);
  if (verb == nullptr) {
    return std::nullopt;
  }
  std::vector<option> options;
  for (const OptionInfo& info : kOptions) {
    if ((info.verbs & bit(verb->verb)) != 0) {
      options.push_back({info.name, info.argument, nullptr, info.letter});
    }
  }
  options.push_back({nullptr, 0, nullptr, 0});
  const std::string letters = std::string(":hV") + verb->letters;
  Parser parser(*verb, err);
  ::optind = 0;  // glibc: begin anew, whatever was parsed before
  ::opterr = 0;
  for (int letter = 0;
       (letter = ::getopt_long(argc, argv, letters.c_str(), options.data(), nullptr)) != -1;) {
    if (letter == 'h') {
      print_usage(out, *verb);
      return ThinParse{std::nullopt, 0};
    }
    if (letter == 'V') {
      fmt::print(out, "mapperfs {}\n", MAPPERFS_VERSION);
      return ThinParse{std::nullopt, 0};
    }
    if (letter == '?' || letter == ':') {
      parser.fail(fmt::format("{}: {}: {}", verb->name, argv[::optind - 1],
                              letter == '?' ? "no such option" : "needs an argument"));
      return ThinParse{std::nullopt, 1};
    }
    if (!parser.take(letter, ::optarg)) {
      return ThinParse{std::nullopt, 1};
    }
  }
  if (!parser.finish(argc, argv, ::optind)) {
    return ThinParse{std::nullopt, 1};
  }
  return ThinParse{std::move(parser.args), 0};
}

void print_thin_verbs(std::ostream& out) {
  for (const VerbInfo& verb : kVerbs) {
    fmt::print(out, "  {:<14} {}\n", verb.name, verb.about);
  }
}

}  // namespace mapperthin
