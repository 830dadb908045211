#include "tools/mapperctl_thin.h"

#include <fmt/ostream.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace mapperctl {
namespace {

constexpr char kProgram[] = "mapperthin";

}  // namespace

bool is_thin_verb(std::string_view word) {
  for (const std::string_view verb : {"thin-check", "thin-dump", "thin-restore", "thin-ls",
                                      "thin-delta", "thin-rmap", "thin-trim"}) {
    if (word == verb) {
      return true;
    }
  }
  return false;
}

int become_thin_tool(int argc, char** argv, std::ostream& err) {
  std::vector<char*> words = {const_cast<char*>(kProgram)};  // exec changes none of them
  for (int i = 1; i < argc; ++i) {
    // What stands before the verb (--mount DIR) says nothing to a tool that asks no mount.
    if (words.size() > 1 || is_thin_verb(argv[i])) {
      words.push_back(argv[i]);
    }
  }
  words.push_back(nullptr);
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    ::execv((self.parent_path() / kProgram).c_str(), words.data());
  }
  ::execvp(kProgram, words.data());
  fmt::print(err, "mapperctl: cannot run {}, neither beside mapperctl nor from PATH: {}\n",
             kProgram, std::strerror(errno));
  return 1;
}

}  // namespace mapperctl
