// The contract of ThinMetadata: devices, mappings, blocks, errors.
#include "metadata/thin_metadata.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "metadata/store.h"
#include "metadata/thin_format.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

TEST(ThinMetadata, FormatsAnEmptyDirectory) {
  Pool pool(1000);
  const ThinPoolStatus status = pool->status();
  EXPECT_EQ(status.total_data_blocks, 1000U);
  EXPECT_EQ(status.used_data_blocks, 0U);
  EXPECT_EQ(status.free_data_blocks, 1000U);
  EXPECT_EQ(status.transaction_id, 0U);
  EXPECT_FALSE(status.needs_check);
  EXPECT_EQ(pool->data_block_size(), 128U);
  EXPECT_TRUE(pool->devices().empty());
  expect_clean(pool);
}

TEST(ThinMetadata, RefusesAnotherBlockSize) {
  Pool pool;
  pool.close();
  pool.options.data_block_size = 256;
  const Status s = pool.open();
  EXPECT_EQ(s.error(), EINVAL);
  EXPECT_NE(s.message().find("from 128 to 256"), std::string::npos) << s.message();
}

TEST(ThinMetadata, TakesTheBlockSizeThatIsThereWhenNoneIsAsked) {
  Pool pool;
  pool.close();
  pool.options.data_block_size = 0;
  pool.reopen();
  EXPECT_EQ(pool->data_block_size(), 128U);
}

TEST(ThinMetadata, DoesNotFormatWhatItMayNot) {
  Pool pool;
  pool.options.may_format = false;
  ASSERT_TRUE(pool.fs().CreateDir("/empty", {}, nullptr).ok());
  const std::uint64_t before = pool.fs().changes();
  for (const char* dir : {"/missing", "/empty"}) {
    pool.options.data_block_size = 128;
    const Status forbidden = ThinMetadata::open(dir, pool.options).status();
    EXPECT_EQ(forbidden.error(), EPERM);
    EXPECT_NE(forbidden.message().find("read_only forbids"), std::string::npos)
        << forbidden.message();
    pool.options.data_block_size = 0;
    EXPECT_EQ(ThinMetadata::open(dir, pool.options).status().error(), EINVAL);
  }
  EXPECT_EQ(pool.fs().changes(), before) << "nothing is left behind";
}

TEST(ThinMetadata, IsExclusive) {
  Pool pool;
  EXPECT_EQ(ThinMetadata::open(Pool::kDir, pool.options).status().error(), EBUSY);
  pool.options.mode = ThinMetadataOptions::Mode::kReadOnly;
  EXPECT_EQ(ThinMetadata::open(Pool::kDir, pool.options).status().error(), EBUSY);
}

TEST(ThinMetadata, SaysThatADamagedDatabaseIsDamaged) {
  Pool pool;
  pool.options.memtable_bytes = 1;
  ASSERT_TRUE(pool->create_thin(1).ok());
  ASSERT_TRUE(pool->commit().ok());
  pool.reopen();
  pool.close();
  ASSERT_GT(pool.fs().damage(".sst") + pool.fs().damage("CURRENT"), 0);
  const Status s = pool.open();
  EXPECT_FALSE(s.ok());
  EXPECT_FALSE(s.message().empty());
}

TEST(ThinMetadata, RefusesAnotherVersionAndLeavesItAlone) {
  Pool pool;
  pool.close();
  StoreOptions options;
  options.env = pool.env();
  std::string superblock;
  {
    auto store = open_rocks_store(Pool::kDir, options);
    ASSERT_TRUE(store.ok()) << store.status().message();
    superblock = **(*store)->get(thin::kSuperblockKey);
    superblock[0] = 2;
    auto batch = (*store)->new_batch();
    batch->put(thin::kSuperblockKey, superblock);
    ASSERT_TRUE((*store)->write(*batch).ok());
  }
  const Status refused = pool.open();
  EXPECT_EQ(refused.error(), EINVAL);
  EXPECT_NE(refused.message().find("version 2 is unknown"), std::string::npos) << refused.message();
  auto store = open_rocks_store(Pool::kDir, options);
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(**(*store)->get(thin::kSuperblockKey), superblock);
}

TEST(ThinMetadata, CreatesAndDeletesDevices) {
  Pool pool;
  EXPECT_TRUE(pool->create_thin(0).ok());
  EXPECT_EQ(pool->create_thin(0).error(), EEXIST);
  EXPECT_TRUE(pool->create_thin(kThinMaxDeviceId).ok());
  EXPECT_EQ(pool->create_thin(kThinMaxDeviceId + 1).error(), EINVAL);
  EXPECT_EQ(pool->create_snap(1, 77).error(), ENODATA);
  EXPECT_EQ(pool->create_snap(0, 0).error(), EEXIST);
  EXPECT_EQ(pool->delete_device(5).error(), ENODATA);
  EXPECT_TRUE(pool->delete_device(kThinMaxDeviceId).ok());
  EXPECT_EQ(pool->delete_device(kThinMaxDeviceId).error(), ENODATA);
  EXPECT_EQ(pool->open_device(9).status().error(), ENODATA);
  EXPECT_EQ(pool->devices().size(), 1U);
}

TEST(ThinMetadata, KeepsAnOpenDeviceFromDeletion) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(3).ok());
  auto first = must_open(*pool, 3);
  auto second = must_open(*pool, 3);
  first.reset();
  EXPECT_EQ(pool->delete_device(3).error(), EBUSY);
  second.reset();
  EXPECT_TRUE(pool->delete_device(3).ok());
}

TEST(ThinMetadata, MapsAndLooksUp) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  EXPECT_FALSE(device->lookup(5)->mapped);
  EXPECT_EQ(provision(*pool, *device, 5), 0U);
  EXPECT_EQ(provision(*pool, *device, kThinMaxVirtualBlocks - 1), 1U);
  EXPECT_EQ(device->insert(kThinMaxVirtualBlocks, 2).error(), EINVAL);
  const ThinMapping mapping = *device->lookup(5);
  EXPECT_TRUE(mapping.mapped);
  EXPECT_FALSE(mapping.shared);
  EXPECT_EQ(mapping.data_block, 0U);
  EXPECT_EQ(device->lookup_cached(kThinMaxVirtualBlocks - 1)->data_block, 1U);
  EXPECT_EQ(device->mapped_blocks(), 2U);
  EXPECT_EQ(**device->highest_mapped(), kThinMaxVirtualBlocks - 1);
  EXPECT_TRUE(device->changed());
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_FALSE(device->changed());
  device.reset();
  expect_clean(pool);
}

TEST(ThinMetadata, AllocatesInOrderAndDoesNotReuseBeforeTheCommit) {
  Pool pool(4);
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  for (std::uint64_t block = 0; block < 4; ++block) {
    EXPECT_EQ(provision(*pool, *device, 10 + block), block);
  }
  EXPECT_EQ(pool->allocate_data_block().status().error(), ENOSPC);
  ASSERT_TRUE(pool->commit().ok());
  ASSERT_TRUE(device->remove(11, 12, nullptr).ok());
  EXPECT_EQ(pool->free_data_blocks(), 0U);
  EXPECT_EQ(pool->status().used_data_blocks, 3U);
  EXPECT_EQ(pool->allocate_data_block().status().error(), ENOSPC);
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_EQ(pool->free_data_blocks(), 1U);
  EXPECT_EQ(*pool->allocate_data_block(), 1U);
}

// As the kernel's space map: what is freed is used again only after all that was never used.
TEST(ThinMetadata, AllocationGoesOnBehindACommit) {
  Pool pool(4);
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  EXPECT_EQ(provision(*pool, *device, 10), 0U);
  EXPECT_EQ(provision(*pool, *device, 11), 1U);
  ASSERT_TRUE(device->remove(10, 11, nullptr).ok());
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_EQ(provision(*pool, *device, 12), 2U);
  EXPECT_EQ(provision(*pool, *device, 13), 3U);
  EXPECT_EQ(provision(*pool, *device, 14), 0U);
}

TEST(ThinMetadata, TakesBackWhatWasAllocatedAndNotInserted) {
  Pool pool(2);
  ASSERT_TRUE(pool->create_thin(0).ok());
  EXPECT_EQ(*pool->allocate_data_block(), 0U);
  EXPECT_EQ(*pool->allocate_data_block(), 1U);
  EXPECT_EQ(pool->status().used_data_blocks, 2U);
  pool->cancel_allocation(0);
  EXPECT_EQ(pool->status().used_data_blocks, 1U);
  EXPECT_EQ(*pool->allocate_data_block(), 0U);
  ASSERT_TRUE(pool->commit().ok());
  pool.reopen();  // a crash with both allocated
  EXPECT_EQ(pool->free_data_blocks(), 2U);
}

TEST(ThinMetadata, RefusesToMapWhatIsNotAllocated) {
  Pool pool(8);
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  EXPECT_EQ(device->insert(0, 3).error(), EINVAL);
  EXPECT_EQ(device->insert(0, 8).error(), EINVAL);
  EXPECT_FALSE(device->lookup(0)->mapped);
  EXPECT_EQ(device->mapped_blocks(), 0U);
}

TEST(ThinMetadata, HoldsDiscardedBlocksUntilTheyAreReleased) {
  Pool pool(3);
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  for (std::uint64_t block = 0; block < 3; ++block) {
    provision(*pool, *device, block);
  }
  ASSERT_TRUE(pool->commit().ok());
  std::vector<DataRun> freed;
  ASSERT_TRUE(device->remove(0, 100, &freed).ok());
  ASSERT_EQ(freed.size(), 1U);
  EXPECT_EQ(freed[0].begin, 0U);
  EXPECT_EQ(freed[0].length, 3U);
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_EQ(pool->free_data_blocks(), 0U);
  pool->release_data(freed);
  EXPECT_EQ(pool->free_data_blocks(), 3U);
  EXPECT_FALSE(device->highest_mapped()->has_value());
}

TEST(ThinMetadata, SharesWithSnapshots) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto origin = must_open(*pool, 0);
  const std::uint64_t old_block = provision(*pool, *origin, 7);
  ASSERT_TRUE(pool->create_snap(1, 0).ok());
  auto snap = must_open(*pool, 1);
  EXPECT_TRUE(origin->lookup(7)->shared);
  EXPECT_TRUE(snap->lookup(7)->shared);
  const std::uint64_t new_block = provision(*pool, *origin, 7);
  EXPECT_EQ(origin->lookup(7)->data_block, new_block);
  EXPECT_FALSE(origin->lookup(7)->shared);
  EXPECT_EQ(snap->lookup(7)->data_block, old_block);
  EXPECT_EQ(*pool->data_references(old_block), 1U);
  EXPECT_EQ(snap->details().creation_time, 1U);
  EXPECT_EQ(origin->details().snapshotted_time, 1U);
  EXPECT_EQ(origin->mapped_blocks(), 1U);
  std::vector<DataRun> freed;
  ASSERT_TRUE(origin->remove(0, 10, &freed).ok());
  EXPECT_EQ(freed.size(), 1U);
  origin.reset();
  snap.reset();
  ASSERT_TRUE(pool->commit().ok());
  expect_clean(pool);
}

TEST(ThinMetadata, DoesNotFreeWhatASnapshotStillHas) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto origin = must_open(*pool, 0);
  for (std::uint64_t block = 0; block < 600; ++block) {
    provision(*pool, *origin, block);
  }
  ASSERT_TRUE(pool->create_snap(1, 0).ok());
  std::vector<DataRun> freed;
  ASSERT_TRUE(origin->remove(0, 1000, &freed).ok());
  EXPECT_TRUE(freed.empty());
  EXPECT_EQ(origin->mapped_blocks(), 0U);
  EXPECT_EQ(must_open(*pool, 1)->mapped_blocks(), 600U);
  ASSERT_TRUE(pool->delete_device(1).ok());
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_EQ(pool->free_data_blocks(), 1000U);
  origin.reset();
  expect_clean(pool);
}

TEST(ThinMetadata, GoesOnWithADeletionAfterACrash) {
  Pool pool(100000);
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  for (std::uint64_t i = 0; i < 300; ++i) {
    provision(*pool, *device, i * 1000);
  }
  device.reset();
  ASSERT_TRUE(pool->delete_device(0).ok());
  EXPECT_TRUE(pool->status().reclaim_pending);
  ASSERT_TRUE(pool->commit().ok());
  pool.reopen();
  EXPECT_TRUE(pool->status().reclaim_pending);
  ASSERT_TRUE(pool->create_thin(0).ok());
  Result<bool> more = true;
  while (*more) {
    more = pool->reclaim(10);
    ASSERT_TRUE(more.ok()) << more.status().message();
    ASSERT_TRUE(pool->commit().ok());
  }
  EXPECT_EQ(pool->status().used_data_blocks, 0U);
  expect_clean(pool);
}

TEST(ThinMetadata, KeepsAMetadataSnapshot) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(4).ok());
  auto device = must_open(*pool, 4);
  const std::uint64_t block = provision(*pool, *device, 1);
  EXPECT_EQ(pool->release_metadata_snap().error(), EINVAL);
  EXPECT_EQ(pool->held_snapshot().status().error(), ENODATA);
  ASSERT_TRUE(pool->reserve_metadata_snap().ok());
  EXPECT_EQ(pool->reserve_metadata_snap().error(), EBUSY);
  EXPECT_NE(pool->status().held_root, 0U);
  ASSERT_TRUE(device->remove(0, 10, nullptr).ok());
  device.reset();
  ASSERT_TRUE(pool->delete_device(4).ok());
  ASSERT_TRUE(pool->commit().ok());
  pool.reopen();
  auto held = pool->open_held(4);
  ASSERT_TRUE(held.ok());
  EXPECT_EQ((*held)->lookup(1)->data_block, block);
  EXPECT_EQ((*held)->insert(1, 1).error(), EROFS);
  EXPECT_EQ(*pool->data_references(block), 1U);
  EXPECT_EQ(pool->release_metadata_snap().error(), EBUSY);
  held->reset();
  ASSERT_TRUE(pool->release_metadata_snap().ok());
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_EQ(pool->status().used_data_blocks, 0U);
  expect_clean(pool);
}

TEST(ThinMetadata, ChangesTheTransactionIdOnlyFromThePresentOne) {
  Pool pool;
  EXPECT_TRUE(pool->set_transaction_id(0, 5).ok());
  EXPECT_EQ(pool->set_transaction_id(0, 6).error(), EINVAL);
  ASSERT_TRUE(pool->create_thin(1).ok());
  ASSERT_TRUE(pool->commit().ok());
  pool.reopen();
  EXPECT_EQ(pool->status().transaction_id, 5U);
  EXPECT_EQ(pool->devices().front().transaction_id, 5U);
}

TEST(ThinMetadata, GrowsAndRefusesToShrink) {
  Pool pool(20);
  ASSERT_TRUE(pool->resize_data(30).ok());
  EXPECT_EQ(pool->resize_data(29).error(), EINVAL);
  EXPECT_EQ(pool->resize_data(kThinMaxDataBlocks + 1).error(), EINVAL);
  ASSERT_TRUE(pool->resize_data(5000).ok());
  ASSERT_TRUE(pool->commit().ok());
  pool.reopen();
  EXPECT_EQ(pool->free_data_blocks(), 5000U);
  expect_clean(pool);
}

TEST(ThinMetadata, GoesBackToTheLastCommit) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  provision(*pool, *device, 1);
  ASSERT_TRUE(pool->commit().ok());
  const Picture before = picture_of(*pool);
  provision(*pool, *device, 2);
  ASSERT_TRUE(device->remove(1, 2, nullptr).ok());
  ASSERT_TRUE(pool->create_thin(1).ok());
  auto gone = must_open(*pool, 1);
  ASSERT_TRUE(pool->create_snap(2, 0).ok());
  ASSERT_TRUE(pool->allocate_data_block().ok());
  ASSERT_TRUE(pool->abort().ok());
  EXPECT_EQ(picture_of(*pool), before);
  EXPECT_EQ(gone->lookup(0).status().error(), ENODATA);
  EXPECT_EQ(pool->status().used_data_blocks, 1U);
  provision(*pool, *device, 3);
  ASSERT_TRUE(pool->commit().ok());
  device.reset();
  gone.reset();
  expect_clean(pool);
}

TEST(ThinMetadata, RemembersThatItNeedsAChecking) {
  Pool pool;
  ASSERT_TRUE(pool->set_needs_check().ok());
  pool.reopen();
  EXPECT_TRUE(pool->status().needs_check);
  ASSERT_TRUE(pool->clear_needs_check().ok());
  pool.reopen();
  EXPECT_FALSE(pool->status().needs_check);
}

TEST(ThinMetadata, ChangesNothingWhileReadOnly) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  pool->set_read_only(true);
  EXPECT_EQ(pool->create_thin(1).error(), EROFS);
  EXPECT_EQ(pool->allocate_data_block().status().error(), EROFS);
  EXPECT_EQ(device->remove(0, 1, nullptr).error(), EROFS);
  EXPECT_TRUE(device->lookup(0).ok());
  pool->set_read_only(false);
  EXPECT_TRUE(pool->create_thin(1).ok());
}

TEST(ThinMetadata, ReadsAPoolThatIsAtRestWithoutWriting) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(0).ok());
  ASSERT_TRUE(pool->commit().ok());
  pool.close();
  const std::uint64_t changes = pool.fs().changes();
  pool.options.mode = ThinMetadataOptions::Mode::kReadOnly;
  pool.reopen();
  EXPECT_EQ(pool->devices().size(), 1U);
  EXPECT_EQ(pool->create_thin(1).error(), EROFS);
  pool.close();
  EXPECT_EQ(pool.fs().changes(), changes);
}

TEST(ThinMetadata, FlushesDataBetweenSealingAndWriting) {
  Pool pool;
  int flushes = 0;
  bool fail = false;
  pool->set_pre_commit([&]() -> Status {
    ++flushes;
    return fail ? Status(EIO, "the data device is broken") : Status();
  });
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_EQ(flushes, 0);  // nothing to commit
  ASSERT_TRUE(pool->create_thin(0).ok());
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_EQ(flushes, 1);
  fail = true;
  ASSERT_TRUE(pool->create_thin(1).ok());
  EXPECT_EQ(pool->commit().error(), EIO);
  EXPECT_EQ(pool->create_thin(2).error(), EIO);
  EXPECT_EQ(pool->commit().error(), EIO);
  ASSERT_TRUE(pool->abort().ok());
  EXPECT_EQ(pool->devices().size(), 1U);
  fail = false;
  EXPECT_TRUE(pool->create_thin(2).ok());
  EXPECT_TRUE(pool->commit().ok());
}

TEST(ThinMetadata, CommitsBeforeChangesOutgrowTheirBound) {
  Pool pool(100000);
  pool.close();
  pool.options.dirty_bytes = 100 << 10;
  pool.reopen();
  int flushes = 0;
  pool->set_pre_commit([&]() -> Status {
    ++flushes;
    return {};
  });
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  for (std::uint64_t i = 0; i < 200; ++i) {
    provision(*pool, *device, i * 1000);
  }
  EXPECT_GT(flushes, 2);
}

TEST(ThinMetadata, KeepsToItsCacheAndStillFindsEverything) {
  Pool pool(20000);
  pool.close();
  pool.options.cache_bytes = 1 << 20;
  pool.reopen();
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  for (std::uint64_t i = 0; i < 2000; ++i) {
    EXPECT_EQ(provision(*pool, *device, i * 300), i);
  }
  ASSERT_TRUE(pool->commit().ok());
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 2000; ++i) {
      ASSERT_EQ(device->lookup(i * 300)->data_block, i);
    }
  }
  EXPECT_LE(pool->cached_bytes(), std::size_t{3} << 19);
}

TEST(ThinMetadata, RunsOutOfMetadataBlocks) {
  Pool pool(100000);
  pool.close();
  pool.options.nr_metadata_blocks = 64;
  pool.reopen();
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  Status s;
  for (std::uint64_t i = 0; s.ok() && i < 1000; ++i) {
    auto block = pool->allocate_data_block();
    ASSERT_TRUE(block.ok());
    s = device->insert(i * 1000, *block);
  }
  EXPECT_EQ(s.error(), ENOSPC);
  EXPECT_EQ(pool->status().used_metadata_blocks, 64U);
  EXPECT_EQ(pool->resize_metadata(10).error(), EINVAL);
  ASSERT_TRUE(pool->resize_metadata(128).ok());
  provision(*pool, *device, 5000000);
}

TEST(ThinMetadata, ListsRunsAndStopsWhenTold) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  for (const std::uint64_t block : {250U, 251U, 252U, 253U, 254U, 255U, 256U, 257U, 400U, 70000U}) {
    provision(*pool, *device, block);
  }
  std::vector<ThinRun> runs;
  ASSERT_TRUE(device
                  ->for_each_run(252, 70001,
                                 [&](const ThinRun& run) {
                                   runs.push_back(run);
                                   return true;
                                 })
                  .ok());
  ASSERT_EQ(runs.size(), 3U);
  EXPECT_EQ(runs[0].virtual_begin, 252U);
  EXPECT_EQ(runs[0].data_begin, 2U);
  EXPECT_EQ(runs[0].length, 6U);
  EXPECT_EQ(runs[2].virtual_begin, 70000U);
  int calls = 0;
  ASSERT_TRUE(
      device->for_each_run(0, kThinMaxVirtualBlocks, [&](const ThinRun&) { return ++calls < 2; })
          .ok());
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace mapperfs::testing
