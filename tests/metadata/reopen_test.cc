// Going back to the last commit on a file system that takes no more changes, or gives nothing back.
#include <gtest/gtest.h>

#include <cerrno>

#include "metadata/store.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

// A device with block 0 committed and block 1 not, whose commit has just failed.
struct FullDisk {
  explicit FullDisk(FaultFs::Fault fault = FaultFs::Fault::kNoSpace) {
    EXPECT_TRUE(pool->create_thin(1).ok());
    device = must_open(*pool, 1);
    committed = provision(*pool, *device, 0);
    EXPECT_TRUE(pool->commit().ok());
    provision(*pool, *device, 1);
    pool.fs().fail_after(1, fault, FaultFs::kForEver);
    EXPECT_FALSE(pool->commit().ok());
  }

  Pool pool;
  std::unique_ptr<ThinDevice> device;
  std::uint64_t committed = 0;
};

TEST(ThinMetadataReopen, IsForReadingWhereNothingCanBeWritten) {
  for (const FaultFs::Fault fault : {FaultFs::Fault::kNoSpace, FaultFs::Fault::kIoError}) {
    FullDisk disk(fault);
    const Status aborted = disk.pool->abort();
    ASSERT_TRUE(aborted.ok()) << aborted.message();
    EXPECT_EQ(disk.device->lookup(0)->data_block, disk.committed);
    EXPECT_FALSE(disk.device->lookup(1)->mapped);
    EXPECT_EQ(disk.pool->devices().size(), 1U);
    EXPECT_EQ(disk.pool->create_thin(2).error(), EROFS);
    EXPECT_EQ(disk.pool->allocate_data_block().status().error(), EROFS);
    EXPECT_TRUE(disk.pool->commit().ok()) << "there is nothing to commit";
  }
}

// The kernel sets its flag in memory, and writes it when it can.
TEST(ThinMetadataReopen, KeepsTheFlagInMemoryWhereItCannotBeWritten) {
  FullDisk disk;
  ASSERT_TRUE(disk.pool->abort().ok());
  EXPECT_TRUE(disk.pool->set_needs_check().ok());
  EXPECT_TRUE(disk.pool->status().needs_check);
  EXPECT_EQ(disk.pool->clear_needs_check().error(), EROFS);
  EXPECT_TRUE(disk.pool->status().needs_check);
  disk.pool->set_read_only(false);
  EXPECT_EQ(disk.pool->create_thin(2).error(), EROFS);
}

// The disk fills up between going back and the flag.
TEST(ThinMetadataReopen, IsForReadingIfTheFlagFindsNoSpace) {
  FullDisk disk;
  disk.pool.fs().disarm();
  ASSERT_TRUE(disk.pool->abort().ok());
  disk.pool.fs().fail_after(1, FaultFs::Fault::kNoSpace, FaultFs::kForEver);
  EXPECT_TRUE(disk.pool->set_needs_check().ok());
  EXPECT_TRUE(disk.pool->status().needs_check);
  EXPECT_EQ(disk.pool->create_thin(2).error(), EROFS);
  EXPECT_EQ(disk.device->lookup(0)->data_block, disk.committed);
}

TEST(ThinMetadataReopen, WritesTheFlagOnceItCan) {
  FullDisk disk;
  disk.pool.fs().disarm();
  ASSERT_TRUE(disk.pool->abort().ok());
  disk.pool.fs().fail_after(1, FaultFs::Fault::kNoSpace);
  EXPECT_TRUE(disk.pool->set_needs_check().ok());
  disk.device.reset();
  disk.pool.reopen();
  EXPECT_TRUE(disk.pool->status().needs_check);
}

TEST(ThinMetadataReopen, LeavesTheLastCommitForTheNextOpening) {
  FullDisk disk;
  ASSERT_TRUE(disk.pool->abort().ok());
  disk.device.reset();
  disk.pool.close();
  EXPECT_EQ(disk.pool.open().error(), ENOSPC) << "only who had it open goes on reading";
  disk.pool.fs().disarm();
  expect_clean(disk.pool.env(), Pool::kDir);
  ASSERT_TRUE(disk.pool.open().ok());
  EXPECT_FALSE(disk.pool->status().needs_check);
  EXPECT_EQ(must_open(*disk.pool, 1)->lookup(0)->data_block, disk.committed);
  provision(*disk.pool, *must_open(*disk.pool, 1), 1);
  EXPECT_TRUE(disk.pool->commit().ok());
  expect_clean(disk.pool);
}

TEST(ThinMetadataReopen, IsForWritingIfItCanBe) {
  FullDisk disk;
  disk.pool.fs().disarm();
  ASSERT_TRUE(disk.pool->abort().ok());
  EXPECT_TRUE(disk.pool->create_thin(2).ok());
  EXPECT_TRUE(disk.pool->commit().ok());
}

TEST(ThinMetadataReopen, FailsWhereNothingCanBeReadEither) {
  FullDisk disk;
  ASSERT_GT(disk.pool.fs().damage("CURRENT"), 0);
  EXPECT_FALSE(disk.pool->abort().ok());
  EXPECT_EQ(disk.device->lookup(0).status().error(), EIO);
  EXPECT_EQ(disk.pool->create_thin(2).error(), EIO);
  EXPECT_FALSE(disk.pool->set_needs_check().ok());
}

}  // namespace
}  // namespace mapperfs::testing
