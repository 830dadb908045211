#include <gtest/gtest.h>

#include <cerrno>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

class DustTest : public testing::Test {
 protected:
  DustTest() {
    harness_.opener().add_mem("ram0", 32768);
    EXPECT_TRUE(harness_.set_table("d", "0 32768 dust ram0 0 512").ok());
  }
  std::string say(std::string_view text) {
    Result<std::string> reply = harness_.message("d", text);
    EXPECT_TRUE(reply.ok()) << text << ": " << reply.status().message();
    return reply.ok() ? reply.take() : std::string();
  }
  std::string refusal(std::string_view text) {
    const Result<std::string> reply = harness_.message("d", text);
    EXPECT_FALSE(reply.ok()) << text;
    EXPECT_EQ(reply.status().error(), EINVAL) << text;
    return reply.status().message();
  }
  BlkStatus read_block(sector_t sector) { return harness_.run_op("d", Op::kRead, sector, 1); }
  BlkStatus write_block(sector_t sector) { return harness_.run_op("d", Op::kWrite, sector, 1); }

  Harness harness_;
};

TEST_F(DustTest, AnswersAsInTheTranscript) {
  EXPECT_EQ(harness_.table("d"), "0 32768 dust ram0 0 512");
  EXPECT_EQ(harness_.status("d"), "0 32768 dust ram0 bypass verbose");
  EXPECT_EQ(say("countbadblocks"), "countbadblocks: 0 badblock(s) found");
  EXPECT_EQ(say("addbadblock 60"), "");
  EXPECT_EQ(say("addbadblock 72"), "");
  EXPECT_EQ(say("ADDBADBLOCK 67"), "");
  EXPECT_EQ(say("countbadblocks"), "countbadblocks: 3 badblock(s) found");
  EXPECT_EQ(say("listbadblocks"), "60\n67\n72\n");
  EXPECT_EQ(say("queryblock 60"), "dust_query_block: block 60 found in badblocklist");
  EXPECT_EQ(say("queryblock 61"), "dust_query_block: block 61 not found in badblocklist");
  EXPECT_EQ(say("removebadblock 67"), "");
  EXPECT_EQ(say("clearbadblocks"), "dust_clear_badblocks: badblocks cleared");
  EXPECT_EQ(say("clearbadblocks"), "dust_clear_badblocks: no badblocks found");
  EXPECT_EQ(say("listbadblocks"), "No blocks in badblocklist");
}

TEST_F(DustTest, FailsReadsOfBadBlocksOnlyWhileEnabled) {
  say("addbadblock 60");
  EXPECT_EQ(harness_.run_op("d", Op::kRead, 0, 128), BlkStatus::kOk);
  say("enable");
  EXPECT_EQ(harness_.status("d"), "0 32768 dust ram0 fail_read_on_bad_block verbose");
  EXPECT_EQ(harness_.run_op("d", Op::kRead, 0, 128), BlkStatus::kIoError);
  EXPECT_EQ(read_block(59), BlkStatus::kOk);
  EXPECT_EQ(read_block(60), BlkStatus::kIoError);
  say("disable");
  EXPECT_EQ(harness_.status("d"), "0 32768 dust ram0 bypass verbose");
  EXPECT_EQ(read_block(60), BlkStatus::kOk);
}

TEST_F(DustTest, AWriteMendsABlock) {
  say("addbadblock 60");
  say("enable");
  EXPECT_EQ(write_block(60), BlkStatus::kOk);
  EXPECT_EQ(read_block(60), BlkStatus::kOk);
  EXPECT_EQ(say("countbadblocks"), "countbadblocks: 0 badblock(s) found");
  EXPECT_NE(harness_.engine().log().text().find("block 60 removed from badblocklist by write"),
            std::string::npos);
}

TEST_F(DustTest, AWriteFailsAsOftenAsTheFailCountSays) {
  say("addbadblock 100 2");
  say("enable");
  EXPECT_EQ(write_block(100), BlkStatus::kIoError);
  EXPECT_EQ(write_block(100), BlkStatus::kIoError);
  EXPECT_EQ(write_block(100), BlkStatus::kOk);
  EXPECT_EQ(read_block(100), BlkStatus::kOk);
}

TEST_F(DustTest, ADiscardCountsAsAWriteAndAFlushAsNothing) {
  say("addbadblock 0");
  say("addbadblock 5");
  say("enable");
  EXPECT_EQ(harness_.run_op("d", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(say("listbadblocks"), "0\n5\n");
  EXPECT_EQ(harness_.run_op("d", Op::kDiscard, 0, 8), BlkStatus::kOk);
  EXPECT_EQ(say("listbadblocks"), "5\n");
}

TEST_F(DustTest, CountsBlocksOnTheDeviceBelow) {
  ASSERT_TRUE(harness_.set_table("d", "0 32760 dust ram0 8 4096").ok());
  say("addbadblock 1");
  say("addbadblock 4095");
  say("addbadblock 4096");  // one past the last is taken
  say("enable");
  EXPECT_EQ(read_block(0), BlkStatus::kIoError);
  EXPECT_EQ(read_block(7), BlkStatus::kIoError);
  EXPECT_EQ(read_block(8), BlkStatus::kOk);
  EXPECT_EQ(harness_.run_op("d", Op::kRead, 32752, 8), BlkStatus::kIoError);
}

TEST_F(DustTest, QuietStopsTheLogOfSingleBlocks) {
  say("addbadblock 1");
  EXPECT_NE(harness_.engine().log().text().find(
                "dust_add_block: badblock added at block 1 with write fail count 0"),
            std::string::npos);
  say("quiet");
  EXPECT_EQ(harness_.status("d"), "0 32768 dust ram0 bypass quiet");
  say("addbadblock 2");
  EXPECT_EQ(harness_.engine().log().text().find("block 2"), std::string::npos);
  say("quiet");
  EXPECT_EQ(harness_.status("d"), "0 32768 dust ram0 bypass verbose");
}

TEST_F(DustTest, RefusesMessagesInTheKernelsWords) {
  say("addbadblock 60");
  const std::pair<const char*, const char*> cases[] = {
      {"addbadblock 60", "dust_add_block: block 60 already in badblocklist"},
      {"removebadblock 61", "dust_remove_block: block 61 not found in badblocklist"},
      {"addbadblock 99999999", "selected block value out of range"},
      {"queryblock 99999999", "selected block value out of range"},
      {"addbadblock x", "\"x\" is not a block number"},
      {"addbadblock", "addbadblock requires an additional argument"},
      {"removebadblock", "removebadblock requires an additional argument"},
      {"addbadblock 5 -1", "\"-1\" is not a fail count"},
      {"addbadblock 5 256", "selected write fail count out of range"},
      {"queryblock 5 1", "unrecognized message 'queryblock' received"},
      {"enable x", "enable takes no argument, 1 given"},
      {"countbadblocks 1 2", "countbadblocks takes no argument, 2 given"},
      {"nosuch", "unrecognized message 'nosuch' received"},
      {"nosuch 1", "unrecognized message 'nosuch' received"},
      {"a b c d", "invalid number of arguments '4'"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_NE(refusal(text).find(expected), std::string::npos) << text;
  }
}

TEST_F(DustTest, RefusesTablesInTheKernelsWords) {
  const std::pair<const char*, const char*> cases[] = {
      {"0", "Invalid argument count"},         {"0 100", "Block size must be at least 512"},
      {"0 0", "Invalid block size parameter"}, {"0 1536", "Block size must be a power of 2"},
      {"0 8192", "Block size is too large"},   {"x 512", "Invalid device offset sector"},
  };
  for (const auto& [args, expected] : cases) {
    const Status status = harness_.try_table(std::string("0 8 dust ram0 ") + args);
    EXPECT_NE(status.message().find(expected), std::string::npos) << args;
  }
  EXPECT_EQ(harness_.try_table("0 8 dust nosuch 0 512").error(), EINVAL);
}

}  // namespace

}  // namespace mapperfs::test
