// The way of a bio: cutting, mapping, joining, flushes, abnormal operations, end_io hooks,
// counters.
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <random>
#include <thread>

#include "tests/engine/world.h"

namespace mapperfs {
namespace {

using probe::Device;
using probe::Lines;
using probe::TestBio;

class BioPathTest : public probe::World {
 protected:
  Device& d_ = add_device("d", 1 << 20);
};

// Routing ----------------------------------------------------------------------------------------

TEST_F(BioPathTest, RemapsOntoTheDeviceBelow) {
  const auto md = bring_up("md", {"0 100 plain dev d at=1000"});
  TestBio bio(*md, Op::kWrite, 8, 16);
  EXPECT_EQ(bio.run(), BlkStatus::kOk);
  EXPECT_EQ(d_.data(0), bio.data());
  EXPECT_EQ(d_.seen(), (Lines{"write 1008+16"}));
}

TEST_F(BioPathTest, TheSubmitterGetsItsBioBackAsItWas) {
  const auto md = bring_up("md", {"0 100 plain dev d at=1000"});
  TestBio bio(*md, Op::kWrite, 8, 16);
  bio.run_ok();
  EXPECT_EQ(bio.bio().dev, md.get());
  EXPECT_EQ(bio.bio().sector, 8U);
  EXPECT_EQ(bio.bio().sectors, 16U);
}

TEST_F(BioPathTest, FlagsTravel) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  TestBio(*md, Op::kWrite, 0, 8, kBioFua | kBioMeta).run_ok();
  TestBio(*md, Op::kRead, 0, 8, kBioNowait | kBioReadahead).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"write 0+8 fua meta", "read 0+8 nowait ra"}));
}

TEST_F(BioPathTest, OutsideTheDeviceIsAnIoError) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  EXPECT_EQ(TestBio(*md, Op::kRead, 100, 1).run(), BlkStatus::kIoError);
  EXPECT_EQ(TestBio(*md, Op::kRead, 99, 2).run(), BlkStatus::kIoError);
  EXPECT_EQ(TestBio(*md, Op::kDiscard, ~sector_t{0}, 8).run(), BlkStatus::kIoError);
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 8, ~sector_t{0}).run(), BlkStatus::kIoError);
  EXPECT_EQ(TestBio(*md, Op::kRead, 8, 0).run(), BlkStatus::kIoError);
  EXPECT_EQ(TestBio(*md, Op::kRead, 99, 1).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"read 99+1"}));
}

TEST_F(BioPathTest, WithoutATableEverythingFails) {
  const auto md = make("md");
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kIoError);
  EXPECT_EQ(TestBio(*md, Op::kFlush, 0, 0).run(), BlkStatus::kIoError);
}

TEST_F(BioPathTest, AReadOnlyTableRefusesEveryWrite) {
  const auto md = bring_up("md", {"0 100 plain dev d discard=1 zeroes=1"}, DeviceMode::kReadOnly);
  EXPECT_EQ(TestBio(*md, Op::kWrite, 0, 1).run(), BlkStatus::kReadOnly);
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 0, 1).run(), BlkStatus::kReadOnly);
  EXPECT_EQ(TestBio(*md, Op::kWriteZeroes, 0, 1).run(), BlkStatus::kReadOnly);
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kOk);
}

TEST_F(BioPathTest, AnswersOfATarget) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d hooks=h"});
  hooks.map = [](probe::Target&, Bio&) { return MapIo::kKill; };
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kIoError);
  hooks.map = [](probe::Target&, Bio&) { return MapIo::kRequeue; };  // no noflush suspend
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kIoError);
  hooks.map = [](probe::Target&, Bio& bio) {
    bio.end_io(BlkStatus::kNoSpace);
    return MapIo::kSubmitted;
  };
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kNoSpace);
  EXPECT_EQ(d_.seen(), Lines{});
}

TEST_F(BioPathTest, ATargetMayKeepABio) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d hooks=h"});
  Bio* kept = nullptr;
  hooks.map = [&](probe::Target&, Bio& bio) {
    kept = &bio;
    return MapIo::kSubmitted;
  };
  TestBio bio(*md, Op::kRead, 0, 1);
  bio.submit();
  EXPECT_FALSE(bio.done());
  EXPECT_EQ(md->io_sums().in_flight, 1U);
  kept->end_io(BlkStatus::kMedium);
  EXPECT_EQ(bio.status(), BlkStatus::kMedium);
  EXPECT_EQ(md->io_sums().in_flight, 0U);
}

// Cutting ----------------------------------------------------------------------------------------

TEST_F(BioPathTest, CutsAtTargetBorders) {
  add_device("e", 1000);
  const auto md =
      bring_up("md", {"0 10 plain dev d at=100", "10 10 plain dev e", "20 10 plain dev d"});
  TestBio bio(*md, Op::kWrite, 5, 20);
  EXPECT_EQ(bio.run(), BlkStatus::kOk);
  EXPECT_EQ(d_.data(0), bio.data());
  EXPECT_EQ(d_.data(1), bio.data() + 15 * kSectorBytes);
  EXPECT_EQ(d_.seen(), (Lines{"write 105+5", "write 0+5"}));
  EXPECT_EQ(devices_["e"]->data(0), bio.data() + 5 * kSectorBytes);
  EXPECT_EQ(devices_["e"]->seen(), (Lines{"write 0+10"}));
}

TEST_F(BioPathTest, WhatTouchesABorderIsNotCut) {
  const auto md = bring_up("md", {"0 10 plain dev d", "10 10 plain dev d at=100"});
  TestBio(*md, Op::kRead, 2, 8).run_ok();
  TestBio(*md, Op::kRead, 10, 10).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"read 2+8", "read 100+10"}));
}

TEST_F(BioPathTest, CutsAtMaxIoLenFromTheTargetsStart) {
  const auto md = bring_up("md", {"0 7 plain dev d", "7 93 plain dev d at=7 io=10"});
  TestBio(*md, Op::kRead, 7, 10).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"read 7+10"}));
  TestBio(*md, Op::kRead, 12, 30).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"read 12+5", "read 17+10", "read 27+10", "read 37+5"}));
  TestBio(*md, Op::kRead, 3, 6).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"read 3+4", "read 7+2"}));
}

TEST_F(BioPathTest, MaxIoLenNeedNotBeAPowerOfTwoNorDivideTheTarget) {
  const auto md = bring_up("md", {"0 100 plain dev d io=33"});
  TestBio(*md, Op::kRead, 0, 100).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"read 0+33", "read 33+33", "read 66+33", "read 99+1"}));
}

TEST_F(BioPathTest, PiecesEndInAnyOrderAndTheWholeEndsOnce) {
  const auto md = bring_up("md", {"0 100 plain dev d io=10"});
  d_.keep(true);
  TestBio bio(*md, Op::kRead, 0, 40);
  bio.submit();
  ASSERT_EQ(d_.kept(), 4U);
  for (const unsigned n : {2U, 0U, 1U}) {
    d_.end(n);
    EXPECT_FALSE(bio.done());
  }
  d_.end(0);
  EXPECT_EQ(bio.ended(), 1);
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
}

TEST_F(BioPathTest, TheFirstErrorOfAPieceFailsTheWhole) {
  const auto md = bring_up("md", {"0 100 plain dev d io=10"});
  d_.keep(true);
  TestBio bio(*md, Op::kRead, 0, 40);
  bio.submit();
  d_.end(3);
  d_.end(1, BlkStatus::kMedium);
  d_.end(1, BlkStatus::kNoSpace);
  EXPECT_FALSE(bio.done());
  d_.end(0);
  EXPECT_EQ(bio.status(), BlkStatus::kMedium);
}

TEST_F(BioPathTest, CutsAgainAtEveryLevel) {
  bring_up("low", {"0 100 plain dev d io=8"});
  bring_up("mid", {"0 50 plain dev low at=3 io=20"});
  const auto top = bring_up("top", {"0 25 plain dev mid", "25 25 plain dev mid at=25"});
  TestBio bio(*top, Op::kWrite, 15, 20);
  EXPECT_EQ(bio.run(), BlkStatus::kOk);
  EXPECT_EQ(d_.data(4), bio.data() + 14 * kSectorBytes);
  EXPECT_EQ(d_.seen(),
            (Lines{"write 18+5", "write 23+1", "write 24+4", "write 28+4", "write 32+6"}));
}

// Flushes ----------------------------------------------------------------------------------------

TEST_F(BioPathTest, AFlushGoesToEveryTargetAsOftenAsItWants) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 10 plain dev d flush=1 hooks=h", "10 10 plain dev d",
                                  "20 10 plain dev d flush=3 hooks=h"});
  Lines copies;
  hooks.map = [&](probe::Target& target, Bio& bio) {
    copies.push_back(
        fmt::format("{} at {} copy {}", probe::describe(bio), target.begin(), bio.bio_nr()));
    return target.remap(bio);
  };
  EXPECT_EQ(TestBio(*md, Op::kFlush, 0, 0).run(), BlkStatus::kOk);
  EXPECT_EQ(copies, (Lines{"flush at 0 copy 0", "flush at 20 copy 0", "flush at 20 copy 1",
                           "flush at 20 copy 2"}));
  EXPECT_EQ(d_.seen().size(), 4U);
}

TEST_F(BioPathTest, AFlushThatNobodyWantsSucceeds) {
  const auto md = bring_up("md", {"0 10 plain dev d", "10 10 plain"});
  EXPECT_EQ(TestBio(*md, Op::kFlush, 0, 0).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), Lines{});
}

TEST_F(BioPathTest, BypassingTargetsCostOneFlushPerDevice) {
  add_device("e", 1000);
  const auto md =
      bring_up("md", {"0 10 plain dev d flush=1 bypass", "10 10 plain dev e flush=1 bypass",
                      "20 10 plain dev d flush=1 bypass"});
  EXPECT_EQ(TestBio(*md, Op::kFlush, 0, 0).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"flush"}));
  EXPECT_EQ(devices_["e"]->seen(), (Lines{"flush"}));
}

TEST_F(BioPathTest, OneTargetThatDoesNotBypassMakesAllSeeTheFlush) {
  const auto md = bring_up("md", {"0 10 plain dev d flush=1 bypass", "10 10 plain dev d flush=1",
                                  "20 10 plain dev d flush=1 bypass"});
  EXPECT_EQ(TestBio(*md, Op::kFlush, 0, 0).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"flush", "flush", "flush"}));
}

TEST_F(BioPathTest, AFlushOfOneBypassingDeviceStaysOneBio) {
  bring_up("low", {"0 100 plain dev d flush=1 bypass"});
  const auto top =
      bring_up("top", {"0 10 plain dev low flush=1 bypass", "10 10 plain dev low flush=1 bypass"});
  d_.keep(true);
  TestBio bio(*top, Op::kFlush, 0, 0);
  bio.submit();
  ASSERT_EQ(d_.kept(), 1U);
  d_.end(0, BlkStatus::kNoSpace);
  EXPECT_EQ(bio.status(), BlkStatus::kNoSpace);
}

TEST_F(BioPathTest, OneFailedFlushFailsAll) {
  const auto md = bring_up("md", {"0 10 plain dev d flush=3"});
  d_.keep(true);
  TestBio bio(*md, Op::kFlush, 0, 0);
  bio.submit();
  ASSERT_EQ(d_.kept(), 3U);
  d_.end(1, BlkStatus::kMedium);
  d_.end_all();
  EXPECT_EQ(bio.status(), BlkStatus::kMedium);
}

TEST_F(BioPathTest, APreflushComesBeforeTheData) {
  add_device("e", 1000);
  const auto md = bring_up("md", {"0 10 plain dev d flush=1", "10 10 plain dev e flush=1"});
  d_.keep(true);
  devices_["e"]->keep(true);
  TestBio bio(*md, Op::kWrite, 8, 4, kBioPreflush | kBioFua);
  bio.submit();
  EXPECT_EQ(d_.seen(), (Lines{"flush"}));
  EXPECT_EQ(devices_["e"]->seen(), (Lines{"flush"}));
  d_.end(0);
  EXPECT_EQ(d_.seen(), Lines{});  // not before every flush is done
  devices_["e"]->end(0);
  EXPECT_EQ(d_.seen(), (Lines{"write 8+2 fua"}));
  EXPECT_EQ(devices_["e"]->seen(), (Lines{"write 0+2 fua"}));
  d_.end_all();
  devices_["e"]->end_all();
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
  EXPECT_EQ(bio.ended(), 1);
}

TEST_F(BioPathTest, NoDataIsWrittenAfterAFailedPreflush) {
  const auto md = bring_up("md", {"0 10 plain dev d flush=2"});
  d_.answer(
      [](const Bio& bio) { return bio.op == Op::kFlush ? BlkStatus::kNoSpace : BlkStatus::kOk; });
  EXPECT_EQ(TestBio(*md, Op::kWrite, 0, 4, kBioPreflush).run(), BlkStatus::kNoSpace);
  EXPECT_EQ(d_.seen(), (Lines{"flush", "flush"}));
}

TEST_F(BioPathTest, APreflushWhereNobodyFlushesIsAPlainWrite) {
  const auto md = bring_up("md", {"0 10 plain dev d", "10 10 plain dev d"});
  EXPECT_EQ(TestBio(*md, Op::kWrite, 0, 4, kBioPreflush).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"write 0+4"}));
}

TEST_F(BioPathTest, ASingleBypassingTargetPassesAPreflushWriteInOnePiece) {
  const auto md = bring_up("md", {"0 100 plain dev d flush=1 bypass"});
  EXPECT_EQ(TestBio(*md, Op::kWrite, 0, 4, kBioPreflush | kBioFua).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"write 0+4 fua preflush"}));
}

TEST_F(BioPathTest, APreflushWriteThatIsCutFlushesOnceAndFirst) {
  const auto md = bring_up("md", {"0 100 plain dev d flush=1 bypass io=8"});
  EXPECT_EQ(TestBio(*md, Op::kWrite, 0, 16, kBioPreflush | kBioFua).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"flush", "write 0+8 fua", "write 8+8 fua"}));
}

TEST_F(BioPathTest, AFlushOfAReadOnlyDeviceIsFine) {
  const auto md = bring_up("md", {"0 100 plain dev d flush=1"}, DeviceMode::kReadOnly);
  EXPECT_EQ(TestBio(*md, Op::kFlush, 0, 0).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"flush"}));
}

// Discard, secure erase, write zeroes ------------------------------------------------------------

class AbnormalTest : public BioPathTest {
 protected:
  AbnormalTest() {
    d_.mutable_limits().max_discard_sectors = 40;
    d_.mutable_limits().max_write_zeroes_sectors = 30;
    d_.mutable_limits().max_secure_erase_sectors = 20;
  }
};

TEST_F(AbnormalTest, IsCutToTheLargestRequestOfItsKind) {
  const auto md = bring_up("md", {"0 200 plain dev d discard=1 zeroes=1 erase=1"});
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 10, 90).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"discard 10+40", "discard 50+40", "discard 90+10"}));
  EXPECT_EQ(TestBio(*md, Op::kWriteZeroes, 10, 40).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"zeroes 10+30", "zeroes 40+10"}));
  EXPECT_EQ(TestBio(*md, Op::kSecureErase, 10, 40).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"erase 10+20", "erase 30+20"}));
}

TEST_F(AbnormalTest, MaxIoLenDoesNotCutIt) {
  const auto md = bring_up("md", {"0 200 plain dev d discard=1 io=8"});
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 3, 20).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"discard 3+20"}));
}

TEST_F(AbnormalTest, IsCutAtTargetBorders) {
  const auto md =
      bring_up("md", {"0 10 plain dev d discard=1", "10 100 plain dev d at=500 discard=1"});
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 5, 50).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"discard 5+5", "discard 500+40", "discard 540+5"}));
}

TEST_F(AbnormalTest, DiscardGranularityCutsOnMultiplesOfTheLargest) {
  const auto md = bring_up(
      "md", {"0 10 plain dev d discard=1", "10 190 plain dev d at=10 discard=1 cuts-discards"});
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 30, 60).run(), BlkStatus::kOk);
  // Multiples of 40 from the target's start at 10: 50, 90.
  EXPECT_EQ(d_.seen(), (Lines{"discard 30+20", "discard 50+40"}));
}

TEST_F(AbnormalTest, DiscardGranularityIsForDiscardsAlone) {
  const auto md = bring_up("md", {"0 200 plain dev d discard=1 zeroes=1 cuts-discards"});
  EXPECT_EQ(TestBio(*md, Op::kWriteZeroes, 10, 25).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"zeroes 10+25"}));
}

TEST_F(AbnormalTest, EveryCopyIsSent) {
  add_device("e", 1000).mutable_limits().max_discard_sectors = 100;
  const auto md = bring_up("md", {"0 200 plain dev d dev e discard=2"});
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 0, 50).run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"discard 0+40", "discard 40+10"}));
  EXPECT_EQ(devices_["e"]->seen(), (Lines{"discard 0+40", "discard 40+10"}));
}

TEST_F(AbnormalTest, OneFailedCopyFailsTheWhole) {
  const auto md = bring_up("md", {"0 200 plain dev d dev d discard=2"});
  d_.keep(true);
  TestBio bio(*md, Op::kDiscard, 0, 8);
  bio.submit();
  ASSERT_EQ(d_.kept(), 2U);
  d_.end(1, BlkStatus::kIoError);
  d_.end(0);
  EXPECT_EQ(bio.status(), BlkStatus::kIoError);
}

TEST_F(AbnormalTest, WhatATargetDoesNotTakeIsNotSupported) {
  const auto md = bring_up("md", {"0 10 plain dev d discard=1", "10 10 plain dev d"});
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 0, 8).run(), BlkStatus::kNotSupported);
  EXPECT_EQ(TestBio(*md, Op::kWriteZeroes, 0, 8).run(), BlkStatus::kNotSupported);
  EXPECT_EQ(TestBio(*md, Op::kSecureErase, 0, 8).run(), BlkStatus::kNotSupported);
  EXPECT_EQ(d_.seen(), Lines{});
}

TEST_F(AbnormalTest, WhatTheDeviceNoLongerDoesIsTurnedOff) {
  const auto md = bring_up("md", {"0 100 plain dev d discard=1 zeroes=1 erase=1"});
  d_.fail(BlkStatus::kTargetError);
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 0, 8).run(), BlkStatus::kNotSupported);
  d_.fail(BlkStatus::kOk);
  d_.seen();
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 0, 8).run(), BlkStatus::kNotSupported);
  EXPECT_EQ(d_.seen(), Lines{});  // not even tried
  EXPECT_EQ(md->limits().max_discard_sectors, 0U);
  EXPECT_EQ(TestBio(*md, Op::kWriteZeroes, 0, 8).run(), BlkStatus::kOk);
  EXPECT_EQ(TestBio(*md, Op::kSecureErase, 0, 8).run(), BlkStatus::kOk);
}

TEST_F(AbnormalTest, ARefusedSecureEraseTurnsNothingElseOff) {
  const auto md = bring_up("md", {"0 100 plain dev d discard=1 zeroes=1 erase=1"});
  d_.fail(BlkStatus::kTargetError);
  EXPECT_EQ(TestBio(*md, Op::kSecureErase, 0, 8).run(), BlkStatus::kNotSupported);
  d_.fail(BlkStatus::kOk);
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 0, 8).run(), BlkStatus::kOk);
  EXPECT_EQ(TestBio(*md, Op::kWriteZeroes, 0, 8).run(), BlkStatus::kOk);
}

TEST_F(AbnormalTest, ANewTableTriesAgain) {
  const auto md = bring_up("md", {"0 100 plain dev d discard=1"});
  d_.fail(BlkStatus::kTargetError);
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 0, 8).run(), BlkStatus::kNotSupported);
  d_.fail(BlkStatus::kOk);
  expect_ok(load(*md, {"0 100 plain dev d discard=1"}));
  expect_ok(md->resume({}));
  EXPECT_EQ(TestBio(*md, Op::kDiscard, 0, 8).run(), BlkStatus::kOk);
}

TEST_F(AbnormalTest, ATargetErrorOfDataStaysWhatItIs) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  d_.fail(BlkStatus::kTargetError);
  EXPECT_EQ(TestBio(*md, Op::kWrite, 0, 8).run(), BlkStatus::kTargetError);
}

// end_io -----------------------------------------------------------------------------------------

TEST_F(BioPathTest, EndIoSeesTheBioAsMapWasGivenIt) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 10 plain", "10 90 plain dev d at=500 io=16 ends hooks=h"});
  Lines ended;
  hooks.end_io = [&](probe::Target&, Bio& bio, BlkStatus& status) {
    ended.push_back(
        fmt::format("{} {} {}", bio.dev->table_name(), probe::describe(bio), errno_of(status)));
    return EndIo::kDone;
  };
  d_.answer([](const Bio& bio) { return bio.sector == 516 ? BlkStatus::kMedium : BlkStatus::kOk; });
  EXPECT_EQ(TestBio(*md, Op::kWrite, 20, 20).run(), BlkStatus::kMedium);
  EXPECT_EQ(ended, (Lines{"md write 20+6 0", fmt::format("md write 26+14 {}", ENODATA)}));
}

TEST_F(BioPathTest, EndIoMayChangeTheOutcome) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d ends hooks=h"});
  hooks.end_io = [&](probe::Target&, Bio&, BlkStatus& status) {
    status = status == BlkStatus::kOk ? BlkStatus::kProtection : BlkStatus::kOk;
    return EndIo::kDone;
  };
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kProtection);
  d_.fail(BlkStatus::kIoError);
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kOk);
}

TEST_F(BioPathTest, EndIoMayKeepTheBioAndEndItAgain) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d ends hooks=h"});
  int calls = 0;
  Bio* kept = nullptr;
  hooks.end_io = [&](probe::Target&, Bio& bio, BlkStatus&) {
    kept = &bio;
    return ++calls == 1 ? EndIo::kIncomplete : EndIo::kDone;
  };
  TestBio bio(*md, Op::kRead, 0, 1);
  bio.submit();
  EXPECT_FALSE(bio.done());
  EXPECT_EQ(md->io_sums().in_flight, 1U);
  kept->end_io(BlkStatus::kMedium);
  EXPECT_EQ(bio.status(), BlkStatus::kMedium);
  EXPECT_EQ(calls, 2);
}

TEST_F(BioPathTest, EndIoMaySendTheBioOnceMore) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d at=50 ends hooks=h"});
  hooks.end_io = [&](probe::Target& target, Bio& bio, BlkStatus& status) {
    if (status == BlkStatus::kOk) {
      return EndIo::kDone;
    }
    d_.fail(BlkStatus::kOk);
    target.remap(bio);
    submit_bio(bio);
    return EndIo::kIncomplete;
  };
  d_.fail(BlkStatus::kIoError);
  TestBio bio(*md, Op::kRead, 4, 1);
  EXPECT_EQ(bio.run(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"read 54+1", "read 54+1"}));
}

TEST_F(BioPathTest, EndIoIsForBiosThatWentOn) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d ends hooks=h"});
  int calls = 0;
  hooks.end_io = [&](probe::Target&, Bio&, BlkStatus&) {
    ++calls;
    return EndIo::kDone;
  };
  hooks.map = [](probe::Target&, Bio&) { return MapIo::kKill; };
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kIoError);
  hooks.map = [](probe::Target&, Bio&) { return MapIo::kRequeue; };
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kIoError);
  EXPECT_EQ(calls, 0);  // its per-I/O bytes were never made
}

TEST_F(BioPathTest, PerIoBytesAreEachLevelsOwn) {
  probe::Hooks& low = add_hooks("low");
  probe::Hooks& top = add_hooks("top");
  for (probe::Hooks* hooks : {&low, &top}) {
    hooks->map = [hooks](probe::Target& target, Bio& bio) {
      bio.make_per_io<const void*>(hooks);
      return target.remap(bio);
    };
    hooks->end_io = [hooks](probe::Target&, Bio& bio, BlkStatus&) {
      EXPECT_EQ(bio.per_io<const void*>(), hooks);
      return EndIo::kDone;
    };
  }
  bring_up("l", {"0 100 plain dev d ends hooks=low"});
  const auto md = bring_up("t", {"0 100 plain dev l ends hooks=top io=8"});
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 32).run(), BlkStatus::kOk);
}

// A noflush suspend is given up while one piece of a bio waits to go in again and the other is
// still on its way: the whole goes in again, it does not fail.
TEST_F(BioPathTest, ARequeuedPieceOutlivesTheSuspendThatWasGivenUp) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d io=8 ends hooks=h"});
  hooks.end_io = [](probe::Target& target, Bio&, BlkStatus&) {
    return target.ti().host->noflush_suspending() ? EndIo::kRequeue : EndIo::kDone;
  };
  d_.keep(true);
  TestBio bio(*md, Op::kWrite, 0, 16);
  bio.submit();
  SuspendOptions options;
  options.noflush = true;
  options.interrupted = [&] {
    d_.end(0);
    return true;
  };
  expect_error(md->suspend(options), EINTR, "interrupted");
  EXPECT_FALSE(bio.done());
  d_.keep(false);
  d_.seen();
  d_.end(0);
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
  EXPECT_EQ(bio.ended(), 1);
  EXPECT_EQ(d_.seen(), (Lines{"write 0+8", "write 8+8"}));
}

// Straight targets -------------------------------------------------------------------------------

class StraightTest : public BioPathTest {
 protected:
  StraightTest() {
    hooks_.map = [this](probe::Target& target, Bio& bio) {
      mapped_.add(probe::describe(bio));
      return target.remap(bio);
    };
  }
  probe::Hooks& hooks_ = add_hooks("h");
  probe::Diary mapped_;
};

TEST_F(StraightTest, DataGoesOnWithoutAskingTheTarget) {
  const auto md = bring_up("md", {"0 100 plain dev d at=1000 straight hooks=h"});
  TestBio bio(*md, Op::kWrite, 8, 16, kBioFua);
  bio.run_ok();
  EXPECT_EQ(bio.bio().sector, 8U);
  EXPECT_EQ(bio.bio().dev, md.get());
  TestBio(*md, Op::kRead, 99, 1).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"write 1008+16 fua", "read 1099+1"}));
  EXPECT_EQ(mapped_.take(), Lines{});
  EXPECT_EQ(md->io_sums().ios[static_cast<std::size_t>(StatGroup::kWrite)], 1U);
}

TEST_F(StraightTest, OtherOperationsAreTheTargets) {
  const auto md = bring_up(
      "md", {"0 100 plain dev d at=1000 straight discard=1 takes-discards flush=1 hooks=h"});
  TestBio(*md, Op::kDiscard, 8, 16).run_ok();
  TestBio(*md, Op::kFlush, 0, 0).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"discard 1008+16", "flush"}));
  EXPECT_EQ(mapped_.take(), (Lines{"discard 8+16", "flush"}));
}

TEST_F(StraightTest, BesideOthersInOneTable) {
  const auto md = bring_up("md", {"0 8 plain dev d at=500 straight", "8 8 plain dev d at=100 ends",
                                  "16 8 plain dev d at=300 straight"});
  TestBio(*md, Op::kRead, 0, 8).run_ok();
  TestBio(*md, Op::kRead, 8, 8).run_ok();
  TestBio(*md, Op::kRead, 16, 8).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"read 500+8", "read 100+8", "read 300+8"}));
  TestBio(*md, Op::kWrite, 4, 16).run_ok();
  EXPECT_EQ(d_.seen(), (Lines{"write 504+4", "write 100+8", "write 300+4"}));
}

// As after map(): a requeue from below, where nobody asked for one, is an error of this device.
TEST_F(StraightTest, ARequeueFromBelowIsForANoflushSuspendAlone) {
  const auto md = bring_up("md", {"0 100 plain dev d straight"});
  d_.fail(BlkStatus::kRequeue);
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 8).run(), BlkStatus::kIoError);
}

// The same bios through two tables, of which one does not say that it is straight.
TEST_F(StraightTest, MakesNoDifferenceBelow) {
  for (const char* flushes : {"flush=1 bypass", "flush=1"}) {
    const std::string words = fmt::format("{} discard=1 takes-discards zeroes=1", flushes);
    const auto asked = bring_up(
        "asked", {"0 24 plain dev d at=100 " + words, "24 40 plain dev d at=500 " + words});
    const auto straight = bring_up("straight", {"0 24 plain dev d at=100 straight " + words,
                                                "24 40 plain dev d at=500 straight " + words});
    std::mt19937_64 random(1);
    for (int i = 0; i < 2000; ++i) {
      static constexpr std::array<Op, 5> kOps = {Op::kRead, Op::kWrite, Op::kDiscard,
                                                 Op::kWriteZeroes, Op::kFlush};
      const Op op = kOps.at(random() % kOps.size());
      const sector_t sector = random() % 66;
      const sector_t sectors = op == Op::kFlush ? 0 : random() % 40;
      // kBioFua, kBioPreflush, none or both.
      const int flags = op == Op::kWrite ? static_cast<int>(random() % 4) : 0;
      d_.fail(random() % 4 == 0 ? BlkStatus::kMedium : BlkStatus::kOk);
      TestBio first(*asked, op, sector, sectors, flags);
      const BlkStatus status = first.run();
      const Lines expected = d_.seen();
      TestBio second(*straight, op, sector, sectors, flags);
      ASSERT_EQ(second.run(), status) << probe::describe(first.bio());
      ASSERT_EQ(d_.seen(), expected) << probe::describe(first.bio());
    }
    EXPECT_EQ(straight->io_sums().ios, asked->io_sums().ios);
    EXPECT_EQ(straight->io_sums().sectors, asked->io_sums().sectors);
    expect_ok(engine_->remove("asked", false));
    expect_ok(engine_->remove("straight", false));
  }
}

// Counters ---------------------------------------------------------------------------------------

TEST_F(BioPathTest, CountsIosAndSectorsOncePerDevice) {
  const auto md = bring_up("md", {"0 100 plain dev d io=8 flush=1"});
  TestBio(*md, Op::kRead, 0, 32).run_ok();
  TestBio(*md, Op::kWrite, 0, 4).run_ok();
  TestBio(*md, Op::kWrite, 0, 4, kBioPreflush).run_ok();
  TestBio(*md, Op::kFlush, 0, 0).run_ok();
  const IoSums sums = md->io_sums();
  EXPECT_EQ(sums.ios[static_cast<std::size_t>(StatGroup::kRead)], 1U);
  EXPECT_EQ(sums.sectors[static_cast<std::size_t>(StatGroup::kRead)], 32U);
  EXPECT_EQ(sums.ios[static_cast<std::size_t>(StatGroup::kWrite)], 2U);
  EXPECT_EQ(sums.sectors[static_cast<std::size_t>(StatGroup::kWrite)], 8U);
  EXPECT_EQ(sums.ios[static_cast<std::size_t>(StatGroup::kFlush)], 1U);
  EXPECT_EQ(sums.in_flight, 0U);
}

TEST_F(BioPathTest, NothingIsAllocatedOnceThePoolsAreWarm) {
  bring_up("low", {"0 1000 plain dev d io=8"});
  const auto md = bring_up("md", {"0 1000 plain dev low"});
  for (int i = 0; i < 3; ++i) {
    TestBio(*md, Op::kRead, 0, 800).run_ok();
  }
  const std::size_t warm = Queue::pooled_objects();
  for (int i = 0; i < 100; ++i) {
    TestBio(*md, Op::kRead, 0, 800).run_ok();
  }
  EXPECT_EQ(Queue::pooled_objects(), warm);
}

TEST_F(BioPathTest, SubmitAndWait) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  TestBio bio(*md, Op::kRead, 0, 8);
  EXPECT_EQ(submit_bio_and_wait(bio.bio()), BlkStatus::kOk);
  EXPECT_EQ(bio.bio().completion, &bio);
  EXPECT_EQ(bio.ended(), 0);
  d_.keep(true);
  std::thread other([&] {
    while (d_.kept() == 0) {
      std::this_thread::yield();
    }
    d_.end(0, BlkStatus::kMedium);
  });
  EXPECT_EQ(submit_bio_and_wait(bio.bio()), BlkStatus::kMedium);
  other.join();
}

}  // namespace
}  // namespace mapperfs
