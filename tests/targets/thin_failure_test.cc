// Pools that run out of space, whose devices fail, and that are suspended under their users.
#include <cerrno>

#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

class ThinFailure : public ThinTest {
 protected:
  ThinFailure() : fault_(harness_.add_fault_dev("data", 1024 * kBlock)) {}

  void fill_pool(std::uint64_t blocks) {
    for (std::uint64_t block = 0; block < blocks; ++block) {
      ASSERT_EQ(harness_.write("thin", block * kBlock, fake::pattern(8, block)), BlkStatus::kOk);
    }
  }
  // A write of a block that the pool has no room for, waiting.
  std::unique_ptr<fake::AsyncBio> waiting_write(sector_t block) {
    auto bio = std::make_unique<fake::AsyncBio>(harness_.device("thin"), block * kBlock,
                                                fake::pattern(8, block));
    bio->submit();
    harness_.env().run();
    EXPECT_FALSE(bio->done());
    return bio;
  }
  bool logged(std::string_view text) {
    return harness_.engine().log().text().find(text) != std::string::npos;
  }

  fake::FaultDev& fault_;
};

TEST_F(ThinFailure, AWriteWithoutSpaceWaitsForTheGrownPool) {
  make_pool(4);
  make_thin("thin", 0, 64);
  fill_pool(4);
  const auto bio = waiting_write(9);
  EXPECT_EQ(mode(), "out_of_data_space");
  EXPECT_TRUE(logged("switching pool to out-of-data-space (queue IO) mode"));
  EXPECT_EQ(events(), 2U) << "one for the low water mark, one for the mode";
  EXPECT_EQ(message_error("create_thin 9"), 0);
  EXPECT_EQ(harness_.write("thin", 8, fake::pattern(8, 7)), BlkStatus::kOk);
  ASSERT_TRUE(harness_.set_table("pool", pool_line(8)).ok());
  harness_.env().run();
  ASSERT_TRUE(bio->done());
  EXPECT_EQ(bio->status(), BlkStatus::kOk);
  EXPECT_EQ(mode(), "rw");
  EXPECT_EQ(harness_.read("thin", 9 * kBlock, 8), fake::pattern(8, 9));
}

TEST_F(ThinFailure, AWriteWithoutSpaceFailsAfterAMinute) {
  make_pool(4);
  make_thin("thin", 0, 64);
  fill_pool(4);
  const auto bio = waiting_write(9);
  const std::uint32_t before = events();
  harness_.env().advance(59 * kSecond);
  EXPECT_FALSE(bio->done());
  harness_.env().advance(2 * kSecond);
  ASSERT_TRUE(bio->done());
  EXPECT_EQ(bio->status(), BlkStatus::kNoSpace);
  EXPECT_EQ(events(), before + 1);
  EXPECT_EQ(word(harness_.status("pool"), 9), "error_if_no_space");
  EXPECT_EQ(mode(), "out_of_data_space");
  EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 9 * kBlock, 8), BlkStatus::kNoSpace);
}

TEST_F(ThinFailure, ErrorIfNoSpaceFailsAtOnce) {
  make_pool(4, "128 0 1 error_if_no_space");
  make_thin("thin", 0, 64);
  fill_pool(4);
  EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 9 * kBlock, 8), BlkStatus::kNoSpace);
  EXPECT_EQ(harness_.read("thin", kBlock, 8), fake::pattern(8, 1));
  EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 2)), BlkStatus::kOk);
  harness_.env().advance(2 * kSecond);
  EXPECT_EQ(harness_.env().armed_timers(), 0U) << "nothing waits, nothing is to time out";
}

TEST_F(ThinFailure, ADiscardGivesSpaceToWhoWaits) {
  for (const char* rest : {"128 0", "128 0 1 no_discard_passdown"}) {
    make_pool(4, rest);
    make_thin("thin", 0, 64);
    fill_pool(4);
    const auto bio = waiting_write(9);
    EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, 2 * kBlock), BlkStatus::kOk);
    harness_.env().run();
    ASSERT_TRUE(bio->done()) << rest;
    EXPECT_EQ(bio->status(), BlkStatus::kOk);
    EXPECT_EQ(mode(), "rw");
    remove("thin");
    ASSERT_EQ(message_error("delete 0"), 0);
  }
}

TEST_F(ThinFailure, ADeletedDevicesBlocksAreFoundBeforeSpaceIsOut) {
  make_pool(600);
  make_thin("old", 1, 600);
  for (sector_t block = 0; block < 600; ++block) {
    ASSERT_EQ(harness_.write("old", block * kBlock, fake::pattern(kBlock, 1)), BlkStatus::kOk);
  }
  make_thin("thin", 0, 64);
  remove("old");
  EXPECT_EQ(message_error("delete 1"), 0);
  EXPECT_EQ(harness_.write("thin", 0, fake::pattern(8, 1)), BlkStatus::kOk);
  EXPECT_EQ(mode(), "rw");
}

TEST_F(ThinFailure, ANoflushSuspendTakesWaitingWritesBack) {
  make_pool(4);
  make_thin("thin", 0, 64);
  fill_pool(4);
  const auto bio = waiting_write(9);
  SuspendOptions noflush;
  noflush.noflush = true;
  ASSERT_TRUE(harness_.device("thin").suspend(noflush).ok());
  EXPECT_FALSE(bio->done());
  ASSERT_TRUE(harness_.set_table("pool", pool_line(8)).ok());
  ASSERT_TRUE(harness_.device("thin").resume({}).ok());
  harness_.env().run();
  ASSERT_TRUE(bio->done());
  EXPECT_EQ(bio->status(), BlkStatus::kOk);
}

TEST_F(ThinFailure, ASuspendedPoolHoldsItsThinDevices) {
  make_pool(8);
  make_thin("thin", 0, 64);
  fill_pool(2);
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  fake::AsyncBio read(harness_.device("thin"), Op::kRead, 0, 8);
  fake::AsyncBio write(harness_.device("thin"), 5 * kBlock, fake::pattern(8, 5));
  fake::AsyncBio flush(harness_.device("thin"), Op::kFlush, 0, 0);
  for (fake::AsyncBio* bio : {&read, &write, &flush}) {
    bio->submit();
  }
  harness_.env().advance(2 * kSecond);
  EXPECT_FALSE(read.done() || write.done() || flush.done());
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  harness_.env().run();
  EXPECT_TRUE(read.done() && write.done() && flush.done());
  EXPECT_EQ(read.data(), fake::pattern(8, 0));
  EXPECT_EQ(harness_.read("thin", 5 * kBlock, 8), fake::pattern(8, 5));
}

// Writes to blocks of one's own change nothing in the metadata: no commit would flush them.
TEST_F(ThinFailure, ASuspendedOrRemovedPoolLosesNothingToACutOfPower) {
  make_pool(8);
  make_thin("thin", 0, 64);
  fill_pool(8);
  ASSERT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  for (const bool removed : {false, true}) {
    const std::uint64_t tag = removed ? 200 : 100;
    for (std::uint64_t block = 0; block < 8; ++block) {
      ASSERT_EQ(harness_.write("thin", block * kBlock, fake::pattern(8, tag + block)),
                BlkStatus::kOk);
    }
    if (removed) {
      remove("thin");
      remove("pool");
      fault_.crash();
      make_pool(8);
      open_thin("thin", 0, 64);
    } else {
      ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
      fault_.crash();
      ASSERT_TRUE(harness_.device("pool").resume({}).ok());
    }
    for (std::uint64_t block = 0; block < 8; ++block) {
      EXPECT_EQ(harness_.read("thin", block * kBlock, 8), fake::pattern(8, tag + block)) << block;
    }
  }
}

TEST_F(ThinFailure, AnErrorWhileZeroingFailsTheWriteAndMapsNothing) {
  make_pool(8);
  make_thin("thin", 0, 64);
  fault_.add_fault({.op = Op::kWrite, .times = 1});
  EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 0, 8), BlkStatus::kIoError);
  EXPECT_EQ(harness_.status("thin"), "0 8192 thin 0 -");
  EXPECT_EQ(used(), "0/8");
  EXPECT_EQ(mode(), "rw");
  fault_.add_fault({.op = Op::kWrite, .times = 1});
  EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 0, kBlock), BlkStatus::kIoError);
  EXPECT_EQ(harness_.status("thin"), "0 8192 thin 0 -");
  EXPECT_EQ(harness_.write("thin", 0, fake::pattern(8, 1)), BlkStatus::kOk);
}

TEST_F(ThinFailure, AnErrorWhileCopyingKeepsTheSharedBlock) {
  make_pool(8);
  make_thin("thin", 0, 64);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1)), BlkStatus::kOk);
  snap(1, 0);
  for (const Op op : {Op::kRead, Op::kWrite}) {
    fault_.add_fault({.op = op, .times = 1});
    EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 0, 8), BlkStatus::kIoError);
    EXPECT_EQ(harness_.read("thin", 0, kBlock), fake::pattern(kBlock, 1));
    EXPECT_EQ(used(), "1/8");
  }
}

TEST_F(ThinFailure, ACommitThatFailsLeavesAReadOnlyPoolThatNeedsACheck) {
  make_pool(8);
  make_thin("thin", 0, 64);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8, 1)), BlkStatus::kOk);
  ASSERT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  ASSERT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 2)), BlkStatus::kOk);
  fault_.add_fault({.op = Op::kFlush, .times = 1});
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kIoError);
  EXPECT_EQ(mode(), "ro");
  EXPECT_EQ(word(harness_.status("pool"), 10), "needs_check");
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 1));
  EXPECT_EQ(harness_.read("thin", kBlock, 8), filled(8, 0)) << "back at the last commit";
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kIoError)
      << "an acknowledged write is gone";
  EXPECT_EQ(harness_.run_op("thin", Op::kWrite, kBlock, 8), BlkStatus::kIoError);
  EXPECT_EQ(message_error("create_thin 1"), EOPNOTSUPP);
  // Neither a reload nor a new start makes it writable or larger.
  ASSERT_TRUE(harness_.set_table("pool", pool_line(16)).ok());
  EXPECT_EQ(mode(), "ro");
  EXPECT_EQ(used(), "1/8");
  EXPECT_TRUE(logged("unable to switch pool to write mode until repaired."));
  EXPECT_TRUE(logged("unable to grow the data device until repaired."));
  remove("thin");
  remove("pool");
  make_pool(8);
  EXPECT_EQ(mode(), "ro");
  open_thin("thin", 0, 64);
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
}

TEST_F(ThinFailure, FullMetadataMakeThePoolReadOnlyAndKeepWhatIsThere) {
  thinp::PoolTuning tuning;
  tuning.nr_metadata_blocks = 64;
  thinp::set_pool_tuning(tuning);
  make_pool(1024);
  make_thin("thin", 0, 1 << 20);
  sector_t written = 0;
  BlkStatus status = BlkStatus::kOk;
  // Far apart, so that each needs pages of its own.
  for (; written < 1000; ++written) {
    status = harness_.write("thin", written * 1009 * kBlock, fake::pattern(1, written));
    if (status != BlkStatus::kOk) {
      break;
    }
  }
  EXPECT_EQ(status, BlkStatus::kIoError);
  EXPECT_EQ(mode(), "ro");
  EXPECT_EQ(word(harness_.status("pool"), 10), "-");
  ASSERT_GT(written, 10U);
  for (sector_t i = 0; i < written; ++i) {
    ASSERT_EQ(harness_.read("thin", i * 1009 * kBlock, 1), fake::pattern(1, i)) << i;
  }
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk) << "it was committed";
}

}  // namespace

}  // namespace mapperfs::test
