#include "engine/table.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "tests/engine/world.h"

namespace mapperfs {
namespace {

using probe::Device;
using probe::Lines;

TEST(ParseTableLine, SplitsStartLengthTypeAndTheRest) {
  Result<TableLine> line = parse_table_line("  8\t16  linear   /data/a\\ b 0 ");
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->start, 8U);
  EXPECT_EQ(line->len, 16U);
  EXPECT_EQ(line->type, "linear");
  EXPECT_EQ(line->args, "/data/a\\ b 0 ");
}

TEST(ParseTableLine, ArgumentsMayBeMissing) {
  Result<TableLine> line = parse_table_line("0 8 zero");
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->args, "");
}

TEST(ParseTableLine, NeedsThreeFieldsAndTwoNumbers) {
  for (const char* wrong :
       {"", " ", "0", "0 8", "0 8 ", "x 8 zero", "0 x zero", "-1 8 zero", "0 8x zero", "0 +8 zero",
        "18446744073709551616 8 zero", "0 8 target-type-name-too-long"}) {
    const Result<TableLine> line = parse_table_line(wrong);
    ASSERT_FALSE(line.ok()) << wrong;
    EXPECT_EQ(line.status().error(), EINVAL);
    EXPECT_FALSE(line.status().message().empty());
  }
  EXPECT_TRUE(parse_table_line("0 8 fifteen-bytes-x").ok());
  EXPECT_FALSE(parse_table_line("0 8 sixteen-bytes-xx").ok());
}

TEST(TargetRegistry, FindsByExactName) {
  TargetRegistry registry;
  registry.add(probe::kPlain);
  registry.add(probe::kAlone);
  EXPECT_EQ(registry.find("plain"), &probe::kPlain);
  EXPECT_EQ(registry.find("Plain"), nullptr);
  EXPECT_EQ(registry.find(""), nullptr);
  ASSERT_EQ(registry.types().size(), 2U);
  EXPECT_EQ(registry.types()[1], &probe::kAlone);
}

class TableTest : public probe::World {
 protected:
  Status try_load(std::initializer_list<std::string_view> text,
                  DeviceMode mode = DeviceMode::kReadWrite) {
    return load(*md_, text, mode);
  }
  // Into a device that never had a table: only then sizes and alignment are checked at load.
  Status try_first_load(std::initializer_list<std::string_view> text) {
    return load(*make("first" + std::to_string(++firsts_)), text);
  }
  std::shared_ptr<MappedDevice> md_ = make("md");

 private:
  int firsts_ = 0;
};

TEST_F(TableTest, EmptyTablesAreRefused) {
  expect_error(md_->load({}, DeviceMode::kReadWrite), EINVAL, "no targets specified");
}

TEST_F(TableTest, GapsOverlapsAndAFirstLineNotAtZeroAreGaps) {
  expect_error(try_load({"0 8 plain", "9 8 plain"}), EINVAL, "Gap in table");
  expect_error(try_load({"0 8 plain", "7 8 plain"}), EINVAL, "Gap in table");
  expect_error(try_load({"8 8 plain"}), EINVAL, "Gap in table");
  expect_error(try_load({"8 8 plain", "0 8 plain"}), EINVAL, "table line 1: plain: Gap in table");
}

TEST_F(TableTest, ZeroLengthAndTooLargeAreRefused) {
  expect_error(try_load({"0 0 plain"}), EINVAL, "zero-length target");
  expect_error(try_load({"0 18014398509481984 plain"}), EINVAL, "too large device");
  expect_error(try_load({"8 18446744073709551615 plain"}), EINVAL, "too large device");
  expect_error(try_load({"18446744073709551615 8 plain"}), EINVAL, "too large device");
  expect_ok(try_load({"0 18014398509481983 plain"}));  // 2^54 - 1: the largest there is
}

TEST_F(TableTest, UnknownTypesAreNamed) {
  expect_error(try_load({"0 8 plain", "8 8 liner x"}), EINVAL,
               "table line 2: liner: unknown target type");
}

TEST_F(TableTest, SingletonsAppearAlone) {
  expect_ok(try_load({"0 8 alone"}));
  expect_error(try_load({"0 8 alone", "8 8 plain"}), EINVAL,
               "target type alone must appear alone in table");
  expect_error(try_load({"0 8 plain", "8 8 alone"}), EINVAL,
               "alone: singleton target type must appear alone in table (-EINVAL)");
  expect_error(try_load({"0 8 alone", "8 8 alone"}), EINVAL, "must appear alone in table");
}

TEST_F(TableTest, ImmutableTypesAreNotMixed) {
  expect_ok(try_load({"0 8 fixed", "8 8 fixed"}));
  expect_error(try_load({"0 8 fixed", "8 8 plain"}), EINVAL, "immutable target type");
  expect_error(try_load({"0 8 plain", "8 8 fixed"}), EINVAL, "cannot be mixed");
  expect_error(try_load({"0 8 fixed", "8 8 fixed2"}), EINVAL, "cannot be mixed");
}

TEST_F(TableTest, AlwaysWriteableTargetsNeedAReadWriteTable) {
  expect_ok(try_load({"0 8 writer"}));
  expect_error(try_load({"0 8 writer"}, DeviceMode::kReadOnly), EINVAL,
               "target type may not be included in a read-only table");
}

TEST_F(TableTest, AnImmutableLiveTableOnlyGivesWayToItsOwnTypeOrAWildcard) {
  expect_ok(try_load({"0 8 fixed"}));
  expect_ok(try_load({"0 8 plain"}));  // not live yet: replaces it in the slot
  expect_ok(try_load({"0 8 fixed"}));
  expect_ok(md_->resume({}));
  expect_error(try_load({"0 8 plain"}), EINVAL, "can't replace immutable target type fixed");
  expect_error(try_load({"0 8 fixed2"}), EINVAL, "can't replace immutable target type fixed");
  expect_ok(try_load({"0 16 fixed"}));
  expect_ok(try_load({"0 8 error"}));
  expect_ok(md_->resume({}));
  expect_ok(try_load({"0 8 plain"}));  // once the wildcard is live anything goes
}

TEST_F(TableTest, ConstructorErrorsKeepTheirErrno) {
  expect_error(try_load({"0 8 plain", "8 8 plain fail=28"}), ENOSPC,
               "table line 2: plain: told to fail (-ENOSPC)");
  expect_error(try_load({"0 8 plain dev nowhere"}), ENOENT,
               "plain: Device lookup failed: no such file: nowhere (-ENOENT)");
}

TEST_F(TableTest, AFailedLoadLetsGoOfEverything) {
  add_device("d", 100);
  probe::Hooks& hooks = add_hooks("h");
  expect_error(try_load({"0 8 plain hooks=h dev d", "8 8 plain dev nowhere"}), ENOENT, "nowhere");
  EXPECT_EQ(open_count("d"), 0);
  EXPECT_EQ(hooks.diary.take(), (Lines{"ctr 0", "dtr 0"}));
  EXPECT_FALSE(md_->info().inactive);
}

TEST_F(TableTest, AFailedLoadKeepsTheInactiveTableThatWasThere) {
  expect_ok(try_load({"0 8 plain"}));
  expect_error(try_load({"0 0 plain"}), EINVAL, "zero-length");
  ASSERT_EQ(md_->table_lines(MappedDevice::Slot::kInactive, false).size(), 1U);
}

TEST_F(TableTest, AreasMustFitTheirDevice) {
  add_device("d", 100);
  expect_ok(try_first_load({"0 100 plain dev d"}));
  expect_ok(try_first_load({"0 1 plain dev d at=99"}));
  expect_error(try_first_load({"0 101 plain dev d"}), EINVAL,
               "d too small for target: start=0, len=101, dev_size=100");
  expect_error(try_first_load({"0 2 plain dev d at=99"}), EINVAL,
               "d too small for target: start=99");
  expect_error(try_first_load({"0 1 plain dev d at=100"}), EINVAL, "too small for target");
  expect_error(try_first_load({"0 8 plain dev d at=18446744073709551612"}), EINVAL, "too small");
  EXPECT_EQ(open_count("d"), 2);  // of the two tables that were taken
}

TEST_F(TableTest, ADeviceOfSizeZeroIsNotChecked) {
  add_device("empty", 0).set_numbers("8:16");
  expect_ok(try_first_load({"0 101 plain dev empty"}));
  make("bare");
  expect_ok(try_first_load({"0 101 plain dev bare"}));
}

TEST_F(TableTest, AnEmptyFileIsTooSmall) {
  add_device("empty", 0);
  expect_error(try_first_load({"0 8 plain dev empty"}), EINVAL,
               "empty too small for target: start=0, len=8, dev_size=0");
}

TEST_F(TableTest, AreasAreAlignedToTheLogicalBlocksBelow) {
  add_device("d", 1024).mutable_limits().logical_block_size = 4096;
  expect_ok(try_first_load({"0 16 plain dev d at=8"}));
  expect_error(try_first_load({"0 16 plain dev d at=4"}), EINVAL,
               "start=4 not aligned to h/w logical block size 4096 of d");
  expect_error(try_first_load({"0 12 plain dev d"}), EINVAL,
               "len=12 not aligned to h/w logical block size 4096 of d");
}

TEST_F(TableTest, AreasAreAlignedToTheStackedLogicalBlocks) {
  add_device("d", 1024);
  add_device("big", 1024).mutable_limits().logical_block_size = 4096;
  // The block size of one device, or of the target itself, binds the areas on all of its devices.
  expect_error(try_first_load({"0 24 plain dev d dev big"}), EINVAL, "not aligned");
  expect_error(try_first_load({"0 16 plain dev d at=4 lbs=4096"}), EINVAL, "start=4 not aligned");
  expect_error(try_first_load({"0 12 plain dev d lbs=4096"}), EINVAL, "len=12 not aligned");
  expect_ok(try_first_load({"0 16 plain dev d at=8 lbs=4096"}));
}

TEST_F(TableTest, PhysicalBlocksDoNotBind) {
  add_device("d", 1024).mutable_limits().physical_block_size = 4096;
  expect_ok(try_load({"0 3 plain dev d at=1"}));
}

TEST_F(TableTest, TableLinesMeetOnBlocksThatBothCanTake) {
  add_device("small", 1024);
  add_device("big", 1024).mutable_limits().logical_block_size = 4096;
  expect_ok(try_first_load({"0 16 plain dev small", "16 16 plain dev big"}));
  // A piece of 4 sectors would go to the device with blocks of 8.
  expect_error(
      try_first_load({"0 12 plain dev small", "12 16 plain dev big", "28 4 plain dev small"}),
      EINVAL, "not aligned to h/w logical block size");
  // Small pieces of a block that no large device sees are fine.
  expect_ok(try_first_load({"0 4 plain dev small", "4 4 plain dev small", "8 8 plain dev big"}));
  // The end of the device is not on a block.
  expect_error(try_first_load({"0 8 plain dev big", "8 4 plain dev small"}), EINVAL, "not aligned");
}

TEST_F(TableTest, ABorderLateInABlockIsSeenToo) {
  add_device("small", 1024);
  add_device("big", 1024).mutable_limits().logical_block_size = 4096;
  add_device("middle", 1024).mutable_limits().logical_block_size = 2048;
  // The second line starts 6 sectors into a block of 8: 2 sectors of an aligned I/O go to it.
  expect_error(try_load({"0 6 plain dev small", "6 4 plain dev middle", "10 6 plain dev small",
                         "16 8 plain dev big"}),
               EINVAL, "not aligned");
}

TEST_F(TableTest, LimitsOfATableAreThoseOfItsTargets) {
  Device& a = add_device("a", 1024);
  a.mutable_limits().max_discard_sectors = 100;
  a.mutable_limits().max_write_zeroes_sectors = 50;
  a.mutable_limits().max_secure_erase_sectors = 60;
  a.mutable_limits().discard_granularity = 4096;
  expect_ok(try_load({"0 8 plain dev a discard=1 zeroes=1 erase=1"}));
  expect_ok(md_->resume({}));
  QueueLimits limits = md_->limits();
  EXPECT_EQ(limits.max_discard_sectors, 100U);
  EXPECT_EQ(limits.max_write_zeroes_sectors, 50U);
  EXPECT_EQ(limits.max_secure_erase_sectors, 60U);
  EXPECT_FALSE(limits.write_cache);
  expect_ok(try_load({"0 8 plain dev a has-cache flush=1"}));
  expect_ok(md_->resume({}));
  limits = md_->limits();
  EXPECT_EQ(limits.max_discard_sectors, 0U);  // the target takes none
  EXPECT_EQ(limits.max_write_zeroes_sectors, 0U);
  EXPECT_EQ(limits.max_secure_erase_sectors, 0U);
  EXPECT_TRUE(limits.write_cache);
}

TEST_F(TableTest, AnOperationNeedsEveryTarget) {
  add_device("a", 1024).mutable_limits().max_discard_sectors = 100;
  add_device("b", 1024);
  expect_ok(try_load({"0 8 plain dev a discard=1", "8 8 plain dev b discard=1"}));
  expect_ok(md_->resume({}));
  EXPECT_EQ(md_->limits().max_discard_sectors, 0U);
  // discards_supported: whatever the devices below can do
  expect_ok(try_load({"0 8 plain dev a discard=1", "8 8 plain dev b discard=1 takes-discards"}));
  expect_ok(md_->resume({}));
  EXPECT_EQ(md_->limits().max_discard_sectors, 100U);
  expect_ok(try_load({"0 8 plain discard=1 takes-discards"}));
  expect_ok(md_->resume({}));
  EXPECT_EQ(md_->limits().max_discard_sectors, kUnlimitedSectors);
}

TEST_F(TableTest, EachWordOpensItsDeviceOncePerTable) {
  add_device("d", 1024);
  expect_ok(try_load({"0 8 plain dev d", "8 8 plain dev d at=8", "16 8 plain dev d at=16"}));
  EXPECT_EQ(open_count("d"), 1);
  EXPECT_EQ(last_mode_, DeviceMode::kReadWrite);
  expect_ok(try_load({"0 8 plain dev d"}, DeviceMode::kReadOnly));
  EXPECT_EQ(last_mode_, DeviceMode::kReadOnly);
  expect_ok(md_->clear());
  EXPECT_EQ(open_count("d"), 0);
}

TEST_F(TableTest, TargetsAreDestroyedInReverse) {
  probe::Hooks& hooks = add_hooks("h");
  expect_ok(try_load({"0 8 plain hooks=h", "8 8 plain hooks=h", "16 8 plain hooks=h"}));
  hooks.diary.take();
  expect_ok(md_->clear());
  EXPECT_EQ(hooks.diary.take(), (Lines{"dtr 16", "dtr 8", "dtr 0"}));
}

// Looks up every border of a table and a sector inside each target.
class FindTest : public TableTest {
 protected:
  void check(const std::vector<sector_t>& lengths) {
    std::vector<TableLine> lines;
    sector_t start = 0;
    for (const sector_t len : lengths) {
      lines.push_back({start, len, "plain", ""});
      start += len;
    }
    Table::Options options;
    options.registry = &registry_;
    options.opener = &opener_;
    Result<std::unique_ptr<Table>> loaded = Table::load(lines, options);
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    const Table& table = **loaded;
    EXPECT_EQ(table.size(), start);
    for (const TableLine& line : lines) {
      ASSERT_EQ(table.find(line.start).begin(), line.start);
      ASSERT_EQ(table.find(line.start + line.len / 2).begin(), line.start);
      ASSERT_EQ(table.find(line.start + line.len - 1).begin(), line.start);
      const Table::Place& place = table.place(line.start + line.len / 3);
      ASSERT_EQ(place.begin, line.start);
      ASSERT_EQ(place.end, line.start + line.len);
      ASSERT_EQ(place.dev, nullptr);
      ASSERT_EQ(place.target, &table.find(line.start));
    }
    EXPECT_EQ(table.single() != nullptr, lengths.size() == 1);
  }

 private:
  class NoDevices final : public DeviceOpener {
   public:
    Result<DevRef> open(const std::string& word, DeviceMode mode) override {
      static_cast<void>(mode);
      return Status(ENOENT, word);
    }
  };
  NoDevices opener_;
};

TEST_F(FindTest, SmallTables) {
  check({1});
  check({1, 1});
  check({8, 8, 8});
  check({1000, 1, 1, 1, 1000});
}

TEST_F(FindTest, HugeTargetsBesideTinyOnes) {
  check({1, sector_t{1} << 53, 1, 2, 3});
  check({(sector_t{1} << 54) - 2, 1});
  check({1, (sector_t{1} << 54) - 2});
}

TEST_F(FindTest, HundredThousandEqualLines) {
  check(std::vector<sector_t>(100000, 64));
  check(std::vector<sector_t>(100000, 80));
}

TEST_F(FindTest, EqualLinesOfAHugeTable) {
  check(std::vector<sector_t>(100000, (sector_t{1} << 37) + 12345));
}

TEST_F(FindTest, HundredThousandTinyLinesBeforeAHugeOne) {
  std::vector<sector_t> lengths(100000, 1);
  lengths.push_back(sector_t{1} << 50);
  check(lengths);
}

TEST_F(FindTest, LinesOfRandomLength) {
  std::mt19937_64 random(20240601);
  for (int round = 0; round < 20; ++round) {
    std::vector<sector_t> lengths;
    const std::size_t count = 1 + random() % 3000;
    for (std::size_t i = 0; i < count; ++i) {
      lengths.push_back(1 + (random() >> (64 - 1 - random() % 30)));
    }
    check(lengths);
  }
}

TEST_F(FindTest, MoreTargetsThanATableHoldsAreRefused) {
  const std::vector<TableLine> lines(kMaxTargets + 1, TableLine{0, 1, "plain", ""});
  const Status status = md_->load(lines, DeviceMode::kReadWrite);
  expect_error(status, EOVERFLOW, "1048577 targets");
}

}  // namespace
}  // namespace mapperfs
