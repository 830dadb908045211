#include "engine/memory_store.h"

#include <sys/mman.h>

#include <array>
#include <thread>
#include <vector>

#include "tests/engine/io_support.h"

namespace mapperfs {
namespace {

using io_test::Buffer;

std::unique_ptr<MemoryStore> make(sector_t sectors, const MemoryStore::Options& options) {
  auto store = MemoryStore::make(sectors, options);
  EXPECT_TRUE(store.ok()) << store.status().message();
  return store.take();
}

// All forms answer alike.
class MemoryStoreForm : public ::testing::TestWithParam<MemoryStore::Options> {
 protected:
  std::unique_ptr<MemoryStore> make(sector_t sectors) {
    return mapperfs::make(sectors, GetParam());
  }
  bool is_zero(MemoryStore& store, sector_t sector, sector_t sectors) {
    Buffer data(sectors);
    data.fill(9);
    EXPECT_EQ(store.read(sector, sectors, data.data()), BlkStatus::kOk);
    return data.is_zero();
  }
};

INSTANTIATE_TEST_SUITE_P(All, MemoryStoreForm,
                         ::testing::Values(MemoryStore::Options{"mapped", true, true},
                                           MemoryStore::Options{"unmapped", false, true},
                                           MemoryStore::Options{"anonymous", true, false}),
                         [](const auto& param) { return param.param.name; });

TEST_P(MemoryStoreForm, ReadsZeroesWhereNothingWasWrittenAndTakesNothing) {
  auto store = make(1 << 18);
  EXPECT_TRUE(is_zero(*store, 0, 1 << 12));
  EXPECT_TRUE(is_zero(*store, (1 << 18) - 3, 3));
  EXPECT_EQ(store->allocated_bytes(), 0U);
}

TEST_P(MemoryStoreForm, ReadsBackWhatWasWritten) {
  auto store = make(1003);  // no whole page at the end
  Buffer data(100);
  Buffer back(100);
  for (const sector_t at : {sector_t{0}, sector_t{13}, sector_t{903}}) {
    data.fill(at);
    ASSERT_EQ(store->write(at, 100, data.data()), BlkStatus::kOk);
    ASSERT_EQ(store->read(at, 100, back.data()), BlkStatus::kOk);
    EXPECT_TRUE(back.has_pattern(at)) << "at sector " << at;
  }
  EXPECT_TRUE(is_zero(*store, 113, 790));
}

TEST_P(MemoryStoreForm, PunchZeroesExactlyItsRange) {
  auto store = make(1 << 12);
  Buffer ones(1 << 12);
  std::fill_n(ones.data(), ones.size(), std::byte{1});
  for (const auto& [at, count] : {std::pair<sector_t, sector_t>{0, 8},
                                  {3, 2},
                                  {5, 6},
                                  {7, 1},
                                  {9, 64},
                                  {16, 40},
                                  {100, 0},
                                  {4090, 6},
                                  {0, 1 << 12},
                                  {12, 8}}) {
    ASSERT_EQ(store->write(0, 1 << 12, ones.data()), BlkStatus::kOk);
    ASSERT_EQ(store->punch(at, count), BlkStatus::kOk);
    Buffer back(1 << 12);
    ASSERT_EQ(store->read(0, 1 << 12, back.data()), BlkStatus::kOk);
    for (sector_t s = 0; s < 1 << 12; ++s) {
      const bool inside = s >= at && s < at + count;
      ASSERT_EQ(back.data()[s * 512], inside ? std::byte{0} : std::byte{1})
          << "sector " << s << " after a punch of " << count << " at " << at;
      ASSERT_EQ(back.data()[s * 512 + 511], inside ? std::byte{0} : std::byte{1});
    }
  }
}

TEST_P(MemoryStoreForm, PunchGivesPagesBack) {
  auto store = make(1 << 14);
  Buffer data(1 << 12);
  data.fill(1);
  ASSERT_EQ(store->write(0, 1 << 12, data.data()), BlkStatus::kOk);
  EXPECT_EQ(store->allocated_bytes(), 2U << 20);
  ASSERT_EQ(store->punch(1, (1 << 12) - 2), BlkStatus::kOk);
  EXPECT_EQ(store->allocated_bytes(), 8192U);
  ASSERT_EQ(store->punch(0, 1 << 14), BlkStatus::kOk);
  EXPECT_EQ(store->allocated_bytes(), 0U);
}

TEST_P(MemoryStoreForm, KnowsItsHoles) {
  auto store = make(1 << 14);
  Buffer data(16);
  ASSERT_EQ(store->write(64, 16, data.data()), BlkStatus::kOk);
  Extent extent = store->extent(0, 1 << 14);
  EXPECT_TRUE(extent.hole);
  EXPECT_EQ(extent.sectors, 64U);
  extent = store->extent(64, 1 << 13);
  EXPECT_FALSE(extent.hole);
  EXPECT_EQ(extent.sectors, 16U);
  extent = store->extent(66, 3);
  EXPECT_FALSE(extent.hole);
  EXPECT_EQ(extent.sectors, 3U);
  extent = store->extent(80, 1 << 14);
  EXPECT_TRUE(extent.hole);
  EXPECT_EQ(extent.sectors, (1U << 14) - 80);
}

TEST_P(MemoryStoreForm, DoesWhatABioAsks) {
  auto store = make(64);
  Buffer data(8);
  Bio bio;
  bio.sector = 8;
  bio.sectors = 8;
  bio.data = data.fill(5).data();
  bio.op = Op::kWrite;
  EXPECT_EQ(store->handle(bio), BlkStatus::kOk);
  std::fill_n(data.data(), data.size(), std::byte{0});
  bio.op = Op::kRead;
  EXPECT_EQ(store->handle(bio), BlkStatus::kOk);
  EXPECT_TRUE(data.has_pattern(5));
  for (const Op op : {Op::kFlush, Op::kDiscard}) {
    bio.op = op;
    EXPECT_EQ(store->handle(bio), BlkStatus::kOk);
  }
  EXPECT_TRUE(is_zero(*store, 8, 8));
}

TEST(MemoryStore, IsMappedByDefault) {
  auto store = make(64, {});
  EXPECT_TRUE(store->mapped());
}

TEST(MemoryStore, TakesAnySizeAndNoMemory) {
  for (const sector_t sectors :
       {sector_t{1}, sector_t{1} << 30, sector_t{1} << 41, kMaxDeviceSectors - 15}) {
    auto store = make(sectors, {});
    Buffer data(1);
    ASSERT_EQ(store->write(sectors - 1, 1, data.fill(3).data()), BlkStatus::kOk);
    ASSERT_EQ(store->read(sectors - 1, 1, data.data()), BlkStatus::kOk);
    EXPECT_TRUE(data.has_pattern(3));
    EXPECT_EQ(store->allocated_bytes(), 4096U);
    // The first hole of 1 PiB is found, and the whole punched, without a look at each page.
    if (sectors > 8) {
      sector_t at = 0;
      while (at < (sectors - 1) / 8 * 8) {
        const Extent extent = store->extent(at, sectors - at);
        ASSERT_TRUE(extent.hole) << "at sector " << at;
        at += extent.sectors;
      }
      EXPECT_EQ(at, (sectors - 1) / 8 * 8);
    }
    ASSERT_EQ(store->punch(0, sectors), BlkStatus::kOk);
    EXPECT_EQ(store->allocated_bytes(), 0U);
  }
}

TEST(MemoryStore, TakesTheLargestSizeThereIs) {
  auto store = make(kMaxDeviceSectors, {});
  Buffer data(1);
  ASSERT_EQ(store->write(kMaxDeviceSectors - 1, 1, data.fill(3).data()), BlkStatus::kOk);
  ASSERT_EQ(store->punch(0, kMaxDeviceSectors), BlkStatus::kOk);
  ASSERT_EQ(store->read(kMaxDeviceSectors - 1, 1, data.data()), BlkStatus::kOk);
  EXPECT_TRUE(data.is_zero());
}

TEST(MemoryStore, RefusesSizesThatAreNone) {
  EXPECT_EQ(MemoryStore::make(0).status().error(), EINVAL);
  EXPECT_EQ(MemoryStore::make(kMaxDeviceSectors + 1).status().error(), EINVAL);
}

TEST(MemoryStore, SeesWhatOthersWriteToTheSharedMemfd) {
  auto store = make(64, {});
  const int fd = store->share_memfd();
  ASSERT_GE(fd, 0);
  Buffer data(8);
  data.fill(4);
  ASSERT_EQ(::pwrite(fd, data.data(), data.size(), 4096), 4096);
  Buffer back(8);
  ASSERT_EQ(store->read(8, 8, back.data()), BlkStatus::kOk);
  EXPECT_TRUE(back.has_pattern(4));
  EXPECT_FALSE(store->extent(8, 8).hole);
  EXPECT_EQ(::ftruncate(fd, 0), -1) << "a shrunk memfd would end the process with SIGBUS";
}

TEST(MemoryStore, ManyThreadsWriteAndPunchTheirOwnSectors) {
  auto store = make(1 << 12, {});
  const auto work = [&](sector_t lane) {
    Buffer data(1);
    Buffer back(1);
    // Neighbours share every page; lanes of whole pages are punched and written in turn.
    for (int round = 0; round < 12; ++round) {
      for (sector_t s = lane; s < 1 << 11; s += 4) {
        data.fill(s + static_cast<sector_t>(round));
        ASSERT_EQ(store->write(s, 1, data.data()), BlkStatus::kOk);
        ASSERT_EQ(store->read(s, 1, back.data()), BlkStatus::kOk);
        ASSERT_TRUE(back.has_pattern(s + static_cast<sector_t>(round))) << "sector " << s;
      }
      const sector_t page = (1 << 11) + lane * 8;
      ASSERT_EQ(store->write(page, 1, data.data()), BlkStatus::kOk);
      ASSERT_EQ(store->punch(page, 8), BlkStatus::kOk);
      ASSERT_EQ(store->read(page, 1, back.data()), BlkStatus::kOk);
      ASSERT_TRUE(back.is_zero());
    }
  };
  std::vector<std::thread> threads;
  for (sector_t lane = 0; lane < 4; ++lane) {
    threads.emplace_back(work, lane);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace mapperfs
