#include "engine/backing.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include "engine/file_probe.h"
#include "tests/engine/io_support.h"
#include "tests/engine/loop_device.h"

namespace mapperfs {
namespace {

using io_test::Buffer;
using io_test::LoopDevice;
using io_test::run;
using io_test::TempDir;

class BackingTest : public ::testing::Test {
 protected:
  BackingTest() {
    EXPECT_EQ(::mkdir((dir_ / "mnt").c_str(), 0700), 0);
    opener_ = make_backing_opener(*env_, {dir_ / "mnt"});
    path_ = dir_.make_file("file", 1 << 20);
  }
  DevRef open(const std::string& word, DeviceMode mode = DeviceMode::kReadWrite) {
    auto dev = opener_->open(word, mode);
    EXPECT_TRUE(dev.ok()) << dev.status().message();
    return dev.ok() ? dev.take() : DevRef();
  }
  // The errno; the sentence must name what was asked for.
  int error_of(const std::string& word, DeviceMode mode = DeviceMode::kReadWrite) {
    auto dev = opener_->open(word, mode);
    if (dev.ok()) {
      return 0;
    }
    EXPECT_NE(dev.status().message().find(word.substr(0, 200)), std::string::npos)
        << dev.status().message();
    return dev.status().error();
  }
  // What another program would get.
  bool others_may_lock(int kind) {
    const UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    return ::flock(fd.get(), kind | LOCK_NB) == 0;
  }

  std::unique_ptr<Env> env_ = make_real_env();
  TempDir dir_;
  std::unique_ptr<BackingOpener> opener_;
  std::string path_;
};

TEST_F(BackingTest, OpensAFile) {
  const DevRef dev = open(path_);
  EXPECT_EQ(dev->size_sectors(), 2048U);
  EXPECT_EQ(dev->table_name(), path_);
  Buffer data(8);
  EXPECT_EQ(run(*dev, Op::kWrite, 0, 8, data.fill(1).data()), BlkStatus::kOk);
}

TEST_F(BackingTest, KnowsADeviceByAnyName) {
  ASSERT_EQ(::symlink("file", (dir_ / "link").c_str()), 0);
  ASSERT_EQ(::link(path_.c_str(), (dir_ / "hard").c_str()), 0);
  const DevRef dev = open(path_);
  EXPECT_EQ(open(dir_ / "link").get(), dev.get());
  EXPECT_EQ(open(dir_ / "hard").get(), dev.get());
  EXPECT_EQ(open(dir_ / "mnt/../file").get(), dev.get());
  EXPECT_NE(open(dir_.make_file("other", 512)).get(), dev.get());
}

TEST_F(BackingTest, RelativePathsAreShownAbsolute) {
  const std::string before = std::filesystem::current_path();
  ASSERT_EQ(::chdir(dir_.path().c_str()), 0);
  EXPECT_EQ(open("./file")->table_name(), path_);
  ASSERT_EQ(::chdir(before.c_str()), 0);
}

TEST_F(BackingTest, SeesAFileGrowAtTheNextOpen) {
  const DevRef dev = open(path_);
  ASSERT_EQ(::truncate(path_.c_str(), (1 << 20) + 1023), 0);
  EXPECT_EQ(open(path_)->size_sectors(), 2049U);
  EXPECT_EQ(dev->size_sectors(), 2049U);
}

TEST_F(BackingTest, RefusesWhatIsNoDevice) {
  ASSERT_EQ(::mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  ASSERT_EQ(::symlink("b", (dir_ / "a").c_str()), 0);
  ASSERT_EQ(::symlink("a", (dir_ / "b").c_str()), 0);
  EXPECT_EQ(error_of(dir_ / "missing"), ENOENT);
  EXPECT_EQ(error_of(""), ENOENT);
  EXPECT_EQ(error_of(dir_.path()), ENOTBLK);
  EXPECT_EQ(error_of(dir_ / "fifo"), ENOTBLK);
  EXPECT_EQ(error_of("/dev/null"), ENOTBLK);
  EXPECT_EQ(error_of(path_ + "/"), ENOTDIR);
  EXPECT_EQ(error_of(path_ + "/x"), ENOTDIR);
  EXPECT_EQ(error_of(dir_ / "a"), ELOOP);
  EXPECT_EQ(error_of("4095:1048575"), ENXIO);
  EXPECT_EQ(opener_->open(std::string(5000, 'x'), DeviceMode::kReadOnly).status().error(),
            ENAMETOOLONG);
}

TEST_F(BackingTest, KeepsAwayFromTheOwnMount) {
  ASSERT_EQ(::symlink("mnt/disk", (dir_ / "link").c_str()), 0);
  EXPECT_EQ(opener_->own_mount_name(dir_ / "mnt/disk"), "disk");
  EXPECT_EQ(opener_->own_mount_name(dir_ / "link"), "disk");
  EXPECT_EQ(opener_->own_mount_name(dir_ / "mnt/sys/disk"), "");
  EXPECT_EQ(opener_->own_mount_name(dir_ / "mnt"), "");
  EXPECT_EQ(opener_->own_mount_name(path_), "");
  EXPECT_EQ(opener_->own_mount_name(dir_ / "missing"), "");
  EXPECT_EQ(error_of(dir_ / "mnt/disk"), ENXIO);
  EXPECT_EQ(error_of(dir_ / "link"), ENXIO);
  EXPECT_EQ(error_of(dir_ / "mnt/sys/disk/table"), ENOTBLK);
  EXPECT_EQ(error_of(dir_ / "mnt"), ENOTBLK);
}

TEST_F(BackingTest, TellsWhichPathsLeadIntoTheOwnMount) {
  ASSERT_EQ(::symlink("mnt", (dir_ / "link").c_str()), 0);
  for (const char* inside : {"mnt", "mnt/", "mnt/disk", "mnt/no/such", "link/new"}) {
    EXPECT_EQ(opener_->outside_mount(dir_ / inside).error(), EINVAL) << inside;
  }
  for (const char* outside :
       {"", "missing", "missing/", "missing/deep", "mnt/../new", "mnt2", "x/../mnt/y"}) {
    EXPECT_TRUE(opener_->outside_mount(dir_ / outside).ok()) << outside;
  }
  EXPECT_TRUE(opener_->outside_mount("new").ok());
  EXPECT_TRUE(opener_->outside_mount("").ok());
}

TEST_F(BackingTest, RefusesWhatItMayNotOpen) {
  ASSERT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(path_.c_str(), 0444), 0);
  const std::string secret = dir_.make_file("secret", 512);
  ASSERT_EQ(::chmod(secret.c_str(), 0), 0);
  // As root all would be allowed.
  const uid_t user = ::geteuid();
  ASSERT_EQ(::seteuid(user == 0 ? 65534 : user), 0);
  const int to_write = error_of(path_);
  const int to_read = error_of(path_, DeviceMode::kReadOnly);
  const int to_read_secret = error_of(secret, DeviceMode::kReadOnly);
  ASSERT_EQ(::seteuid(user), 0);
  EXPECT_EQ(to_write, EACCES);
  EXPECT_EQ(to_read, 0);
  EXPECT_EQ(to_read_secret, EACCES);
}

TEST_F(BackingTest, ClaimsAFileUntilTheLastUserGoes) {
  DevRef first = open(path_);
  DevRef second = open(path_);
  EXPECT_FALSE(others_may_lock(LOCK_SH));
  first = DevRef();
  EXPECT_FALSE(others_may_lock(LOCK_SH));
  second = DevRef();
  EXPECT_TRUE(others_may_lock(LOCK_EX));
}

TEST_F(BackingTest, ReadersShareAFile) {
  const DevRef reader = open(path_, DeviceMode::kReadOnly);
  EXPECT_TRUE(others_may_lock(LOCK_SH));
  EXPECT_FALSE(others_may_lock(LOCK_EX));
  const auto neighbour = make_backing_opener(*env_, {});
  EXPECT_TRUE(neighbour->open(path_, DeviceMode::kReadOnly).ok());
  EXPECT_EQ(neighbour->open(path_, DeviceMode::kReadWrite).status().error(), EBUSY);
}

TEST_F(BackingTest, AClaimedFileIsBusy) {
  const UniqueFd other(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(other.get(), LOCK_EX), 0);
  EXPECT_EQ(error_of(path_), EBUSY);
  EXPECT_EQ(error_of(path_, DeviceMode::kReadOnly), EBUSY);
  const auto refused = opener_->open(path_, DeviceMode::kReadWrite);
  EXPECT_NE(refused.status().message().find("locked by another program (flock)"), std::string::npos)
      << refused.status().message();
  ASSERT_EQ(::flock(other.get(), LOCK_UN), 0);
  EXPECT_EQ(error_of(path_), 0);
}

TEST_F(BackingTest, AWriterUpgradesWhatReadersHold) {
  const DevRef reader = open(path_, DeviceMode::kReadOnly);
  Buffer data(8);
  EXPECT_EQ(run(*reader, Op::kWrite, 0, 8, data.data()), BlkStatus::kReadOnly);
  const DevRef writer = open(path_);
  EXPECT_EQ(writer.get(), reader.get());
  EXPECT_EQ(run(*writer, Op::kWrite, 0, 8, data.data()), BlkStatus::kOk);
  EXPECT_FALSE(others_may_lock(LOCK_SH));
}

TEST_F(BackingTest, AFailedUpgradeKeepsTheReaders) {
  const DevRef reader = open(path_, DeviceMode::kReadOnly);
  {
    const UniqueFd other(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::flock(other.get(), LOCK_SH), 0);
    EXPECT_EQ(error_of(path_), EBUSY);
  }
  EXPECT_FALSE(others_may_lock(LOCK_EX)) << "the shared lock is still held";
  Buffer data(8);
  EXPECT_EQ(run(*reader, Op::kRead, 0, 8, data.data()), BlkStatus::kOk);
}

TEST_F(BackingTest, DevicesOutliveTheOpener) {
  DevRef dev = open(path_);
  opener_.reset();
  Buffer data(8);
  EXPECT_EQ(run(*dev, Op::kRead, 0, 8, data.data()), BlkStatus::kOk);
  dev = DevRef();
  EXPECT_TRUE(others_may_lock(LOCK_EX));
}

TEST_F(BackingTest, OpenersAtOnceDoNotMeetTheirOwnClaim) {
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const auto mode = (i + t) % 2 == 0 ? DeviceMode::kReadWrite : DeviceMode::kReadOnly;
        failed += opener_->open(path_, mode).ok() ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(failed, 0);
  EXPECT_TRUE(others_may_lock(LOCK_EX));
}

class BackingOnLoop : public BackingTest {
 protected:
  void SetUp() override {
    loop_ = std::make_unique<LoopDevice>(path_);
    if (!loop_->ok()) {
      GTEST_SKIP() << "loop devices are not to be had";
    }
    numbers_ = device_numbers(loop_->rdev());
  }
  std::unique_ptr<LoopDevice> loop_;
  std::string numbers_;
};

TEST_F(BackingOnLoop, OpensByPathAndByNumber) {
  const DevRef by_path = open(loop_->path());
  const DevRef by_number = open(numbers_);
  EXPECT_EQ(by_path.get(), by_number.get());
  EXPECT_EQ(by_path->table_name(), numbers_);
  EXPECT_EQ(by_path->size_sectors(), 2048U);
}

TEST_F(BackingOnLoop, ClaimsTheDevice) {
  DevRef dev = open(numbers_);
  EXPECT_EQ(::open(loop_->path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC), -1);
  EXPECT_EQ(errno, EBUSY);
  dev = DevRef();
  const UniqueFd other(::open(loop_->path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  ASSERT_TRUE(other);
  EXPECT_EQ(error_of(loop_->path()), EBUSY);
  EXPECT_EQ(opener_->open(numbers_, DeviceMode::kReadOnly).status().error(), EBUSY);
}

TEST_F(BackingOnLoop, AWriterUpgradesWhatReadersHold) {
  const DevRef reader = open(numbers_, DeviceMode::kReadOnly);
  const DevRef writer = open(loop_->path());
  EXPECT_EQ(writer.get(), reader.get());
  Buffer data(8);
  EXPECT_EQ(run(*writer, Op::kWrite, 0, 8, data.fill(1).data()), BlkStatus::kOk);
  EXPECT_EQ(run(*reader, Op::kRead, 0, 8, data.data()), BlkStatus::kOk);
  EXPECT_TRUE(data.has_pattern(1));
}

}  // namespace
}  // namespace mapperfs
