#include <gtest/gtest.h>

#include <cerrno>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

class FlakeyTest : public testing::Test {
 protected:
  FlakeyTest() { ram_ = &harness_.opener().add_mem("ram0", 32768); }
  void set_up(const std::string& args) {
    const Status status = harness_.set_table("f", "0 1024 flakey ram0 0 " + args);
    ASSERT_TRUE(status.ok()) << status.message();
    static_cast<void>(ram_->take_seen());
  }
  BlkStatus read_status() { return harness_.run_op("f", Op::kRead, 0, 8); }
  BlkStatus write_status() { return harness_.run_op("f", Op::kWrite, 0, 8); }

  Harness harness_;
  fake::MemDev* ram_ = nullptr;
};

TEST_F(FlakeyTest, PrintsItsFeaturesInTheKernelsOrder) {
  const std::pair<const char*, const char*> cases[] = {
      {"2 1", "2 1 2 error_reads error_writes"},
      {"2 1 0", "2 1 2 error_reads error_writes"},
      {"0 60 1 drop_writes", "0 60 1 drop_writes"},
      {"0 60 1 ERROR_writes", "0 60 1 error_writes"},
      {"0 60 5 corrupt_bio_byte 32 r 1 0", "0 60 5 corrupt_bio_byte 32 r 1 0"},
      {"0 60 5 corrupt_bio_byte 224 W 0 32", "0 60 5 corrupt_bio_byte 224 w 0 32"},
      {"0 60 3 random_write_corrupt 5 error_reads", "0 60 3 error_reads random_write_corrupt 5"},
      {"0 60 2 random_read_corrupt 0", "0 60 2 error_reads error_writes"},
      {"0 60 6 random_read_corrupt 7 random_write_corrupt 8 corrupt_bio_byte 1 ignored", nullptr},
      {"0 60 1 drop_writes more words", "0 60 1 drop_writes"},
      {"0 60 10 corrupt_bio_byte 1 r 2 3 error_writes random_read_corrupt 4 drop_writes x",
       nullptr},
  };
  for (const auto& [given, printed] : cases) {
    const Status status = harness_.set_table("f", std::string("0 8 flakey ram0 0 ") + given);
    EXPECT_EQ(status.ok(), printed != nullptr) << given << ": " << status.message();
    if (status.ok() && printed != nullptr) {
      EXPECT_EQ(harness_.table("f"), std::string("0 8 flakey ram0 0 ") + printed);
      EXPECT_EQ(harness_.status("f"), "0 8 flakey ");
    }
  }
}

TEST_F(FlakeyTest, RefusesInTheKernelsWords) {
  const std::pair<const char*, const char*> cases[] = {
      {"1", "Invalid argument count"},
      {"0 0", "Total (up + down) interval is zero"},
      {"4294967295 2", "Interval overflow"},
      {"1 1 12", "Invalid number of feature args"},
      {"1 1 1", "Invalid number of feature args"},
      {"1 1 1 foo", "Unrecognised flakey feature requested"},
      {"1 1 2 drop_writes error_writes", "Feature error_writes conflicts with feature drop_writes"},
      {"1 1 2 error_writes drop_writes", "Feature drop_writes conflicts with feature error_writes"},
      {"1 1 2 error_reads error_reads", "Feature error_reads duplicated"},
      {"1 1 2 drop_writes drop_writes", "Feature drop_writes duplicated"},
      {"1 1 2 corrupt_bio_byte 1", "Feature corrupt_bio_byte requires 4 parameters"},
      {"1 1 5 corrupt_bio_byte 0 r 1 0", "Invalid corrupt bio byte"},
      {"1 1 5 corrupt_bio_byte 1 x 1 0", "Invalid corrupt bio direction (r or w)"},
      {"1 1 5 corrupt_bio_byte 1 r 256 0", "Invalid corrupt value to write into bio byte (0-255)"},
      {"1 1 5 corrupt_bio_byte 1 r 1 x", "Invalid corrupt bio flags mask"},
      {"1 1 10 corrupt_bio_byte 1 r 1 0 corrupt_bio_byte 1 r 1 0",
       "Feature corrupt_bio_byte duplicated"},
      {"1 1 6 drop_writes corrupt_bio_byte 1 w 1 0",
       "drop_writes is incompatible with random_write_corrupt or corrupt_bio_byte with the WRITE "
       "flag set"},
      {"1 1 3 error_writes random_write_corrupt 1",
       "error_writes is incompatible with random_write_corrupt"},
      {"1 1 3 error_reads random_read_corrupt 1",
       "error_reads is incompatible with random_read_corrupt"},
      {"1 1 1 random_read_corrupt", "Feature random_read_corrupt requires a parameter"},
      {"1 1 2 random_read_corrupt 1000000001", "Invalid random corrupt argument"},
  };
  for (const auto& [args, text] : cases) {
    const Status status = harness_.try_table(std::string("0 8 flakey ram0 0 ") + args);
    EXPECT_EQ(status.error(), EINVAL) << args;
    EXPECT_NE(status.message().find(text), std::string::npos) << args << ": " << status.message();
  }
}

TEST_F(FlakeyTest, IsUpAndDownByWholeSeconds) {
  set_up("2 1");
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(read_status(), BlkStatus::kOk);
    harness_.env().advance(2 * kSecond - 1);
    EXPECT_EQ(write_status(), BlkStatus::kOk);
    harness_.env().advance(1);
    EXPECT_EQ(read_status(), BlkStatus::kIoError);
    EXPECT_EQ(write_status(), BlkStatus::kIoError);
    EXPECT_EQ(harness_.run_op("f", Op::kFlush, 0, 0), BlkStatus::kIoError);
    EXPECT_EQ(harness_.run_op("f", Op::kDiscard, 0, 8), BlkStatus::kIoError);
    harness_.env().advance(kSecond);
  }
}

TEST_F(FlakeyTest, DropsWritesDiscardsAndFlushesAndPassesReads) {
  set_up("0 60 1 drop_writes");
  ram_->poke(0, filled(8, 7));
  EXPECT_EQ(harness_.write("f", 0, filled(8, 1)), BlkStatus::kOk);
  EXPECT_EQ(harness_.run_op("f", Op::kDiscard, 0, 8), BlkStatus::kOk);
  EXPECT_EQ(harness_.run_op("f", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_TRUE(ram_->take_seen().empty());
  EXPECT_EQ(harness_.read("f", 0, 8), filled(8, 7));
}

TEST_F(FlakeyTest, ErrorsOneDirectionOnly) {
  set_up("0 60 1 error_reads");
  EXPECT_EQ(read_status(), BlkStatus::kIoError);
  EXPECT_EQ(write_status(), BlkStatus::kOk);
  set_up("0 60 1 error_writes");
  EXPECT_EQ(read_status(), BlkStatus::kOk);
  EXPECT_EQ(write_status(), BlkStatus::kIoError);
}

TEST_F(FlakeyTest, CorruptsTheNthByteOfReads) {
  set_up("0 60 5 corrupt_bio_byte 32 r 1 0");
  ram_->poke(0, filled(8, 0x71));
  fake::Bytes expected = filled(8, 0x71);
  expected[31] = std::byte{1};
  EXPECT_EQ(harness_.read("f", 0, 8), expected);
  EXPECT_EQ(ram_->peek(0, 8), filled(8, 0x71));
}

TEST_F(FlakeyTest, CorruptsACopyOfWrites) {
  set_up("0 60 5 corrupt_bio_byte 1025 w 9 0");
  fake::AsyncBio bio(harness_.device("f"), 0, filled(8, 5));
  EXPECT_EQ(bio.submit().wait(), BlkStatus::kOk);
  EXPECT_EQ(bio.data(), filled(8, 5));
  fake::Bytes expected = filled(8, 5);
  expected[1024] = std::byte{9};
  EXPECT_EQ(ram_->peek(0, 8), expected);
  EXPECT_EQ(harness_.write("f", 0, filled(2, 6)), BlkStatus::kOk);
  EXPECT_EQ(ram_->peek(0, 2), filled(2, 6)) << "shorter than the byte's place";
}

TEST_F(FlakeyTest, CorruptsOnlyBiosWithAllTheFlags) {
  set_up("0 60 5 corrupt_bio_byte 1 w 9 131073");  // REQ_FUA and REQ_OP_WRITE
  EXPECT_EQ(harness_.write("f", 0, filled(1, 5)), BlkStatus::kOk);
  EXPECT_EQ(ram_->peek(0, 1), filled(1, 5));
  EXPECT_EQ(harness_.write("f", 0, filled(1, 5), kBioFua), BlkStatus::kOk);
  EXPECT_EQ(ram_->peek(0, 1).front(), std::byte{9});
  set_up("0 60 5 corrupt_bio_byte 1 w 9 32");
  EXPECT_EQ(harness_.write("f", 0, filled(1, 5), kBioFua | kBioMeta), BlkStatus::kOk);
  EXPECT_EQ(ram_->peek(0, 1), filled(1, 5));
}

// Bytes of `count` bios of a sector that came out other than they went in.
std::size_t corrupted(Harness& harness, fake::MemDev& ram, bool write, int count) {
  std::size_t changed = 0;
  for (int i = 0; i < count; ++i) {
    const fake::Bytes good = fake::pattern(1, static_cast<std::uint64_t>(i));
    fake::Bytes seen;
    if (write) {
      EXPECT_EQ(harness.write("f", 0, good), BlkStatus::kOk);
      seen = ram.peek(0, 1);
    } else {
      ram.poke(0, good);
      seen = harness.read("f", 0, 1);
    }
    for (std::size_t at = 0; at < good.size(); ++at) {
      changed += seen.at(at) != good[at] ? 1 : 0;
    }
  }
  return changed;
}

TEST_F(FlakeyTest, CorruptsRandomBytesWithTheProbability) {
  set_up("0 60 2 random_read_corrupt 500000000");
  const std::size_t reads = corrupted(harness_, *ram_, false, 1000);
  EXPECT_GT(reads, 400U);
  EXPECT_LT(reads, 600U);
  EXPECT_EQ(corrupted(harness_, *ram_, true, 100), 0U);
  set_up("0 60 2 random_write_corrupt 1000000000");
  const std::size_t writes = corrupted(harness_, *ram_, true, 1000);
  EXPECT_GT(writes, 980U);  // now and then the byte is the one that was there
  EXPECT_EQ(corrupted(harness_, *ram_, false, 100), 0U);
}

TEST_F(FlakeyTest, OneSeedGivesOneRun) {
  const auto run = [](std::uint64_t seed) {
    Harness harness(seed);
    harness.add_rams();
    EXPECT_TRUE(
        harness.set_table("f", "0 64 flakey ram0 0 0 9 2 random_write_corrupt 300000000").ok());
    for (sector_t i = 0; i < 64; ++i) {
      EXPECT_EQ(harness.write("f", i, filled(1, 1)), BlkStatus::kOk);
    }
    return harness.read("f", 0, 64);
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

TEST_F(FlakeyTest, PassesEverythingWhileUp) {
  set_up("60 0 6 error_reads corrupt_bio_byte 1 w 1 0");
  EXPECT_EQ(corrupted(harness_, *ram_, true, 10), 0U);
  EXPECT_EQ(corrupted(harness_, *ram_, false, 10), 0U);
}

}  // namespace

}  // namespace mapperfs::test
