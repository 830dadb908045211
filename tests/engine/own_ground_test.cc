#include "engine/own_ground.h"

#include <sys/sysmacros.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "tests/engine/io_support.h"

namespace mapperfs {
namespace {

using io_test::TempDir;
namespace fs = std::filesystem;

// A sysfs by hand, as the kernel lays it out: MAJOR:MINOR are links to folders.
class OwnGround : public ::testing::Test {
 protected:
  OwnGround() {
    fs::create_directories(dir_ / "mnt");
    fs::create_directories(dir_ / "block");
  }
  void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(dir_ / path).parent_path());
    std::ofstream(dir_ / path) << text << '\n';
  }
  // `place`: "sda", or "sda/sda1" for a partition.
  void disk(unsigned minor_number, const std::string& place) {
    const std::string numbers = "7:" + std::to_string(minor_number);
    write("devices/" + place + "/dev", numbers);
    fs::create_symlink(dir_ / ("devices/" + place), dir_ / ("block/" + numbers));
  }
  void loop(unsigned minor_number, const std::string& file) {
    disk(minor_number, "loop" + std::to_string(minor_number));
    write("devices/loop" + std::to_string(minor_number) + "/loop/backing_file", file);
  }
  Status status_of(unsigned minor_number, mode_t kind = S_IFBLK) {
    struct stat st {};
    st.st_mode = kind;
    (kind == S_IFBLK ? st.st_rdev : st.st_dev) = makedev(7, minor_number);
    return refuse_own_ground("/dev/x", st, resolver_, dir_ / "block");
  }
  int error_of(unsigned minor_number, mode_t kind = S_IFBLK) {
    return status_of(minor_number, kind).error();
  }

  TempDir dir_;
  PathResolver resolver_{dir_ / "mnt"};
};

TEST_F(OwnGround, RefusesALoopOfTheOwnMountByASentence) {
  loop(3, dir_ / "mnt/a");
  EXPECT_EQ(error_of(3), ELOOP);
  EXPECT_EQ(status_of(3).message(), "/dev/x: stands on the loop device 7:3 of " + (dir_ / "mnt/a") +
                                        ", inside this mount, which would wait for itself: name "
                                        "the mapped device instead");
}

TEST_F(OwnGround, TakesWhatStandsElsewhere) {
  loop(1, dir_.make_file("image", 4096));
  loop(2, "/no/such/file");
  loop(4, dir_ / "mnt2/a");
  disk(5, "sda");
  EXPECT_EQ(error_of(1), 0);
  EXPECT_EQ(error_of(2), 0);
  EXPECT_EQ(error_of(4), 0);
  EXPECT_EQ(error_of(5), 0);
  EXPECT_EQ(error_of(99), 0) << "unknown to sysfs";
}

TEST_F(OwnGround, SeesThroughPartitionsAndWhatTheKernelPutsOnTop) {
  loop(1, dir_ / "mnt/a");
  disk(2, "loop1/loop1p1");
  write("devices/loop1/loop1p1/partition", "1");
  disk(6, "dm-0");
  disk(7, "md0");
  fs::create_directories(dir_ / "devices/dm-0/slaves");
  fs::create_directories(dir_ / "devices/md0/slaves");
  fs::create_symlink(dir_ / "devices/loop1/loop1p1", dir_ / "devices/dm-0/slaves/loop1p1");
  fs::create_symlink(dir_ / "devices/dm-0", dir_ / "devices/md0/slaves/dm-0");
  EXPECT_EQ(error_of(2), ELOOP);
  EXPECT_EQ(error_of(6), ELOOP);
  EXPECT_EQ(error_of(7), ELOOP);
}

TEST_F(OwnGround, SeesTheDiskBelowAFile) {
  loop(1, dir_ / "mnt/a");
  EXPECT_EQ(error_of(1, S_IFREG), ELOOP);
  EXPECT_EQ(error_of(2, S_IFREG), 0);
}

TEST_F(OwnGround, FollowsLinksAndRemovedNames) {
  fs::create_symlink(dir_ / "mnt", dir_ / "link");
  loop(1, dir_ / "link/a");
  loop(2, (dir_ / "mnt/a") + " (deleted)");
  loop(3, (dir_ / "gone") + " (deleted)");
  EXPECT_EQ(error_of(1), ELOOP);
  EXPECT_EQ(error_of(2), ELOOP);
  EXPECT_EQ(error_of(3), 0);
}

TEST_F(OwnGround, EndsWhereDevicesStandOnThemselves) {
  disk(1, "md1");
  disk(2, "md2");
  fs::create_directories(dir_ / "devices/md1/slaves");
  fs::create_directories(dir_ / "devices/md2/slaves");
  fs::create_symlink(dir_ / "devices/md2", dir_ / "devices/md1/slaves/md2");
  fs::create_symlink(dir_ / "devices/md1", dir_ / "devices/md2/slaves/md1");
  EXPECT_EQ(error_of(1), 0);
}

}  // namespace
}  // namespace mapperfs
