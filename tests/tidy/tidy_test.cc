// The rules of the house that neither compiler nor clang-format checks: who may include what, how
// long a file is, words that are not used, and what a new target must bring along.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxLines = 800;

struct Source {
  std::string path;  // from the root: "engine/bio.h"
  std::string text;
  std::string code;  // the text with comments and literals blanked, line by line as long

  [[nodiscard]] std::string room() const { return path.substr(0, path.find('/')); }
  [[nodiscard]] bool is_header() const { return path.ends_with(".h"); }
};

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Where the comment or literal that begins at `at` ends, or `at` if none begins there.
std::size_t end_of_prose(std::string_view text, std::size_t at) {
  const auto past = [&](std::string_view closing, std::size_t from) {
    const std::size_t end = text.find(closing, from);
    return end == std::string_view::npos ? text.size() : end + closing.size();
  };
  const std::string_view rest = text.substr(at);
  if (rest.starts_with("//")) {
    return std::min(text.find('\n', at), text.size());
  }
  if (rest.starts_with("/*")) {
    return past("*/", at + 2);
  }
  if (rest.starts_with("R\"(")) {
    return past(")\"", at + 3);
  }
  // An apostrophe between digits separates them.
  const bool quote = rest.starts_with('"') ||
                     (rest.starts_with('\'') && (at == 0 || std::isalnum(text[at - 1]) == 0));
  if (!quote) {
    return at;
  }
  std::size_t end = at + 1;
  while (end < text.size() && text[end] != text[at] && text[end] != '\n') {
    end += text[end] == '\\' ? 2U : 1U;
  }
  return std::min(end + 1, text.size());
}

std::string blank_prose(const std::string& text) {
  std::string code = text;
  for (std::size_t at = 0; at < code.size();) {
    const std::size_t end = end_of_prose(text, at);
    for (std::size_t i = at; i < end; ++i) {
      code[i] = code[i] == '\n' ? '\n' : ' ';
    }
    at = std::max(end, at + 1);
  }
  return code;
}

const std::vector<Source>& sources() {
  static const std::vector<Source> all = [] {
    std::vector<Source> found;
    const fs::path root = MAPPERFS_SOURCE_DIR;
    for (const char* room : {"engine", "targets", "metadata", "fs", "tools", "tests"}) {
      for (const auto& entry : fs::recursive_directory_iterator(root / room)) {
        const std::string name = entry.path().string();
        if (entry.is_regular_file() && (name.ends_with(".cc") || name.ends_with(".h"))) {
          Source& source = found.emplace_back();
          source.path = fs::relative(entry.path(), root).string();
          source.text = read_file(entry.path());
          source.code = blank_prose(source.text);
        }
      }
    }
    return found;
  }();
  return all;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line);
  }
  return lines;
}

struct Include {
  std::string file;
  std::size_t line = 0;
  bool quoted = false;
};

std::vector<Include> includes(const Source& source) {
  std::vector<Include> found;
  const std::vector<std::string> lines = lines_of(source.text);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i];
    const std::size_t open = line.find_first_of("<\"");
    if (line.starts_with("#include") && open != std::string::npos) {
      const std::size_t close = line.find_first_of(">\"", open + 1);
      found.push_back({line.substr(open + 1, close - open - 1), i + 1, line[open] == '"'});
    }
  }
  return found;
}

bool is_word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// Reports every use of a word in the code of `rooms`, outside of comments and literals, unless
// `fine` says otherwise of the text that follows or the line says NOLINT.
void forbid(const std::string& word, const std::string& why,
            const std::function<bool(std::string_view after)>& fine = nullptr,
            const std::vector<std::string>& except_rooms = {}) {
  for (const Source& source : sources()) {
    if (std::count(except_rooms.begin(), except_rooms.end(), source.room()) != 0) {
      continue;
    }
    const std::string& code = source.code;
    for (std::size_t at = code.find(word); at != std::string::npos; at = code.find(word, at + 1)) {
      const std::size_t end = at + word.size();
      const bool operator_of_it = std::string_view(code).substr(0, at).ends_with("operator ");
      const bool whole =
          !operator_of_it && (at == 0 || !is_word_char(code[at - 1])) && !is_word_char(code[end]);
      if (!whole || (fine && fine(std::string_view(code).substr(end)))) {
        continue;
      }
      const std::size_t from = code.rfind('\n', at) + 1;
      const std::string line = source.text.substr(from, source.text.find('\n', at) - from);
      // The statement that the word is in.
      const std::size_t statement = code.find_last_of(";{}", at) + 1;
      const bool owned = code.substr(statement, at - statement).find("_ptr<") != std::string::npos;
      EXPECT_TRUE(owned || line.find("NOLINT") != std::string::npos)
          << source.path << ":"
          << std::count(code.begin(), code.begin() + static_cast<long>(at), '\n') + 1 << ": " << why
          << "\n  " << line;
    }
  }
}

TEST(Tidy, SourcesAreFound) { EXPECT_GT(sources().size(), 50U); }

TEST(Tidy, CommentsAndLiteralsAreTold) {
  EXPECT_EQ(blank_prose("a // b\nc"), "a     \nc");
  EXPECT_EQ(blank_prose("a \"x\\\"y\" b"), "a        b");
  EXPECT_EQ(blank_prose("1'000 'x' /* y */ z"), "1'000             z");
  EXPECT_EQ(blank_prose("R\"(a \" b)\" c"), "           c");
}

// fs -> engine <- targets -> metadata -> engine; tools -> all.
TEST(Tidy, RoomsIncludeOnlyWhatLiesBelow) {
  const std::map<std::string, std::vector<std::string>> allowed = {
      {"engine", {"engine/"}},
      {"targets", {"targets/", "engine/", "metadata/"}},
      {"metadata", {"metadata/", "engine/"}},
      {"fs", {"fs/", "engine/"}},
  };
  for (const Source& source : sources()) {
    const auto rule = allowed.find(source.room());
    if (rule == allowed.end()) {
      continue;
    }
    for (const Include& include : includes(source)) {
      for (const char* room : {"engine/", "targets/", "metadata/", "fs/", "tools/", "tests/"}) {
        const bool may =
            std::find(rule->second.begin(), rule->second.end(), room) != rule->second.end();
        EXPECT_TRUE(may || !include.file.starts_with(room))
            << source.path << ":" << include.line << ": includes " << include.file;
      }
    }
  }
}

TEST(Tidy, EachLibraryHasOneRoom) {
  struct Rule {
    const char* library;
    std::regex where;
  };
  const std::vector<Rule> rules = {
      {"fuse", std::regex("fs/[^/]*\\.cc")},
      {"liburing.h", std::regex("fs/ring(_aio|_queue)?\\.cc")},
      {"libaio.h", std::regex("engine/aio_[^/]*\\.cc")},
      {"rocksdb/", std::regex("metadata/.*\\.cc")},
      {"CLI/", std::regex("tools/[^/]*\\.cc")},
  };
  for (const Source& source : sources()) {
    if (source.room() == "tests") {
      continue;
    }
    for (const Include& include : includes(source)) {
      for (const Rule& rule : rules) {
        EXPECT_TRUE(!include.file.starts_with(rule.library) ||
                    std::regex_match(source.path, rule.where))
            << source.path << ":" << include.line << ": includes " << include.file;
      }
    }
  }
}

TEST(Tidy, OwnHeadersAreNamedFromTheRoot) {
  for (const Source& source : sources()) {
    for (const Include& include : includes(source)) {
      EXPECT_TRUE(!include.quoted || fs::exists(fs::path(MAPPERFS_SOURCE_DIR) / include.file))
          << source.path << ":" << include.line << ": \"" << include.file
          << "\" is not a path from the root";
    }
  }
}

TEST(Tidy, FilesAreShort) {
  for (const Source& source : sources()) {
    EXPECT_LE(lines_of(source.text).size(), kMaxLines) << source.path << ": split it";
  }
}

TEST(Tidy, HeadersBeginWithPragmaOnce) {
  for (const Source& source : sources()) {
    if (source.is_header()) {
      const std::size_t first = source.code.find_first_not_of(" \t\n");
      EXPECT_TRUE(first != std::string::npos && source.code.compare(first, 12, "#pragma once") == 0)
          << source.path;
    }
  }
}

// The product's own files tell at their head what they are.
TEST(Tidy, HeadersBeginWithAComment) {
  for (const Source& source : sources()) {
    EXPECT_TRUE(!source.is_header() || source.text.starts_with("//")) << source.path;
  }
}

TEST(Tidy, NobodyUsesANamespaceWhole) {
  forbid("using", "using namespace",
         [](std::string_view after) { return !after.starts_with(" namespace"); });
}

// Placement and `= delete` own nothing; a `new` whose statement makes a smart pointer is owned.
TEST(Tidy, NobodyOwnsByHand) {
  forbid("new", "naked new",
         [](std::string_view after) { return after.starts_with(" (") || after.starts_with(">"); });
  forbid("delete", "naked delete",
         [](std::string_view after) { return after.starts_with(";") || after.starts_with("("); });
  for (const char* word : {"malloc", "calloc", "realloc", "strdup"}) {
    forbid(word, "memory without an owner");
  }
}

// A command that shows something again and again may; nothing that others wait for.
TEST(Tidy, NobodySleeps) {
  for (const char* word : {"sleep_for", "sleep_until", "usleep", "nanosleep"}) {
    forbid(word, "waits by the clock", nullptr, {"tools"});
  }
}

TEST(Tidy, NobodyThrows) { forbid("throw", "nothing of ours throws"); }

TEST(Tidy, NothingIsLeftForLater) {
  // In two pieces, so that this file does not find itself.
  for (const std::string word : {"TO"
                                 "DO",
                                 "FIX"
                                 "ME",
                                 "XX"
                                 "X:",
                                 "HA"
                                 "CK:"}) {
    for (const Source& source : sources()) {
      EXPECT_EQ(source.text.find(word), std::string::npos) << source.path << " says " << word;
    }
  }
}

// A target's symbol, name and file, from `constinit const TargetType kLinearTarget = {"linear",`.
struct TargetFile {
  std::string path;
  std::string symbol;
  std::string name;
};

std::vector<TargetFile> target_files() {
  static const std::regex pattern(
      "const\\s+TargetType\\s+(k\\w+Target)\\s*=\\s*\\{\\s*\"([^\"]+)\"");
  std::vector<TargetFile> found;
  for (const Source& source : sources()) {
    if (source.room() != "targets") {
      continue;
    }
    for (auto it = std::sregex_iterator(source.text.begin(), source.text.end(), pattern);
         it != std::sregex_iterator(); ++it) {
      found.push_back({source.path, (*it)[1], (*it)[2]});
    }
  }
  return found;
}

std::string underscored(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

// A test file may serve two small targets: zero_error_test.cc.
bool has_test(const std::string& target) {
  return std::any_of(sources().begin(), sources().end(), [&](const Source& source) {
    return source.path.starts_with("tests/targets/") && source.path.ends_with("_test.cc") &&
           source.path.find(target, std::strlen("tests/targets/")) != std::string::npos;
  });
}

TEST(Tidy, EveryTargetIsComplete) {
  const fs::path root = MAPPERFS_SOURCE_DIR;
  const std::string header = read_file(root / "targets/targets.h");
  const std::string registry = read_file(root / "targets/registry.cc");
  EXPECT_FALSE(target_files().empty());
  for (const TargetFile& target : target_files()) {
    const std::string file = underscored(target.name);
    EXPECT_TRUE(target.path == "targets/" + file + ".cc" ||
                target.path.starts_with("targets/" + file + "/") ||
                target.path.ends_with("/" + file + "_target.cc"))  // a folder of several
        << target.name << " lives in " << target.path;
    EXPECT_NE(header.find(target.symbol), std::string::npos) << target.symbol << ": targets.h";
    EXPECT_NE(registry.find(target.symbol), std::string::npos) << target.symbol << ": registry.cc";
    EXPECT_TRUE(fs::exists(root / ("docs/targets/" + target.name + ".md"))) << target.name;
    EXPECT_TRUE(has_test(file)) << target.name << ": no tests/targets/*" << file << "*_test.cc";
  }
}

// A test that is not built is no test.
TEST(Tidy, EveryTestFileIsNamedAsOne) {
  for (const Source& source : sources()) {
    for (const char* macro : {"\nTEST(", "\nTEST_F(", "\nTEST_P("}) {
      EXPECT_TRUE(source.code.find(macro) == std::string::npos || source.path.ends_with("_test.cc"))
          << source.path;
    }
  }
}

}  // namespace
