// That the checker finds each kind of damage, mends leaks, and reads a pool that is in use.
#include "metadata/thin_check.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cerrno>
#include <filesystem>

#include "metadata/store.h"
#include "metadata/thin_format.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

using thin::PageKey;
using thin::PageKind;

// A pool with a device of two leaves and a snapshot of it, closed.
struct Patient {
  Patient() {
    EXPECT_TRUE(pool->create_thin(1).ok());
    auto device = must_open(*pool, 1);
    provision(*pool, *device, 0);
    provision(*pool, *device, 1);
    provision(*pool, *device, 300);
    EXPECT_TRUE(pool->create_snap(2, 1).ok());
    device.reset();
    EXPECT_TRUE(pool->commit().ok());
    pool.close();
  }

  // Replaces a record behind the pool's back; nullopt erases it.
  void set(const std::string& key, const std::optional<std::string>& value) {
    StoreOptions options;
    options.env = pool.env();
    auto store = open_rocks_store(Pool::kDir, options);
    ASSERT_TRUE(store.ok());
    auto batch = (*store)->new_batch();
    if (value.has_value()) {
      batch->put(key, *value);
    } else {
      batch->erase(key);
    }
    ASSERT_TRUE((*store)->write(*batch).ok());
  }
  // The counts of page 0 of a kind, with count `index` set.
  void set_count(PageKind kind, unsigned index, std::uint32_t count) {
    StoreOptions options;
    options.env = pool.env();
    std::string packed;
    const std::string key = thin::page_key(PageKey::of(kind, 0));
    {
      auto store = open_rocks_store(Pool::kDir, options);
      ASSERT_TRUE(store.ok());
      auto record = (*store)->get(key);
      ASSERT_TRUE(record.ok() && record->has_value());
      thin::DecodedPage page;
      ASSERT_TRUE(thin::decode_page(kind, **record, page).ok());
      std::uint64_t& word = page.words[index / 2];
      word &= ~(std::uint64_t{0xFFFFFFFF} << (32 * (index % 2)));
      word |= std::uint64_t{count} << (32 * (index % 2));
      packed = thin::encode_page(kind, 0, page.words);
    }
    set(key, packed);
  }
  ThinCheckReport check(bool repair = false) {
    ThinCheckOptions options;
    options.env = pool.env();
    options.repair_leaks = repair;
    options.clear_needs_check = repair;
    auto report = check_thin_metadata(Pool::kDir, options);
    EXPECT_TRUE(report.ok()) << report.status().message();
    return report.ok() ? *report : ThinCheckReport();
  }
  void expect_damage(const std::string& words) {
    const ThinCheckReport report = check();
    EXPECT_GT(report.damage, 0U);
    std::string all;
    for (const std::string& message : report.messages) {
      all += message + "\n";
    }
    EXPECT_NE(all.find(words), std::string::npos) << all;
  }

  Pool pool;
};

TEST(ThinCheck, FindsNothingWrongWithASoundPool) {
  Patient patient;
  const ThinCheckReport report = patient.check();
  EXPECT_TRUE(report.clean());
  EXPECT_EQ(report.devices, 2U);
  EXPECT_EQ(report.mapped_blocks, 6U);
  EXPECT_EQ(report.used_data_blocks, 3U);
  EXPECT_EQ(report.tree_pages, 3U);
}

TEST(ThinCheck, FindsADataBlockWithTooManyOwners) {
  Patient patient;
  patient.set_count(PageKind::kDataRefs, 1, 0);
  patient.expect_damage("data block 1: has 1 owners, but 0 are counted");
}

TEST(ThinCheck, FindsAPageWithTooManyOwners) {
  Patient patient;
  patient.set_count(PageKind::kPageRefs, 2, 1);
  patient.expect_damage("is used 2 times, but 1 are counted");
}

TEST(ThinCheck, FindsAMissingAndADamagedPage) {
  Patient patient;
  patient.set(thin::page_key(PageKey::of(PageKind::kTree, 1)), std::nullopt);
  patient.expect_damage("is missing");
  patient.set(thin::page_key(PageKey::of(PageKind::kTree, 1)), "xx");
  patient.expect_damage("is damaged");
}

TEST(ThinCheck, FindsWrongMappedBlocks) {
  Patient patient;
  thin::DeviceRecord record;
  record.mapped_blocks = 4;
  patient.set(thin::number_key(thin::kDevicePrefix, 9), thin::encode(record));
  patient.expect_damage("says that 4 blocks are mapped, but 0 are");
}

// What the pool says of a device, with another snap time.
void set_snap_time(Patient& patient, std::uint32_t id, std::uint32_t time) {
  StoreOptions options;
  options.env = patient.pool.env();
  const std::string key = thin::number_key(thin::kDevicePrefix, id);
  thin::DeviceRecord record;
  {
    auto store = open_rocks_store(Pool::kDir, options);
    ASSERT_TRUE(store.ok());
    auto value = (*store)->get(key);
    ASSERT_TRUE(value.ok() && value->has_value());
    record = *thin::decode_device(**value);
  }
  record.snapshotted_time = time;
  patient.set(key, thin::encode(record));
}

// Both have the root page, and one of them takes what is below for its own.
TEST(ThinCheck, FindsADeviceThatWouldWriteASharedPageInPlace) {
  for (const std::uint32_t id : {1U, 2U}) {
    Patient patient;
    set_snap_time(patient, id, 0);
    patient.expect_damage("device " + std::to_string(id) +
                          " of snap time 0 would write blocks of time 0 below it in place");
    EXPECT_EQ(patient.check().damage, 1U);
  }
}

// The pages are each device's own, the data blocks are shared.
TEST(ThinCheck, FindsADeviceThatWouldWriteASharedBlockInPlace) {
  for (const std::uint32_t id : {1U, 2U}) {
    Patient patient;
    ASSERT_TRUE(patient.pool.open().ok());
    {
      auto device = must_open(*patient.pool, 2);
      provision(*patient.pool, *device, 2);  // its own leaf now, with blocks 0 and 1 as in device 1
      provision(*patient.pool, *device, 301);
    }
    ASSERT_TRUE(patient.pool->commit().ok());
    patient.pool.close();
    EXPECT_TRUE(patient.check().clean());
    set_snap_time(patient, id, 0);
    patient.expect_damage("data block 0: device 2 is not its only owner");
    EXPECT_EQ(patient.check().damage, 3U);
  }
}

TEST(ThinCheck, FindsABlockThatOneDeviceMapsTwice) {
  Patient patient;
  thin::PageWords words{};
  words[0] = thin::Leaf::pack(5, 1);
  words[9] = thin::Leaf::pack(5, 1);
  patient.set(thin::page_key(PageKey::of(PageKind::kTree, 90)),
              thin::encode_page(PageKind::kTree, 0, words));
  thin::DeviceRecord record;
  record.root = thin::Root::of(90, 1);
  record.mapped_blocks = 2;
  record.snapshotted_time = 1;
  patient.set(thin::number_key(thin::kDevicePrefix, 9), thin::encode(record));
  patient.expect_damage("data block 5: device 9 is not its only owner");
}

// The metadata snapshot is for tools that read mappings: data below it are not kept.
TEST(ThinCheck, LetsADeviceWriteWhatOnlyTheMetadataSnapshotShares) {
  Patient patient;
  ASSERT_TRUE(patient.pool.open().ok());
  ASSERT_TRUE(patient.pool->create_thin(3).ok());
  provision(*patient.pool, *must_open(*patient.pool, 3), 7);
  ASSERT_TRUE(patient.pool->reserve_metadata_snap().ok());
  ASSERT_TRUE(patient.pool->commit().ok());
  patient.pool.close();
  EXPECT_TRUE(patient.check().clean());
  ASSERT_TRUE(patient.pool.open().ok());
  provision(*patient.pool, *must_open(*patient.pool, 3), 8);
  ASSERT_TRUE(patient.pool->commit().ok());
  patient.pool.close();
  EXPECT_TRUE(patient.check().clean());
}

TEST(ThinCheck, FindsAWrongSummary) {
  Patient patient;
  thin::Summary summary{};
  patient.set(thin::number_key(thin::kSummaryPrefix, 0), thin::encode(summary));
  patient.expect_damage("the summary says that 0 are free");
}

// Opening such a pool is refused.
TEST(ThinCheck, FindsASummaryOfBlocksPastTheEnd) {
  Patient patient;
  thin::Summary summary{};
  summary[3] = 1;
  patient.set(thin::number_key(thin::kSummaryPrefix, 1), thin::encode(summary));
  patient.expect_damage(
      "data blocks from 525824: the summary says that 1 are free, but they are "
      "past the end");
  EXPECT_EQ(patient.pool.open().error(), EILSEQ);
}

TEST(ThinCheck, FindsHeldDevicesWithoutAMetadataSnapshot) {
  Patient patient;
  patient.set(thin::number_key(thin::kHeldPrefix, 9), thin::encode(thin::DeviceRecord()));
  patient.expect_damage("1 devices are held, but there is no metadata snapshot");
}

TEST(ThinCheck, FindsAMetadataSnapshotThatWasNotMade) {
  Patient patient;
  thin::Superblock superblock;
  superblock.data_block_size = 128;
  superblock.nr_data_blocks = 1000;
  superblock.time = 1;
  superblock.next_page = 4;
  superblock.tree_pages = 3;
  superblock.held_root = 3;
  patient.set(std::string(thin::kSuperblockKey), thin::encode(superblock));
  EXPECT_TRUE(patient.check().clean()) << "it holds no device";
  superblock.held_root = 4;
  superblock.held_time = 2;
  patient.set(std::string(thin::kSuperblockKey), thin::encode(superblock));
  patient.expect_damage("metadata snapshot 4: its number was not given out yet");
  patient.expect_damage("the metadata snapshot is of time 2, the pool's is 1");
}

TEST(ThinCheck, MendsLeaksAndClearsTheFlag) {
  Patient patient;
  patient.set_count(PageKind::kDataRefs, 0, 2);
  patient.set(std::string(thin::kNeedsCheckKey), "1");
  patient.set(thin::page_key(PageKey::of(PageKind::kTree, 50)),
              thin::encode_page(PageKind::kTree, 0, {}));
  ThinCheckReport report = patient.check();
  EXPECT_EQ(report.damage, 0U);
  EXPECT_EQ(report.leaked_data_blocks, 1U);
  EXPECT_EQ(report.leaked_pages, 1U);
  EXPECT_FALSE(report.clean());
  EXPECT_TRUE(report.needs_check);
  report = patient.check(true);
  EXPECT_TRUE(report.leaks_repaired);
  EXPECT_FALSE(report.needs_check);
  EXPECT_TRUE(patient.check().clean());
  EXPECT_EQ(patient.check().leaked_pages, 0U);
  patient.pool.reopen();
  EXPECT_FALSE(patient.pool->status().needs_check);
  EXPECT_EQ(picture_of(*patient.pool).devices.size(), 2U);
}

TEST(ThinCheck, SurvivesEveryDamagedRecord) {
  Patient patient;
  std::vector<std::pair<std::string, std::string>> records;
  {
    StoreOptions options;
    options.env = patient.pool.env();
    auto store = open_rocks_store(Pool::kDir, options);
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE((*store)
                    ->scan({},
                           [&](std::string_view key, std::string_view value) {
                             records.emplace_back(key, value);
                             return true;
                           })
                    .ok());
  }
  for (const auto& [key, value] : records) {
    for (const std::size_t length : {std::size_t{0}, value.size() / 2, value.size() - 1}) {
      patient.set(key, value.substr(0, length));
      ThinCheckOptions options;
      options.env = patient.pool.env();
      const auto report = check_thin_metadata(Pool::kDir, options);
      EXPECT_TRUE(!report.ok() || report->damage != 0) << "record " << key << " cut to " << length;
      // Opening and reading it may fail but not crash.
      const Status opened = patient.pool.open();
      if (opened.ok()) {
        for (const ThinDeviceDetails& details : patient.pool->devices()) {
          must_open(*patient.pool, details.id)->lookup(0).status().ignore();
        }
        patient.pool->delete_device(1).ignore();
        patient.pool.close();
      }
    }
    patient.set(key, value);
  }
  EXPECT_TRUE(patient.check().clean());
}

TEST(ThinCheck, ReadsAPoolThatIsInUse) {
  std::string dir = (std::filesystem::temp_directory_path() / "mapperfs-check-XXXXXX").string();
  ASSERT_NE(::mkdtemp(dir.data()), nullptr);
  {
    ThinMetadataOptions options;
    options.data_block_size = 128;
    options.nr_data_blocks = 100;
    auto pool = ThinMetadata::open(dir + "/pool", options);
    ASSERT_TRUE(pool.ok()) << pool.status().message();
    ASSERT_TRUE((*pool)->create_thin(1).ok());
    provision(**pool, *must_open(**pool, 1), 5);
    ASSERT_TRUE((*pool)->commit().ok());
    ASSERT_TRUE((*pool)->create_thin(2).ok());  // not committed: not to be seen
    ThinCheckOptions check;
    EXPECT_EQ(check_thin_metadata(dir + "/pool", check).status().error(), EBUSY);
    check.live = true;
    auto report = check_thin_metadata(dir + "/pool", check);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_TRUE(report->clean());
    EXPECT_EQ(report->devices, 1U);
    options.mode = ThinMetadataOptions::Mode::kLive;
    auto live = ThinMetadata::open(dir + "/pool", options);
    ASSERT_TRUE(live.ok()) << live.status().message();
    EXPECT_EQ(must_open(**live, 1)->mapped_blocks(), 1U);
  }
  std::filesystem::remove_all(dir);
}

TEST(ThinCheck, SaysThatThereIsNothing) {
  ThinCheckOptions options;
  EXPECT_EQ(check_thin_metadata("/nonexistent/pool", options).status().error(), ENOENT);
}

}  // namespace
}  // namespace mapperfs::testing
