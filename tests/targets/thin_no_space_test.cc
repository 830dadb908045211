// Pools without a free block: at every step of their life, and what ends it.
#include <cerrno>

#include "targets/thin/pool.h"
#include "tests/targets/thin_scenario.h"

namespace mapperfs::test {

namespace {

// The scenario in pools of every size that is too small for it. What is done when a bio waits for
// space is the test's choice.
class ThinNoSpaceLife : public ThinScenario {
 protected:
  enum class Remedy { kNone, kGrow, kTimeOut, kDelete, kDiscard, kSuspendAndGrow };

  bool stuck() override {
    ++waits_;
    EXPECT_EQ(mode(), "out_of_data_space");
    switch (remedy_) {
      case Remedy::kNone:
        return false;
      case Remedy::kGrow:
        grow();
        return true;
      case Remedy::kTimeOut:
        harness_.env().advance(61 * kSecond);
        EXPECT_EQ(word(harness_.status("pool"), 9), "error_if_no_space");
        return true;
      case Remedy::kDelete:
        EXPECT_EQ(message_error(fmt::format("delete {}", --hoards_)), 0);
        return true;
      case Remedy::kDiscard:
        EXPECT_EQ(harness_.run_op("hoard", Op::kDiscard, --hoards_ * kBlock, kBlock),
                  BlkStatus::kOk);
        return true;
      case Remedy::kSuspendAndGrow:
        suspend_and_resume();
        grow();
        return true;
    }
    return false;
  }
  void grow() { ASSERT_TRUE(harness_.set_table("pool", pool_line(++blocks_, rest_)).ok()); }
  // The waiting bio comes through all of these.
  void suspend_and_resume() {
    SuspendOptions noflush;
    noflush.noflush = true;
    for (const char* name : {"pool", "thin", "ext"}) {
      ASSERT_TRUE(harness_.device(name).suspend(noflush).ok());
      harness_.env().advance(kSecond);
      ASSERT_TRUE(harness_.device(name).resume({}).ok());
      harness_.env().run();
    }
    ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
    ASSERT_TRUE(harness_.device("pool").resume({}).ok());
    harness_.env().run();
  }
  // Devices of one block each that may be deleted, or one of as many blocks, to be discarded.
  void hoard(unsigned first, unsigned count) {
    make_thin("hoard", first, kMostBlocks);
    for (unsigned i = 0; i < count; ++i) {
      if (remedy_ == Remedy::kDelete && i != 0) {
        open_hoard(first + i);
      }
      const sector_t sector = remedy_ == Remedy::kDelete ? 0 : i * kBlock;
      ASSERT_EQ(harness_.write("hoard", sector, fake::pattern(8, i)), BlkStatus::kOk);
    }
    hoards_ = remedy_ == Remedy::kDelete ? first + count : count;
    if (remedy_ == Remedy::kDelete) {
      remove("hoard");
    }
  }
  void open_hoard(unsigned id) {
    remove("hoard");
    make_thin("hoard", id, kMostBlocks);
  }

  // Pools from one block up, until nothing fails.
  void fail_in_small_pools(const std::string& rest) {
    bool failed = true;
    for (std::uint64_t blocks = 1; failed && !HasFailure(); ++blocks) {
      SCOPED_TRACE(fmt::format("{} blocks", blocks));
      set_up(blocks, rest);
      live();
      failed = !failures_.empty();
      for (const BlkStatus failure : failures_) {
        EXPECT_EQ(failure, BlkStatus::kNoSpace);
      }
      EXPECT_EQ(word(harness_.status("pool"), 10), "-");
      expect_sound();
      EXPECT_LE(blocks, kMostBlocks);
    }
  }

  Remedy remedy_ = Remedy::kNone;
  unsigned waits_ = 0;
  unsigned hoards_ = 0;
};

TEST_F(ThinNoSpaceLife, FailsAtOnceWhereItIsToldTo) {
  fail_in_small_pools("128 0 1 error_if_no_space");
  EXPECT_EQ(waits_, 0U);
}

TEST_F(ThinNoSpaceLife, FailsAtOnceWithoutZeroing) {
  fail_in_small_pools("128 0 2 skip_block_zeroing error_if_no_space");
  EXPECT_EQ(waits_, 0U);
}

TEST_F(ThinNoSpaceLife, FailsAfterTheTimeout) {
  remedy_ = Remedy::kTimeOut;
  fail_in_small_pools("128 0");
  EXPECT_GE(waits_, 1U);
}

TEST_F(ThinNoSpaceLife, GoesOnEachTimeThePoolGrows) {
  remedy_ = Remedy::kGrow;
  set_up(1);
  live();
  EXPECT_TRUE(failures_.empty());
  EXPECT_EQ(mode(), "rw");
  EXPECT_GE(waits_, 10U);
  expect_sound();
}

TEST_F(ThinNoSpaceLife, GoesOnWithoutZeroing) {
  remedy_ = Remedy::kGrow;
  set_up(1, "128 0 1 skip_block_zeroing");
  live();
  EXPECT_TRUE(failures_.empty());
  EXPECT_GE(waits_, 10U);
  expect_sound();
}

TEST_F(ThinNoSpaceLife, ComesThroughSuspendsUntilThePoolGrows) {
  remedy_ = Remedy::kSuspendAndGrow;
  set_up(1);
  live();
  EXPECT_TRUE(failures_.empty());
  EXPECT_EQ(mode(), "rw");
  EXPECT_GE(waits_, 10U);
  expect_sound();
}

TEST_F(ThinNoSpaceLife, GoesOnWithTheBlocksOfDeletedDevices) {
  remedy_ = Remedy::kDelete;
  set_up(kMostBlocks);
  hoard(10, kMostBlocks - 1);
  live();
  EXPECT_TRUE(failures_.empty());
  EXPECT_GE(waits_, 10U);
  expect_sound();
}

TEST_F(ThinNoSpaceLife, GoesOnWithWhatOthersDiscard) {
  for (const char* rest : {"128 0", "128 0 1 no_discard_passdown"}) {
    remedy_ = Remedy::kDiscard;
    waits_ = 0;
    set_up(kMostBlocks, rest);
    hoard(10, kMostBlocks - 1);
    live();
    EXPECT_TRUE(failures_.empty());
    EXPECT_GE(waits_, 10U);
    remove("hoard");
    EXPECT_EQ(message_error("delete 10"), 0);
    expect_sound();
  }
}

// One step of it, looked at closely.
class ThinNoSpace : public ThinTest {
 protected:
  // A pool whose `blocks` blocks are all used by "thin" (0) and its snapshot (1), which share them.
  void make_full(std::uint64_t blocks, std::string_view rest = "128 0") {
    make_pool(blocks, rest);
    make_thin("thin", 0, 64);
    for (std::uint64_t block = 0; block < blocks; ++block) {
      ASSERT_EQ(harness_.write("thin", block * kBlock, fake::pattern(kBlock, block)),
                BlkStatus::kOk);
    }
    snap(1, 0);
  }
  // A write that waits: to a shared block unless told otherwise.
  fake::AsyncBio& waiting_write(sector_t block = 0) {
    bios_.push_back(std::make_unique<fake::AsyncBio>(harness_.device("thin"), block * kBlock,
                                                     fake::pattern(8, 100 + block)));
    bios_.back()->submit();
    harness_.env().run();
    EXPECT_FALSE(bios_.back()->done());
    EXPECT_EQ(mode(), "out_of_data_space");
    return *bios_.back();
  }
  void expect_ended(fake::AsyncBio& bio, BlkStatus status) {
    harness_.env().run();
    ASSERT_TRUE(bio.done());
    EXPECT_EQ(bio.status(), status);
  }
  void reload(std::uint64_t blocks, std::string_view rest = "128 0") {
    const Status status = harness_.set_table("pool", pool_line(blocks, rest));
    ASSERT_TRUE(status.ok()) << status.message();
    harness_.env().run();
  }
  std::string space_word() { return word(harness_.status("pool"), 9); }
  void expect_block(sector_t block, bool written) {
    fake::Bytes expected = fake::pattern(kBlock, block);
    if (written) {
      const fake::Bytes first = fake::pattern(8, 100 + block);
      std::copy(first.begin(), first.end(), expected.begin());
    }
    EXPECT_TRUE(harness_.read("thin", block * kBlock, kBlock) == expected) << "block " << block;
  }
  // The devices go, and the checker finds nothing.
  void TearDown() override {
    bios_.clear();
    for (const char* name : {"thin", "other", "pool"}) {
      if (harness_.engine().find(name).ok()) {
        remove(name);
      }
    }
    const auto report = check_thin_metadata(dir_ / "meta", {});
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_TRUE(report->clean());
    EXPECT_FALSE(report->needs_check);
  }

  std::vector<std::unique_ptr<fake::AsyncBio>> bios_;
};

TEST_F(ThinNoSpace, ASharedBlockThatCannotBeCopiedStaysShared) {
  make_full(4, "128 0 1 error_if_no_space");
  EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 0, 8), BlkStatus::kNoSpace);
  EXPECT_EQ(harness_.run_op("thin", Op::kWrite, kBlock, kBlock), BlkStatus::kNoSpace);
  EXPECT_EQ(mode(), "out_of_data_space");
  EXPECT_EQ(used(), "4/4");
  open_thin("other", 1, 64);
  for (sector_t block = 0; block < 4; ++block) {
    expect_block(block, false);
    EXPECT_EQ(harness_.read("other", block * kBlock, kBlock), fake::pattern(kBlock, block));
  }
  reload(8, "128 0 1 error_if_no_space");
  EXPECT_EQ(mode(), "rw");
  EXPECT_EQ(harness_.write("thin", 0, fake::pattern(8, 100)), BlkStatus::kOk);
  expect_block(0, true);
  EXPECT_EQ(harness_.read("other", 0, kBlock), fake::pattern(kBlock, 0));
}

TEST_F(ThinNoSpace, ADeletedSnapshotMakesItsOriginsBlocksWritable) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  EXPECT_EQ(message_error("delete 1"), 0);
  harness_.env().run();
  // Nothing was freed, as every block is the origin's still: it is taken for shared, as before.
  EXPECT_FALSE(bio.done());
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 3 * kBlock, kBlock), BlkStatus::kOk);
  expect_ended(bio, BlkStatus::kOk);
  EXPECT_EQ(mode(), "rw");
  expect_block(0, true);
}

TEST_F(ThinNoSpace, WhatHasItsPlaceGoesOn) {
  make_pool(4);
  make_thin("thin", 0, 64);
  for (std::uint64_t block = 0; block < 4; ++block) {
    ASSERT_EQ(harness_.write("thin", block * kBlock, fake::pattern(kBlock, block)), BlkStatus::kOk);
  }
  fake::AsyncBio& bio = waiting_write(9);
  EXPECT_EQ(harness_.write("thin", 0, fake::pattern(8, 100)), BlkStatus::kOk);
  EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 101), kBioFua), BlkStatus::kOk);
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 9 * kBlock, 8), filled(8, 0));
  EXPECT_EQ(message_error("create_thin 5"), 0);
  EXPECT_EQ(message_error("set_transaction_id 0 1"), 0);
  EXPECT_FALSE(bio.done());
  for (sector_t block = 0; block < 4; ++block) {
    expect_block(block, block < 2);
  }
  reload(5);
  expect_ended(bio, BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 9 * kBlock, 8), fake::pattern(8, 109));
}

// Other threads free a block and commit that, right between the look and the mode, each time; and
// take it, so many times, before who looked can.
class ThinNoSpaceRace : public ThinNoSpace {
 protected:
  void lose(std::uint64_t races) {
    std::uint64_t looks = 0;
    thinp::PoolTuning tuning;
    tuning.at_place = [&](std::string_view place) {
      thinp::Pool& pool = *thinp::find_pool(harness_.device("pool"));
      ThinDevice& device = *(*pool.open_volume(0))->dev;
      if (place == "no space: seen") {
        EXPECT_TRUE(device.remove(looks, looks + 1, nullptr).ok());
        ++looks;
        EXPECT_TRUE(pool.commit().ok());
        EXPECT_EQ(pool.metadata().free_data_blocks(), 1U);
      } else if (looks <= races) {
        EXPECT_EQ(place, "no space: again");
        const auto block = device.allocate_data_block();
        ASSERT_TRUE(block.ok()) << block.status().message();
        EXPECT_TRUE(device.insert(20 + looks, *block).ok());
      }
    };
    thinp::set_pool_tuning(tuning);
    make_pool(4);
    make_thin("thin", 0, 64);
    for (sector_t block = 0; block < 4; ++block) {
      ASSERT_EQ(harness_.write("thin", block * kBlock, fake::pattern(kBlock, block)),
                BlkStatus::kOk);
    }
    fake::AsyncBio bio(harness_.device("thin"), 9 * kBlock, fake::pattern(8, 109));
    bio.submit();
    harness_.env().run();
    EXPECT_EQ(looks, races + 1);
    if (!bio.done()) {
      ADD_FAILURE() << "it waits beside a free block";
      reload(8);
    }
    EXPECT_EQ(bio.status(), BlkStatus::kOk);
    EXPECT_EQ(mode(), "rw");
    EXPECT_EQ(used(), "4/4");
    EXPECT_EQ(harness_.read("thin", 9 * kBlock, 8), fake::pattern(8, 109));
  }
};

TEST_F(ThinNoSpaceRace, ABlockThatIsFreedAsTheModeChangesIsFound) { lose(0); }

TEST_F(ThinNoSpaceRace, SoIsOneAfterAnotherWasTaken) { lose(1); }

// The third time the pool does not try to make space any more: it only looks and changes its mode.
TEST_F(ThinNoSpaceRace, SoIsOneAfterAllTriesHaveFailed) { lose(2); }

TEST_F(ThinNoSpace, WithoutATimeoutItWaitsForEver) {
  thinp::PoolTuning tuning;
  tuning.no_space_timeout_ns = 0;
  thinp::set_pool_tuning(tuning);
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  harness_.env().advance(10'000 * kSecond);
  EXPECT_FALSE(bio.done());
  EXPECT_EQ(harness_.env().armed_timers(), 0U);
  EXPECT_EQ(space_word(), "queue_if_no_space");
  reload(5);
  expect_ended(bio, BlkStatus::kOk);
  expect_block(0, true);
}

TEST_F(ThinNoSpace, ASuspendStopsTheClockAndAResumeStartsItAnew) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  harness_.env().advance(50 * kSecond);
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  harness_.env().advance(100 * kSecond);
  EXPECT_FALSE(bio.done());
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  EXPECT_EQ(mode(), "out_of_data_space") << "a plain resume keeps it";
  harness_.env().advance(59 * kSecond);
  EXPECT_FALSE(bio.done());
  harness_.env().advance(2 * kSecond);
  expect_ended(bio, BlkStatus::kNoSpace);
  EXPECT_EQ(space_word(), "error_if_no_space");
  expect_block(0, false);
}

TEST_F(ThinNoSpace, AfterTheTimeoutAResumeLetsBiosWaitAgain) {
  make_full(4);
  fake::AsyncBio& first = waiting_write();
  harness_.env().advance(61 * kSecond);
  expect_ended(first, BlkStatus::kNoSpace);
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  EXPECT_EQ(mode(), "out_of_data_space");
  EXPECT_EQ(space_word(), "queue_if_no_space");
  fake::AsyncBio& second = waiting_write(1);
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 2 * kBlock, 2 * kBlock), BlkStatus::kOk);
  harness_.env().run();
  EXPECT_FALSE(second.done()) << "the snapshot has those";
  EXPECT_EQ(message_error("delete 1"), 0);
  expect_ended(second, BlkStatus::kOk);
  expect_block(1, true);
}

TEST_F(ThinNoSpace, TheTimeoutsErrorEndsWithTheMode) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  harness_.env().advance(61 * kSecond);
  expect_ended(bio, BlkStatus::kNoSpace);
  reload(8);
  EXPECT_EQ(mode(), "rw");
  EXPECT_EQ(space_word(), "queue_if_no_space");
  EXPECT_EQ(harness_.env().armed_timers(), 0U);
}

TEST_F(ThinNoSpace, AReloadMakesWaitingBiosFailAndFailingOnesWait) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  reload(4, "128 0 1 error_if_no_space");
  expect_ended(bio, BlkStatus::kNoSpace);
  EXPECT_EQ(mode(), "out_of_data_space");
  EXPECT_EQ(space_word(), "error_if_no_space");
  reload(4);
  EXPECT_EQ(mode(), "rw") << "until somebody asks for a block";
  EXPECT_EQ(space_word(), "queue_if_no_space");
  fake::AsyncBio& again = waiting_write();
  reload(5);
  expect_ended(again, BlkStatus::kOk);
  expect_block(0, true);
}

TEST_F(ThinNoSpace, AReadOnlyTableFailsWhatWaits) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  reload(4, "128 0 1 read_only");
  expect_ended(bio, BlkStatus::kIoError);
  EXPECT_EQ(mode(), "ro");
  EXPECT_EQ(harness_.env().armed_timers(), 0U);
  expect_block(0, false);
}

// A suspend waits for all that is in flight, what waits for space too; giving up changes nothing.
TEST_F(ThinNoSpace, APlainSuspendWaitsForWaitingBios) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  SuspendOptions options;
  options.interrupted = [] { return true; };
  EXPECT_EQ(harness_.device("thin").suspend(options).error(), EINTR);
  EXPECT_FALSE(bio.done());
  reload(5);
  expect_ended(bio, BlkStatus::kOk);
  ASSERT_TRUE(harness_.device("thin").suspend({}).ok());
  ASSERT_TRUE(harness_.device("thin").resume({}).ok());
  expect_block(0, true);
}

TEST_F(ThinNoSpace, ANoflushSuspendTakesBiosBackAndAResumeLetsThemWaitAgain) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  SuspendOptions noflush;
  noflush.noflush = true;
  ASSERT_TRUE(harness_.device("thin").suspend(noflush).ok());
  harness_.env().advance(61 * kSecond);
  EXPECT_FALSE(bio.done()) << "it is not the pool's now";
  EXPECT_EQ(space_word(), "error_if_no_space");
  reload(4);
  ASSERT_TRUE(harness_.device("thin").resume({}).ok());
  harness_.env().run();
  EXPECT_FALSE(bio.done());
  EXPECT_EQ(mode(), "out_of_data_space");
  reload(5);
  expect_ended(bio, BlkStatus::kOk);
  expect_block(0, true);
}

// What `remove --force` does: the table gives way to one that fails all.
TEST_F(ThinNoSpace, WipingTheThinTableFailsWhatWaits) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  SuspendOptions noflush;
  noflush.noflush = true;
  ASSERT_TRUE(harness_.device("thin").wipe_table(noflush).ok());
  expect_ended(bio, BlkStatus::kIoError);
  remove("thin");
  open_thin("thin", 0, 64);
  expect_block(0, false);
  EXPECT_EQ(mode(), "out_of_data_space");
}

TEST_F(ThinNoSpace, TheDaemonsEndFailsWhatWaits) {
  make_full(4);
  fake::AsyncBio& bio = waiting_write();
  // Through a device above, which goes first.
  ASSERT_TRUE(harness_.set_table("top", fmt::format("0 {} linear thin 0", 8 * kBlock)).ok());
  fake::AsyncBio above(harness_.device("top"), kBlock, fake::pattern(8, 1));
  above.submit();
  harness_.env().run();
  EXPECT_FALSE(above.done());
  harness_.engine().shut_down(/*patience_ns=*/0);
  expect_ended(bio, BlkStatus::kIoError);
  expect_ended(above, BlkStatus::kIoError);
}

TEST_F(ThinNoSpace, TheDaemonsEndFailsWhatASuspendedPoolHolds) {
  make_full(4);
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  fake::AsyncBio read(harness_.device("thin"), Op::kRead, 0, 8);
  fake::AsyncBio write(harness_.device("thin"), 0, fake::pattern(8, 1));
  read.submit();
  write.submit();
  harness_.engine().shut_down();
  EXPECT_EQ(read.wait(), BlkStatus::kIoError);
  EXPECT_EQ(write.wait(), BlkStatus::kIoError);
}

TEST_F(ThinNoSpace, TheLowWaterMarkSpeaksOnceAndAgainAfterGrowth) {
  make_pool(8, "128 3");
  make_thin("thin", 0, 64);
  const auto events_after = [&](sector_t block) {
    EXPECT_EQ(harness_.write("thin", block * kBlock, fake::pattern(8, block)), BlkStatus::kOk);
    return events();
  };
  for (sector_t block = 0; block < 5; ++block) {
    EXPECT_EQ(events_after(block), 0U) << block;
  }
  EXPECT_EQ(events_after(5), 1U) << "three are free when it is asked for";
  EXPECT_EQ(events_after(6), 1U);
  reload(12, "128 3");
  EXPECT_EQ(events_after(7), 1U) << "five are free";
  EXPECT_EQ(events_after(8), 1U);
  EXPECT_EQ(events_after(9), 2U);
  EXPECT_EQ(events_after(10), 2U);
  // Space that a discard gives back says nothing, and the mark stays silent until a resume.
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, 8 * kBlock), BlkStatus::kOk);
  harness_.env().advance(2 * kSecond);
  for (sector_t block = 20; block < 28; ++block) {
    EXPECT_EQ(events_after(block), 2U);
  }
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  EXPECT_EQ(events_after(28), 3U);
}

}  // namespace

}  // namespace mapperfs::test
