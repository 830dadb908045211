// mapperthin: the thin tools. `mapperctl thin-dump ...` runs it, so that mapperctl itself, which
// scripts start thousands of times, does not load RocksDB. Under the name of a tool of
// thin-provisioning-tools (a link thin_dump to it) it stands in for that tool.
#include <fmt/ostream.h>
#include <unistd.h>

#include <iostream>

#include "tools/thin_tool.h"

int main(int argc, char** argv) {
  const mapperthin::Console console{std::cin, std::cout, std::cerr, ::isatty(STDERR_FILENO) == 1};
  const std::string_view called = argv[0];
  if (called.substr(called.rfind('/') + 1).starts_with("thin")) {
    return mapperthin::run_thin_tool(argc, argv, console);
  }
  if (argc < 2 || std::string_view(argv[1]) == "--help") {
    std::ostream& out = argc < 2 ? std::cerr : std::cout;
    fmt::print(out, "Usage: mapperthin VERB [options]; VERB --help tells more\n");
    mapperthin::print_thin_verbs(out);
    return argc < 2 ? 1 : 0;
  }
  return mapperthin::run_thin_tool(argc - 1, argv + 1, console);
}
