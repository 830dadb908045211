#include "engine/limits.h"

#include <gtest/gtest.h>

namespace mapperfs {
namespace {

QueueLimits disk() {
  QueueLimits limits;
  limits.max_discard_sectors = 1000;
  limits.max_write_zeroes_sectors = 2000;
  limits.max_secure_erase_sectors = 3000;
  limits.discard_granularity = 4096;
  return limits;
}

TEST(Limits, DefaultsTakeEverythingFromTheFirstDevice) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits below = disk();
  below.discard_zeroes = true;
  EXPECT_TRUE(stack_limits(top, below, 0));
  EXPECT_EQ(top.max_discard_sectors, 1000U);
  EXPECT_EQ(top.max_write_zeroes_sectors, 2000U);
  EXPECT_EQ(top.max_secure_erase_sectors, 3000U);
  EXPECT_EQ(top.discard_granularity, 4096U);
  EXPECT_TRUE(top.discard_zeroes);
  EXPECT_FALSE(top.write_cache);
}

TEST(Limits, BlockSizesAreTheLargest) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits a;
  a.logical_block_size = 512;
  a.physical_block_size = 4096;
  a.io_min = 4096;
  QueueLimits b;
  b.logical_block_size = 2048;
  b.physical_block_size = 2048;
  b.io_min = 2048;
  EXPECT_TRUE(stack_limits(top, a, 0));
  EXPECT_TRUE(stack_limits(top, b, 0));
  EXPECT_EQ(top.logical_block_size, 2048U);
  EXPECT_EQ(top.physical_block_size, 4096U);
  EXPECT_EQ(top.io_min, 4096U);
}

TEST(Limits, OptimalIoIsTheLeastCommonMultiple) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits a;
  a.io_opt = 65536;
  QueueLimits b;
  b.io_opt = 3 * 32768;
  QueueLimits none;
  stack_limits(top, a, 0);
  stack_limits(top, none, 0);
  EXPECT_EQ(top.io_opt, 65536U);
  stack_limits(top, b, 0);
  EXPECT_EQ(top.io_opt, 3U * 65536U);
}

TEST(Limits, HugeLeastCommonMultipleDoesNotWrap) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits a;
  a.io_opt = 0x80000000U;
  QueueLimits b;
  b.io_opt = 3 * 512;
  stack_limits(top, a, 0);
  stack_limits(top, b, 0);
  EXPECT_EQ(top.io_opt, 0x80000000U);
}

TEST(Limits, RequestSizesAreTheSmallestThatIsSet) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits a;
  QueueLimits b;
  b.max_sectors = 256;
  QueueLimits c;
  c.max_sectors = 2048;
  stack_limits(top, a, 0);
  EXPECT_EQ(top.max_sectors, 0U);
  stack_limits(top, b, 0);
  stack_limits(top, c, 0);
  EXPECT_EQ(top.max_sectors, 256U);
}

TEST(Limits, ChunksAreTheGreatestCommonDivisor) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits a;
  a.chunk_sectors = 96;
  QueueLimits b;
  b.chunk_sectors = 64;
  QueueLimits none;
  stack_limits(top, a, 0);
  stack_limits(top, none, 0);
  EXPECT_EQ(top.chunk_sectors, 96U);
  stack_limits(top, b, 0);
  EXPECT_EQ(top.chunk_sectors, 32U);
}

TEST(Limits, AnOperationThatOneDeviceLacksIsLost) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits lacks;
  stack_limits(top, disk(), 0);
  stack_limits(top, lacks, 0);
  EXPECT_EQ(top.max_discard_sectors, 0U);
  EXPECT_EQ(top.max_write_zeroes_sectors, 0U);
  EXPECT_EQ(top.max_secure_erase_sectors, 0U);
  EXPECT_FALSE(top.discard_zeroes);
}

TEST(Limits, CacheAndSpindleAreInherited) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits cached;
  cached.write_cache = true;
  cached.fua = true;
  QueueLimits spinning;
  spinning.rotational = true;
  stack_limits(top, cached, 0);
  stack_limits(top, spinning, 0);
  EXPECT_TRUE(top.write_cache);
  EXPECT_TRUE(top.fua);
  EXPECT_TRUE(top.rotational);
}

TEST(Limits, TellsWhereAStartMissesThePhysicalBlocks) {
  QueueLimits below;
  below.physical_block_size = 4096;
  below.io_min = 4096;
  QueueLimits top = QueueLimits::stacking_defaults();
  EXPECT_TRUE(stack_limits(top, below, 8));
  EXPECT_FALSE(stack_limits(top, below, 9));
}

TEST(Limits, PhysicalBlockFollowsALargerLogicalOne) {
  QueueLimits top = QueueLimits::stacking_defaults();
  QueueLimits odd;
  odd.physical_block_size = 1536;
  odd.io_min = 1536;
  QueueLimits large;
  large.logical_block_size = 1024;
  large.physical_block_size = 1024;
  large.io_min = 1024;
  stack_limits(top, odd, 0);
  stack_limits(top, large, 0);
  EXPECT_EQ(top.physical_block_size, 1024U);
  EXPECT_EQ(top.io_min, 1024U);
}

}  // namespace
}  // namespace mapperfs
