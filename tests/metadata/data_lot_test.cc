// Blocks that are lent to devices: whose they are, that every figure takes them for what they are,
// and that the last one is anybody's.
#include "metadata/data_lot.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <thread>

#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

constexpr std::uint64_t kLot = thin::kLotBlocks;
constexpr std::uint64_t kLotPoolBlocks = 2000;  // not a multiple of a lot

// A pool in which every device gets blocks from lots, with three devices.
class DataLots : public ::testing::Test {
 protected:
  DataLots() {
    pool_.close();
    pool_.options.always_lend = true;
    pool_.reopen();
    EXPECT_TRUE(pool_->data_references(0).ok());  // a lot is made of counts that are in memory
    for (std::uint32_t id = 0; id < 3; ++id) {
      EXPECT_TRUE(pool_->create_thin(id).ok());
    }
    open();
  }
  void open() {
    for (std::uint32_t id = 0; id < 3; ++id) {
      devices_.push_back(must_open(*pool_, id));
    }
  }
  void close() { devices_.clear(); }
  ThinDevice& device(std::size_t i) { return *devices_[i]; }

  // Allocates and maps at once where that is possible; the block.
  std::uint64_t map(ThinDevice& device, std::uint64_t at) {
    if (const auto block = device.try_provision(at)) {
      return *block;
    }
    auto block = device.allocate_data_block();
    EXPECT_TRUE(block.ok()) << block.status().message();
    EXPECT_TRUE(device.insert(at, *block).ok());
    return *block;
  }

  // Each figure says the same: so many are in use, and the rest is free.
  void expect_used(std::uint64_t used) {
    const ThinPoolStatus status = pool_->status();
    ASSERT_EQ(status.used_data_blocks, used);
    const std::uint64_t free = kLotPoolBlocks - used;
    ASSERT_EQ(status.free_data_blocks, free);
    ASSERT_EQ(pool_->free_data_blocks(), free);
    ASSERT_FALSE(pool_->free_data_blocks_exceed(free));
    ASSERT_TRUE(free == 0 || pool_->free_data_blocks_exceed(free - 1));
  }

  Pool pool_{kLotPoolBlocks};
  std::vector<std::unique_ptr<ThinDevice>> devices_;
};

TEST_F(DataLots, GiveEachDeviceARun) {
  for (std::uint64_t at = 0; at < 2 * kLot; ++at) {
    const std::uint64_t lot = at / kLot * 2 * kLot;
    EXPECT_EQ(map(device(0), at), lot + at % kLot);
    EXPECT_EQ(map(device(1), at), lot + kLot + at % kLot);
    expect_used(2 * at + 2);
  }
  ASSERT_TRUE(pool_->commit().ok());
  expect_used(4 * kLot);
  close();
  expect_clean(pool_);
}

TEST_F(DataLots, AreNotNeededByOneThread) {
  close();
  pool_.options.always_lend = false;
  pool_.reopen();
  EXPECT_TRUE(pool_->create_thin(0).ok());
  EXPECT_TRUE(pool_->create_thin(1).ok());
  const auto first = must_open(*pool_, 0);
  const auto second = must_open(*pool_, 1);
  for (std::uint64_t at = 0; at < 2 * kLot; ++at) {
    EXPECT_EQ(map(*first, at), 2 * at);
    EXPECT_EQ(map(*second, at), 2 * at + 1);
  }
}

TEST_F(DataLots, LeaveTheLastBlockToAnybody) {
  map(device(0), 0);
  map(device(1), 0);
  std::set<std::uint64_t> given;
  std::uint64_t used = 2;
  for (std::uint64_t at = 0; used < kLotPoolBlocks; ++at, ++used) {
    given.insert(map(device(2), at));
    expect_used(used + 1);
  }
  EXPECT_EQ(given.size(), kLotPoolBlocks - 2);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(device(i).allocate_data_block().status().error(), ENOSPC);
    EXPECT_FALSE(device(i).try_provision(5000).has_value());
  }
  EXPECT_EQ(pool_->allocate_data_block().status().error(), ENOSPC);
  ASSERT_TRUE(pool_->commit().ok());
  expect_used(kLotPoolBlocks);
  close();
  expect_clean(pool_);
}

TEST_F(DataLots, LeaveTheLastBlockToWhoHasNoLot) {
  map(device(0), 0);
  map(device(1), 0);
  std::set<std::uint64_t> given;
  for (auto block = pool_->allocate_data_block(); block.ok();
       block = pool_->allocate_data_block()) {
    EXPECT_TRUE(given.insert(*block).second) << *block;
  }
  EXPECT_EQ(given.size(), kLotPoolBlocks - 2);
  EXPECT_EQ(device(0).allocate_data_block().status().error(), ENOSPC);
  pool_->cancel_allocation(*given.begin());
  EXPECT_EQ(*device(1).allocate_data_block(), *given.begin()) << "a device gets what is given back";
}

TEST_F(DataLots, EndWithACommit) {
  EXPECT_EQ(map(device(0), 0), 0U);
  EXPECT_EQ(map(device(1), 0), kLot);
  ASSERT_TRUE(pool_->commit().ok());
  expect_used(2);
  EXPECT_EQ(*pool_->allocate_data_block(), 1U) << "what was left comes first: no hole stays";
  EXPECT_EQ(map(device(1), 1), 2U);
  EXPECT_EQ(map(device(0), 1), kLot + 1);
}

TEST_F(DataLots, AreGivenBackByADeviceThatIsDeleted) {
  map(device(0), 0);
  map(device(1), 0);
  devices_[0].reset();
  ASSERT_TRUE(pool_->delete_device(0).ok());
  std::uint64_t given = 0;
  while (pool_->allocate_data_block().ok()) {
    ++given;
  }
  EXPECT_EQ(given, kLotPoolBlocks - 2)
      << "all but the other's block and the one that is free at a commit";
  ASSERT_TRUE(pool_->commit().ok());
  EXPECT_TRUE(pool_->allocate_data_block().ok());
}

TEST_F(DataLots, TakeBackWhatIsCancelled) {
  const auto first = device(0).allocate_data_block();
  const auto second = device(0).allocate_data_block();
  expect_used(2);
  pool_->cancel_allocation(*first);
  expect_used(1);
  EXPECT_EQ(device(0).insert(0, *first).error(), EINVAL) << "it is nobody's";
  ASSERT_TRUE(device(0).insert(0, *second).ok());
  pool_->cancel_allocation(*second);  // it is inserted, so that changes nothing
  expect_used(1);
  ASSERT_TRUE(pool_->commit().ok());
  close();
  expect_clean(pool_);
}

TEST_F(DataLots, GiveBlocksThatOutliveThem) {
  const auto inserted = device(0).allocate_data_block();
  const auto cancelled = device(0).allocate_data_block();
  map(device(0), 7);  // something to commit
  ASSERT_TRUE(pool_->commit().ok());
  expect_used(3);
  ASSERT_TRUE(device(0).insert(0, *inserted).ok());
  pool_->cancel_allocation(*cancelled);
  expect_used(2);
  ASSERT_TRUE(pool_->commit().ok());
  close();
  expect_clean(pool_);
}

TEST_F(DataLots, GiveBlocksThatAnotherDeviceMayMap) {
  const auto block = device(0).allocate_data_block();
  map(device(1), 0);
  ASSERT_TRUE(device(1).insert(1, *block).ok());
  EXPECT_EQ(device(1).insert(2, *block).error(), EINVAL) << "once";
  EXPECT_EQ(device(0).insert(2, *block + 1).error(), EINVAL) << "left, but not given out";
  expect_used(2);
  ASSERT_TRUE(pool_->commit().ok());
  close();
  expect_clean(pool_);
}

TEST_F(DataLots, KnowWhatLostItsOwnerMeanwhile) {
  for (std::uint64_t at = 0; at < 20; ++at) {
    map(device(0), at);
  }
  std::vector<DataRun> freed;
  ASSERT_TRUE(device(0).remove(5, 10, &freed).ok());
  ASSERT_TRUE(device(0).remove(10, 15, nullptr).ok());
  ASSERT_EQ(freed.size(), 1U);
  const ThinPoolStatus status = pool_->status();
  EXPECT_EQ(status.used_data_blocks, 10U);
  EXPECT_EQ(status.free_data_blocks, kLotPoolBlocks - 20) << "not free before a commit";
  ASSERT_TRUE(pool_->commit().ok());
  EXPECT_EQ(pool_->free_data_blocks(), kLotPoolBlocks - 15)
      << "what is being discarded is not free";
  pool_->release_data(freed);
  expect_used(10);
  ASSERT_TRUE(pool_->commit().ok());
  close();
  expect_clean(pool_);
}

TEST_F(DataLots, AreForgottenByAnAbort) {
  map(device(0), 0);
  ASSERT_TRUE(pool_->commit().ok());
  map(device(0), 1);
  ASSERT_TRUE(device(0).allocate_data_block().ok());
  map(device(1), 0);
  ASSERT_TRUE(pool_->abort().ok());
  expect_used(1);
  EXPECT_EQ(map(device(0), 1), 1U);
  expect_used(2);
  ASSERT_TRUE(pool_->commit().ok());
  close();
  expect_clean(pool_);
}

TEST_F(DataLots, SurviveNothing) {
  map(device(0), 0);
  ASSERT_TRUE(pool_->commit().ok());
  map(device(1), 0);
  close();
  pool_.reopen();  // as after a crash
  open();
  expect_used(1);
  EXPECT_EQ(*pool_->allocate_data_block(), 1U);
}

TEST_F(DataLots, GoOnInAPoolThatGrows) {
  for (std::uint64_t at = 0; at < kLotPoolBlocks; ++at) {
    map(device(at % 2), at);
  }
  expect_used(kLotPoolBlocks);
  ASSERT_TRUE(pool_->resize_data(kLotPoolBlocks + 10).ok());
  EXPECT_EQ(pool_->free_data_blocks(), 10U);
  std::set<std::uint64_t> given;
  for (std::uint64_t at = 0; at < 10; ++at) {
    given.insert(map(device(at % 3), kLotPoolBlocks + at));
  }
  EXPECT_EQ(given.size(), 10U);
  EXPECT_EQ(*given.begin(), kLotPoolBlocks);
  EXPECT_EQ(pool_->allocate_data_block().status().error(), ENOSPC);
  ASSERT_TRUE(pool_->commit().ok());
  close();
  expect_clean(pool_);
}

// Threads that map until nothing is free, while others look at the figures, take blocks and give
// them back, and commit. Nothing is lost, and nothing given twice.
void fill_with_threads(bool always_lend) {
  constexpr unsigned kThreads = 4;
  Pool pool(20000);
  pool.close();
  pool.options.always_lend = always_lend;
  pool.reopen();
  std::vector<std::unique_ptr<ThinDevice>> devices;
  for (std::uint32_t id = 0; id < kThreads; ++id) {
    ASSERT_TRUE(pool->create_thin(id).ok());
    devices.push_back(must_open(*pool, id));
  }
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (unsigned i = 0; i < kThreads; ++i) {
    writers.emplace_back([&, i] {
      for (std::uint64_t at = 0;; ++at) {
        if (devices[i]->try_provision(at).has_value()) {
          continue;
        }
        auto block = devices[i]->allocate_data_block();
        if (!block.ok() && pool->free_data_blocks() == 0) {
          ASSERT_EQ(block.status().error(), ENOSPC);
          return;
        }
        if (block.ok()) {
          ASSERT_TRUE(devices[i]->insert(at, *block).ok());
        }
      }
    });
  }
  std::thread looks([&] {
    while (!stop) {
      const ThinPoolStatus status = pool->status();
      ASSERT_LE(status.used_data_blocks + status.free_data_blocks, status.total_data_blocks);
    }
  });
  std::thread commits([&] {
    while (!stop) {
      ASSERT_TRUE(pool->commit().ok());
    }
  });
  for (std::thread& writer : writers) {
    writer.join();
  }
  stop = true;
  looks.join();
  commits.join();
  EXPECT_EQ(pool->status().used_data_blocks, 20000U);
  const Picture picture = picture_of(*pool);
  EXPECT_EQ(blocks_of(picture).size(), 20000U);
  ASSERT_TRUE(pool->commit().ok());
  devices.clear();
  expect_clean(pool);
}

TEST(DataLotThreads, GiveOutEveryBlockOnce) { fill_with_threads(false); }
TEST(DataLotThreads, GiveOutEveryBlockOnceFromLotsAlone) { fill_with_threads(true); }

// Devices that are mapped, unmapped, shared and deleted by threads of their own, with blocks that
// are given back, or mapped by another device than they were given to; all in a pool that is full
// at times and goes back to its last commit now and then.
class Crowd {
 public:
  static constexpr std::uint64_t kBlocks = 1500;
  static constexpr unsigned kThreads = 3;

  explicit Crowd(Pool& pool) : pool_(*pool) {
    EXPECT_TRUE(pool_.create_thin(kCommon).ok());
    EXPECT_TRUE(pool_.commit().ok());
    common_ = must_open(pool_, kCommon);
  }
  void run() {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
      threads.emplace_back([this, i] {
        for (std::uint64_t life = 0; life < 12 && !::testing::Test::HasFailure(); ++life) {
          live(i, 100 * i + life);
        }
        ++done_;
      });
    }
    for (int turn = 0; done_ != kThreads; ++turn) {
      if (turn % 8 == 7) {
        const std::lock_guard<std::mutex> next(entry_);
        const std::unique_lock<std::shared_mutex> alone(pairs_);
        EXPECT_TRUE(pool_.abort().ok());
      } else {
        EXPECT_TRUE(pool_.commit().ok());
      }
      const ThinPoolStatus status = pool_.status();
      EXPECT_LE(status.used_data_blocks + status.free_data_blocks, kBlocks);
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    common_.reset();
  }

 private:
  static constexpr std::uint32_t kCommon = 9;

  // One life of a device, and of a snapshot of it. An abort may end either.
  void live(std::uint32_t id, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    pool_.create_thin(id).ignore();
    if (auto device = pool_.open_device(id); device.ok()) {
      for (int step = 0; step < 600; ++step) {
        change(**device, random);
        if (step == 300) {
          pool_.create_snap(id + kThreads, id).ignore();
        }
      }
    }
    pool_.delete_device(id).ignore();
    pool_.delete_device(id + kThreads).ignore();
  }
  void change(ThinDevice& device, std::mt19937_64& random) {
    entry_.lock();  // an abort that waits comes first
    entry_.unlock();
    const std::shared_lock<std::shared_mutex> pair(pairs_);
    const std::uint64_t at = random() % 1000;
    const std::uint64_t what = random() % 16;
    if (what == 0) {
      std::vector<DataRun> freed;
      device.remove(at, at + 40, at % 2 == 0 ? &freed : nullptr).ignore();
      pool_.release_data(freed);
    } else if (what < 9) {
      static_cast<void>(device.try_provision(at));
    } else if (const auto block =
                   what == 9 ? pool_.allocate_data_block() : device.allocate_data_block();
               block.ok()) {
      ThinDevice& owner = what == 10 ? *common_ : device;
      if (what == 11 || !owner.insert(at, *block).ok()) {
        pool_.cancel_allocation(*block);
      }
    }
  }

  ThinMetadata& pool_;
  std::unique_ptr<ThinDevice> common_;
  std::mutex entry_;
  std::shared_mutex pairs_;  // shared from a block's giving to its mapping
  std::atomic<unsigned> done_{0};
};

TEST(DataLotThreads, StayRightBesideEveryOtherChange) {
  Pool pool(Crowd::kBlocks);
  pool.close();
  pool.options.always_lend = true;
  pool.reopen();
  Crowd(pool).run();
  for (Result<bool> more = true; more.ok() && *more;) {
    more = pool->reclaim(50);
    EXPECT_TRUE(more.ok()) << more.status().message();
  }
  ASSERT_TRUE(pool->commit().ok());
  const std::uint64_t mapped = blocks_of(picture_of(*pool)).size();
  EXPECT_EQ(pool->status().used_data_blocks, mapped);
  EXPECT_EQ(pool->status().free_data_blocks, Crowd::kBlocks - mapped);
  std::uint64_t left = 0;
  while (pool->allocate_data_block().ok()) {
    ++left;
  }
  EXPECT_EQ(left, Crowd::kBlocks - mapped);
  expect_clean(pool);
}

}  // namespace
}  // namespace mapperfs::testing
