// ThinDevice::try_provision(): what it does at once, and what it leaves to insert().
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

class TryProvision : public ::testing::Test {
 protected:
  TryProvision() {
    EXPECT_TRUE(pool_->create_thin(0).ok());
    device_ = must_open(*pool_, 0);
  }
  void reopen() {
    device_.reset();
    pool_.reopen();
    device_ = must_open(*pool_, 0);
  }

  Pool pool_{1000};
  std::unique_ptr<ThinDevice> device_;
};

TEST_F(TryProvision, MapsBesideWhatIsMapped) {
  EXPECT_FALSE(device_->try_provision(0).has_value()) << "the first block makes the pages";
  provision(*pool_, *device_, 0);
  const auto block = device_->try_provision(1);
  ASSERT_TRUE(block.has_value());
  EXPECT_EQ(device_->lookup(1)->data_block, *block);
  EXPECT_EQ(device_->mapped_blocks(), 2U);
  EXPECT_TRUE(device_->changed());
  EXPECT_EQ(*pool_->data_references(*block), 1U);
  EXPECT_EQ(pool_->status().used_data_blocks, 2U);
  EXPECT_FALSE(device_->try_provision(1).has_value()) << "it is mapped";
  EXPECT_FALSE(device_->try_provision(256).has_value()) << "the tree has to grow";
  provision(*pool_, *device_, 256);
  EXPECT_TRUE(device_->try_provision(512).has_value()) << "a new leaf in a page that is there";
  EXPECT_TRUE(device_->try_provision(513).has_value());
  ASSERT_TRUE(pool_->commit().ok());
  reopen();
  EXPECT_EQ(device_->lookup(1)->data_block, *block);
  EXPECT_TRUE(device_->lookup(513)->mapped);
  EXPECT_EQ(device_->mapped_blocks(), 5U);
  device_.reset();
  expect_clean(pool_);
}

TEST_F(TryProvision, LeavesReadingToOthers) {
  provision(*pool_, *device_, 0);
  ASSERT_TRUE(pool_->commit().ok());
  reopen();
  EXPECT_FALSE(device_->try_provision(1).has_value()) << "no page is in memory";
  provision(*pool_, *device_, 1);
  EXPECT_TRUE(device_->try_provision(2).has_value());
}

TEST_F(TryProvision, LeavesSharedPagesToOthers) {
  provision(*pool_, *device_, 0);
  ASSERT_TRUE(pool_->create_snap(1, 0).ok());
  EXPECT_FALSE(device_->try_provision(1).has_value());
  provision(*pool_, *device_, 1);
  EXPECT_TRUE(device_->try_provision(2).has_value()) << "the leaf is its own again";
  const auto snapshot = must_open(*pool_, 1);
  EXPECT_FALSE(snapshot->lookup(2)->mapped);
  EXPECT_EQ(snapshot->mapped_blocks(), 1U);
}

TEST_F(TryProvision, IsUndoneByAnAbort) {
  provision(*pool_, *device_, 0);
  ASSERT_TRUE(pool_->commit().ok());
  ASSERT_TRUE(device_->try_provision(1).has_value());
  ASSERT_TRUE(pool_->abort().ok());
  EXPECT_FALSE(device_->lookup(1)->mapped);
  EXPECT_EQ(device_->mapped_blocks(), 1U);
  EXPECT_EQ(pool_->status().used_data_blocks, 1U);
}

TEST_F(TryProvision, GivesNothingWhereNothingMayChange) {
  provision(*pool_, *device_, 0);
  pool_->set_read_only(true);
  EXPECT_FALSE(device_->try_provision(1).has_value());
  pool_->set_read_only(false);
  ASSERT_TRUE(pool_->reserve_metadata_snap().ok());
  auto held = pool_->open_held(0);
  ASSERT_TRUE(held.ok());
  EXPECT_FALSE((*held)->try_provision(1).has_value());
}

TEST_F(TryProvision, GivesNoMoreThanThereIs) {
  std::uint64_t at = 0;
  for (; at < 200; ++at) {
    provision(*pool_, *device_, at);
  }
  std::set<std::uint64_t> given;
  for (; at < 256; ++at) {
    const auto block = device_->try_provision(at);
    ASSERT_TRUE(block.has_value()) << at;
    EXPECT_TRUE(given.insert(*block).second) << *block;
  }
  for (; pool_->free_data_blocks() != 0; ++at) {
    provision(*pool_, *device_, at);
  }
  ASSERT_TRUE(device_->remove(10, 12, nullptr).ok());
  EXPECT_FALSE(device_->try_provision(10).has_value()) << "freed, but not committed";
  ASSERT_TRUE(pool_->commit().ok());
  provision(*pool_, *device_, 10);
  EXPECT_TRUE(device_->try_provision(11).has_value());
  EXPECT_EQ(pool_->free_data_blocks(), 0U);
}

TEST(TryProvisionThreads, SharesAPoolWithAllElse) {
  Pool pool(20000);
  constexpr std::uint64_t kBlocks = 2000;
  std::vector<std::unique_ptr<ThinDevice>> devices;
  for (std::uint32_t id = 0; id < 2; ++id) {
    ASSERT_TRUE(pool->create_thin(id).ok());
    devices.push_back(must_open(*pool, id));
  }
  std::atomic<bool> stop{false};
  std::atomic<unsigned> at_once{0};
  std::vector<std::thread> writers;
  for (unsigned i = 0; i < 4; ++i) {  // two to each device, every second block
    writers.emplace_back([&, i] {
      ThinDevice& device = *devices[i % 2];
      for (std::uint64_t at = i / 2; at < kBlocks; at += 2) {
        if (device.try_provision(at).has_value()) {
          ++at_once;
        } else {
          provision(*pool, device, at);
        }
      }
    });
  }
  std::thread others([&] {
    for (std::uint32_t id = 10; !stop; ++id) {
      ASSERT_TRUE(pool->create_snap(id, id % 2).ok());
      ASSERT_TRUE(pool->commit().ok());
      ASSERT_TRUE(pool->delete_device(id).ok());
      ASSERT_TRUE(pool->reclaim(64).ok());
    }
  });
  for (std::thread& writer : writers) {
    writer.join();
  }
  stop = true;
  others.join();
  for (const auto& device : devices) {
    EXPECT_EQ(device->mapped_blocks(), kBlocks);
  }
  EXPECT_NE(at_once, 0U);
  devices.clear();
  const Picture picture = picture_of(*pool);
  EXPECT_EQ(blocks_of(picture).size(), 2 * kBlocks);
  ASSERT_TRUE(pool->commit().ok());
  expect_clean(pool);
}

}  // namespace
}  // namespace mapperfs::testing
