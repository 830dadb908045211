// The data device, or the external origin, fails one bio: each bio of a pool's life in turn.
#include "tests/targets/thin_scenario.h"

namespace mapperfs::test {

namespace {

// By the pool's words from the block size on: without zeroing, blocks are given elsewhere.
class ThinDataFailure : public ThinScenario, public ::testing::WithParamInterface<const char*> {
 protected:
  // The bio after `skip` others of `dev` fails. False: there was none.
  bool live_with_fault(fake::FaultDev& dev, Op op, std::uint64_t skip) {
    const std::uint64_t before = dev.struck();
    set_up(64, GetParam());
    dev.add_fault({.op = op, .times = 1, .skip = skip});
    live();
    dev.clear_faults();
    const bool struck = dev.struck() != before;
    expect_right_mode(op, struck);
    expect_sound();
    return struck;
  }
  void fail_each(fake::FaultDev& dev, Op op) {
    std::uint64_t step = 0;
    for (bool struck = true; struck && !HasFailure(); ++step) {
      SCOPED_TRACE(fmt::format("bio {}", step));
      struck = live_with_fault(dev, op, step);
    }
    EXPECT_GT(step, 2U) << "no bio came";
  }

 private:
  void expect_right_mode(Op op, bool struck) {
    for (const BlkStatus failure : failures_) {
      EXPECT_EQ(failure, BlkStatus::kIoError);
    }
    if (!struck || op == Op::kDiscard) {
      EXPECT_TRUE(failures_.empty()) << "a discard that is not passed down is no error";
      EXPECT_EQ(mode(), "rw");
    } else if (op == Op::kFlush) {
      // A commit that cannot flush goes back; a flush without a commit fails, and that is all.
      EXPECT_TRUE(mode() == "ro" || !failures_.empty());
      EXPECT_EQ(word(harness_.status("pool"), 10), mode() == "ro" ? "needs_check" : "-");
    } else {
      EXPECT_EQ(failures_.size(), 1U) << "who asked is told, and nobody else";
      EXPECT_EQ(mode(), "rw");
      EXPECT_EQ(word(harness_.status("pool"), 10), "-");
    }
  }
};

TEST_P(ThinDataFailure, EachReadOfTheDataDevice) { fail_each(fault_, Op::kRead); }
TEST_P(ThinDataFailure, EachWriteOfTheDataDevice) { fail_each(fault_, Op::kWrite); }
TEST_P(ThinDataFailure, EachFlushOfTheDataDevice) { fail_each(fault_, Op::kFlush); }
TEST_P(ThinDataFailure, EachDiscardOfTheDataDevice) { fail_each(fault_, Op::kDiscard); }
TEST_P(ThinDataFailure, EachReadOfTheExternalOrigin) { fail_each(base_, Op::kRead); }

INSTANTIATE_TEST_SUITE_P(Pools, ThinDataFailure,
                         testing::Values("128 0", "128 0 1 skip_block_zeroing"));

// What the sweep does not tell: the errno of other errors, large blocks, origins of another size.
class ThinDataError : public ThinTest {
 protected:
  ThinDataError() : fault_(harness_.add_fault_dev("data", 8192 * kBlock)) {}

  // The pool is rw and nothing of what failed is left in it.
  void expect_blocks(const std::string& expected) {
    EXPECT_EQ(mode(), "rw");
    EXPECT_EQ(word(harness_.status("pool"), 10), "-");
    EXPECT_EQ(used(), expected);
  }
  // An external origin whose size changes: the first `sectors` of a device of 512.
  void resize_origin(sector_t sectors) {
    const Status status = harness_.set_table("lin", fmt::format("0 {} linear base 0", sectors));
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void make_thin_on_origin(sector_t sectors) {
    harness_.opener().add_mem("base", 512).poke(0, fake::pattern(512, 9));
    resize_origin(sectors);
    make_pool(16);
    make_thin("thin", 0, 4, "lin");
  }
  // Sectors [first, first + sectors) of the origin.
  static fake::Bytes base(sector_t first, sector_t sectors) {
    const fake::Bytes all = fake::pattern(512, 9);
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(first << kSectorShift);
    return {at, at + static_cast<std::ptrdiff_t>(sectors << kSectorShift)};
  }

  fake::FaultDev& fault_;
};

// As the kernel: who waits for a block hears of EIO, whatever the data device said.
TEST_F(ThinDataError, WhatFailsWhileABlockIsMadeIsAnIoError) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1)), BlkStatus::kOk);
  snap(1, 0);
  for (const BlkStatus status :
       {BlkStatus::kNoSpace, BlkStatus::kNotSupported, BlkStatus::kMedium}) {
    for (const sector_t block : {sector_t{0}, sector_t{1}}) {  // a shared one, a new one
      for (const sector_t sectors : {sector_t{8}, kBlock}) {
        fault_.add_fault({.op = Op::kWrite, .status = status, .times = 1});
        EXPECT_EQ(harness_.run_op("thin", Op::kWrite, block * kBlock, sectors),
                  BlkStatus::kIoError);
        expect_blocks("1/16");
      }
    }
  }
  EXPECT_EQ(harness_.read("thin", 0, kBlock), fake::pattern(kBlock, 1));
  EXPECT_EQ(harness_.read("thin", kBlock, kBlock), filled(kBlock, 0));
}

TEST_F(ThinDataError, WhatFailsInABlockOfItsOwnComesUpAsItIs) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1), kBioFua), BlkStatus::kOk);
  for (const BlkStatus status : {BlkStatus::kNoSpace, BlkStatus::kMedium, BlkStatus::kIoError}) {
    for (const std::uint8_t flags : {std::uint8_t{0}, std::uint8_t{kBioFua}}) {
      fault_.add_fault({.op = Op::kWrite, .status = status, .times = 1});
      EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 0, 8, flags), status);
    }
    fault_.add_fault({.op = Op::kRead, .status = status, .times = 1});
    EXPECT_EQ(harness_.run_op("thin", Op::kRead, 0, 8), status);
  }
  expect_blocks("1/16");
  EXPECT_EQ(harness_.read("thin", 0, kBlock), fake::pattern(kBlock, 1));
}

TEST_F(ThinDataError, AFlushWithNothingToCommitFailsAlone) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8, 1), kBioFua), BlkStatus::kOk);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8, 2)), BlkStatus::kOk);
  fault_.add_fault({.op = Op::kFlush, .times = 1});
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kIoError);
  expect_blocks("1/16");
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 2));
}

// Blocks are filled 512 sectors at a time.
TEST_F(ThinDataError, ALargeBlockFailsInItsMiddle) {
  constexpr sector_t kLarge = 2048;
  const Status status = harness_.set_table(
      "pool", fmt::format("0 {} thin-pool {} data {} 0", 16 * kLarge, dir_ / "meta", kLarge));
  ASSERT_TRUE(status.ok()) << status.message();
  make_thin("thin", 0, 64);
  for (std::uint64_t chunk = 0; chunk < 4; ++chunk) {
    fault_.add_fault({.op = Op::kWrite, .times = 1, .skip = chunk});
    EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 0, 8), BlkStatus::kIoError) << chunk;
    expect_blocks("0/16");
  }
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(kLarge, 1)), BlkStatus::kOk);
  snap(1, 0);
  for (const Op op : {Op::kRead, Op::kWrite}) {
    for (std::uint64_t chunk = 0; chunk < 4; ++chunk) {
      fault_.add_fault({.op = op, .times = 1, .skip = chunk});
      EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 0, 8), BlkStatus::kIoError) << chunk;
      expect_blocks("1/16");
    }
  }
  EXPECT_EQ(harness_.read("thin", 0, kLarge), fake::pattern(kLarge, 1));
}

TEST_F(ThinDataError, ADiscardThatIsNotPassedDownIsDone) {
  make_pool(16);
  make_thin("thin", 0, 16);
  for (const BlkStatus status :
       {BlkStatus::kIoError, BlkStatus::kNotSupported, BlkStatus::kTargetError}) {
    ASSERT_EQ(harness_.write("thin", 0, fake::pattern(2 * kBlock, 1)), BlkStatus::kOk);
    fault_.add_fault({.op = Op::kDiscard, .status = status, .times = 1});
    EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, 2 * kBlock), BlkStatus::kOk);
    EXPECT_EQ(harness_.read("thin", 0, 2 * kBlock), filled(2 * kBlock, 0));
    expect_blocks("0/16");
  }
  EXPECT_EQ(fault_.struck(), 3U) << "the next is passed down again";
}

TEST_F(ThinDataError, AnOriginThatGrewIsSeenAfterAResume) {
  make_thin_on_origin(200);
  resize_origin(300);
  EXPECT_EQ(harness_.read("thin", 200, 100), filled(100, 0));
  ASSERT_TRUE(harness_.device("thin").suspend({}).ok());
  ASSERT_TRUE(harness_.device("thin").resume({}).ok());
  EXPECT_EQ(harness_.read("thin", 200, 100), base(200, 100));
  EXPECT_EQ(harness_.read("thin", 300, 100), filled(100, 0));
  // In the block where it ends now.
  ASSERT_EQ(harness_.write("thin", 380, fake::pattern(4, 1)), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 256, 44), base(256, 44));
  EXPECT_EQ(harness_.read("thin", 300, 80), filled(80, 0));
  EXPECT_EQ(harness_.read("thin", 380, 4), fake::pattern(4, 1));
  expect_blocks("1/16");
}

TEST_F(ThinDataError, AnOriginThatShrankFailsWhatItLostUntilAResume) {
  make_thin_on_origin(300);
  resize_origin(200);
  EXPECT_EQ(harness_.run_op("thin", Op::kRead, 200, 8), BlkStatus::kIoError);
  EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 140, 8), BlkStatus::kIoError) << "cannot be copied";
  expect_blocks("0/16");
  EXPECT_EQ(harness_.read("thin", 0, 200), base(0, 200));
  EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(kBlock, 1)), BlkStatus::kOk)
      << "covered: nothing to copy";
  ASSERT_TRUE(harness_.device("thin").suspend({}).ok());
  ASSERT_TRUE(harness_.device("thin").resume({}).ok());
  EXPECT_EQ(harness_.read("thin", 256, 100), filled(100, 0));
  EXPECT_EQ(harness_.read("thin", 0, kBlock), base(0, kBlock));
  EXPECT_EQ(harness_.read("thin", kBlock, kBlock), fake::pattern(kBlock, 1));
  expect_blocks("1/16");
}

}  // namespace

}  // namespace mapperfs::test
