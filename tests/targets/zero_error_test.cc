// zero, error: the targets without data.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

TEST(ZeroTarget, ReadsZeroesAndForgetsWrites) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("z", "0 1024 zero").ok());
  EXPECT_EQ(harness.table("z"), "0 1024 zero ");
  EXPECT_EQ(harness.status("z"), "0 1024 zero ");
  EXPECT_EQ(harness.write("z", 5, filled(3, 7)), BlkStatus::kOk);
  EXPECT_EQ(harness.read("z", 0, 1024), filled(1024, 0));
}

TEST(ZeroTarget, RefusesReadsAheadAndAnswersFlushes) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("z", "0 1024 zero").ok());
  EXPECT_EQ(harness.run_op("z", Op::kRead, 0, 8, kBioReadahead), BlkStatus::kIoError);
  EXPECT_EQ(harness.run_op("z", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(harness.write("z", 0, filled(1, 1), kBioPreflush | kBioFua), BlkStatus::kOk);
}

TEST(ZeroTarget, IsOneHoleOfAnySize) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("z", "0 2199023255552 zero").ok());
  const Extent extent = harness.device("z").extent(5, 1'000'000'000'000);
  EXPECT_TRUE(extent.hole);
  EXPECT_EQ(extent.sectors, 1'000'000'000'000U);
}

TEST(ZeroTarget, DiscardsUpToTheKernelsLimit) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("z", "0 2199023255552 zero").ok());
  const QueueLimits limits = harness.device("z").limits();
  EXPECT_EQ(limits.max_discard_sectors << kSectorShift, 2199023255040U);
  EXPECT_EQ(limits.discard_granularity, 512U);
  EXPECT_EQ(limits.max_write_zeroes_sectors, 0U);
  EXPECT_EQ(harness.run_op("z", Op::kDiscard, 0, 2199023255552), BlkStatus::kOk);
}

TEST(ZeroTarget, TakesNoArguments) {
  Harness harness;
  const Status status = harness.try_table("0 8 zero 1");
  EXPECT_EQ(status.error(), EINVAL);
  EXPECT_NE(status.message().find("zero: No arguments required"), std::string::npos);
}

TEST(ErrorTarget, FailsEverythingButFlushes) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("e", "0 1024 error").ok());
  EXPECT_EQ(harness.status("e"), "0 1024 error ");
  EXPECT_EQ(harness.run_op("e", Op::kRead, 0, 8), BlkStatus::kIoError);
  EXPECT_EQ(harness.run_op("e", Op::kWrite, 1016, 8), BlkStatus::kIoError);
  EXPECT_EQ(harness.run_op("e", Op::kDiscard, 0, 1024), BlkStatus::kIoError);
  EXPECT_EQ(harness.run_op("e", Op::kFlush, 0, 0), BlkStatus::kOk);
}

// As the kernel, so that who stands on the device is not told of other block sizes while its disks
// are away. A target that never has devices, as zero, brings limits of its own.
TEST(ErrorTarget, KeepsTheLimitsOfTheTableThatItReplaces) {
  Harness harness;
  QueueLimits below = fake::MemDev::default_limits();
  below.logical_block_size = 4096;
  below.physical_block_size = 4096;
  below.max_discard_sectors = 64;
  harness.opener().add_mem("disk", 1024, below);
  harness.opener().add_mem("other", 1024);
  ASSERT_TRUE(harness.set_table("d", "0 1024 linear disk 0").ok());
  ASSERT_TRUE(harness.device("d").wipe_table({}).ok());
  EXPECT_EQ(harness.device("d").limits().logical_block_size, 4096U);
  EXPECT_EQ(harness.device("d").limits().max_discard_sectors, 64U);
  EXPECT_EQ(harness.device("d").limits().max_write_zeroes_sectors, 0U) << "error does none";
  EXPECT_EQ(harness.run_op("d", Op::kDiscard, 0, 1024), BlkStatus::kIoError);
  // A length that does not fit those blocks: nothing has to fit anywhere.
  ASSERT_TRUE(harness.set_table("d", "0 1021 error").ok());
  EXPECT_EQ(harness.device("d").limits().logical_block_size, 4096U);
  ASSERT_TRUE(harness.set_table("d", "0 1024 error other 0").ok());
  EXPECT_EQ(harness.device("d").limits().logical_block_size, 512U);
  ASSERT_TRUE(harness.set_table("d", "0 1024 linear disk 0").ok());
  ASSERT_TRUE(harness.set_table("d", "0 1024 zero").ok());
  EXPECT_EQ(harness.device("d").limits().logical_block_size, 512U);
}

TEST(ErrorTarget, HasLimitsOfItsOwnOnANewDevice) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("e", "0 1024 error").ok());
  EXPECT_EQ(harness.device("e").limits().logical_block_size, 512U);
  EXPECT_EQ(harness.device("e").limits().discard_granularity, 512U);
}

TEST(ErrorTarget, ShowsItsDeviceInDepsAndNotInTheTable) {
  Harness harness;
  harness.add_rams();
  ASSERT_TRUE(harness.set_table("e", "0 8 error ram0 0").ok());
  EXPECT_EQ(harness.table("e"), "0 8 error ");
  const auto deps = harness.device("e").dependencies(MappedDevice::Slot::kLive);
  ASSERT_EQ(deps.size(), 1U);
  EXPECT_EQ(deps.front().name, "ram0");
}

TEST(ErrorTarget, IgnoresArgumentsThatAreNotTwo) {
  Harness harness;
  harness.add_rams();
  EXPECT_TRUE(harness.try_table("0 8 error ram0").ok());
  EXPECT_TRUE(harness.try_table("0 8 error foo bar baz").ok());
  EXPECT_EQ(harness.try_table("0 8 error foo 0").error(), ENOENT);
}

TEST(ErrorTarget, FailsItsPartOfABioAndSoTheWhole) {
  Harness harness;
  fake::MemDev& ram = harness.opener().add_mem("ram0", 1024);
  ASSERT_TRUE(harness.set_table("d", "0 16 linear ram0 0\n16 1 error\n17 47 linear ram0 17").ok());
  EXPECT_EQ(harness.write("d", 8, filled(16, 3)), BlkStatus::kIoError);
  EXPECT_EQ(ram.peek(8, 8), filled(8, 3));
  EXPECT_EQ(ram.peek(16, 1), filled(1, 0));
  EXPECT_EQ(ram.peek(17, 7), filled(7, 3));
}

}  // namespace

}  // namespace mapperfs::test
