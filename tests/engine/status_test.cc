#include "engine/status.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <memory>
#include <utility>

namespace mapperfs {
namespace {

TEST(BlkStatus, ErrnosOfEveryOutcome) {
  const std::array<std::pair<BlkStatus, int>, 11> table = {{{BlkStatus::kOk, 0},
                                                            {BlkStatus::kIoError, EIO},
                                                            {BlkStatus::kNotSupported, EOPNOTSUPP},
                                                            {BlkStatus::kNoSpace, ENOSPC},
                                                            {BlkStatus::kTargetError, EREMOTEIO},
                                                            {BlkStatus::kAgain, EAGAIN},
                                                            {BlkStatus::kProtection, EILSEQ},
                                                            {BlkStatus::kMedium, ENODATA},
                                                            {BlkStatus::kResource, ENOMEM},
                                                            {BlkStatus::kReadOnly, EPERM},
                                                            {BlkStatus::kRequeue, EIO}}};
  for (const auto& [status, error] : table) {
    EXPECT_EQ(errno_of(status), error);
    if (status != BlkStatus::kRequeue) {
      EXPECT_EQ(blk_status_of_errno(error), status) << error;
    }
  }
}

TEST(BlkStatus, UnknownErrnoIsAnIoError) {
  EXPECT_EQ(blk_status_of_errno(EIO), BlkStatus::kIoError);
  EXPECT_EQ(blk_status_of_errno(EBADF), BlkStatus::kIoError);
  EXPECT_EQ(blk_status_of_errno(EDQUOT), BlkStatus::kNoSpace);
  EXPECT_EQ(blk_status_of_errno(EROFS), BlkStatus::kReadOnly);
}

TEST(Status, DefaultIsOkAndStaysOkWithContext) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.error(), 0);
  EXPECT_TRUE(status.with_context("table line 1").ok());
}

TEST(Status, ContextGoesInFront) {
  const Status status(EINVAL, "too short");
  const Status wrapped = status.with_context("linear").with_context("table line 3");
  EXPECT_EQ(wrapped.error(), EINVAL);
  EXPECT_EQ(wrapped.message(), "table line 3: linear: too short");
}

TEST(Status, ShowsWhatATerminalWouldObey) {
  EXPECT_EQ(Status(EINVAL, "ram\r: unknown\x1b[2J").message(), "ram\\r: unknown\\x1b[2J");
  EXPECT_EQ(Status(EINVAL, "disk").with_context("a\nb").message(), "a\\nb: disk");
}

TEST(Status, NamesOfErrnos) {
  EXPECT_EQ(errno_name(EINVAL), "EINVAL");
  EXPECT_EQ(errno_name(EREMOTEIO), "EREMOTEIO");
  EXPECT_EQ(errno_name(123456), "123456");
}

TEST(Result, HoldsAValueThatCanBeMovedOut) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(7));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(**result, 7);
  const std::unique_ptr<int> taken = result.take();
  EXPECT_EQ(*taken, 7);
}

TEST(Result, HoldsWhyThereIsNoValue) {
  const Result<int> result(Status(ENXIO, "nothing here"));
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.status().error(), ENXIO);
  EXPECT_EQ(result.status().message(), "nothing here");
}

TEST(ResultDeathTest, ValueOfAFailureIsOurMistake) {
  const Result<int> result(Status(ENXIO, "nothing here"));
  EXPECT_DEATH(static_cast<void>(*result), "assertion failed: ok\\(\\)");
}

}  // namespace
}  // namespace mapperfs
