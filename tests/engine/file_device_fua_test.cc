// FUA writes that go through the page cache: to a file whose file system wants whole blocks of 4
// KiB for direct I/O, and to sectors of a disk with such blocks. What such a write said is done
// must be on the disk below, not in the cache above it.
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "engine/file_device.h"
#include "tests/engine/io_support.h"
#include "tests/engine/loop_device.h"

namespace mapperfs {
namespace {

using io_test::Buffer;
using io_test::LoopDevice;
using io_test::run;
using io_test::TempDir;

constexpr std::uint64_t kImageBytes = 16 << 20;

// A disk with blocks of 4 KiB, whose sectors are those of an image.
class BufferedFua : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!loop_.ok()) {
      GTEST_SKIP() << "no loop device with blocks of 4096 bytes";
    }
  }
  void open(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(fd) << path;
    device_ = std::make_unique<FileDevice>(*env_, FileDevice::Names{path, path}, std::move(fd),
                                           /*writable=*/true);
  }
  // Whether the disk has the data somewhere. Reads the image, and so nothing that is still above
  // it.
  bool on_disk(Buffer& data) {
    const UniqueFd image(::open(image_.c_str(), O_RDONLY | O_CLOEXEC));
    std::vector<std::byte> all(kImageBytes);
    EXPECT_EQ(::pread(image.get(), all.data(), all.size(), 0), static_cast<ssize_t>(kImageBytes));
    return std::search(all.begin(), all.end(), data.data(), data.data() + data.size()) != all.end();
  }
  // A write of each length that is no whole block, and of one that is.
  void expect_durable_writes(int flags) {
    std::uint64_t seed = 0;
    for (const auto& [at, count] :
         {std::pair<sector_t, sector_t>{8, 8}, {17, 1}, {29, 6}, {40, 32}}) {
      Buffer data(count);
      data.fill(100 + ++seed);
      ASSERT_EQ(run(*device_, Op::kWrite, at, count, data.data(), flags), BlkStatus::kOk);
      EXPECT_TRUE(on_disk(data)) << count << " sectors at " << at;
    }
  }

  const std::unique_ptr<Env> env_ = make_real_env();
  TempDir dir_{"/var/tmp"};
  const std::string image_ = dir_.make_file("image", kImageBytes);
  LoopDevice loop_{image_, 4096};
  std::unique_ptr<FileDevice> device_;
};

TEST_F(BufferedFua, SectorsOfA4kDiskAreOnItWhenTheWriteIsOver) {
  open(loop_.path());
  ASSERT_EQ(device_->facts().speed, FileSpeed::kDirect) << "for whole blocks";
  expect_durable_writes(kBioFua);
}

// A file system on that disk.
class BufferedFileFua : public BufferedFua {
 protected:
  void SetUp() override {
    BufferedFua::SetUp();
    if (IsSkipped()) {
      return;
    }
    const std::string make = "mkfs.ext4 -q -F -b 4096 " + loop_.path() + " >/dev/null 2>&1";
    if (std::system(make.c_str()) != 0) {  // NOLINT(cert-env33-c): a word of ours
      GTEST_SKIP() << "no mkfs.ext4";
    }
    mounted_ = ::mount(loop_.path().c_str(), place_.path().c_str(), "ext4", 0, nullptr) == 0;
    if (!mounted_) {
      GTEST_SKIP() << "mount: " << errno_name(errno);
    }
    open(place_.make_file("file", 1 << 20));
    if (device_->facts().speed != FileSpeed::kBuffered) {
      GTEST_SKIP() << "the file takes sectors past the page cache";
    }
  }
  void TearDown() override {
    device_.reset();
    if (mounted_) {
      EXPECT_EQ(::umount2(place_.path().c_str(), 0), 0) << errno_name(errno);
    }
  }

  TempDir place_{"/var/tmp"};
  bool mounted_ = false;
};

TEST_F(BufferedFileFua, AWriteIsOnTheDiskWhenItIsOver) { expect_durable_writes(kBioFua); }

TEST_F(BufferedFileFua, AWriteWithAFlushBeforeItTakesWhatWasWrittenAlong) {
  Buffer before(8);
  before.fill(1);
  ASSERT_EQ(run(*device_, Op::kWrite, 128, 8, before.data()), BlkStatus::kOk);
  expect_durable_writes(kBioFua | kBioPreflush);
  EXPECT_TRUE(on_disk(before));
}

TEST_F(BufferedFileFua, ZeroesAreOnTheDiskWhenTheyAreOver) {
  Buffer data(8);
  data.fill(1);
  ASSERT_EQ(run(*device_, Op::kWrite, 0, 8, data.data(), kBioFua), BlkStatus::kOk);
  ASSERT_TRUE(on_disk(data));
  // By hand, where the file system cannot: into the middle of what is cached and written.
  ASSERT_EQ(run(*device_, Op::kWriteZeroes, 3, 2, nullptr, kBioFua), BlkStatus::kOk);
  std::fill_n(data.data() + (3 << kSectorShift), 2 << kSectorShift, std::byte{0});
  EXPECT_TRUE(on_disk(data));
}

}  // namespace
}  // namespace mapperfs
