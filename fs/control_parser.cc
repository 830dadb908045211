#include "fs/control_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <utility>

#include "engine/target_args.h"

namespace mapperfs {
namespace {

constexpr std::size_t kAnyCount = static_cast<std::size_t>(-1);
// The most of a foreign word that a sentence repeats.
constexpr std::size_t kShownBytes = 80;
constexpr std::string_view kEmptyMessage = "Empty message received.";

struct VerbRule {
  std::string_view word;
  Verb verb;
  std::uint32_t options;
  std::size_t min_operands;
  std::size_t max_operands;
  std::string_view usage;
};

constexpr std::array<VerbRule, 19> kRules = {{
    {"create", Verb::kCreate, kOptReadonly | kOptPassthrough | kOptUuid | kOptMinor, 1, 2,
     "create [--uuid UUID] [--minor N] [--readonly] [--passthrough] NAME [UUID]"},
    {"load", Verb::kLoad, kOptReadonly, 0, kAnyCount,
     "load [--readonly] NAME: START LENGTH TARGET ARGS..."},
    {"clear", Verb::kClear, 0, 1, 1, "clear NAME"},
    {"suspend", Verb::kSuspend, kOptNoflush | kOptNolockfs, 1, 1,
     "suspend [--noflush] [--nolockfs] NAME"},
    {"resume", Verb::kResume, kOptNoflush | kOptNolockfs, 1, 1,
     "resume [--noflush] [--nolockfs] NAME"},
    {"remove", Verb::kRemove, kOptForce | kOptDeferred, 1, 1, "remove [--force] [--deferred] NAME"},
    {"remove_all", Verb::kRemoveAll, kOptForce | kOptDeferred, 0, 0,
     "remove_all [--force] [--deferred]"},
    {"rename", Verb::kRename, 0, 2, 2, "rename OLD NEW"},
    {"setuuid", Verb::kSetUuid, 0, 2, 2, "setuuid NAME UUID"},
    {"message", Verb::kMessage, 0, 3, kAnyCount, "message NAME SECTOR WORDS..."},
    {"wipe_table", Verb::kWipeTable, kOptNoflush | kOptNolockfs, 1, 1,
     "wipe_table [--noflush] [--nolockfs] NAME"},
    {"setgeometry", Verb::kSetGeometry, 0, 5, 5, "setgeometry NAME CYLINDERS HEADS SECTORS START"},
    {"cancel_deferred_remove", Verb::kCancelDeferredRemove, 0, 1, 1, "cancel_deferred_remove NAME"},
    {"passthrough", Verb::kPassthrough, 0, 2, 2, "passthrough NAME on|off"},
    {"list", Verb::kList, 0, 0, kAnyCount, "list [NAME...]"},
    {"table", Verb::kQueryTable, kOptInactive | kOptShowkeys, 0, kAnyCount,
     "table [--inactive] [--showkeys] [NAME...]"},
    {"status", Verb::kQueryStatus, kOptInactive | kOptNoflush, 0, kAnyCount,
     "status [--inactive] [--noflush] [NAME...]"},
    {"targets", Verb::kTargets, 0, 0, 0, "targets"},
    {"version", Verb::kVersion, 0, 0, 0, "version"},
}};

struct OptionWord {
  std::string_view word;
  CommandOptions option;
};
constexpr std::array<OptionWord, 10> kOptionWords = {{{"--readonly", kOptReadonly},
                                                      {"--force", kOptForce},
                                                      {"--deferred", kOptDeferred},
                                                      {"--noflush", kOptNoflush},
                                                      {"--nolockfs", kOptNolockfs},
                                                      {"--inactive", kOptInactive},
                                                      {"--showkeys", kOptShowkeys},
                                                      {"--uuid", kOptUuid},
                                                      {"--minor", kOptMinor},
                                                      {"--passthrough", kOptPassthrough}}};

constexpr bool is_blank(char c) { return c == ' ' || c == '\t'; }

std::string_view shown(std::string_view word) { return word.substr(0, kShownBytes); }

// Takes the next word off `rest`, as it is written; empty at the end.
std::string_view take_raw_word(std::string_view& rest) {
  std::size_t from = 0;
  while (from < rest.size() && is_blank(rest[from])) {
    ++from;
  }
  std::size_t to = from;
  while (to < rest.size() && !is_blank(rest[to])) {
    to += rest[to] == '\\' && to + 1 < rest.size() ? 2U : 1U;
  }
  const std::string_view word = rest.substr(from, to - from);
  rest.remove_prefix(to);
  return word;
}

std::string unescape(std::string_view raw) {
  std::string word;
  word.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    word += raw[i] == '\\' && i + 1 < raw.size() ? raw[++i] : raw[i];
  }
  return word;
}

// True for `NAME:`, whose colon is not a name's own, written `\:`.
bool ends_with_bare_colon(std::string_view raw) {
  bool bare = false;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    bare = raw[i] == ':';
    i += raw[i] == '\\' ? 1U : 0U;
  }
  return bare;
}

// An empty word cannot be told from none: who sends a name, a UUID or a message that happens to be
// empty is to hear that, not how the command is spelled. Empty text: nothing of the kind.
std::string_view missing_operand(Verb verb, std::size_t count) {
  if (verb == Verb::kRename && count == 1) {
    return "the new name is empty";
  }
  if (verb == Verb::kSetUuid && count == 1) {
    return "the UUID is empty";
  }
  if (verb == Verb::kMessage && count == 2) {
    return kEmptyMessage;
  }
  const bool needs_name = verb == Verb::kCreate || verb == Verb::kClear || verb == Verb::kSuspend ||
                          verb == Verb::kResume || verb == Verb::kRemove ||
                          verb == Verb::kWipeTable || verb == Verb::kCancelDeferredRemove;
  return needs_name && count == 0 ? std::string_view("the device name is empty")
                                  : std::string_view();
}

Status usage_error(const VerbRule& rule, std::string_view what) {
  return {EINVAL, fmt::format("{}: {}; usage: {}", rule.word, what, rule.usage)};
}

class Parser {
 public:
  Script run(std::string_view text) {
    while (!text.empty() && script_.error.ok()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      ++script_.lines;
      Status status = line(text.substr(0, end));
      if (!status.ok()) {
        // What cannot be read may be a line of the table before it: that one is no table either.
        if (group_open_) {
          script_.commands.pop_back();
        }
        script_.error = std::move(status);
      }
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return std::move(script_);
  }

 private:
  Status line(std::string_view text) {
    if (text.find('\0') != std::string_view::npos) {
      return {EINVAL, "a NUL byte in the line"};
    }
    std::string_view rest = trim_line(text);
    if (rest.empty()) {
      return {};
    }
    std::string_view after = rest;
    const std::string_view first = take_raw_word(after);
    if (ends_with_bare_colon(first)) {
      return table_line(Verb::kTable, 0, first, after);
    }
    // A session takes these two out of the text where they belong (fs/control_session.cc).
    if (first == "begin" || first == "commit") {
      return {EINVAL, fmt::format("\"{}\" does not belong here: {}", rest.substr(0, kShownBytes),
                                  first == "begin" ? "it stands alone on its line, outside of "
                                                     "another transaction"
                                                   : "no \"begin\" stands before it")};
    }
    const auto* rule = std::find_if(kRules.begin(), kRules.end(),
                                    [&](const VerbRule& r) { return r.word == first; });
    if (rule == kRules.end()) {
      return {EINVAL,
              fmt::format("unknown command \"{}\": neither a verb nor \"NAME:\"", shown(first))};
    }
    return rule->verb == Verb::kLoad ? load_line(*rule, after) : command(*rule, after);
  }

  Status load_line(const VerbRule& rule, std::string_view rest) {
    std::uint32_t options = 0;
    for (;;) {
      const std::string_view word = take_raw_word(rest);
      if (word == "--readonly") {
        options |= kOptReadonly;
      } else if (ends_with_bare_colon(word)) {
        return table_line(Verb::kLoad, options, word, rest);
      } else {
        return usage_error(rule, word.empty() ? std::string("the device's name is missing")
                                              : fmt::format("\"{}\" is no \"NAME:\"", shown(word)));
      }
    }
  }

  // `first` is the name with its colon, `rest` the line behind it.
  Status table_line(Verb verb, std::uint32_t options, std::string_view first,
                    std::string_view rest) {
    std::string name = unescape(first.substr(0, first.size() - 1));
    Result<TableLine> parsed = parse_table_line(rest);
    if (!parsed.ok()) {
      forget_table(verb, name);
      return parsed.status().with_context(name);
    }
    if (!group_open_ || !continues(verb, name)) {
      group_open_ = false;
      if (!seen_.emplace(verb, name).second) {
        forget_table(verb, name);
        return {EINVAL, fmt::format("{}: table lines of one name must stand together", name)};
      }
      Command& group = add(verb);
      group.operands.push_back(std::move(name));
      group_open_ = true;
    }
    Command& group = script_.commands.back();
    group.options |= options;
    group.table.push_back(parsed.take());
    return {};
  }

  // A table with a bad line is no table, nor is one with a line elsewhere: running the lines that
  // stood first would swap half of it live. What comes after them goes as well, so that what runs
  // is a beginning of the text.
  void forget_table(Verb verb, const std::string& name) {
    group_open_ = false;
    std::vector<Command>& commands = script_.commands;
    commands.erase(std::find_if(commands.begin(), commands.end(),
                                [&](const Command& command) {
                                  return command.verb == verb && command.name() == name;
                                }),
                   commands.end());
  }

  [[nodiscard]] bool continues(Verb verb, const std::string& name) const {
    const Command& last = script_.commands.back();
    return last.verb == verb && last.name() == name;
  }

  Status command(const VerbRule& rule, std::string_view rest) {
    group_open_ = false;
    Command command;
    command.verb = rule.verb;
    command.line = script_.lines;
    for (std::string_view word = take_raw_word(rest); !word.empty(); word = take_raw_word(rest)) {
      // A message's words are the target's own, whatever they look like.
      if (word.starts_with("--") && rule.verb != Verb::kMessage) {
        Status status = option(rule, word, rest, command);
        if (!status.ok()) {
          return status;
        }
      } else {
        command.operands.push_back(unescape(word));
      }
    }
    const std::size_t count = command.operands.size();
    const std::string_view lacks = missing_operand(rule.verb, count);
    if (!lacks.empty()) {
      // Of which device, where one is named.
      const std::string of = count == 0 ? std::string() : command.operands.front() + ": ";
      return {EINVAL, fmt::format("{}: {}{}", rule.word, of, lacks)};
    }
    if (count < rule.min_operands || count > rule.max_operands) {
      return usage_error(rule, fmt::format("{} operand{}", count, count == 1 ? "" : "s"));
    }
    Status status = other_operands(rule, command);
    if (status.ok()) {
      script_.commands.push_back(std::move(command));
    }
    return status;
  }

  static Status option(const VerbRule& rule, std::string_view word, std::string_view& rest,
                       Command& command) {
    const auto* known = std::find_if(kOptionWords.begin(), kOptionWords.end(),
                                     [&](const OptionWord& o) { return o.word == word; });
    if (known == kOptionWords.end() || (rule.options & known->option) == 0) {
      return usage_error(rule, fmt::format("unknown option \"{}\"", shown(word)));
    }
    command.options |= known->option;
    if (known->option == kOptUuid || known->option == kOptMinor) {
      const std::string value = unescape(take_raw_word(rest));
      std::uint64_t minor = 0;
      if (value.empty()) {
        return usage_error(rule, fmt::format("{} needs a value", word));
      }
      if (known->option == kOptUuid) {
        command.uuid = value;
      } else if (!parse_decimal(value, minor) || minor >= (1U << 20)) {
        return usage_error(
            rule, fmt::format("minor \"{}\" is no number below {}", shown(value), 1U << 20));
      } else {
        command.minor = static_cast<int>(minor);
      }
    }
    return {};
  }

  // Looks at the operands that are no names, and turns those that are numbers into numbers.
  static Status other_operands(const VerbRule& rule, Command& command) {
    std::vector<std::string>& operands = command.operands;
    if (rule.verb == Verb::kCreate && operands.size() == 2) {
      if (command.has(kOptUuid)) {
        return usage_error(rule, "two UUIDs");
      }
      command.uuid = operands[1];
    } else if (rule.verb == Verb::kPassthrough && operands[1] != "on" && operands[1] != "off") {
      return usage_error(rule, fmt::format("\"{}\" is neither on nor off", shown(operands[1])));
    } else if (rule.verb == Verb::kMessage) {
      if (!parse_decimal(operands[1], command.sector)) {
        return usage_error(rule,
                           fmt::format("sector {}", no_decimal(shown(operands[1]), " of sectors")));
      }
      operands.erase(operands.begin() + 1);
    } else if (rule.verb == Verb::kSetGeometry) {
      const std::array<std::uint64_t*, 4> values = {
          &command.geometry.cylinders, &command.geometry.heads, &command.geometry.sectors,
          &command.geometry.start};
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (!parse_decimal(operands[i + 1], *values[i])) {
          return usage_error(rule, no_decimal(shown(operands[i + 1]), ""));
        }
      }
    }
    return {};
  }

  Command& add(Verb verb) {
    Command& command = script_.commands.emplace_back();
    command.verb = verb;
    command.line = script_.lines;
    return command;
  }

  Script script_;
  // The last command is a table that the next line may continue.
  bool group_open_ = false;
  std::set<std::pair<Verb, std::string>> seen_;
};

}  // namespace

std::string_view trim_line(std::string_view line) {
  std::string_view rest = line;
  std::size_t end = 0;  // of the last word that is no comment
  for (;;) {
    const std::string_view word = take_raw_word(rest);
    if (word.empty() || word.front() == '#') {
      break;
    }
    end = line.size() - rest.size();
  }
  const std::size_t from = std::min(line.find_first_not_of(" \t"), end);
  return line.substr(from, end - from);
}

std::string_view verb_word(Verb verb) {
  const auto* rule =
      std::find_if(kRules.begin(), kRules.end(), [&](const VerbRule& r) { return r.verb == verb; });
  return rule == kRules.end() ? std::string_view() : rule->word;
}

Script parse_control(std::string_view text) { return Parser().run(text); }

Result<std::vector<TableLine>> parse_bare_table(std::string_view text) {
  std::vector<TableLine> lines;
  std::size_t number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trim_line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.empty()) {
      continue;
    }
    if (line.find('\0') != std::string_view::npos) {
      return Status(EINVAL, fmt::format("line {}: a NUL byte in the line", number));
    }
    Result<TableLine> parsed = parse_table_line(line);
    if (!parsed.ok()) {
      return parsed.status().with_context(fmt::format("line {}", number));
    }
    lines.push_back(parsed.take());
  }
  return lines;
}

Result<Command> parse_message(std::string_view text) {
  if (text.ends_with('\n')) {
    text.remove_suffix(1);
  }
  if (text.find_first_of(std::string_view("\n\0", 2)) != std::string_view::npos) {
    return Status(EINVAL, "message: more than one line, or a NUL byte");
  }
  Command command;
  command.verb = Verb::kMessage;
  std::string_view rest = text;
  for (std::string_view word = take_raw_word(rest); !word.empty(); word = take_raw_word(rest)) {
    command.operands.push_back(unescape(word));
  }
  if (!command.operands.empty() && parse_decimal(command.operands.front(), command.sector)) {
    command.operands.erase(command.operands.begin());
  }
  if (command.operands.empty()) {
    return Status(EINVAL, fmt::format("message: {}", kEmptyMessage));
  }
  return command;
}

std::string escape_name(std::string_view name) {
  std::string escaped;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool first_special = i == 0 && (c == '#' || c == '-');
    const bool last_colon = i + 1 == name.size() && c == ':';
    if (is_blank(c) || c == '\\' || first_special || last_colon) {
      escaped += '\\';
    }
    escaped += c;
  }
  return escaped;
}

}  // namespace mapperfs
