// Any bytes as a write to `control`: parsed, and what parses means the same when it is written
// again with its names escaped.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/assert.h"
#include "fs/control_parser.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mapperfs;  // NOLINT(google-build-using-namespace): a main of sorts
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Script script = parse_control(text);
  for (const Command& command : script.commands) {
    MFS_ASSERT(command.line >= 1 && command.line <= script.lines);
    if (command.verb == Verb::kTable) {
      MFS_ASSERT(!command.table.empty());
      const TableLine& line = command.table.front();
      const Script again =
          parse_control(escape_name(command.name()) + ": " + std::to_string(line.start) + " " +
                        std::to_string(line.len) + " " + line.type);
      MFS_ASSERT(again.error.ok() && again.commands.size() == 1);
      MFS_ASSERT(again.commands.front().name() == command.name());
    }
  }
  static_cast<void>(parse_bare_table(text).ok());
  static_cast<void>(parse_message(text).ok());
  return 0;
}
