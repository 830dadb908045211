// Many threads on one pool. The thread sanitizer is the judge of most of it.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

constexpr std::uint64_t kBlocks = 3000;

// Counts down instead of watching the clock, so that a slow machine does the same work.
void join_all(std::vector<std::thread>& threads) {
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// Every block of the device is mapped; the data block may change, the mapping may not go.
void look_up_until(const ThinDevice& device, const std::atomic<bool>& stop, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  while (!stop) {
    const std::uint64_t at = random() % kBlocks;
    const std::optional<ThinMapping> cached = device.lookup_cached(at);
    if (cached.has_value()) {
      ASSERT_TRUE(cached->mapped);
    }
    auto mapping = device.lookup(at);
    ASSERT_TRUE(mapping.ok()) << mapping.status().message();
    ASSERT_TRUE(mapping->mapped);
  }
}

void rewrite(ThinMetadata& pool, ThinDevice& device, int times, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < times; ++i) {
    auto block = device.allocate_data_block();
    if (!block.ok()) {  // until the next commit frees some
      ASSERT_TRUE(pool.commit().ok());
      continue;
    }
    ASSERT_TRUE(device.insert(random() % kBlocks, *block).ok());
  }
}

TEST(ThinMetadataConcurrency, LookupsInsertsSnapshotsAndCommitsGoTogether) {
  Pool pool(20000);
  pool.close();
  pool.options.cache_bytes = 1;  // as few pages as there can be: much comes and goes
  pool.options.dirty_bytes = 1 << 20;
  pool.reopen();
  ASSERT_TRUE(pool->create_thin(0).ok());
  ASSERT_TRUE(pool->create_thin(1).ok());
  auto first = must_open(*pool, 0);
  auto second = must_open(*pool, 1);
  for (std::uint64_t at = 0; at < kBlocks; ++at) {
    provision(*pool, *first, at);
    provision(*pool, *second, at);
  }
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  readers.emplace_back([&] { look_up_until(*first, stop, 1); });
  readers.emplace_back([&] { look_up_until(*second, stop, 2); });
  std::vector<std::thread> writers;
  writers.emplace_back([&] { rewrite(*pool, *first, 3000, 3); });
  writers.emplace_back([&] { rewrite(*pool, *first, 3000, 4); });
  writers.emplace_back([&] { rewrite(*pool, *second, 3000, 5); });
  writers.emplace_back([&] {
    for (std::uint32_t i = 0; i < 60; ++i) {
      ASSERT_TRUE(pool->create_snap(10 + i, i % 2).ok());
      if (i >= 5) {
        ASSERT_TRUE(pool->delete_device(10 + i - 5).ok());
      }
      ASSERT_TRUE(pool->commit().ok());
      ASSERT_TRUE(pool->reclaim(8).ok());
    }
  });
  writers.emplace_back([&] {
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(pool->reserve_metadata_snap().ok());
      ASSERT_TRUE(pool->commit().ok());
      ASSERT_TRUE(pool->release_metadata_snap().ok());
    }
  });
  join_all(writers);
  stop = true;
  join_all(readers);
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_EQ(first->mapped_blocks(), kBlocks);
  first.reset();
  second.reset();
  expect_clean(pool);
}

// Which device each data block was allocated for; 0: the devices have it in common.
using Owners = std::vector<std::atomic<std::uint8_t>>;

void rewrite_as(ThinMetadata& pool, ThinDevice& device, Owners& owners, std::uint8_t me,
                std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < 200; ++i) {
    auto block = pool.allocate_data_block();
    ASSERT_TRUE(block.ok()) << block.status().message();
    owners[*block] = me;
    ASSERT_TRUE(device.insert(random() % kBlocks, *block).ok());
  }
}

void look_up_as(const ThinDevice& device, const Owners& owners, std::uint8_t me,
                const std::atomic<bool>& stop, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto expect_own = [&](const ThinMapping& mapping) {
    ASSERT_TRUE(mapping.mapped);
    const std::uint8_t owner = owners[mapping.data_block];
    ASSERT_TRUE(owner == 0 || owner == me) << "block " << mapping.data_block << " is the other's";
  };
  while (!stop && !::testing::Test::HasFailure()) {
    const std::uint64_t at = random() % kBlocks;
    if (const std::optional<ThinMapping> cached = device.lookup_cached(at); cached.has_value()) {
      expect_own(*cached);
    }
    auto mapping = device.lookup(at);
    ASSERT_TRUE(mapping.ok()) << mapping.status().message();
    expect_own(*mapping);
  }
}

// A volume and its snapshot part, page by page; no block is used twice, so that whoever is told one
// that the other allocated was told a lie. Between the steps of leaving a page others go first.
TEST(ThinMetadataConcurrency, EachReadsItsOwnBlocksWhileTwoPart) {
  constexpr std::uint32_t kRounds = 12;
  Pool pool(60000);
  pool.close();
  pool.options.at_place = [](std::string_view place) {
    if (place.starts_with("leaving")) {
      std::this_thread::yield();
    }
  };
  pool.reopen();
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto volume = must_open(*pool, 0);
  for (std::uint64_t at = 0; at < kBlocks; ++at) {
    provision(*pool, *volume, at);
  }
  for (std::uint32_t round = 0; round < kRounds && !::testing::Test::HasFailure(); ++round) {
    Owners owners(60000);
    ASSERT_TRUE(pool->create_snap(1, 0).ok());
    auto snapshot = must_open(*pool, 1);
    std::atomic<bool> stop{false};
    std::vector<std::thread> readers;
    readers.emplace_back([&] { look_up_as(*volume, owners, 1, stop, round); });
    readers.emplace_back([&] { look_up_as(*snapshot, owners, 2, stop, 100 + round); });
    std::vector<std::thread> writers;
    writers.emplace_back([&] { rewrite_as(*pool, *volume, owners, 1, 200 + round); });
    writers.emplace_back([&] { rewrite_as(*pool, *snapshot, owners, 2, 300 + round); });
    join_all(writers);
    stop = true;
    join_all(readers);
    snapshot.reset();
    ASSERT_TRUE(pool->delete_device(1).ok());
    ASSERT_TRUE(pool->commit().ok());
  }
  volume.reset();
  expect_clean(pool);
}

TEST(ThinMetadataConcurrency, OnlyOneOwnsABlock) {
  Pool pool(6000);
  std::vector<std::unique_ptr<ThinDevice>> devices;
  for (std::uint32_t id = 0; id < 4; ++id) {
    ASSERT_TRUE(pool->create_thin(id).ok());
    devices.push_back(must_open(*pool, id));
  }
  std::vector<std::thread> threads;
  for (auto& device : devices) {
    threads.emplace_back([&pool, &device] {
      for (std::uint64_t i = 0; i < 1000; ++i) {
        provision(*pool, *device, i);
        if (i % 100 == 99) {
          ASSERT_TRUE(device->remove(i - 50, i - 40, nullptr).ok());
          ASSERT_TRUE(pool->commit().ok());
        }
      }
    });
  }
  join_all(threads);
  devices.clear();
  const Picture picture = picture_of(*pool);
  std::size_t mapped = 0;
  for (const auto& [id, device] : picture.devices) {
    mapped += device.map.size();
  }
  EXPECT_EQ(blocks_of(picture).size(), mapped);
  EXPECT_EQ(pool->status().used_data_blocks, mapped);
}

TEST(ThinMetadataConcurrency, AbortsUnderReaders) {
  Pool pool(20000);
  ASSERT_TRUE(pool->create_thin(0).ok());
  auto device = must_open(*pool, 0);
  for (std::uint64_t at = 0; at < kBlocks; ++at) {
    provision(*pool, *device, at);
  }
  ASSERT_TRUE(pool->commit().ok());
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  readers.emplace_back([&] { look_up_until(*device, stop, 1); });
  for (int i = 0; i < 30; ++i) {
    for (std::uint64_t at = 0; at < 50; ++at) {
      provision(*pool, *device, at * 37);
    }
    ASSERT_TRUE(pool->abort().ok());
  }
  stop = true;
  join_all(readers);
  EXPECT_EQ(device->mapped_blocks(), kBlocks);
}

}  // namespace
}  // namespace mapperfs::testing
