#include "engine/file_device.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "tests/engine/fake_kernel.h"
#include "tests/engine/io_support.h"
#include "tests/engine/loop_device.h"

namespace mapperfs {
namespace {

using io_test::Buffer;
using io_test::FakeKernel;
using io_test::LoopDevice;
using io_test::run;
using io_test::TempDir;
using io_test::WaitBio;

constexpr sector_t kSectors = 8192;
constexpr long kCachestat = 451;

std::unique_ptr<FileDevice> open_device(Env& env, const std::string& path, bool writable = true) {
  UniqueFd fd(::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  EXPECT_TRUE(fd) << path;
  return std::make_unique<FileDevice>(env, FileDevice::Names{path, path}, std::move(fd), writable);
}

std::uint64_t allocated_bytes(const std::string& path) {
  struct stat st {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0);
  return static_cast<std::uint64_t>(st.st_blocks) * 512;
}

std::int64_t size_bytes(const std::string& path) {
  struct stat st {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0);
  return st.st_size;
}

// Pages of the file's range that are in the page cache.
std::size_t cached_pages(int fd, std::size_t offset, std::size_t bytes) {
  void* const map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(offset));
  EXPECT_NE(map, MAP_FAILED);
  std::vector<unsigned char> pages(bytes / static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)));
  EXPECT_EQ(::mincore(map, bytes, pages.data()), 0);
  ::munmap(map, bytes);
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return page % 2 == 1; }));
}

// The device looks at the size once in a tick.
void pass_a_tick() {
  timespec first{};
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &first);
  do {
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  } while (now.tv_nsec == first.tv_nsec);
}

int no_setup(int /*depth*/, ::io_context** /*context*/) { return -EAGAIN; }

// A context that refuses everything: the blocking pool has to do it.
const AioSyscalls& no_aio() {
  static const AioSyscalls kNone = {no_setup, nullptr, nullptr, nullptr, false};
  return kNone;
}

// Keeps blocking work until a test lets it run.
class ManualEnv final : public Env {
 public:
  [[nodiscard]] std::uint64_t now_ns() const override { return 0; }
  void arm(Timer& /*timer*/, std::uint64_t /*when_ns*/) override {}
  void cancel(Timer& /*timer*/) override {}
  std::unique_ptr<Worker> make_worker(const std::string& /*name*/) override { return nullptr; }
  void run_blocking(std::function<void()> work) override { work_.push_back(std::move(work)); }
  std::uint64_t random_seed() override { return 1; }
  [[nodiscard]] std::size_t waiting() const { return work_.size(); }
  void run_one() {
    ASSERT_FALSE(work_.empty());
    const std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    work();
  }

 private:
  std::deque<std::function<void()>> work_;
};

struct Place {
  std::string name;
  std::string parent;
  bool aio = true;
};

// What the kernel says of the file system, where the device draws its own conclusion.
bool lies_in_memory(const std::string& path) {
  struct statfs fs {};
  EXPECT_EQ(::statfs(path.c_str(), &fs), 0) << path;
  return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

// The same in every place and on every way. /var/tmp keeps its files, so it lies on a disk where
// /tmp is memory.
class FileDeviceAt : public ::testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    const std::string& parent = GetParam().parent;
    if (!std::filesystem::is_directory(parent)) {
      GTEST_SKIP() << "there is no " << parent;
    }
    if (!GetParam().aio) {
      refuser_ = std::make_unique<AioContext>(1, no_aio());
      EXPECT_FALSE(refuser_->available());
      override_ = std::make_unique<AioContext::Override>(*refuser_);
    }
    dir_ = std::make_unique<TempDir>(parent);
    path_ = dir_->make_file("data", kSectors << kSectorShift);
    device_ = open_device(*env_, path_);
  }

  std::unique_ptr<Env> env_ = make_real_env();
  std::unique_ptr<AioContext> refuser_;
  std::unique_ptr<AioContext::Override> override_;
  std::unique_ptr<TempDir> dir_;
  std::string path_;
  std::unique_ptr<FileDevice> device_;
};

INSTANTIATE_TEST_SUITE_P(All, FileDeviceAt,
                         ::testing::Values(Place{"disk", "/var/tmp", true},
                                           Place{"diskWithoutAio", "/var/tmp", false},
                                           Place{"memory", "/dev/shm", true}),
                         [](const auto& param) { return param.param.name; });

TEST_P(FileDeviceAt, ReadsBackWhatWasWritten) {
  for (const std::size_t misalign : {std::size_t{0}, std::size_t{16}}) {
    for (const auto& [at, count] : {std::pair<sector_t, sector_t>{0, 8},
                                    {kSectors - 1, 1},
                                    {8, 1},
                                    {3, 13},
                                    {64, 4096},
                                    {kSectors - 8, 8}}) {
      Buffer data(count, misalign);
      Buffer back(count, misalign);
      data.fill(at + count);
      ASSERT_EQ(run(*device_, Op::kWrite, at, count, data.data()), BlkStatus::kOk);
      ASSERT_EQ(run(*device_, Op::kRead, at, count, back.data()), BlkStatus::kOk);
      EXPECT_TRUE(back.has_pattern(at + count)) << count << " sectors at " << at;
    }
  }
}

TEST_P(FileDeviceAt, ReadsZeroesFromAHole) {
  Buffer back(64);
  back.fill(1);
  ASSERT_EQ(run(*device_, Op::kRead, 128, 64, back.data()), BlkStatus::kOk);
  EXPECT_TRUE(back.is_zero());
}

TEST_P(FileDeviceAt, FlushesAndWritesThrough) {
  Buffer data(8);
  data.fill(1);
  EXPECT_EQ(run(*device_, Op::kWrite, 0, 8, data.data(), kBioFua), BlkStatus::kOk);
  EXPECT_EQ(run(*device_, Op::kWrite, 8, 8, data.data(), kBioFua | kBioPreflush), BlkStatus::kOk);
  Buffer odd(3, 16);
  EXPECT_EQ(run(*device_, Op::kWrite, 17, 3, odd.fill(2).data(), kBioFua), BlkStatus::kOk);
  EXPECT_EQ(run(*device_, Op::kFlush, 0, 0), BlkStatus::kOk);
  Buffer back(8);
  ASSERT_EQ(run(*device_, Op::kRead, 8, 8, back.data()), BlkStatus::kOk);
  EXPECT_TRUE(back.has_pattern(1));
}

TEST_P(FileDeviceAt, DiscardMakesAHoleOfZeroes) {
  Buffer data(1024);
  ASSERT_EQ(run(*device_, Op::kWrite, 0, 1024, data.fill(1).data()), BlkStatus::kOk);
  ASSERT_EQ(run(*device_, Op::kFlush, 0, 0), BlkStatus::kOk);
  const std::uint64_t before = allocated_bytes(path_);
  ASSERT_EQ(run(*device_, Op::kDiscard, 64, 896), BlkStatus::kOk);
  EXPECT_LE(allocated_bytes(path_), before - (std::uint64_t{800} << kSectorShift));
  ASSERT_EQ(run(*device_, Op::kDiscard, 5, 1), BlkStatus::kOk);
  Buffer back(1024);
  ASSERT_EQ(run(*device_, Op::kRead, 0, 1024, back.data()), BlkStatus::kOk);
  for (sector_t s = 0; s < 1024; ++s) {
    const bool hole = (s >= 64 && s < 960) || s == 5;
    ASSERT_EQ(back.data()[s << kSectorShift], hole ? std::byte{0} : data.data()[s << kSectorShift])
        << "sector " << s;
  }
  EXPECT_EQ(size_bytes(path_), static_cast<std::int64_t>(kSectors << kSectorShift));
}

TEST_P(FileDeviceAt, WriteZeroesWritesZeroes) {
  Buffer data(64);
  ASSERT_EQ(run(*device_, Op::kWrite, 0, 64, data.fill(1).data()), BlkStatus::kOk);
  ASSERT_EQ(run(*device_, Op::kWriteZeroes, 3, 17), BlkStatus::kOk);
  ASSERT_EQ(run(*device_, Op::kWriteZeroes, 24, 16, nullptr, kBioFua), BlkStatus::kOk);
  Buffer back(64);
  ASSERT_EQ(run(*device_, Op::kRead, 0, 64, back.data()), BlkStatus::kOk);
  for (sector_t s = 0; s < 64; ++s) {
    const bool zero = (s >= 3 && s < 20) || (s >= 24 && s < 40);
    ASSERT_EQ(back.data()[(s << kSectorShift) + 7],
              zero ? std::byte{0} : data.data()[(s << kSectorShift) + 7])
        << "sector " << s;
  }
}

TEST_P(FileDeviceAt, KnowsHolesAndData) {
  Buffer data(128);
  ASSERT_EQ(run(*device_, Op::kWrite, 1024, 128, data.fill(1).data()), BlkStatus::kOk);
  ASSERT_EQ(run(*device_, Op::kFlush, 0, 0), BlkStatus::kOk);
  Extent extent = device_->extent(0, kSectors);
  EXPECT_TRUE(extent.hole);
  EXPECT_EQ(extent.sectors, 1024U);
  extent = device_->extent(1030, 1000);
  EXPECT_FALSE(extent.hole);
  EXPECT_EQ(extent.sectors, 122U);
  extent = device_->extent(1152, 100);
  EXPECT_TRUE(extent.hole);
  EXPECT_EQ(extent.sectors, 100U);
  extent = device_->extent(1152, kSectors - 1152);
  EXPECT_TRUE(extent.hole);
  EXPECT_EQ(extent.sectors, kSectors - 1152);
}

TEST_P(FileDeviceAt, ShrunkFileGivesErrorsAndDoesNotGrow) {
  ASSERT_EQ(::truncate(path_.c_str(), 4096), 0);
  pass_a_tick();
  Buffer data(8);
  EXPECT_EQ(run(*device_, Op::kRead, 64, 8, data.data()), BlkStatus::kIoError);
  EXPECT_EQ(run(*device_, Op::kWrite, 64, 8, data.data()), BlkStatus::kIoError);
  EXPECT_EQ(run(*device_, Op::kWrite, 4, 8, data.data()), BlkStatus::kIoError);
  EXPECT_EQ(run(*device_, Op::kDiscard, 64, 8), BlkStatus::kIoError);
  EXPECT_EQ(run(*device_, Op::kWriteZeroes, 64, 8), BlkStatus::kIoError);
  EXPECT_EQ(run(*device_, Op::kWrite, 0, 8, data.data()), BlkStatus::kOk);
  EXPECT_EQ(size_bytes(path_), 4096);
  EXPECT_EQ(device_->size_sectors(), 8U);
}

TEST_P(FileDeviceAt, SeesItsFileGrow) {
  ASSERT_EQ(::truncate(path_.c_str(), (kSectors << kSectorShift) + 5000), 0);
  EXPECT_EQ(device_->size_sectors(), kSectors);
  EXPECT_EQ(device_->refresh_size(), kSectors + 9) << "whole sectors only";
  EXPECT_EQ(device_->size_sectors(), kSectors + 9);
  Buffer data(1);
  EXPECT_EQ(run(*device_, Op::kWrite, kSectors + 8, 1, data.data()), BlkStatus::kOk);
  EXPECT_EQ(size_bytes(path_), static_cast<std::int64_t>(kSectors << kSectorShift) + 5000);
}

TEST_P(FileDeviceAt, ReadOnlyOneDoesNotWriteUntilItIsUpgraded) {
  auto device = open_device(*env_, path_, false);
  Buffer data(8);
  EXPECT_EQ(run(*device, Op::kWrite, 0, 8, data.data()), BlkStatus::kReadOnly);
  EXPECT_EQ(run(*device, Op::kDiscard, 0, 8), BlkStatus::kReadOnly);
  EXPECT_EQ(run(*device, Op::kWriteZeroes, 0, 8), BlkStatus::kReadOnly);
  EXPECT_EQ(run(*device, Op::kRead, 0, 8, data.data()), BlkStatus::kOk);
  EXPECT_EQ(run(*device, Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(device->limits().max_discard_sectors, 0U);
  device->make_writable(UniqueFd(::open(path_.c_str(), O_RDWR | O_CLOEXEC)));
  EXPECT_TRUE(device->writable());
  EXPECT_EQ(run(*device, Op::kWrite, 0, 8, data.data()), BlkStatus::kOk);
  EXPECT_GT(device->limits().max_discard_sectors, 0U);
}

TEST_P(FileDeviceAt, TellsWhatItIs) {
  EXPECT_EQ(device_->table_name(), path_);
  EXPECT_EQ(device_->display_name(), path_);
  EXPECT_EQ(device_->numbers(), "-");
  EXPECT_EQ(device_->is_memory(), lies_in_memory(path_));
  const QueueLimits limits = device_->limits();
  EXPECT_EQ(limits.logical_block_size, 512U);
  EXPECT_EQ(limits.max_discard_sectors, kUnlimitedSectors);
  EXPECT_EQ(limits.max_write_zeroes_sectors, kUnlimitedSectors);
  EXPECT_TRUE(limits.discard_zeroes);
  EXPECT_EQ(run(*device_, Op::kSecureErase, 0, 8), BlkStatus::kNotSupported);
}

TEST_P(FileDeviceAt, ManyAtOnce) {
  constexpr sector_t kCount = 600;  // more than a context is deep
  std::vector<std::unique_ptr<Buffer>> data;
  std::vector<std::unique_ptr<WaitBio>> bios;
  for (sector_t i = 0; i < kCount; ++i) {
    data.push_back(std::make_unique<Buffer>(8, i % 50 == 0 ? 4 : 0));
    bios.push_back(
        std::make_unique<WaitBio>(*device_, Op::kWrite, i * 8, 8, data.back()->fill(i).data()));
    bios.back()->submit();
  }
  for (auto& bio : bios) {
    ASSERT_EQ(bio->wait(), BlkStatus::kOk);
  }
  Buffer back(8);
  for (sector_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(run(*device_, Op::kRead, i * 8, 8, back.data()), BlkStatus::kOk);
    ASSERT_TRUE(back.has_pattern(i)) << "block " << i;
  }
}

TEST_P(FileDeviceAt, ManyThreadsAtOnce) {
  AioContext* shared = refuser_.get();
  const auto work = [&](sector_t lane) {
    std::unique_ptr<AioContext::Override> no_context;
    if (shared != nullptr) {
      no_context = std::make_unique<AioContext::Override>(*shared);
    }
    Buffer data(16, lane * 4);
    Buffer back(16, lane * 4);
    for (sector_t round = 0; round < 30; ++round) {
      const sector_t at = lane * 512 + round * 16;
      data.fill(at);
      ASSERT_EQ(run(*device_, Op::kWrite, at, 16, data.data(), round % 8 == 0 ? kBioFua : 0),
                BlkStatus::kOk);
      ASSERT_EQ(run(*device_, Op::kFlush, 0, 0), BlkStatus::kOk);
      ASSERT_EQ(run(*device_, Op::kRead, at, 16, back.data()), BlkStatus::kOk);
      ASSERT_TRUE(back.has_pattern(at)) << "sector " << at;
      ASSERT_EQ(run(*device_, Op::kDiscard, at, 16), BlkStatus::kOk);
      ASSERT_EQ(run(*device_, Op::kRead, at, 16, back.data()), BlkStatus::kOk);
      ASSERT_TRUE(back.is_zero()) << "sector " << at;
    }
  };
  std::vector<std::thread> threads;
  for (sector_t lane = 0; lane < 4; ++lane) {
    threads.emplace_back(work, lane);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(FileDevice, AnswersFromTheCacheInsideSubmit) {
  const auto env = make_real_env();
  const TempDir dir;
  const std::string path = dir.make_file("data", 1 << 20);
  Buffer data(2048);
  data.fill(1);
  const UniqueFd other(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::pwrite(other.get(), data.data(), data.size(), 0), 1 << 20);
  auto device = open_device(*env, path);
  Buffer back(8);
  WaitBio bio(*device, Op::kRead, 0, 8, back.data());
  bio.submit();
  EXPECT_TRUE(bio.ended());
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
  EXPECT_EQ(std::memcmp(back.data(), data.data(), 4096), 0);
}

// A device on a disk, with a kernel by script for libaio and blocking work that waits to be run.
class FileDeviceScript : public ::testing::Test {
 protected:
  void SetUp() override {
    context_.set_polled(true);
    if (device_->is_memory()) {
      GTEST_SKIP() << "/var/tmp is in memory";
    }
    if (device_->facts().speed != FileSpeed::kDirect) {
      GTEST_SKIP() << "/var/tmp has no direct I/O";
    }
  }
  WaitBio& submit(Op op, sector_t sector = 0, sector_t sectors = 0, std::byte* data = nullptr) {
    bios_.push_back(std::make_unique<WaitBio>(*device_, op, sector, sectors, data));
    return bios_.back()->submit();
  }

  FakeKernel kernel_;
  AioContext context_{64, FakeKernel::syscalls()};
  AioContext::Override override_{context_};
  ManualEnv env_;
  TempDir dir_{"/var/tmp"};
  std::string path_ = dir_.make_file("data", 1 << 20);
  std::unique_ptr<FileDevice> device_ = open_device(env_, path_);
  std::vector<std::unique_ptr<WaitBio>> bios_;
};

TEST(FileDevice, FlushIsAnsweredByASyncThatBeganAfterIt) {
  AioContext refuser(1, no_aio());
  const AioContext::Override override(refuser);
  ManualEnv env;
  const TempDir dir("/var/tmp");
  auto device = open_device(env, dir.make_file("data", 4096));
  if (device->is_memory()) {
    GTEST_SKIP() << "/var/tmp is in memory: nothing to flush";
  }
  std::vector<std::unique_ptr<WaitBio>> flushes;
  for (int i = 0; i < 4; ++i) {
    flushes.push_back(std::make_unique<WaitBio>(*device, Op::kFlush, 0, 0));
  }
  flushes[0]->submit();
  flushes[1]->submit();
  flushes[2]->submit();
  EXPECT_EQ(env.waiting(), 1U) << "one fdatasync at a time";
  env.run_one();
  EXPECT_TRUE(flushes[0]->ended());
  EXPECT_FALSE(flushes[1]->ended()) << "came after the first sync began";
  EXPECT_EQ(env.waiting(), 1U);
  flushes[3]->submit();
  env.run_one();
  EXPECT_TRUE(flushes[1]->ended());
  EXPECT_TRUE(flushes[2]->ended()) << "one sync serves both";
  EXPECT_FALSE(flushes[3]->ended());
  env.run_one();
  EXPECT_TRUE(flushes[3]->ended());
  EXPECT_EQ(env.waiting(), 0U);
}

TEST_F(FileDeviceScript, FlushIsAnsweredByASyncThatBeganAfterIt) {
  WaitBio& first = submit(Op::kFlush);
  WaitBio& second = submit(Op::kFlush);
  WaitBio& third = submit(Op::kFlush);
  ASSERT_EQ(kernel_.taken.size(), 1U) << "one sync at a time";
  EXPECT_EQ(kernel_.taken[0].aio_lio_opcode, IO_CMD_FDSYNC);
  kernel_.at_once = 1;
  context_.reap(true);
  EXPECT_TRUE(first.ended());
  EXPECT_FALSE(second.ended()) << "came after the first sync began";
  ASSERT_EQ(kernel_.taken.size(), 2U);
  WaitBio& last = submit(Op::kFlush);
  context_.reap(true);
  EXPECT_TRUE(second.ended());
  EXPECT_TRUE(third.ended()) << "one sync serves both";
  EXPECT_FALSE(last.ended());
  context_.reap(true);
  EXPECT_EQ(last.wait(), BlkStatus::kOk);
  EXPECT_EQ(env_.waiting(), 0U);
}

TEST_F(FileDeviceScript, AFailedSyncReachesAllThatWaitForIt) {
  kernel_.results = {-EIO, -ENOSPC, 0};
  kernel_.at_once = 1;
  WaitBio& first = submit(Op::kFlush);
  WaitBio& second = submit(Op::kFlush);
  WaitBio& third = submit(Op::kFlush);
  context_.reap(true);
  EXPECT_EQ(first.wait(), BlkStatus::kIoError);
  EXPECT_FALSE(second.ended());
  context_.reap(true);
  EXPECT_EQ(second.wait(), BlkStatus::kNoSpace);
  EXPECT_EQ(third.wait(), BlkStatus::kNoSpace);
  WaitBio& later = submit(Op::kFlush);
  context_.reap(true);
  EXPECT_EQ(later.wait(), BlkStatus::kOk);
}

TEST_F(FileDeviceScript, ARefusedRestIsWrittenAsAWhole) {
  Buffer data(8);
  data.fill(6);
  kernel_.results = {3 * 512, -EAGAIN};
  WaitBio& bio = submit(Op::kWrite, 16, 8, data.data());
  while (context_.in_flight() > 0) {
    context_.reap(true);
  }
  EXPECT_FALSE(bio.ended());
  ASSERT_EQ(env_.waiting(), 1U);
  env_.run_one();
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
  Buffer back(8);
  const UniqueFd other(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::pread(other.get(), back.data(), back.size(), 16 * 512), 4096);
  EXPECT_TRUE(back.has_pattern(6));
}

TEST_F(FileDeviceScript, TakesItsShareOfTheBlockingThreadsAndNoMore) {
  constexpr std::size_t kBios = 3 * FileDevice::kBlockingShare;
  kernel_.results.assign(kBios, -EAGAIN);
  Buffer data(8);
  for (std::size_t i = 0; i < kBios; ++i) {
    submit(Op::kWrite, 0, 8, data.data());
  }
  while (context_.in_flight() > 0) {
    context_.reap(true);
  }
  for (std::size_t i = 0; i < kBios; ++i) {
    EXPECT_EQ(env_.waiting(), std::min(FileDevice::kBlockingShare, kBios - i));
    env_.run_one();
    EXPECT_TRUE(bios_[i]->ended()) << "in order, " << i;
  }
  EXPECT_EQ(env_.waiting(), 0U);
}

TEST_F(FileDeviceScript, TheCacheIsTriedWithoutReadingAhead) {
  if (::syscall(kCachestat, -1, nullptr, nullptr, 0) != 0 && errno == ENOSYS) {
    GTEST_SKIP() << "no cachestat before Linux 6.5";
  }
  const UniqueFd other(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  Buffer data(2048);
  data.fill(7);
  ASSERT_EQ(::pwrite(other.get(), data.data(), data.size(), 0), 1 << 20);
  ASSERT_EQ(::fdatasync(other.get()), 0);
  ASSERT_EQ(::posix_fadvise(other.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  for (sector_t at = 0; at < 64; at += 8) {
    submit(Op::kRead, at, 8, data.data());
  }
  EXPECT_EQ(kernel_.taken.size(), 8U) << "all go to the disk";
  EXPECT_EQ(cached_pages(other.get(), 0, 1 << 20), 0U);
  while (context_.in_flight() > 0) {
    context_.reap(true);
  }
}

TEST(FileDevice, AReadThatIsCachedInPartIsRight) {
  const auto env = make_real_env();
  const TempDir dir("/var/tmp");
  const std::string path = dir.make_file("data", 1 << 20);
  Buffer data(2048);
  data.fill(8);
  const UniqueFd other(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::pwrite(other.get(), data.data(), data.size(), 0), 1 << 20);
  ASSERT_EQ(::fdatasync(other.get()), 0);
  ASSERT_EQ(::posix_fadvise(other.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  ASSERT_EQ(::posix_fadvise(other.get(), 0, 0, POSIX_FADV_RANDOM), 0);
  Buffer back(16);
  ASSERT_EQ(::pread(other.get(), back.data(), 4096, 0), 4096);
  auto device = open_device(*env, path);
  ASSERT_EQ(run(*device, Op::kRead, 0, 8, back.data()), BlkStatus::kOk) << "a hit";
  ASSERT_EQ(run(*device, Op::kRead, 0, 16, back.data()), BlkStatus::kOk) << "half a hit";
  EXPECT_EQ(std::memcmp(back.data(), data.data(), back.size()), 0);
}

TEST(FileDevice, FullFileSystemIsOutOfSpace) {
  const TempDir dir;
  if (::mount("none", dir.path().c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "mount: " << errno_name(errno);
  }
  {
    const auto env = make_real_env();
    auto device = open_device(*env, dir.make_file("data", 1 << 20));
    Buffer data(1024);
    EXPECT_EQ(run(*device, Op::kWrite, 0, 1024, data.data()), BlkStatus::kNoSpace);
    EXPECT_EQ(run(*device, Op::kWrite, 0, 8, data.data()), BlkStatus::kOk);
  }
  ::umount2(dir.path().c_str(), MNT_DETACH);
}

class FileDeviceOnLoop : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::make_unique<LoopDevice>(dir_.make_file("image", kSectors << kSectorShift));
    if (!loop_->ok()) {
      GTEST_SKIP() << "loop devices are not to be had";
    }
    device_ = open_device(*env_, loop_->path());
  }
  void TearDown() override { device_.reset(); }

  std::unique_ptr<Env> env_ = make_real_env();
  TempDir dir_;
  std::unique_ptr<LoopDevice> loop_;
  std::unique_ptr<FileDevice> device_;
};

TEST_F(FileDeviceOnLoop, TellsWhatItIs) {
  EXPECT_EQ(device_->size_sectors(), kSectors);
  EXPECT_EQ(device_->numbers(), device_numbers(loop_->rdev()));
  EXPECT_EQ(device_->table_name(), device_->numbers());
  EXPECT_EQ("/dev/" + device_->display_name(), loop_->path());
  EXPECT_FALSE(device_->is_memory());
  EXPECT_EQ(device_->limits().logical_block_size, 512U);
  EXPECT_GT(device_->limits().max_discard_sectors, 0U);
}

TEST_F(FileDeviceOnLoop, ReadsWritesFlushesAndDiscards) {
  Buffer data(64);
  Buffer back(64);
  ASSERT_EQ(run(*device_, Op::kWrite, 8, 64, data.fill(1).data(), kBioFua), BlkStatus::kOk);
  ASSERT_EQ(run(*device_, Op::kFlush, 0, 0), BlkStatus::kOk);
  ASSERT_EQ(run(*device_, Op::kRead, 8, 64, back.data()), BlkStatus::kOk);
  EXPECT_TRUE(back.has_pattern(1));
  ASSERT_EQ(run(*device_, Op::kDiscard, 0, 64), BlkStatus::kOk);
  ASSERT_EQ(run(*device_, Op::kWriteZeroes, 64, 3), BlkStatus::kOk);
  Buffer zero(67);
  ASSERT_EQ(run(*device_, Op::kRead, 0, 67, zero.fill(2).data()), BlkStatus::kOk);
  EXPECT_TRUE(zero.is_zero());
  EXPECT_FALSE(device_->extent(0, 64).hole);
}

TEST_F(FileDeviceOnLoop, SectorsOfA4kDiskGoThroughTheCache) {
  device_.reset();
  loop_ = std::make_unique<LoopDevice>(dir_.make_file("image4k", kSectors << kSectorShift), 4096);
  if (!loop_->ok()) {
    GTEST_SKIP() << "no loop device with blocks of 4096 bytes";
  }
  device_ = open_device(*env_, loop_->path());
  EXPECT_EQ(device_->limits().logical_block_size, 4096U);
  Buffer data(16);
  Buffer back(16);
  ASSERT_EQ(run(*device_, Op::kWrite, 0, 16, data.fill(1).data()), BlkStatus::kOk);
  Buffer one(1);
  ASSERT_EQ(run(*device_, Op::kWrite, 3, 1, one.fill(2).data(), kBioFua), BlkStatus::kOk);
  ASSERT_EQ(run(*device_, Op::kRead, 0, 16, back.data()), BlkStatus::kOk);
  std::copy_n(one.data(), 512, data.data() + std::size_t{3} * 512);
  EXPECT_EQ(std::memcmp(back.data(), data.data(), data.size()), 0);
}

// While a direct write of a block device is in flight, its page cache may be filled with what the
// write is about to replace, and the kernel leaves that there.
TEST_F(FileDeviceOnLoop, NeitherFillsNorBelievesThePageCache) {
  const UniqueFd other(::open(loop_->path().c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::posix_fadvise(other.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  Buffer back(8);
  for (sector_t at = 1024; at < 2048; at += 8) {
    ASSERT_EQ(run(*device_, Op::kRead, at, 8, back.data()), BlkStatus::kOk);
  }
  EXPECT_EQ(cached_pages(other.get(), std::size_t{1024} << kSectorShift, 1024 << kSectorShift), 0U);
  Buffer old(8);
  ASSERT_EQ(::pread(other.get(), old.data(), old.size(), 0), 4096) << "now the old page is cached";
  Buffer data(8);
  data.fill(3);
  const UniqueFd below(::open((dir_ / "image").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::pwrite(below.get(), data.data(), data.size(), 0), 4096);
  ASSERT_EQ(::fdatasync(below.get()), 0);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(run(*device_, Op::kRead, 0, 8, back.data()), BlkStatus::kOk);
    EXPECT_TRUE(back.has_pattern(3)) << "read " << i;
  }
}

TEST_F(FileDeviceOnLoop, SectorsOfA4kDiskAreReadFromTheDiskEachTime) {
  device_.reset();
  loop_ = std::make_unique<LoopDevice>(dir_.make_file("image4k", kSectors << kSectorShift), 4096);
  if (!loop_->ok()) {
    GTEST_SKIP() << "no loop device with blocks of 4096 bytes";
  }
  device_ = open_device(*env_, loop_->path());
  Buffer one(1);
  ASSERT_EQ(run(*device_, Op::kRead, 3, 1, one.data()), BlkStatus::kOk);
  EXPECT_TRUE(one.is_zero());
  Buffer data(8);
  data.fill(4);
  const UniqueFd below(::open((dir_ / "image4k").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::pwrite(below.get(), data.data(), data.size(), 0), 4096);
  ASSERT_EQ(run(*device_, Op::kRead, 3, 1, one.data()), BlkStatus::kOk);
  EXPECT_EQ(std::memcmp(one.data(), data.data() + std::size_t{3} * 512, 512), 0);
}

// The kernel tells each descriptor once that pages could not be written back.
TEST(FileDevice, AFlushTellsOfDataThatAFuaWriteFoundLost) {
  const TempDir dir;
  if (::mount("none", dir.path().c_str(), "tmpfs", 0, "size=64k") != 0) {
    GTEST_SKIP() << "mount: " << errno_name(errno);
  }
  bool has_loop = false;
  {
    const LoopDevice loop(dir.make_file("image", 1 << 20), 4096);
    Buffer rest(1024);
    const UniqueFd full(::open((dir / "rest").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_GT(::write(full.get(), rest.data(), rest.size()), 0) << "takes what room there is";
    has_loop = loop.ok();
    if (has_loop) {
      const auto env = make_real_env();
      auto device = open_device(*env, loop.path());
      Buffer data(1);
      EXPECT_EQ(run(*device, Op::kWrite, 3, 1, data.data()), BlkStatus::kOk) << "to the cache";
      EXPECT_NE(run(*device, Op::kWrite, 4, 1, data.data(), kBioFua), BlkStatus::kOk);
      EXPECT_NE(run(*device, Op::kFlush, 0, 0), BlkStatus::kOk) << "sector 3 is lost";
      EXPECT_EQ(run(*device, Op::kFlush, 0, 0), BlkStatus::kOk) << "is told once";
    }
  }
  ::umount2(dir.path().c_str(), MNT_DETACH);
  if (!has_loop) {
    GTEST_SKIP() << "no loop device with blocks of 4096 bytes";
  }
}

TEST_F(FileDeviceOnLoop, EndOfTheDeviceIsAnError) {
  Buffer data(8);
  EXPECT_EQ(run(*device_, Op::kRead, kSectors, 8, data.data()), BlkStatus::kIoError);
  EXPECT_EQ(run(*device_, Op::kWrite, kSectors, 8, data.data()), BlkStatus::kIoError);
}

TEST(FileDevice, GivesItsWholeFileUnlessSomeBytesAreNotReachable) {
  const TempDir dir("/dev/shm");
  const std::unique_ptr<Env> env = make_real_env();
  const std::string path = dir.make_file("whole", 8192);
  const auto whole = open_device(*env, path);
  const Result<int> fd = whole->whole_file();
  ASSERT_TRUE(fd.ok()) << fd.status().message();
  EXPECT_EQ(::pwrite(*fd, "abc", 3, 8189), 3);
  const std::string odd = dir.make_file("odd", 8192 + 100);
  EXPECT_EQ(open_device(*env, odd)->whole_file().status().message(),
            odd + " has 8292 bytes, not just 16 sectors");
}

}  // namespace
}  // namespace mapperfs
