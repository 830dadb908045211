// What every target owes to the engine and to its users, over the whole registry. What is special
// about a target stands in its own test.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <thread>

#include "targets/targets.h"
#include "tests/targets/contract_cases.h"
#include "tests/targets/harness.h"
#include "tests/targets/temp_dir.h"

namespace mapperfs::test {

namespace {

std::vector<std::string> registered_types() {
  TargetRegistry registry;
  register_targets(registry);
  std::vector<std::string> names;
  for (const TargetType* type : registry.types()) {
    names.emplace_back(type->name);
  }
  return names;
}

class TargetContract : public testing::TestWithParam<std::string> {
 protected:
  TargetContract() {
    const ContractCase* found = find_contract_case(GetParam());
    EXPECT_NE(found, nullptr) << "no case for " << GetParam() << " in contract_cases.cc";
    if (found != nullptr) {
      case_ = *found;
    }
    for (int i = 0; i < 3; ++i) {
      legs_.push_back(&harness_.add_fault_dev("leg" + std::to_string(i), kLegSectors));
    }
  }

  // A table line of the type: `len` sectors from `start`.
  [[nodiscard]] std::string line(std::string_view args, sector_t start = 0,
                                 sector_t len = kCaseSectors) const {
    return std::to_string(start) + " " + std::to_string(len) + " " + GetParam() + " " +
           replaced(args, "DIR", dir_ / "");
  }
  static std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
    std::string out(text);
    for (std::size_t at = 0; (at = out.find(from, at)) != std::string::npos; at += to.size()) {
      out.replace(at, from.size(), to);
    }
    return out;
  }
  // What has to be there before a table of the type is loaded. After the legs are chosen.
  void surround() {
    if (!case_.needs_pool) {
      return;
    }
    const Status status = harness_.set_table(
        "pool", "0 " + std::to_string(kLegSectors) + " thin-pool " + (dir_ / "meta") + " leg0 " +
                    std::to_string(kPoolBlockSectors) + " 0");
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_TRUE(harness_.message("pool", "create_thin 0").ok());
    ASSERT_TRUE(harness_.message("pool", "create_thin 1").ok());
  }
  void set_up_device(sector_t len = kCaseSectors) {
    ASSERT_FALSE(case_.good.empty());
    surround();
    const Status status = harness_.set_table("d", line(case_.good.front(), 0, len));
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // Puts devices in memory under the legs' names.
  std::vector<fake::MemDev*> use_memory_legs(sector_t sectors) {
    std::vector<fake::MemDev*> legs;
    for (int i = 0; i < 3; ++i) {
      legs.push_back(&harness_.opener().add_mem("leg" + std::to_string(i), sectors));
    }
    return legs;
  }
  [[nodiscard]] bool has_flag(TargetFlags flag) const {
    return (harness_.registry().find(GetParam())->flags & flag) != 0;
  }
  // Device of the harness with the words that the type's table prints.
  std::string table_args() {
    const std::string text = harness_.table("d");
    return text.substr(text.find(GetParam()) + GetParam().size() + 1);
  }
  static BlkStatus expected(Answer answer) {
    switch (answer) {
      case Answer::kDone:
        return BlkStatus::kOk;
      case Answer::kFails:
        return BlkStatus::kIoError;
      case Answer::kUnsupported:
        return BlkStatus::kNotSupported;
    }
    return BlkStatus::kIoError;
  }

  TempDir dir_;  // outlives the pools in it
  Harness harness_;
  ContractCase case_;
  std::vector<fake::FaultDev*> legs_;
};

TEST_P(TargetContract, NameAndVersionAreTheRegistrys) {
  const TargetType* type = harness_.registry().find(GetParam());
  ASSERT_NE(type, nullptr);
  EXPECT_LE(type->name.size(), kMaxTypeName);
  EXPECT_GE(type->version.major, 1U);
}

TEST_P(TargetContract, BadArgumentsAreRefusedWithASentence) {
  surround();
  const int open_before = harness_.opener().open_count();
  for (const std::string_view args : case_.bad) {
    const Status status = harness_.try_table(line(args));
    EXPECT_FALSE(status.ok()) << line(args) << " was taken";
    if (!status.ok()) {
      EXPECT_TRUE(status.error() == EINVAL || status.error() == ENOENT) << line(args);
      EXPECT_NE(status.message().find(GetParam() + ": "), std::string::npos) << status.message();
    }
  }
  EXPECT_EQ(harness_.opener().open_count(), open_before) << "a refused table kept a device open";
}

TEST_P(TargetContract, TableFedBackGivesTheSameTable) {
  surround();
  for (const std::string_view args : case_.good) {
    const Status status = harness_.set_table("d", line(args));
    ASSERT_TRUE(status.ok()) << line(args) << ": " << status.message();
    const std::string printed = harness_.table("d");
    const Status again = harness_.set_table("d", printed);
    ASSERT_TRUE(again.ok()) << printed << ": " << again.message();
    EXPECT_EQ(harness_.table("d"), printed);
  }
}

TEST_P(TargetContract, TablesPrintNamesWithBlanksSoThatTheyLoad) {
  if (case_.legs == 0) {
    GTEST_SKIP() << "stands on no device";
  }
  for (int i = 0; i < 3; ++i) {
    harness_.opener().add_mem("/a b/leg" + std::to_string(i), kLegSectors);
  }
  surround();
  // The first that name a leg themselves.
  const auto args = std::find_if(case_.good.begin(), case_.good.end(), [](std::string_view each) {
    return each.find("leg") != std::string_view::npos;
  });
  ASSERT_NE(args, case_.good.end());
  ASSERT_TRUE(harness_.set_table("d", line(replaced(*args, "leg", "/a\\ b/leg"))).ok());
  EXPECT_NE(harness_.table("d").find("/a\\ b/leg"), std::string::npos) << harness_.table("d");
  EXPECT_TRUE(harness_.set_table("d", harness_.table("d")).ok());
}

TEST_P(TargetContract, FirstAndLastSectorsAndTheWholeReadBack) {
  if (!case_.keeps_data) {
    GTEST_SKIP() << "keeps no data";
  }
  set_up_device();
  fake::Bytes data = fake::pattern(kCaseSectors, 1);
  EXPECT_EQ(harness_.write("d", 0, data), BlkStatus::kOk);
  for (const sector_t sector : {sector_t{0}, kCaseSectors - 1}) {
    const fake::Bytes one = fake::pattern(1, 100 + sector);
    EXPECT_EQ(harness_.write("d", sector, one), BlkStatus::kOk) << sector;
    std::copy(one.begin(), one.end(),
              data.begin() + static_cast<std::ptrdiff_t>(sector << kSectorShift));
  }
  EXPECT_EQ(harness_.read("d", 0, kCaseSectors), data);
  EXPECT_EQ(harness_.run_op("d", Op::kRead, kCaseSectors, 1), BlkStatus::kIoError);
  EXPECT_EQ(harness_.run_op("d", Op::kRead, kCaseSectors - 1, 2), BlkStatus::kIoError);
}

TEST_P(TargetContract, AnIoThatCrossesTableLinesReadsBack) {
  if (!case_.keeps_data || has_flag(kTargetSingleton)) {
    GTEST_SKIP() << "keeps no data, or is alone in its table";
  }
  surround();
  harness_.opener().add_mem("before", kLegSectors);
  harness_.opener().add_mem("after", kLegSectors);
  const Status status = harness_.set_table(
      "d", "0 24 linear before 0\n" + line(case_.good.front(), 24) + "\n88 8 linear after 0");
  ASSERT_TRUE(status.ok()) << status.message();
  const fake::Bytes data = fake::pattern(96, 2);
  EXPECT_EQ(harness_.write("d", 0, data), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("d", 0, 96), data);
  const fake::Bytes middle = fake::pattern(70, 3);
  EXPECT_EQ(harness_.write("d", 21, middle), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("d", 21, 70), middle);
}

TEST_P(TargetContract, OneFlushReachesEveryDeviceThatTakesPart) {
  const std::vector<fake::MemDev*> legs = use_memory_legs(kLegSectors);
  set_up_device();
  for (fake::MemDev* leg : legs) {
    leg->take_seen();
  }
  EXPECT_EQ(harness_.run_op("d", Op::kFlush, 0, 0), BlkStatus::kOk);
  unsigned flushes = 0;
  for (fake::MemDev* leg : legs) {
    for (const fake::SeenBio& bio : leg->take_seen()) {
      flushes += bio.op == Op::kFlush ? 1 : 0;
    }
  }
  EXPECT_EQ(flushes, case_.flushes);
}

TEST_P(TargetContract, UnknownMessagesAreRefusedAndChangeNothing) {
  set_up_device();
  const std::string before = harness_.table("d");
  for (const std::string_view text : {"nosuch", "nosuch 1", "a b c d e"}) {
    const Result<std::string> reply = harness_.message("d", text);
    ASSERT_FALSE(reply.ok()) << text;
    EXPECT_EQ(reply.status().error(), EINVAL);
    EXPECT_FALSE(reply.status().message().empty());
  }
  EXPECT_EQ(harness_.table("d"), before);
}

TEST_P(TargetContract, SuspendWaitsForWhatIsInFlight) {
  if (case_.legs == 0) {
    GTEST_SKIP() << "has nothing in flight: bios end inside map()";
  }
  set_up_device();
  // So that the next write has a place on a leg to go to.
  ASSERT_EQ(harness_.write("d", 0, fake::pattern(8, 3)), BlkStatus::kOk);
  for (fake::FaultDev* leg : legs_) {
    leg->hold();
  }
  fake::AsyncBio bio(harness_.device("d"), 0, fake::pattern(8, 4));
  bio.submit();
  std::atomic<int> looks{0};
  std::atomic<bool> suspended{false};
  std::thread suspender([&] {
    SuspendOptions options;
    options.interrupted = [&] {
      ++looks;
      looks.notify_all();
      return false;
    };
    EXPECT_TRUE(harness_.device("d").suspend(options).ok());
    suspended = true;
  });
  looks.wait(0);  // it drains
  EXPECT_FALSE(suspended);
  EXPECT_FALSE(bio.done());
  for (fake::FaultDev* leg : legs_) {
    leg->release();
  }
  suspender.join();
  EXPECT_TRUE(suspended);
  EXPECT_TRUE(bio.done());
  EXPECT_TRUE(harness_.device("d").resume({}).ok());
}

TEST_P(TargetContract, BiosOfASuspendedDeviceRunAfterResumeIntoTheNewTable) {
  set_up_device();
  ASSERT_TRUE(harness_.device("d").suspend({}).ok());
  fake::AsyncBio bio(harness_.device("d"), Op::kRead, 0, 8);
  bio.submit();
  EXPECT_FALSE(bio.done());
  // An immutable type gives way to none but its own.
  const std::string next =
      has_flag(kTargetImmutable) ? line(case_.good.back()) : std::string("0 64 zero");
  ASSERT_TRUE(harness_.set_table("d", next).ok());
  harness_.env().run();
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
  EXPECT_EQ(bio.data(), filled(8, 0));
}

TEST_P(TargetContract, AreasOfDevicesCoverEveryIo) {
  if (!case_.areas_cover_io || case_.legs == 0) {
    GTEST_SKIP() << "has no areas, or the kernel's that do not cover";
  }
  use_memory_legs(kLegSectors);
  set_up_device();
  Result<std::unique_ptr<Table>> table = harness_.make_table("d", line(case_.good.front()));
  ASSERT_TRUE(table.ok()) << table.status().message();
  EXPECT_EQ(harness_.write("d", 0, fake::pattern(kCaseSectors, 5)), BlkStatus::kOk);
  sector_t written = 0;
  for (BlockDevice* dev : (*table)->devices()) {
    for (const fake::SeenBio& bio : static_cast<fake::MemDev*>(dev)->take_seen()) {
      bool covered = bio.op != Op::kWrite;
      (*table)->targets().front()->iterate_devices([&](const TargetDevice& area) {
        covered |= area.dev == dev && bio.sector >= area.start &&
                   bio.sector + bio.sectors <= area.start + area.len;
      });
      EXPECT_TRUE(covered) << dev->table_name() << " at " << bio.sector;
      written += bio.sectors;
    }
  }
  EXPECT_EQ(written, kCaseSectors);
}

TEST_P(TargetContract, AnAreaThatPassesItsDeviceIsRefused) {
  if (case_.legs == 0 || !case_.checks_areas) {
    GTEST_SKIP() << "stands on no device, or on all that a device has";
  }
  use_memory_legs(31);
  const Status status = harness_.try_table(line(case_.good.front()));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error(), EINVAL);
  EXPECT_NE(status.message().find("too small for target"), std::string::npos) << status.message();
}

TEST_P(TargetContract, EveryLegsErrorComesUp) {
  for (unsigned leg = 0; leg < case_.legs; ++leg) {
    if (leg == 0) {
      set_up_device();
      // So that each sector has a place on a leg.
      ASSERT_EQ(harness_.run_op("d", Op::kWrite, 0, kCaseSectors), BlkStatus::kOk);
    }
    legs_[leg]->add_fault({.op = Op::kRead, .status = BlkStatus::kIoError});
    legs_[leg]->add_fault({.op = Op::kWrite, .status = BlkStatus::kIoError});
    EXPECT_EQ(harness_.run_op("d", Op::kRead, 0, kCaseSectors), BlkStatus::kIoError) << leg;
    EXPECT_EQ(harness_.run_op("d", Op::kWrite, 0, kCaseSectors), BlkStatus::kIoError) << leg;
    legs_[leg]->clear_faults();
    EXPECT_EQ(harness_.run_op("d", Op::kRead, 0, kCaseSectors), BlkStatus::kOk) << leg;
  }
}

TEST_P(TargetContract, AFlushThatFailsBelowFails) {
  if (case_.flushes == 0) {
    GTEST_SKIP() << "flushes nothing";
  }
  set_up_device();
  legs_[0]->add_fault({.op = Op::kFlush, .status = BlkStatus::kIoError});
  EXPECT_EQ(harness_.run_op("d", Op::kFlush, 0, 0), BlkStatus::kIoError);
}

TEST_P(TargetContract, AbnormalOperationsAnswerAsTheTableOfTheReferenceSays) {
  set_up_device();
  EXPECT_EQ(harness_.run_op("d", Op::kDiscard, 0, kCaseSectors), expected(case_.discard));
  EXPECT_EQ(harness_.run_op("d", Op::kSecureErase, 8, 8), expected(case_.secure_erase));
  EXPECT_EQ(harness_.run_op("d", Op::kWriteZeroes, 3, 40), expected(case_.write_zeroes));
}

TEST_P(TargetContract, ADiscardZeroesTheRangeAndNothingElse) {
  if (!case_.keeps_data || case_.discard != Answer::kDone || !case_.discards_whole) {
    GTEST_SKIP() << "keeps no data, takes no discards, or sends them down one path";
  }
  const sector_t unit = case_.discard_unit;
  const sector_t sectors = kCaseSectors * unit;
  set_up_device(sectors);
  for (const auto& [first, last] :
       {std::pair<sector_t, sector_t>{0, 64}, {3, 4}, {5, 50}, {16, 33}}) {
    const sector_t from = first * unit;
    const sector_t to = last * unit;
    fake::Bytes data = fake::pattern(sectors, 6);
    ASSERT_EQ(harness_.write("d", 0, data), BlkStatus::kOk);
    EXPECT_EQ(harness_.run_op("d", Op::kDiscard, from, to - from), BlkStatus::kOk);
    std::fill(data.begin() + static_cast<std::ptrdiff_t>(from << kSectorShift),
              data.begin() + static_cast<std::ptrdiff_t>(to << kSectorShift), std::byte{0});
    EXPECT_TRUE(harness_.read("d", 0, sectors) == data) << from << " to " << to;
  }
}

TEST_P(TargetContract, AReadOnlyTableTakesNoWrites) {
  surround();
  const Status status = harness_.set_table("d", line(case_.good.front()), DeviceMode::kReadOnly);
  if (has_flag(kTargetAlwaysWriteable)) {
    EXPECT_EQ(status.error(), EINVAL);
    EXPECT_NE(status.message().find("read-only table"), std::string::npos) << status.message();
    return;
  }
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(harness_.run_op("d", Op::kWrite, 0, 8), BlkStatus::kReadOnly);
}

TEST_P(TargetContract, ExtentsStayInsideWhatIsAsked) {
  set_up_device();
  for (sector_t sector = 0; sector < kCaseSectors;) {
    const Extent extent = harness_.device("d").extent(sector, 20);
    ASSERT_GE(extent.sectors, 1U);
    ASSERT_LE(extent.sectors, 20U);
    sector += extent.sectors;
  }
}

// The examples of a page are its fenced blocks of the kind "table".
std::vector<std::string> examples_of(const std::string& page) {
  std::vector<std::string> examples;
  std::istringstream stream(page);
  bool inside = false;
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with("```")) {
      inside = line == "```table";
      if (inside) {
        examples.emplace_back();
      }
    } else if (inside) {
      examples.back() += line + "\n";
    }
  }
  return examples;
}

TEST_P(TargetContract, ItsDocPageIsThereAndTheExamplesLoad) {
  const std::string path = MAPPERFS_SOURCE_DIR "/docs/targets/" + GetParam() + ".md";
  std::ifstream file(path);
  ASSERT_TRUE(file) << path << " is missing";
  std::stringstream page;
  page << file.rdbuf();
  for (const char* heading : {"## Table line", "## Status", "## Messages", "## Example",
                              "## Failures and crashes", "## Differences from the kernel"}) {
    EXPECT_NE(page.str().find(heading), std::string::npos) << path << " lacks " << heading;
  }
  const std::vector<std::string> examples = examples_of(page.str());
  EXPECT_FALSE(examples.empty()) << path << " has no block of the kind ```table";
  surround();
  harness_.opener().add_any(sector_t{1} << 40);
  for (const std::string& text : examples) {
    // A directory that is to be made needs one that is there.
    const std::string example = replaced(text, "/var/lib/mapperfs", dir_ / "");
    const Status status = harness_.set_table("example", example);
    EXPECT_TRUE(status.ok()) << path << ": " << example << status.message();
  }
}

std::string test_name(const testing::TestParamInfo<std::string>& param) {
  std::string name = param.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(AllTargets, TargetContract, testing::ValuesIn(registered_types()),
                         test_name);

TEST(TargetRegistry, HasTheElevenBasicTargetsNewestLast) {
  const std::vector<std::string> names = registered_types();
  const std::vector<std::string> first = {"error", "linear", "striped",   "flakey",
                                          "delay", "dust",   "unstriped", "switch",
                                          "zero",  "loop",   "ram"};
  ASSERT_GE(names.size(), first.size());
  EXPECT_TRUE(std::equal(first.begin(), first.end(), names.begin()));
}

}  // namespace

}  // namespace mapperfs::test
