// The same command lines to the dmsetup that is installed and to mapperctl under its name, for all
// that dmsetup does without a kernel: help, splitname, selections, errors of the command line.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace {

struct Output {
  int status = -1;
  std::string text;
};

std::string installed_dmsetup() {
  for (const char* path : {"/usr/sbin/dmsetup", "/sbin/dmsetup", "/usr/bin/dmsetup"}) {
    if (std::filesystem::exists(path)) return path;
  }
  return {};
}

Output run(const std::string& directory, const std::string& arguments) {
  const std::string command =
      "PATH=" + directory + ":/usr/bin:/bin LC_ALL=C dmsetup " + arguments + " 2>&1 </dev/null";
  Output output;
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  std::array<char, 4096> buffer{};
  for (size_t got = 0; (got = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    output.text.append(buffer.data(), got);
  }
  output.status = WEXITSTATUS(::pclose(pipe));
  return output;
}

bool begins_with(const std::string& line, const char* start) { return line.rfind(start, 0) == 0; }

// Lines about the synopsis of options, which releases of dmsetup lay out in different ways, and
// about a missing device mapper are not compared.
std::string without_noise(const std::string& text) {
  std::string kept;
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\n', from), text.size());
    const std::string line = text.substr(from, end - from);
    from = end + 1;
    const bool synopsis = begins_with(line, "        [-") || begins_with(line, "\t[-");
    const bool kernel =
        begins_with(line, "/dev/mapper/control") || begins_with(line, "Failure to comm") ||
        begins_with(line, "Check that dev") || begins_with(line, "Incompatible lib") ||
        begins_with(line, "mapperctl: no mapperfs");
    if (!synopsis && !kernel) kept += line + "\n";
  }
  return kept;
}

class CompareWithDmsetup : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    dmsetup_ = installed_dmsetup();
    if (dmsetup_.empty()) GTEST_SKIP() << "no dmsetup is installed to compare with";
    // A folder of this process: another one may test another build at the same time.
    ours_ = fmt::format("{}mapperctl_compare.{}", testing::TempDir(), ::getpid());
    std::filesystem::create_directories(ours_);
    std::filesystem::create_symlink(MAPPERCTL_BINARY, ours_ + "/dmsetup");
  }
  void TearDown() override {
    if (!ours_.empty()) std::filesystem::remove_all(ours_);
  }

  std::string dmsetup_;
  std::string ours_;
};

TEST_P(CompareWithDmsetup, PrintsTheSame) {
  const Output theirs = run(std::filesystem::path(dmsetup_).parent_path(), GetParam());
  const Output ours = run(ours_, GetParam());
  EXPECT_EQ(without_noise(ours.text), without_noise(theirs.text));
  EXPECT_EQ(ours.status, theirs.status);
}

constexpr const char* kCommandLines[] = {
    "",
    "help",
    "help -c",
    "--help",
    "-h -c",
    "help x",
    "frob",
    "-v",
    "-v frob",
    "-o foo",
    "--concise",
    "--bogus",
    "-q",
    "-M",
    "--mode",
    "info --co",
    "info --c",
    "frob -o foo",
    "-o foo help",
    "create",
    "create x --table",
    "create x -j 1",
    "create x --minor 7",
    "create --notable --table x y",
    "create a --addnodeonresume --addnodeoncreate",
    "create x --readahead -5",
    "create x --mode 9",
    "create x -M 9x",
    "load",
    "load --notable",
    "load a b c d",
    "ls --tree -o bogus",
    "ls --tree -o compact,foo,bar",
    "ls --target",
    "ls --exec",
    "ls a b",
    "ls -o foo",
    "deps -o foo",
    "info -o name",
    "status -o foo",
    "message",
    "message a",
    "wait",
    "setgeometry a",
    "setgeometry a b c d e f",
    "rename",
    "rename a b c",
    "targets x",
    "remove_all x",
    "target-version",
    "--manglename foo info",
    "info -c -o nosuch",
    "info -c -O nosuch",
    "info -c -S nosuch=1",
    "info -c -S name",
    "udevcookies",
    "udevflags",
    "udevflags 0x100",
    "udevflags 0xd4dffff",
    "udevflags 0x12340001",
    "udevflags 0",
    "udevflags abc",
    "udevcomplete abc",
    "udevcreatecookie",
    "udevreleasecookie",
    "udevcomplete_all x -y",
    "create --concise a b",
    "create --concise a",
    "create --concise a,",
    "create --concise a,b",
    "create --concise a,b,c,",
    "create --concise 'a,b,c,d;x'",
    "create --concise --table x a,,,,",
    "create --concise 'a,,,xx,0 8 zero'",
    "create --concise 'a,,,ro,\\'",
    "create --concise ';'",
    "create --concise ''",
    "create --concise ',;'",
    "create --concise 'a\\,b,\\;'",
    "create --concise 'a,,,,'",
    "splitname",
    "splitname a b c d",
    "splitname vg-lv",
    "splitname vg-lv FOO",
    "splitname vg-lv LVM",
    "splitname plain",
    "splitname ''",
    "splitname vg-",
    "splitname -lv",
    "splitname -- -lv",
    "splitname a-b-c-d",
    "splitname a--b--c",
    "splitname a---b",
    "splitname a----b",
    "splitname vg-lv--",
    "splitname 'a b-c'",
    "splitname 'vg\\x20x-lv'",
    "splitname vg--a-lv--b-layer",
    "splitname vg-lv -v",
    "splitname vg-lv -o help",
    "splitname vg-lv -o nosuch",
    "splitname vg-lv -o all",
    "splitname vg-lv -o +all",
    "splitname vg-lv -o +vg_name",
    "splitname vg-lv -o ''",
    "splitname vg-lv -o VGName",
    "splitname vg-lv -o 'vg_name,'",
    "splitname vg-lv -O -vg_name",
    "splitname vg-lv -O ,",
    "splitname vg-lv --count -1",
    "splitname vg-lv --interval 0",
    "splitname vg-lv --separator /",
    "splitname vg-lv --separator / --noheadings",
    "splitname vg-lv --noheadings",
    "splitname vg-lv --nameprefixes",
    "splitname vg-lv --nameprefixes --unquoted",
    "splitname vg-lv --nameprefixes --rows",
    "splitname vg-lv --nameprefixes --noheadings --rows",
    "splitname vg-lv --rows",
    "splitname vg-lv --rows --noheadings",
    "splitname vg-lv --rows --separator /",
    "splitname vg-lv -S help",
    "splitname vg-lv -S vg_name=vg",
    "splitname vg-lv -S vg_name=x",
    "splitname vg-lv -S 'vg_name>1'",
    "splitname vg-lv -S 'vg_name=~['",
    "splitname vg-lv -S 'vg_name=vg &&'",
    "splitname vg-lv -S 'vg_name=vg)'",
    "splitname vg-lv -S '((vg_name=vg)'",
    "splitname vg-lv -S '!vg_name=x'",
    "splitname vg-lv -S '! (vg_name=x)'",
    "splitname vg-lv -S 'vg_name=\"vg'",
    "splitname vg-lv -S 'vg_name=x || lv_name=lv && vg_name=q'",
    "splitname vg-lv -S selected=-1",
    "splitname vg-lv -S 'vg_name since 1'",
    "splitname vg-lv -S help=1",
    "splitname vg-lv -S =1",
    "splitname vg-lv -S '  '",
    "splitname vg-lv -S selected=1x",
    "splitname vg-lv -S selected=1.5",
    "splitname vg-lv -S 'vg_name!vg'",
    "splitname vg-lv -S 'vg_name=~v.'",
    "splitname vg-lv -S 'vg_name=v*'",
    "splitname vg-lv -o selected,vg_name -S vg_name=x",
    "stats print x",
    "stats clear x",
    "stats delete x",
    "stats create",
    "stats list --allregions --regionid 1",
    "stats list --allprograms --programid 1",
    "stats create --areas 1 --areasize 2 foo",
    "stats create --areasize foo x",
    "stats create --start q x",
};

INSTANTIATE_TEST_SUITE_P(CommandLines, CompareWithDmsetup, testing::ValuesIn(kCommandLines));

}  // namespace
