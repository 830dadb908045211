#include <cerrno>
#include <fstream>

#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

class ThinPoolTarget : public ThinTest {
 protected:
  // The pool's words of the status line from the mode on.
  std::string tail() {
    const std::string status = harness_.status("pool");
    std::size_t at = 0;
    for (int blanks = 0; blanks < 7; ++blanks) {
      at = status.find(' ', at) + 1;
    }
    return status.substr(at);
  }
  void expect_refused(const std::string& line, int error, std::string_view text) {
    const Status status = harness_.try_table(line);
    ASSERT_FALSE(status.ok()) << line;
    EXPECT_EQ(status.error(), error) << line;
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
  }
};

TEST_F(ThinPoolTarget, RefusesBadTablesAsTheKernelDoes) {
  const std::string meta = dir_ / "meta";
  const auto line = [&](std::string_view args) { return fmt::format("0 1024 thin-pool {}", args); };
  expect_refused(line(meta + " data"), EINVAL, "Invalid argument count");
  expect_refused(line("data data 128 0"), EINVAL, "Error setting metadata or data device");
  expect_refused(line(meta + " data 127 0"), EINVAL, "Invalid block size");
  expect_refused(line(meta + " data 200 0"), EINVAL, "Invalid block size");
  expect_refused(line(meta + " data 2097280 0"), EINVAL, "Invalid block size");
  expect_refused(line(meta + " data 128 x"), EINVAL, "Invalid low water mark");
  expect_refused(line(meta + " data 128 0 1 foo"), EINVAL, "Unrecognised pool feature requested");
  expect_refused(line(meta + " data 128 0 5"), EINVAL, "Invalid number of pool feature arguments");
  expect_refused(line(meta + " data 128 0 2 read_only"), EINVAL,
                 "Invalid number of pool feature arguments");
  expect_refused(line(meta + " nosuch 128 0"), ENOENT, "Error getting data device");
  expect_refused(line(meta + "/a/b data 128 0"), ENOENT, "Error opening metadata block device");
  expect_refused(line(meta + " data 128 0 1 read_only"), EPERM, "Error creating metadata object");
  expect_refused("0 2097152 thin-pool " + meta + " data 128 0", EINVAL, "too small for target");
  EXPECT_EQ(harness_.opener().open_count(), 0);
}

TEST_F(ThinPoolTarget, RefusesAFileAndAForeignDirectoryAsMetadata) {
  std::ofstream(dir_ / "file") << "x";
  expect_refused("0 1024 thin-pool " + (dir_ / "file") + " data 128 0", ENOTDIR,
                 "Error opening metadata block device");
  std::filesystem::create_directory(dir_ / "full");
  std::ofstream((dir_ / "full") + "/letters") << "x";
  const Status status = harness_.try_table("0 1024 thin-pool " + (dir_ / "full") + " data 128 0");
  EXPECT_NE(status.message().find("Error creating metadata object"), std::string::npos)
      << status.message();
}

TEST_F(ThinPoolTarget, PrintsTheTableAndStatusOfAFreshPool) {
  make_pool(128, "128 20");
  EXPECT_EQ(harness_.table("pool"),
            fmt::format("0 16384 thin-pool {} data 128 20 0 ", dir_ / "meta"));
  EXPECT_EQ(used(), "0/128");
  EXPECT_EQ(tail(), "rw discard_passdown queue_if_no_space - 1024 ");
  EXPECT_EQ(word(harness_.status("pool"), 6), "-");
  EXPECT_EQ(word(harness_.status("pool"), 3), "0");
}

TEST_F(ThinPoolTarget, PrintsFeaturesInTheKernelsOrder) {
  make_pool(128, "128 20 3 error_if_no_space no_discard_passdown skip_block_zeroing");
  const std::string table = harness_.table("pool");
  EXPECT_NE(table.find("128 20 3 skip_block_zeroing no_discard_passdown error_if_no_space "),
            std::string::npos)
      << table;
  EXPECT_EQ(tail(), "rw no_discard_passdown error_if_no_space - 1024 ");
  EXPECT_TRUE(harness_.set_table("pool", table).ok());
  EXPECT_EQ(harness_.table("pool"), table);
}

TEST_F(ThinPoolTarget, EscapesAMetadataDirectoryWithBlanks) {
  const std::string line = fmt::format("0 1024 thin-pool {} data 128 0 0 ", dir_ / "a\\ b");
  ASSERT_TRUE(harness_.set_table("pool", line).ok());
  EXPECT_EQ(harness_.table("pool"), line);
  EXPECT_TRUE(std::filesystem::is_directory(dir_ / "a b"));
}

TEST_F(ThinPoolTarget, TakesItsMessagesAndRefusesAsTheKernelDoes) {
  make_pool(128);
  EXPECT_EQ(message_error("create_thin 0"), 0);
  EXPECT_EQ(message_error("create_thin 0"), EEXIST);
  EXPECT_EQ(message_error("create_thin 16777215"), 0);
  EXPECT_EQ(message_error("create_thin 16777216"), EINVAL);
  EXPECT_EQ(message_error("create_thin x"), EINVAL);
  EXPECT_EQ(message_error("create_thin"), EINVAL);
  EXPECT_EQ(message_error("nosuch 1 2"), EINVAL);
  EXPECT_EQ(message_error("create_snap 1 0"), 0);
  EXPECT_EQ(message_error("create_snap 1 0"), EEXIST);
  EXPECT_EQ(message_error("create_snap 2 77"), ENODATA);
  EXPECT_EQ(message_error("create_snap 2"), EINVAL);
  EXPECT_EQ(message_error("delete 16777215"), 0);
  EXPECT_EQ(message_error("delete 16777215"), ENODATA);
  EXPECT_EQ(message_error("SET_TRANSACTION_ID 0 5"), 0);
  EXPECT_EQ(message_error("set_transaction_id 0 6"), EINVAL);
  EXPECT_EQ(word(harness_.status("pool"), 3), "5");
}

TEST_F(ThinPoolTarget, TakesAPlusBeforeANumberOfAMessage) {
  make_pool(8);
  EXPECT_EQ(message_error("create_thin +5"), 0);
  EXPECT_EQ(message_error("create_thin 5"), EEXIST);
  EXPECT_EQ(message_error("create_snap +6 +5"), 0);
  EXPECT_EQ(message_error("delete +5"), 0);
  EXPECT_EQ(message_error("set_transaction_id +0 +3"), 0);
  EXPECT_EQ(word(harness_.status("pool"), 3), "3");
  for (const std::string_view bad : {"create_thin +", "create_thin ++7", "create_thin -7",
                                     "create_thin +-7", "create_thin +16777216"}) {
    EXPECT_EQ(message_error(bad), EINVAL) << bad;
  }
}

TEST_F(ThinPoolTarget, SaysWhatIsWrongWithAMessage) {
  make_pool(128);
  const auto text = [&](std::string_view message) {
    return harness_.message("pool", message).status().message();
  };
  EXPECT_NE(text("create_thin").find("Message received with 1 arguments instead of 2."),
            std::string::npos);
  EXPECT_NE(text("create_thin x").find("Message received with invalid device id: x"),
            std::string::npos);
  EXPECT_NE(text("delete 5").find("Deletion of thin device 5 failed."), std::string::npos);
  EXPECT_NE(text("nosuch").find("Unrecognised thin pool target message received: nosuch"),
            std::string::npos);
}

TEST_F(ThinPoolTarget, KeepsOneMetadataSnapshot) {
  make_pool(128);
  EXPECT_EQ(message_error("release_metadata_snap"), EINVAL);
  EXPECT_EQ(message_error("reserve_metadata_snap"), 0);
  EXPECT_NE(word(harness_.status("pool"), 6), "-");
  EXPECT_EQ(message_error("reserve_metadata_snap"), EBUSY);
  EXPECT_EQ(message_error("release_metadata_snap"), 0);
  EXPECT_EQ(word(harness_.status("pool"), 6), "-");
}

TEST_F(ThinPoolTarget, DoesNotDeleteADeviceInUse) {
  make_pool(128);
  make_thin("thin", 3, 64);
  EXPECT_EQ(message_error("delete 3"), EBUSY);
  remove("thin");
  EXPECT_EQ(message_error("delete 3"), 0);
}

TEST_F(ThinPoolTarget, ReloadChangesLengthAndFeaturesOnly) {
  make_pool(128, "128 20");
  for (const char* rest :
       {"128 20 1 skip_block_zeroing", "128 20 1 no_discard_passdown", "128 7", "256 20"}) {
    EXPECT_TRUE(harness_.set_table("pool", pool_line(128, rest)).ok()) << rest;
  }
  EXPECT_NE(harness_.table("pool").find(" data 128 20 0 "), std::string::npos)
      << "the block size of the pool is printed: " << harness_.table("pool");
  MappedDevice& pool = harness_.device("pool");
  const auto load = [&](const std::string& line) {
    return pool.load(parse_lines(line), DeviceMode::kReadWrite);
  };
  EXPECT_EQ(load(pool_line(128, "128 20 1 ignore_discard")).error(), EINVAL);
  EXPECT_EQ(load(pool_line(128, "128 20", "other")).error(), EINVAL);
  harness_.opener().add_mem("data2", 16384);
  EXPECT_EQ(load(fmt::format("0 16384 thin-pool {} data2 128 0", dir_ / "meta")).error(), EBUSY);
}

TEST_F(ThinPoolTarget, OneDirectoryHasOnePool) {
  make_pool(16);
  const Status status = harness_.try_table(pool_line(16));
  EXPECT_EQ(status.error(), EBUSY);
  EXPECT_NE(status.message().find("metadata device already in use by a pool"), std::string::npos);
  const Status other_name = harness_.try_table(pool_line(16, "128 0", "./meta/"));
  EXPECT_EQ(other_name.error(), EBUSY);
}

TEST_F(ThinPoolTarget, GrowsAndDoesNotShrink) {
  make_pool(128);
  EXPECT_TRUE(harness_.set_table("pool", pool_line(192)).ok());
  EXPECT_EQ(used(), "0/192");
  const Status status = harness_.set_table("pool", pool_line(128));
  EXPECT_EQ(status.error(), EINVAL);
  EXPECT_NE(status.message().find("pool target (128 blocks) too small: expected 192"),
            std::string::npos);
  EXPECT_TRUE(harness_.device("pool").info().suspended);
  EXPECT_TRUE(harness_.set_table("pool", pool_line(200)).ok());
  EXPECT_EQ(used(), "0/200");
}

TEST_F(ThinPoolTarget, GrowsWhenTheDataDeviceHasGrown) {
  ASSERT_TRUE(harness_.set_table("lv", fmt::format("0 {} linear data 0", 8 * kBlock)).ok());
  const auto line = [&](unsigned blocks) {
    return fmt::format("0 {} thin-pool {} lv 128 0", blocks * kBlock, dir_ / "meta");
  };
  ASSERT_TRUE(harness_.set_table("pool", line(8)).ok());
  ASSERT_TRUE(harness_.set_table("lv", fmt::format("0 {} linear data 0", 16 * kBlock)).ok());
  const Status status = harness_.set_table("pool", line(16));
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(used(), "0/16");
}

TEST_F(ThinPoolTarget, ReadOnlyIsAModeThatAReloadEnds) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8, 1)), BlkStatus::kOk);
  const std::uint32_t before = events();
  ASSERT_TRUE(harness_.set_table("pool", pool_line(16, "128 0 1 read_only")).ok());
  EXPECT_EQ(mode(), "ro");
  EXPECT_GT(events(), before);
  EXPECT_EQ(message_error("create_thin 1"), EOPNOTSUPP);
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 1));
  EXPECT_EQ(harness_.write("thin", 0, fake::pattern(8, 2)), BlkStatus::kOk);
  EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 2)), BlkStatus::kIoError);
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, kBlock), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 2));
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  ASSERT_TRUE(harness_.set_table("pool", pool_line(16)).ok());
  EXPECT_EQ(mode(), "rw");
  EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 2)), BlkStatus::kOk);
}

TEST_F(ThinPoolTarget, SaysWhenLittleSpaceIsLeft) {
  make_pool(20, "128 8");
  make_thin("thin", 0, 64);
  for (sector_t block = 0; block < 12; ++block) {
    ASSERT_EQ(harness_.write("thin", block * kBlock, fake::pattern(8, block)), BlkStatus::kOk);
  }
  EXPECT_EQ(events(), 0U);
  ASSERT_EQ(harness_.write("thin", 12 * kBlock, fake::pattern(8, 12)), BlkStatus::kOk);
  EXPECT_EQ(events(), 1U);
  ASSERT_EQ(harness_.write("thin", 13 * kBlock, fake::pattern(8, 12)), BlkStatus::kOk);
  EXPECT_EQ(events(), 1U);
}

TEST_F(ThinPoolTarget, WithoutDiscardsBelowThereIsNoPassdown) {
  QueueLimits limits = fake::MemDev::default_limits();
  limits.max_discard_sectors = 0;
  harness_.opener().add_mem("data", 16 * kBlock, limits);
  make_pool(16);
  EXPECT_EQ(tail(), "rw no_discard_passdown queue_if_no_space - 1024 ");
  EXPECT_NE(harness_.engine().log().text().find("Disabling discard passdown"), std::string::npos);
  EXPECT_EQ(harness_.run_op("pool", Op::kDiscard, 0, 8), BlkStatus::kNotSupported);
}

TEST_F(ThinPoolTarget, DiscardsOfLessThanABlockAreNoPassdownEither) {
  for (const sector_t most : {kBlock - 8, kBlock}) {
    QueueLimits limits = fake::MemDev::default_limits();
    limits.max_discard_sectors = most;
    harness_.opener().add_mem("small", 16 * kBlock, limits);
    const std::string line = fmt::format("0 {} thin-pool {} small 128 0", 16 * kBlock,
                                         dir_ / (most == kBlock ? "meta" : "other"));
    ASSERT_TRUE(harness_.set_table("pool", line).ok());
    EXPECT_EQ(word(harness_.status("pool"), 8),
              most == kBlock ? "discard_passdown" : "no_discard_passdown");
    remove("pool");
  }
  EXPECT_NE(harness_.engine().log().text().find("max discard sectors smaller than a block"),
            std::string::npos);
}

TEST_F(ThinPoolTarget, PassesItsOwnIoToTheDataDevice) {
  make_pool(16);
  EXPECT_EQ(harness_.write("pool", 100, fake::pattern(200, 1)), BlkStatus::kOk);
  EXPECT_EQ(data_->peek(100, 200), fake::pattern(200, 1));
  EXPECT_EQ(harness_.run_op("pool", Op::kFlush, 0, 0), BlkStatus::kOk);
}

TEST_F(ThinPoolTarget, LimitsSpeakOfBlocks) {
  make_pool(16);
  make_thin("thin", 0, 16);
  const QueueLimits pool = harness_.device("pool").limits();
  EXPECT_EQ(pool.io_min, 65536U);
  EXPECT_EQ(pool.io_opt, 65536U);
  const QueueLimits thin = harness_.device("thin").limits();
  EXPECT_EQ(thin.io_opt, 65536U);
  EXPECT_EQ(thin.discard_granularity, 65536U);
  EXPECT_EQ(thin.max_discard_sectors, 131072U);
  EXPECT_TRUE(thin.write_cache);
}

TEST_F(ThinPoolTarget, IsThereAgainAfterItWasRemoved) {
  make_pool(16);
  make_thin("thin", 7, 16);
  ASSERT_EQ(harness_.write("thin", 300, fake::pattern(500, 1)), BlkStatus::kOk);
  remove("thin");
  remove("pool");
  make_pool(16);
  open_thin("thin", 7, 16);
  EXPECT_EQ(harness_.read("thin", 300, 500), fake::pattern(500, 1));
  EXPECT_EQ(harness_.status("thin"), "0 2048 thin 640 895");
}

TEST_F(ThinPoolTarget, WipingItsTableFailsTheThinDevices) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_TRUE(harness_.device("pool").wipe_table({}).ok());
  EXPECT_EQ(harness_.run_op("thin", Op::kRead, 0, 8), BlkStatus::kIoError);
  EXPECT_EQ(harness_.status("thin"), "0 2048 thin Fail");
  remove("thin");
  remove("pool");
  EXPECT_EQ(harness_.opener().open_count(), 0);
}

}  // namespace

}  // namespace mapperfs::test
