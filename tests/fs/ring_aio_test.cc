#include "fs/ring_aio.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>

#include <cerrno>
#include <deque>
#include <memory>
#include <vector>

#include "engine/queue.h"
#include "tests/engine/aio_probe.h"
#include "tests/engine/io_support.h"

namespace mapperfs {
namespace {

using io_test::AioProbe;
using io_test::Buffer;
using io_test::TempDir;
using io_test::WaitBio;

constexpr int kFd = 77;

// Keeps what it is given; the tests play the kernel.
class ListedSqes final : public SqeSource {
 public:
  ::io_uring_sqe& next_sqe() noexcept override { return sqes.emplace_back(); }
  std::deque<::io_uring_sqe> sqes;
};

class RingAioScript : public ::testing::Test {
 protected:
  RingAioScript() { Queue::current().aio().set_carrier(&aio_); }
  ~RingAioScript() override { Queue::current().aio().set_carrier(nullptr); }
  WaitBio& submit(Op op, sector_t sector, sector_t sectors, int flags = 0) {
    std::byte* data = op == Op::kFlush ? nullptr : data_.data();
    bios_.push_back(std::make_unique<WaitBio>(device_, op, sector, sectors, data, flags));
    return bios_.back()->submit();
  }
  void complete(std::size_t number, int result) {
    ASSERT_LT(number, source_.sqes.size());
    ASSERT_EQ(source_.sqes[number].user_data & RingAio::kTagMask, RingAio::kTag);
    aio_.completed(source_.sqes[number].user_data, result);
  }
  // What a first read of 8 sectors ends with, if its transfer gives `result`.
  BlkStatus outcome(int result, Op op = Op::kRead) {
    WaitBio& bio = submit(op, 100, op == Op::kFlush ? 0 : 8);
    complete(source_.sqes.size() - 1, result);
    EXPECT_TRUE(bio.ended());
    EXPECT_EQ(aio_.in_flight(), 0U);
    return bio.wait();
  }
  Buffer data_{8};
  ListedSqes source_;
  RingAio aio_{source_};
  AioProbe device_{kFd};
  std::vector<std::unique_ptr<WaitBio>> bios_;
};

TEST_F(RingAioScript, SaysWhatAndWhere) {
  submit(Op::kRead, 100, 8);
  submit(Op::kWrite, 200, 4);
  submit(Op::kWrite, 300, 1, kBioFua);
  submit(Op::kFlush, 0, 0);
  ASSERT_EQ(source_.sqes.size(), 4U);
  EXPECT_EQ(aio_.in_flight(), 4U);
  const auto& sqes = source_.sqes;
  for (const ::io_uring_sqe& sqe : sqes) {
    EXPECT_EQ(sqe.fd, kFd);
  }
  EXPECT_EQ(sqes[0].opcode, IORING_OP_READ);
  EXPECT_EQ(sqes[0].off, 100U * 512);
  EXPECT_EQ(sqes[0].len, 8U * 512);
  EXPECT_EQ(sqes[0].addr, reinterpret_cast<std::uint64_t>(data_.data()));
  EXPECT_EQ(sqes[1].opcode, IORING_OP_WRITE);
  EXPECT_EQ(sqes[1].off, 200U * 512);
  EXPECT_EQ(sqes[1].len, 4U * 512);
  EXPECT_EQ(sqes[0].rw_flags, RWF_NOWAIT);
  EXPECT_EQ(sqes[1].rw_flags, RWF_NOWAIT);
  EXPECT_EQ(sqes[2].opcode, IORING_OP_WRITE);
  EXPECT_EQ(sqes[2].rw_flags, RWF_DSYNC | RWF_NOWAIT);
  EXPECT_EQ(sqes[3].opcode, IORING_OP_FSYNC);
  EXPECT_EQ(sqes[3].fsync_flags, static_cast<std::uint32_t>(IORING_FSYNC_DATASYNC));
  // In any order.
  complete(2, 512);
  complete(0, 8 * 512);
  complete(3, 0);
  complete(1, 4 * 512);
  for (const std::unique_ptr<WaitBio>& bio : bios_) {
    EXPECT_EQ(bio->wait(), BlkStatus::kOk);
  }
  EXPECT_EQ(aio_.in_flight(), 0U);
  EXPECT_EQ(device_.refused, 0);
}

TEST_F(RingAioScript, ErrorsAreTheBios) {
  EXPECT_EQ(outcome(-EIO), BlkStatus::kIoError);
  EXPECT_EQ(outcome(-ENOSPC, Op::kWrite), BlkStatus::kNoSpace);
  EXPECT_EQ(outcome(-EIO, Op::kFlush), BlkStatus::kIoError);
  EXPECT_EQ(outcome(0), BlkStatus::kIoError) << "the file shrank";
  EXPECT_EQ(outcome(0, Op::kWrite), BlkStatus::kNoSpace);
  EXPECT_EQ(device_.refused, 0);
}

TEST_F(RingAioScript, WhatTheKernelRefusesGoesAnotherWay) {
  for (const int error : {EAGAIN, EINVAL, ENOSYS, EINTR}) {
    EXPECT_EQ(outcome(-error), BlkStatus::kAgain) << error;
  }
  device_.forget_nowait();
  EXPECT_EQ(outcome(-EOPNOTSUPP), BlkStatus::kAgain);
  EXPECT_EQ(outcome(-EINVAL, Op::kFlush), BlkStatus::kAgain);
  EXPECT_EQ(outcome(700), BlkStatus::kAgain) << "half a sector is no place to go on from";
  EXPECT_EQ(device_.refused, 7);
}

TEST_F(RingAioScript, TheRestOfAShortTransferGoesAgain) {
  WaitBio& bio = submit(Op::kWrite, 100, 8, kBioFua);
  complete(0, 3 * 512);
  EXPECT_FALSE(bio.ended());
  ASSERT_EQ(source_.sqes.size(), 2U);
  EXPECT_EQ(source_.sqes[1].off, 103U * 512);
  EXPECT_EQ(source_.sqes[1].len, 5U * 512);
  EXPECT_EQ(source_.sqes[1].addr, reinterpret_cast<std::uint64_t>(data_.data() + 3 * 512));
  EXPECT_EQ(source_.sqes[1].rw_flags, RWF_DSYNC | RWF_NOWAIT);
  complete(1, -EIO);
  EXPECT_EQ(bio.wait(), BlkStatus::kIoError) << "the error behind it";
}

TEST_F(RingAioScript, WhoFindsNoSlotWaitsForOne) {
  constexpr unsigned kBios = 3 * RingAio::kDepth;
  for (unsigned i = 0; i < kBios; ++i) {
    submit(Op::kRead, i * 8, 8);
  }
  EXPECT_EQ(source_.sqes.size(), RingAio::kDepth);
  EXPECT_EQ(aio_.in_flight(), kBios);
  for (unsigned i = 0; i < kBios; ++i) {
    complete(i, 8 * 512);
  }
  ASSERT_EQ(source_.sqes.size(), kBios);
  for (unsigned i = 0; i < kBios; ++i) {
    EXPECT_EQ(source_.sqes[i].off, std::uint64_t{i} * 4096) << "in the order they came";
    EXPECT_EQ(bios_[i]->wait(), BlkStatus::kOk);
  }
  EXPECT_EQ(aio_.in_flight(), 0U);
}

TEST_F(RingAioScript, WhatWouldWaitIsKeptUntilOneOfItsDeviceIsDone) {
  AioProbe other(88);
  WaitBio& kept = submit(Op::kRead, 100, 8);
  submit(Op::kRead, 200, 8);
  WaitBio others(other, Op::kRead, 0, 8, data_.data());
  others.submit();
  complete(0, -EAGAIN);
  complete(2, 8 * 512);
  EXPECT_TRUE(others.ended());
  EXPECT_EQ(source_.sqes.size(), 3U) << "another device's end makes no room";
  complete(1, 8 * 512);
  ASSERT_EQ(source_.sqes.size(), 4U);
  EXPECT_EQ(source_.sqes[3].off, 100U * 512);
  EXPECT_EQ(aio_.in_flight(), 1U);
  complete(3, 8 * 512);
  EXPECT_EQ(kept.wait(), BlkStatus::kOk);
  EXPECT_EQ(device_.refused, 0);
  EXPECT_EQ(aio_.in_flight(), 0U);
}

TEST_F(RingAioScript, WhatWouldWaitWithNothingUnderWayIsRefused) {
  for (int i = 0; i < 3; ++i) {
    submit(Op::kWrite, 100, 8);
  }
  for (std::size_t i = 0; i < 3; ++i) {
    complete(i, -EAGAIN);
  }
  EXPECT_EQ(source_.sqes.size(), 3U);
  EXPECT_EQ(device_.refused, 3);
  EXPECT_EQ(aio_.in_flight(), 0U);
}

TEST_F(RingAioScript, WhatIsRefusedAgainAndAgainIsNotKeptForEver) {
  WaitBio& unlucky = submit(Op::kRead, 100, 8);
  submit(Op::kRead, 200, 8);
  std::size_t its_try = 0;
  for (unsigned refusals = 1; refusals < KeptBios::kMaxRefusals; ++refusals) {
    const std::size_t another = source_.sqes.size() - 1;
    complete(its_try, -EAGAIN);
    complete(another, 8 * 512);
    its_try = source_.sqes.size() - 1;
    submit(Op::kRead, 300, 8);
  }
  EXPECT_FALSE(unlucky.ended());
  complete(its_try, -EAGAIN);
  EXPECT_EQ(unlucky.wait(), BlkStatus::kAgain);
  EXPECT_EQ(aio_.in_flight(), 1U);
  complete(source_.sqes.size() - 1, 8 * 512);
}

TEST_F(RingAioScript, AFileWithoutNowaitGoesWithoutIt) {
  WaitBio& bio = submit(Op::kWrite, 100, 8, kBioFua);
  complete(0, -EOPNOTSUPP);
  ASSERT_EQ(source_.sqes.size(), 2U);
  EXPECT_EQ(source_.sqes[1].rw_flags, RWF_DSYNC);
  complete(1, 8 * 512);
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
  submit(Op::kRead, 100, 8);
  EXPECT_EQ(source_.sqes[2].rw_flags, 0);
  complete(2, 8 * 512);
}

TEST_F(RingAioScript, WhoIsKeptFromAllSlotsIsRefused) {
  AioProbe other(88);
  for (unsigned i = 0; i <= RingAio::kDepth; ++i) {
    submit(Op::kRead, i * 8, 8);
  }
  EXPECT_EQ(io_test::run(other, Op::kRead, 0, 8, data_.data()), BlkStatus::kAgain);
  EXPECT_EQ(other.refused, 1);
  for (unsigned i = 0; i <= RingAio::kDepth; ++i) {
    complete(i, 8 * 512);
  }
  EXPECT_EQ(device_.refused, 0);
}

// A real ring and a real file.
class RealRing final : public SqeSource {
 public:
  RealRing() : error_(-::io_uring_queue_init(8, &ring_, 0)) {}
  ~RealRing() {
    if (error_ == 0) {
      ::io_uring_queue_exit(&ring_);
    }
  }
  [[nodiscard]] int error() const { return error_; }
  ::io_uring_sqe& next_sqe() noexcept override {
    ::io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      ::io_uring_submit(&ring_);
      sqe = ::io_uring_get_sqe(&ring_);
    }
    return *sqe;
  }
  void drain(RingAio& aio) {
    while (aio.in_flight() > 0) {
      ASSERT_GE(::io_uring_submit_and_wait(&ring_, 1), 0);
      ::io_uring_cqe* cqe = nullptr;
      while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
        const ::io_uring_cqe done = *cqe;
        ::io_uring_cqe_seen(&ring_, cqe);
        aio.completed(done.user_data, done.res);
      }
    }
  }

 private:
  ::io_uring ring_{};
  int error_;
};

TEST(RingAioFile, WritesFlushesAndReads) {
  RealRing ring;
  if (ring.error() != 0) {
    GTEST_SKIP() << "io_uring is not to be had here, errno " << ring.error();
  }
  constexpr unsigned kBios = 300;
  const TempDir dir("/var/tmp");
  const std::string path = dir.make_file("file", kBios * 4096);
  const UniqueFd buffered(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  Buffer zeroes(kBios * 8);  // blocks to be allocated, and pages in the cache, would be refused
  ASSERT_EQ(::pwrite(buffered.get(), zeroes.data(), zeroes.size(), 0), kBios * 4096);
  ASSERT_EQ(::fdatasync(buffered.get()), 0);
  ASSERT_EQ(::posix_fadvise(buffered.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
  if (!fd) {
    GTEST_SKIP() << "/var/tmp has no direct I/O";
  }
  RingAio aio(ring);
  Queue::current().aio().set_carrier(&aio);
  AioProbe device(fd.get());
  Buffer written(kBios * 8);
  Buffer read(kBios * 8);
  written.fill(5);
  const auto transfer = [&](Op op, Buffer& buffer) {
    std::vector<std::unique_ptr<WaitBio>> bios;
    for (unsigned i = 0; i < kBios; ++i) {
      const unsigned at = i * 7 % kBios;
      bios.push_back(
          std::make_unique<WaitBio>(device, op, at * 8, 8, buffer.data() + at * std::size_t{4096}));
      bios.back()->submit();
    }
    ring.drain(aio);
    for (const std::unique_ptr<WaitBio>& bio : bios) {
      EXPECT_EQ(bio->wait(), BlkStatus::kOk);
    }
  };
  transfer(Op::kWrite, written);
  WaitBio flush(device, Op::kFlush, 0, 0);
  flush.submit();
  ring.drain(aio);
  EXPECT_EQ(flush.wait(), BlkStatus::kOk);
  transfer(Op::kRead, read);
  EXPECT_TRUE(read.has_pattern(5));
  EXPECT_EQ(device.refused, 0);
  Queue::current().aio().set_carrier(nullptr);
}

}  // namespace
}  // namespace mapperfs
