// What the metadata reads and writes, counted below it: a snapshot costs the same whatever the
// origin's size, and nobody is kept waiting while a change reads what it needs.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "metadata/pool_metadata.h"
#include "metadata/thin_xml.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

struct Traffic {
  std::atomic<std::uint64_t> reads{0};
  std::atomic<std::uint64_t> records{0};  // put or erased
  // Whether the reading thread keeps others waiting; asked at each read, if set.
  std::function<bool()> keeps_waiting;
  std::uint64_t waited_for = 0;  // reads that it did at
};

class CountingBatch final : public StoreBatch {
 public:
  CountingBatch(std::unique_ptr<StoreBatch> batch, Traffic& traffic)
      : batch_(std::move(batch)), traffic_(traffic) {}
  void put(std::string_view key, std::string_view value) override {
    ++traffic_.records;
    batch_->put(key, value);
  }
  void erase(std::string_view key) override {
    ++traffic_.records;
    batch_->erase(key);
  }
  [[nodiscard]] bool empty() const override { return batch_->empty(); }
  [[nodiscard]] std::size_t bytes() const override { return batch_->bytes(); }
  [[nodiscard]] const StoreBatch& inner() const { return *batch_; }

 private:
  std::unique_ptr<StoreBatch> batch_;
  Traffic& traffic_;
};

class CountingStore final : public Store {
 public:
  CountingStore(std::unique_ptr<Store> store, Traffic& traffic)
      : store_(std::move(store)), traffic_(traffic) {}
  Result<std::optional<std::string>> get(std::string_view key) const override {
    ++traffic_.reads;
    if (traffic_.keeps_waiting && traffic_.keeps_waiting()) {
      ++traffic_.waited_for;
    }
    return store_->get(key);
  }
  Status scan(
      std::string_view prefix,
      const std::function<bool(std::string_view key, std::string_view value)>& fn) const override {
    return store_->scan(prefix, fn);
  }
  std::unique_ptr<StoreBatch> new_batch() const override {
    return std::make_unique<CountingBatch>(store_->new_batch(), traffic_);
  }
  Status write(const StoreBatch& batch) override {
    return store_->write(static_cast<const CountingBatch&>(batch).inner());
  }
  Status reopen() override { return store_->reopen(); }
  [[nodiscard]] bool writable() const noexcept override { return store_->writable(); }

 private:
  std::unique_ptr<Store> store_;
  Traffic& traffic_;
};

struct Cost {
  std::uint64_t reads = 0;
  std::uint64_t records = 0;
  std::size_t pages = 0;  // that came into memory, in bytes
  bool operator==(const Cost&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Cost& cost) {
  return out << cost.reads << " reads, " << cost.records << " records, " << cost.pages
             << " bytes of pages";
}

// A pool on a file system in memory, restored from XML and opened with nothing in memory.
class StoreTraffic : public ::testing::Test {
 protected:
  void restore(std::uint64_t nr_data_blocks, const std::string& devices) {
    const std::string xml = fmt::format(
        "<superblock uuid=\"\" time=\"0\" transaction=\"0\" data_block_size=\"128\" "
        "nr_data_blocks=\"{}\">{}</superblock>",
        nr_data_blocks, devices);
    ThinRestoreOptions options;
    options.env = env_.get();
    std::size_t at = 0;
    const Status restored = restore_thin_metadata(
        [&](char* buffer, std::size_t size) -> Result<std::size_t> {
          const std::size_t take = std::min(size, xml.size() - at);
          std::copy_n(xml.data() + at, take, buffer);
          at += take;
          return take;
        },
        Pool::kDir, options);
    ASSERT_TRUE(restored.ok()) << restored.message();
  }
  static std::string device(std::uint32_t id, std::uint64_t mapped, const std::string& mappings) {
    return fmt::format(
        "<device dev_id=\"{}\" mapped_blocks=\"{}\" transaction=\"0\" creation_time=\"0\" "
        "snap_time=\"0\">{}</device>",
        id, mapped, mappings);
  }
  void open() {
    pool_.reset();
    StoreOptions store_options;
    store_options.env = env_.get();
    auto store = open_rocks_store(Pool::kDir, store_options);
    ASSERT_TRUE(store.ok()) << store.status().message();
    pool_ = std::make_unique<thin::PoolMetadata>(
        std::make_unique<CountingStore>(store.take(), traffic_), ThinMetadataOptions());
    ASSERT_TRUE(pool_->start().ok());
    traffic_.reads = 0;
    traffic_.records = 0;
    traffic_.waited_for = 0;
  }
  // Of a snapshot of `origin` and its commit.
  Cost cost_of_snapshot(std::uint32_t origin, std::uint32_t id) {
    open();
    const std::size_t before = pool_->cached_bytes();
    EXPECT_TRUE(pool_->create_snap(id, origin).ok());
    EXPECT_TRUE(pool_->commit().ok());
    return {traffic_.reads, traffic_.records, pool_->cached_bytes() - before};
  }
  // Whether a commit would have to wait for the calling thread: tried by one that shares its slot
  // of the gate, as that one would find it taken.
  bool inside_gate() {
    ShardedLock probe;
    const ShardedLock::ReadGuard here(probe);
    bool found = false;
    bool inside = false;
    while (!found) {
      std::thread thread([&] {
        found = !ShardedLock::TryReadGuard(probe).owns_lock();
        inside = found && !ShardedLock::TryReadGuard(pool_->gate()).owns_lock();
      });
      thread.join();
    }
    return inside;
  }

  std::shared_ptr<FaultFs> fs_ = std::make_shared<FaultFs>();
  std::unique_ptr<rocksdb::Env> env_ = rocksdb::NewCompositeEnv(fs_);
  Traffic traffic_;
  std::unique_ptr<thin::PoolMetadata> pool_;
};

TEST_F(StoreTraffic, ASnapshotOfAMillionMappingsCostsWhatOneOfOneDoes) {
  restore(2000000,
          device(0, 1, "<single_mapping origin_block=\"7\" data_block=\"1999999\" time=\"0\"/>") +
              device(1, 1000000,
                     "<range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"1000000\" "
                     "time=\"0\"/>"));
  const Cost small = cost_of_snapshot(0, 10);
  const Cost large = cost_of_snapshot(1, 11);
  EXPECT_EQ(small, large);
  EXPECT_EQ(large.reads, 1U) << "the page that counts the root";
  EXPECT_EQ(large.records, 4U) << "that page, two devices, the superblock";
  pool_.reset();
  expect_clean(env_.get(), Pool::kDir);
}

// A leaf whose blocks lie so far apart that each is counted in a page of its own.
class FarApart : public StoreTraffic {
 protected:
  static constexpr std::uint64_t kBlocks = 64;
  // What a change may read while it keeps others waiting: a new page's count and block.
  static constexpr std::uint64_t kFew = 3;

  FarApart() {
    std::string mappings;
    for (std::uint64_t block = 0; block < 2 * kBlocks; ++block) {
      mappings += fmt::format("<single_mapping origin_block=\"{}\" data_block=\"{}\" time=\"0\"/>",
                              block < kBlocks ? block : 256 + block, block * thin::kRefsPerPage);
    }
    restore(2 * kBlocks * thin::kRefsPerPage, device(0, 2 * kBlocks, mappings));
    traffic_.keeps_waiting = [this] { return inside_gate(); };
  }
  void expect_few_waited() {
    EXPECT_GE(traffic_.reads, kBlocks);
    EXPECT_LE(traffic_.waited_for, kFew) << "of " << traffic_.reads << " reads";
  }
  void close() {
    ASSERT_TRUE(pool_->commit().ok());
    pool_.reset();
    expect_clean(env_.get(), Pool::kDir);
  }
};

TEST_F(FarApart, ACopiedLeafIsReadBefore) {
  open();
  ASSERT_TRUE(pool_->create_snap(1, 0).ok());
  ASSERT_TRUE(pool_->commit().ok());
  open();
  provision(*pool_, *must_open(*pool_, 0), 3);
  expect_few_waited();
  close();
}

TEST_F(FarApart, ARemovedLeafIsReadBefore) {
  open();
  ASSERT_TRUE(must_open(*pool_, 0)->remove(0, 256, nullptr).ok());
  expect_few_waited();
  close();
}

TEST_F(FarApart, APartOfALeafIsReadBefore) {
  open();
  ASSERT_TRUE(pool_->create_snap(1, 0).ok());
  ASSERT_TRUE(pool_->commit().ok());
  open();
  ASSERT_TRUE(must_open(*pool_, 0)->remove(1, 256, nullptr).ok());
  expect_few_waited();
  close();
}

TEST_F(FarApart, ADeletedDeviceIsReadBefore) {
  open();
  ASSERT_TRUE(pool_->delete_device(0).ok());
  expect_few_waited();
  EXPECT_FALSE(pool_->status().reclaim_pending);
  close();
}

TEST_F(FarApart, WhatAMetadataSnapshotCountsIsReadBefore) {
  open();
  ASSERT_TRUE(pool_->reserve_metadata_snap().ok());
  EXPECT_EQ(traffic_.waited_for, 0U);
  EXPECT_EQ(traffic_.reads, 1U);
  close();
}

}  // namespace
}  // namespace mapperfs::testing
