// The verbs thin-check, thin-dump and so on: another program's, mapperthin's, which alone links the
// metadata library.
#pragma once

#include <iosfwd>
#include <string_view>

namespace mapperctl {

bool is_thin_verb(std::string_view word);

// Becomes mapperthin, which is looked for beside this program and then on PATH, with the words of
// `argv` from the verb on. Returns only if it cannot: 1, after a sentence on `err`.
int become_thin_tool(int argc, char** argv, std::ostream& err);

}  // namespace mapperctl
