#include "engine/path_resolver.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "engine/device_lookup.h"
#include "tests/engine/io_support.h"

namespace mapperfs {
namespace {

using io_test::TempDir;

class PathResolverTest : public ::testing::Test {
 protected:
  PathResolverTest() {
    EXPECT_EQ(::mkdir((dir_ / "mnt").c_str(), 0700), 0);
    EXPECT_EQ(::mkdir((dir_ / "data").c_str(), 0700), 0);
    file_ = dir_.make_file("data/file", 512);
  }
  void link(const std::string& target, const std::string& name) {
    ASSERT_EQ(::symlink(target.c_str(), (dir_ / name).c_str()), 0);
  }
  std::string path_of(const std::string& asked) {
    const auto place = resolver_.resolve(asked);
    EXPECT_TRUE(place.ok()) << place.status().message();
    return !place.ok() ? "" : place->own ? "own:" + place->path : place->path;
  }
  int error_of(const std::string& asked) {
    const auto place = resolver_.resolve(asked);
    return place.ok() ? 0 : place.status().error();
  }

  TempDir dir_;
  std::string file_;
  PathResolver resolver_{dir_ / "mnt"};
};

TEST_F(PathResolverTest, FollowsPlainPathsAndDots) {
  EXPECT_EQ(path_of(file_), file_);
  EXPECT_EQ(path_of(dir_ / "data/./../data//file"), file_);
  EXPECT_EQ(path_of(dir_ / "data/../.."), dir_.path().substr(0, dir_.path().rfind('/')));
  EXPECT_EQ(path_of("/"), "/");
  EXPECT_EQ(path_of("/../.."), "/");
}

TEST_F(PathResolverTest, SaysWhereRelativePathsAreLookedUp) {
  const std::string name = resolver_.resolve("no-such-name").status().message();
  EXPECT_NE(name.find("no-such-name: there is no mapped device of that name"), std::string::npos)
      << name;
  EXPECT_NE(name.find("daemon's folder, " + std::filesystem::current_path().string()),
            std::string::npos)
      << name;
  const std::string path = resolver_.resolve("./no-such-name").status().message();
  EXPECT_EQ(path.find("mapped device"), std::string::npos) << path;
  EXPECT_NE(path.find("daemon's folder"), std::string::npos) << path;
  EXPECT_EQ(resolver_.resolve("/no/such").status().message(),
            "/no/such: there is no such file or block device");
}

TEST_F(PathResolverTest, FollowsLinks) {
  link(file_, "absolute");
  link("data/file", "relative");
  link("data", "folder");
  link("../mnt/../absolute", "data/roundabout");
  EXPECT_EQ(path_of(dir_ / "absolute"), file_);
  EXPECT_EQ(path_of(dir_ / "relative"), file_);
  EXPECT_EQ(path_of(dir_ / "folder/file"), file_);
  EXPECT_EQ(path_of(dir_ / "folder/.."), dir_.path());
  EXPECT_EQ(path_of(dir_ / "data/roundabout"), file_);
}

TEST_F(PathResolverTest, RelativePathsStartAtTheWorkingDirectory) {
  const std::string before = std::filesystem::current_path();
  ASSERT_EQ(::chdir((dir_ / "data").c_str()), 0);
  EXPECT_EQ(path_of("file"), file_);
  EXPECT_EQ(path_of("../mnt/disk"), "own:disk");
  ASSERT_EQ(::chdir(before.c_str()), 0);
}

TEST_F(PathResolverTest, StopsAtTheOwnMount) {
  link(dir_ / "mnt/disk", "to-disk");
  link("mnt", "to-mount");
  EXPECT_EQ(path_of(dir_ / "mnt"), "own:");
  EXPECT_EQ(path_of(dir_ / "mnt/"), "own:");
  // None of these exists: nobody looked.
  EXPECT_EQ(path_of(dir_ / "mnt/disk"), "own:disk");
  EXPECT_EQ(path_of(dir_ / "to-disk"), "own:disk");
  EXPECT_EQ(path_of(dir_ / "to-mount/./disk"), "own:disk");
  EXPECT_EQ(path_of(dir_ / "to-mount/sys/../disk"), "own:disk");
  EXPECT_EQ(path_of(dir_ / "mnt/sys/disk/table"), "own:sys/disk/table");
  EXPECT_EQ(path_of(dir_ / "data/../mnt/a b"), "own:a b");
  EXPECT_EQ(path_of(dir_ / "data/file"), file_);
  // In and out again.
  EXPECT_EQ(path_of(dir_ / "mnt/../data/file"), file_);
  EXPECT_EQ(path_of(dir_ / "mnt/sys/../.././data/file"), file_);
  EXPECT_EQ(path_of(dir_ / "mnt/../mnt/disk"), "own:disk");
}

TEST_F(PathResolverTest, KnowsBindMountsOfTheOwnMount) {
  // A tmpfs stands for the mount: what counts is that it is one file system in several places.
  if (::mount("none", (dir_ / "mnt").c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "mount: " << errno_name(errno);
  }
  ASSERT_EQ(::mkdir((dir_ / "mnt/sys").c_str(), 0700), 0);
  ASSERT_EQ(::mkdir((dir_ / "all").c_str(), 0700), 0);
  ASSERT_EQ(::mkdir((dir_ / "part of it").c_str(), 0700), 0);
  EXPECT_EQ(path_of(dir_ / "all"), dir_ / "all");
  ASSERT_EQ(::mount((dir_ / "mnt").c_str(), (dir_ / "all").c_str(), nullptr, MS_BIND, nullptr), 0);
  ASSERT_EQ(
      ::mount((dir_ / "mnt/sys").c_str(), (dir_ / "part of it").c_str(), nullptr, MS_BIND, nullptr),
      0);
  EXPECT_EQ(path_of(dir_ / "all/disk"), "own:disk");
  EXPECT_EQ(path_of(dir_ / "part of it/disk"), "own:sys/disk");
  EXPECT_EQ(path_of(dir_ / "mnt/disk"), "own:disk");
  ::umount2((dir_ / "part of it").c_str(), MNT_DETACH);
  ::umount2((dir_ / "all").c_str(), MNT_DETACH);
  EXPECT_EQ(path_of(dir_ / "all"), dir_ / "all");
  ::umount2((dir_ / "mnt").c_str(), MNT_DETACH);
}

TEST_F(PathResolverTest, SaysWhatIsWrong) {
  link("loop-b", "loop-a");
  link("loop-a", "loop-b");
  EXPECT_EQ(error_of(""), ENOENT);
  EXPECT_EQ(error_of(dir_ / "missing"), ENOENT);
  EXPECT_EQ(error_of(dir_ / "missing/file"), ENOENT);
  EXPECT_EQ(error_of(file_ + "/below"), ENOTDIR);
  EXPECT_EQ(error_of(dir_ / "loop-a"), ELOOP);
  EXPECT_EQ(error_of(dir_ / std::string(256, 'n')), ENAMETOOLONG);
  EXPECT_EQ(error_of(std::string(5000, '/')), ENAMETOOLONG);
  const auto missing = resolver_.resolve(dir_ / "missing");
  EXPECT_NE(missing.status().message().find(dir_ / "missing"), std::string::npos);
}

TEST(DeviceLookup, ReadsNumbers) {
  EXPECT_TRUE(parse_device_numbers("8:16").has_value());
  EXPECT_TRUE(parse_device_numbers("0:0").has_value());
  for (const char* word : {"8", "8:", ":16", "8:16 ", "-8:16", "8:1x", "8:16:1", "0x8:1", "4096:1",
                           "1:1048576", "/dev/sda"}) {
    EXPECT_FALSE(parse_device_numbers(word).has_value()) << word;
  }
}

TEST(DeviceLookup, KnowsThatANumberIsNoDevices) {
  const PathResolver resolver{""};
  const auto found = find_block_device(*parse_device_numbers("4095:1048575"), resolver);
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.status().error(), ENXIO);
  EXPECT_NE(found.status().message().find("4095:1048575"), std::string::npos);
}

TEST(DeviceLookup, FindsALoopDevice) {
  struct stat st {};
  if (::stat("/dev/loop0", &st) != 0 || !S_ISBLK(st.st_mode)) {
    GTEST_SKIP() << "there is no /dev/loop0";
  }
  const PathResolver resolver{""};
  const auto found = find_block_device(st.st_rdev, resolver);
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_EQ(*found, "/dev/loop0");
}

}  // namespace
}  // namespace mapperfs
