// From the bytes written to `control`, `table` or `inactive` to commands: docs/control.md in code.
//
// Pure: knows no engine and no device, so that any bytes can be thrown at it (tests/fuzz). Slices
// of the text are copied where a command keeps them; the text may go away afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/mapped_device.h"
#include "engine/status.h"
#include "engine/table.h"

namespace mapperfs {

enum class Verb : std::uint8_t {
  kTable,  // NAME: lines: make or swap, and run
  kLoad,
  kCreate,
  kClear,
  kSuspend,
  kResume,
  kRemove,
  kRemoveAll,
  kRename,
  kSetUuid,
  kMessage,
  kWipeTable,
  kSetGeometry,
  kCancelDeferredRemove,
  kPassthrough,
  // Queries: they answer with a text and change nothing.
  kList,
  kQueryTable,
  kQueryStatus,
  kTargets,
  kVersion,
};

constexpr bool is_query(Verb verb) { return verb >= Verb::kList; }
// The word that a line begins with; empty for kTable.
std::string_view verb_word(Verb verb);

// The options that a verb may be given; each verb takes some of them.
enum CommandOptions : std::uint32_t {
  kOptReadonly = 1 << 0,
  kOptForce = 1 << 1,
  kOptDeferred = 1 << 2,
  kOptNoflush = 1 << 3,
  kOptNolockfs = 1 << 4,
  kOptInactive = 1 << 5,
  kOptShowkeys = 1 << 6,
  kOptUuid = 1 << 7,   // takes a word
  kOptMinor = 1 << 8,  // takes a number
  kOptPassthrough = 1 << 9,
};

struct Command {
  Verb verb = Verb::kTable;
  std::uint32_t options = 0;
  std::size_t line = 0;  // where it begins in the text, from 1
  // Unescaped: names, a uuid, a message's words.
  std::vector<std::string> operands;
  std::vector<TableLine> table;  // kTable, kLoad
  std::string uuid;              // kOptUuid
  int minor = -1;                // kOptMinor
  sector_t sector = 0;           // kMessage
  Geometry geometry;             // kSetGeometry

  [[nodiscard]] bool has(CommandOptions option) const { return (options & option) != 0; }
  // The device that the command is about. Only where the verb has one.
  [[nodiscard]] const std::string& name() const { return operands.front(); }
};

// The commands up to the first line that is wrong, and what is wrong with that line.
struct Script {
  std::vector<Command> commands;
  Status error;
  std::size_t lines = 0;
};

Script parse_control(std::string_view text);

// Table lines without names, as sys/NAME/table takes them. Blank lines and comments do not count.
Result<std::vector<TableLine>> parse_bare_table(std::string_view text);

// "[SECTOR] WORDS...": what sys/NAME/message takes, as a kMessage command with no name.
Result<Command> parse_message(std::string_view text);

// A line without what stands outside of words: leading blanks, and a comment.
std::string_view trim_line(std::string_view line);

// A name as a line takes it back as one word that is no option, no comment and no keyword.
std::string escape_name(std::string_view name);

}  // namespace mapperfs
