// Summaries of free blocks that are well formed and wrong: an error before anything changes, and
// never the end of the process.
#include <gtest/gtest.h>

#include <cerrno>

#include "metadata/store.h"
#include "metadata/thin_format.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

// A pool of two pages of counts, with 10 blocks mapped, whose summary says what it is told.
class WrongSummary : public ::testing::Test {
 protected:
  void say(std::uint16_t first_page, std::uint16_t second_page) {
    EXPECT_TRUE(pool_->create_thin(0).ok());
    for (std::uint64_t block = 0; block < 10; ++block) {
      provision(*pool_, *must_open(*pool_, 0), block);
    }
    ASSERT_TRUE(pool_->commit().ok());
    pool_.close();
    StoreOptions options;
    options.env = pool_.env();
    auto store = open_rocks_store(Pool::kDir, options);
    ASSERT_TRUE(store.ok());
    thin::Summary summary{};
    summary[0] = first_page;
    summary[1] = second_page;
    auto batch = (*store)->new_batch();
    batch->put(thin::number_key(thin::kSummaryPrefix, 0), thin::encode(summary));
    ASSERT_TRUE((*store)->write(*batch).ok());
    store->reset();
    pool_.reopen();
    device_ = must_open(*pool_, 0);
  }

  Pool pool_{1000};
  std::unique_ptr<ThinDevice> device_;
};

TEST_F(WrongSummary, IsFoundBeforeBlocksAreFreed) {
  say(512, 488);
  const Picture before = picture_of(*pool_);
  EXPECT_EQ(device_->remove(0, 5, nullptr).error(), EILSEQ) << "of a leaf";
  EXPECT_EQ(device_->remove(0, 256, nullptr).error(), EILSEQ) << "a whole leaf";
  EXPECT_EQ(picture_of(*pool_), before);
  device_.reset();
  EXPECT_TRUE(pool_->delete_device(0).ok()) << "what fails is to free its blocks, later";
  EXPECT_EQ(pool_->reclaim(1).status().error(), EILSEQ);
  EXPECT_TRUE(pool_->status().reclaim_pending);
  EXPECT_TRUE(pool_->devices().empty());
}

TEST_F(WrongSummary, IsFoundBeforeBlocksAreTaken) {
  say(0, 488);
  const Picture before = picture_of(*pool_);
  EXPECT_EQ(*pool_->data_references(3), 1U);  // reads the page, so that it is at hand
  EXPECT_TRUE(device_->lookup(3).ok());
  EXPECT_FALSE(device_->try_provision(20).has_value());
  EXPECT_EQ(*pool_->allocate_data_block(), 512U) << "of the page that may have one";
  EXPECT_EQ(picture_of(*pool_), before);
}

TEST_F(WrongSummary, IsFoundWhenItPromisesTooMuch) {
  say(511, 488);
  EXPECT_EQ(pool_->allocate_data_block().status().error(), EILSEQ);
  EXPECT_EQ(pool_->status().used_data_blocks, 1U);
}

TEST_F(WrongSummary, IsNoneWhenItIsRight) {
  say(502, 488);
  EXPECT_TRUE(device_->remove(0, 5, nullptr).ok());
  provision(*pool_, *device_, 20);
  EXPECT_TRUE(device_->try_provision(21).has_value());
  ASSERT_TRUE(pool_->commit().ok());
  device_.reset();
  expect_clean(pool_);
}

}  // namespace
}  // namespace mapperfs::testing
