#include "fs/ring_queue.h"

#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <set>

namespace mapperfs {
namespace {

// A ring that the kernel does not serve until it is told to.
class RingQueueTest : public testing::Test {
 protected:
  RingQueueTest() {
    ::io_uring_params params{};
    params.flags = IORING_SETUP_SQE128 | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
    params.cq_entries = 256;
    error_ = -::io_uring_queue_init_params(kEntries, &ring_, &params);
  }
  ~RingQueueTest() override {
    if (error_ == 0) {
      ::io_uring_queue_exit(&ring_);
    }
  }
  void SetUp() override {
    if (error_ != 0) {
      GTEST_SKIP() << "io_uring is not to be had here: " << std::strerror(error_);
    }
  }
  long enable() const {
    return ::syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr,
                     0);
  }
  void add(std::uint64_t number) {
    ::io_uring_sqe& sqe = queue_.next();
    ::io_uring_prep_nop(&sqe);
    sqe.user_data = number;
  }
  // Submits, and takes what completed.
  void turn() {
    queue_.flush();
    ASSERT_GE(::io_uring_submit(&ring_), 0);
    ::io_uring_cqe* cqe = nullptr;
    while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
      EXPECT_EQ(cqe->res, 0);
      EXPECT_TRUE(done_.insert(cqe->user_data).second) << cqe->user_data << " twice";
      ::io_uring_cqe_seen(&ring_, cqe);
    }
  }

  static constexpr unsigned kEntries = 8;
  ::io_uring ring_{};
  int error_ = 0;
  RingQueue queue_{ring_};
  std::set<std::uint64_t> done_;
};

TEST_F(RingQueueTest, GoesOnWhereTheKernelTakesNothing) {
  constexpr std::uint64_t kSubmissions = 100;
  for (std::uint64_t i = 1; i <= kSubmissions; ++i) {
    add(i);
  }
  EXPECT_LT(::io_uring_submit(&ring_), 0) << "the ring is off";
  EXPECT_EQ(queue_.waiting(), kSubmissions - kEntries);
  ASSERT_EQ(enable(), 0);
  for (int i = 0; i < 100 && done_.size() < kSubmissions; ++i) {
    turn();
  }
  EXPECT_EQ(done_.size(), kSubmissions);
  EXPECT_EQ(queue_.waiting(), 0U);
}

TEST_F(RingQueueTest, MoreThanTheRingHasGoesAtOnceWhereTheKernelTakesIt) {
  ASSERT_EQ(enable(), 0);
  for (std::uint64_t i = 1; i <= 100; ++i) {
    add(i);
    EXPECT_EQ(queue_.waiting(), 0U);
  }
  turn();
  EXPECT_EQ(done_.size(), 100U);
}

TEST_F(RingQueueTest, AnEntryIsZeroedEachTime) {
  ASSERT_EQ(enable(), 0);
  for (int i = 0; i < 40; ++i) {
    ::io_uring_sqe& sqe = queue_.next();
    EXPECT_EQ(sqe.user_data, 0U);
    EXPECT_EQ(sqe.cmd[0], 0);
    std::memset(sqe.cmd, 0x55, 80);
    ::io_uring_prep_nop(&sqe);
    sqe.user_data = static_cast<std::uint64_t>(i) + 1;
  }
  turn();
  EXPECT_EQ(done_.size(), 40U);
}

}  // namespace
}  // namespace mapperfs
