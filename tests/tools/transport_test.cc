// The mount is looked for in text, and the real transport runs over a plain directory: a regular
// file `control` gives back what was written, which shows how a transaction is cut into writes.
#include <gtest/gtest.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "tools/mapperctl_transport.h"

namespace mapperctl {
namespace {

constexpr char kOneMount[] =
    "22 1 0:21 / /proc rw - proc proc rw\n"
    "40 22 0:50 / /mnt/my\\040disks rw,nosuid - fuse.mapperfs mapperfs rw\n";
// A plain folder in a mount's place.
Reply take_any(int) { return {}; }

constexpr char kOtherFuse[] = "41 22 0:51 / /mnt/other rw - fuse.sshfs x rw\n";

class TransportTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = testing::TempDir() + "mapperctl_transport." + std::to_string(::getpid());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_ + "/sys/d");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void write(const std::string& path, const std::string& text) const {
    std::ofstream(directory_ + "/" + path) << text;
  }

  std::string directory_;
};

TEST(ChooseMount, PrefersTheOptionThenTheEnvironment) {
  EXPECT_EQ(choose_mount("/a", "/b", kOneMount).path, "/a");
  EXPECT_EQ(choose_mount("", "/b", kOneMount).path, "/b");
}

TEST(ChooseMount, FindsTheOnlyOne) {
  EXPECT_EQ(choose_mount("", nullptr, std::string(kOneMount) + kOtherFuse).path, "/mnt/my disks");
  EXPECT_EQ(choose_mount("", "", kOneMount).path, "/mnt/my disks");
}

TEST(ChooseMount, SaysWhenThereIsNone) {
  const FoundMount found = choose_mount("", nullptr, kOtherFuse);
  EXPECT_EQ(found.path, "");
  EXPECT_NE(found.error.find("no mapperfs is mounted"), std::string::npos);
}

TEST(ChooseMount, DoesNotChooseAmongSeveral) {
  const std::string two =
      std::string(kOneMount) + "43 22 0:53 / /mnt/b rw - fuse.mapperfs mapperfs rw\n";
  const FoundMount found = choose_mount("", nullptr, two);
  EXPECT_EQ(found.path, "");
  EXPECT_NE(found.error.find("2 mapperfs are mounted (/mnt/my disks, /mnt/b)"), std::string::npos);
}

TEST_F(TransportTest, WritesACommandAtOnceAndReadsTheReply) {
  write("control", "");
  const Reply reply = open_mount(directory_, take_any)->command("list\n");
  EXPECT_TRUE(reply.ok());
  EXPECT_EQ(reply.text, "list\n");
}

TEST_F(TransportTest, CollectsLongTransactions) {
  write("control", "");
  const std::string line(100 * 1024, 'x');
  const Reply reply = open_mount(directory_, take_any)->command(line + "\n");
  EXPECT_TRUE(reply.ok());
  EXPECT_EQ(reply.text, "begin\n" + line + "\n\ncommit\n");
}

TEST_F(TransportTest, ReportsAMissingMount) {
  EXPECT_EQ(open_mount(directory_ + "/nowhere")->connect().err, ENOENT);
}

TEST_F(TransportTest, WritesNothingIntoAPlainFile) {
  write("control", "");
  const auto mount = open_mount(directory_);
  const Reply connected = mount->connect();
  EXPECT_EQ(connected.err, ENODEV);
  EXPECT_EQ(connected.text,
            directory_ + " is no mapperfs mount: a plain file `control` lies there");
  EXPECT_EQ(mount->command("create x\n").err, ENODEV);
  EXPECT_EQ(read_whole_file(directory_ + "/control").text, "");
}

TEST(IsMapperfsDevice, WantsItsTypeAndNumber) {
  const std::string mountinfo = std::string(kOneMount) + kOtherFuse;
  EXPECT_TRUE(is_mapperfs_device(makedev(0, 50), mountinfo));
  EXPECT_FALSE(is_mapperfs_device(makedev(0, 51), mountinfo)) << "another FUSE file system";
  EXPECT_FALSE(is_mapperfs_device(makedev(0, 21), mountinfo));
  EXPECT_FALSE(is_mapperfs_device(makedev(0, 50), ""));
}

TEST_F(TransportTest, ReadsFiles) {
  write("sys/version", "version: 1\n");
  const auto mount = open_mount(directory_);
  EXPECT_EQ(mount->read_file("sys/version").text, "version: 1\n");
  EXPECT_EQ(mount->read_file("sys/none").err, ENOENT);
}

TEST_F(TransportTest, WaitEndsAtOnceWhenTheNumberDiffers) {
  write("sys/d/event", "3\n");
  const auto mount = open_mount(directory_);
  EXPECT_TRUE(mount->wait_event("d", 0).ok());
  EXPECT_EQ(mount->wait_event("none", 0).err, ENXIO);
}

}  // namespace
}  // namespace mapperctl
