// Which words of a table are paths in the caller's folder, in a world of sets.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "tests/tools/fake_mount.h"
#include "tools/mapperctl_paths.h"

namespace mapperctl {
namespace {

class ReplacePaths : public testing::Test {
 protected:
  std::string replaced(std::string_view params) const {
    PathWorld world;
    world.folder = "/home/me";
    world.is_device = [this](const std::string& name) { return devices_.count(name) != 0; };
    world.exists = [this](const std::string& path) { return files_.count(path) != 0; };
    world.is_directory = [this](const std::string& path) { return folders_.count(path) != 0; };
    return replace_paths(params, world);
  }

  std::set<std::string> devices_ = {"lo", "disk.img"};
  std::set<std::string> files_ = {"/home/me/a.img",    "/home/me/f/a.img", "/home/me/sync",
                                  "/home/me/0",        "/home/me/1.5",     "/home/me/disk.img",
                                  "/home/me/my file.x"};
  std::set<std::string> folders_ = {"/home/me/f", "/home/me/8:0", "/home/me/nbd:"};
};

TEST_F(ReplacePaths, TakesWhatHasASlashForAPathWhereItOrItsFolderIsThere) {
  EXPECT_EQ(replaced("f/a.img 0"), "/home/me/f/a.img 0");
  EXPECT_EQ(replaced("f/new.meta f/a.img 128 0"), "/home/me/f/new.meta /home/me/f/a.img 128 0");
  EXPECT_EQ(replaced("none/a.img 0"), "none/a.img 0");
  EXPECT_EQ(replaced("1/2"), "1/2");
}

TEST_F(ReplacePaths, TakesDotSlashAtItsWord) {
  EXPECT_EQ(replaced("./new 0"), "/home/me/new 0");
  EXPECT_EQ(replaced(".//././new 0"), "/home/me/new 0");
  EXPECT_EQ(replaced("../new 0"), "/home/me/../new 0");
}

TEST_F(ReplacePaths, LeavesAbsolutePathsNumbersAndUrisAlone) {
  EXPECT_EQ(replaced("/data/a.img 0"), "/data/a.img 0");
  EXPECT_EQ(replaced("8:0 0 1.5"), "8:0 0 1.5");
  EXPECT_EQ(replaced("8:0/x nbd://host/disk"), "8:0/x nbd://host/disk");
}

TEST_F(ReplacePaths, TakesABareNameOnlyWithADotAFileAndNoDeviceOfThatName) {
  EXPECT_EQ(replaced("a.img 0"), "/home/me/a.img 0");
  EXPECT_EQ(replaced("b.img 0"), "b.img 0") << "no such file";
  EXPECT_EQ(replaced("disk.img 0"), "disk.img 0") << "a device of the mount";
  EXPECT_EQ(replaced("lo 0 sync"), "lo 0 sync") << "a file called like a keyword";
}

TEST_F(ReplacePaths, TakesDevMapperForDevicesOfTheMount) {
  EXPECT_EQ(replaced("/dev/mapper/lo 0"), "lo 0");
  EXPECT_EQ(replaced("/dev/mapper/other 0"), "/dev/mapper/other 0");
}

TEST_F(ReplacePaths, KeepsBlanksAndEscapes) {
  EXPECT_EQ(replaced("2  128 my\\ file.x \t0  "), "2  128 /home/me/my\\ file.x \t0  ");
  EXPECT_EQ(replaced("/a\\ b 0 x\\"), "/a\\ b 0 x\\");
  EXPECT_EQ(replaced(""), "");
}

TEST_F(ReplacePaths, AreLookedUpInTheFolderOfTheCaller) {
  const std::filesystem::path before = std::filesystem::current_path();
  const std::filesystem::path folder = std::filesystem::canonical(testing::TempDir()) /
                                       ("mapperctl_paths." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "a.img") << "x";
  std::filesystem::current_path(folder);
  FakeMount mount;
  mount.answer("list", "");
  mount.answer("create r", "");
  mount.answer("load r: 0 8 linear " + folder.string() + "/a.img 0", "");
  mount.answer("resume r", "");
  const auto run = mount.run({"mapperctl", "create", "r", "--table", "0 8 linear a.img 0"});
  std::filesystem::current_path(before);
  std::filesystem::remove_all(folder);
  EXPECT_EQ(run.status, 0) << run.err;
}

}  // namespace
}  // namespace mapperctl
