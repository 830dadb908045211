// A mapped device: two slots, suspend and resume, swaps, removal, queries.
#include <gtest/gtest.h>

#include <cerrno>
#include <future>
#include <latch>
#include <thread>

#include "tests/engine/world.h"

namespace mapperfs {
namespace {

using probe::Device;
using probe::Lines;
using probe::TestBio;
using Slot = MappedDevice::Slot;

SuspendOptions noflush() {
  SuspendOptions options;
  options.noflush = true;
  return options;
}

class MappedDeviceTest : public probe::World {
 protected:
  Device& d_ = add_device("d", 1 << 20);
};

// Slots ------------------------------------------------------------------------------------------

TEST_F(MappedDeviceTest, IsMadeActiveAndWithoutTables) {
  const auto md = make("md");
  const MappedDevice::Info info = md->info();
  EXPECT_FALSE(info.live);
  EXPECT_FALSE(info.inactive);
  EXPECT_FALSE(info.suspended);
  EXPECT_EQ(info.size, 0U);
  EXPECT_EQ(info.event_nr, 0U);
  expect_ok(md->resume({}));  // nothing to do
}

TEST_F(MappedDeviceTest, LoadFillsTheInactiveSlotAlone) {
  const auto md = bring_up("md", {"0 8 plain dev d"});
  expect_ok(load(*md, {"0 16 plain dev d"}));
  EXPECT_TRUE(md->info().live);
  EXPECT_TRUE(md->info().inactive);
  EXPECT_EQ(md->size_sectors(), 8U);
  EXPECT_EQ(TestBio(*md, Op::kRead, 8, 1).run(), BlkStatus::kIoError);
  expect_ok(md->resume({}));
  EXPECT_FALSE(md->info().inactive);
  EXPECT_EQ(TestBio(*md, Op::kRead, 8, 1).run(), BlkStatus::kOk);
}

TEST_F(MappedDeviceTest, ClearDropsTheInactiveTableEvenIfThereIsNone) {
  const auto md = bring_up("md", {"0 8 plain dev d"});
  expect_ok(load(*md, {"0 16 plain dev d"}));
  expect_ok(md->clear());
  EXPECT_FALSE(md->info().inactive);
  EXPECT_TRUE(md->info().live);
  expect_ok(md->clear());
  expect_ok(md->resume({}));
  EXPECT_EQ(md->size_sectors(), 8U);
}

TEST_F(MappedDeviceTest, ResumeSaysThatTheSizeChanged) {
  const auto md = bring_up("md", {"0 8 plain"});
  expect_ok(load(*md, {"0 8 plain"}));
  expect_ok(md->resume({}));
  EXPECT_EQ(diary_.take(), Lines{});
  expect_ok(load(*md, {"0 24 plain"}));
  expect_ok(md->resume({}));
  EXPECT_EQ(diary_.take(), (Lines{"resized 24"}));
}

TEST_F(MappedDeviceTest, ReadOnlyFollowsTheLiveTable) {
  const auto md = bring_up("md", {"0 8 plain dev d"}, DeviceMode::kReadOnly);
  EXPECT_TRUE(md->info().read_only);
  expect_ok(load(*md, {"0 8 plain dev d"}));
  EXPECT_TRUE(md->info().read_only);
  expect_ok(md->resume({}));
  EXPECT_FALSE(md->info().read_only);
}

TEST_F(MappedDeviceTest, TheOldTableGoesAfterTheResume) {
  probe::Hooks& one = add_hooks("one");
  probe::Hooks& two = add_hooks("two");
  const auto md = bring_up("md", {"0 8 plain hooks=one"});
  two.preresume = [&] {
    one.diary.add("two is resuming");
    return Status();
  };
  expect_ok(load(*md, {"0 8 plain hooks=two"}));
  one.diary.take();
  expect_ok(md->resume({}));
  EXPECT_EQ(one.diary.take(), (Lines{"presuspend 0", "postsuspend 0", "two is resuming", "dtr 0"}));
  EXPECT_EQ(two.diary.take(), (Lines{"ctr 0", "preresume 0", "resume 0"}));
}

// Suspend and resume -----------------------------------------------------------------------------

TEST_F(MappedDeviceTest, SuspendAndResumeCallTheTargetsInOrder) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 8 plain hooks=h", "8 8 plain hooks=h"});
  hooks.diary.take();
  expect_ok(md->suspend({}));
  EXPECT_EQ(hooks.diary.take(),
            (Lines{"presuspend 0", "presuspend 8", "postsuspend 0", "postsuspend 8"}));
  EXPECT_TRUE(md->info().suspended);
  expect_ok(md->suspend({}));  // already: nothing happens
  EXPECT_EQ(hooks.diary.take(), Lines{});
  expect_ok(md->resume({}));
  EXPECT_EQ(hooks.diary.take(), (Lines{"preresume 0", "preresume 8", "resume 0", "resume 8"}));
  EXPECT_FALSE(md->info().suspended);
  expect_ok(md->resume({}));
  EXPECT_EQ(hooks.diary.take(), Lines{});
}

TEST_F(MappedDeviceTest, SuspendAndResumeAreNoEvents) {
  const auto md = bring_up("md", {"0 8 plain"});
  expect_ok(md->suspend({}));
  expect_ok(md->resume({}));
  EXPECT_EQ(md->event_nr(), 0U);
  EXPECT_EQ(diary_.take(), Lines{});
}

TEST_F(MappedDeviceTest, BiosOfASuspendedDeviceWaitAndGoInOrder) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  expect_ok(md->suspend({}));
  TestBio a(*md, Op::kWrite, 0, 1);
  TestBio b(*md, Op::kRead, 2, 1);
  TestBio c(*md, Op::kFlush, 0, 0);
  a.submit();
  b.submit();
  c.submit();
  EXPECT_FALSE(a.done() || b.done() || c.done());
  EXPECT_EQ(d_.seen(), Lines{});
  EXPECT_EQ(md->io_sums().in_flight, 0U);
  expect_ok(md->resume({}));
  EXPECT_EQ(d_.seen(), (Lines{"write 0+1", "read 2+1"}));
  EXPECT_TRUE(a.done() && b.done() && c.done());
}

TEST_F(MappedDeviceTest, WhoWillNotWaitIsToldSo) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  expect_ok(md->suspend({}));
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1, kBioNowait).run(), BlkStatus::kAgain);
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1, kBioReadahead).run(), BlkStatus::kIoError);
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1, kBioReadahead | kBioNowait).run(), BlkStatus::kAgain);
  expect_ok(md->resume({}));
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1, kBioNowait).run(), BlkStatus::kOk);
}

TEST_F(MappedDeviceTest, WaitingBiosGoThroughTheNewTable) {
  add_device("e", 1000);
  const auto md = bring_up("md", {"0 100 plain dev d"});
  expect_ok(md->suspend({}));
  TestBio bio(*md, Op::kWrite, 8, 1);
  TestBio outside(*md, Op::kWrite, 60, 1);
  bio.submit();
  outside.submit();
  expect_ok(load(*md, {"0 50 plain dev e at=500"}));
  expect_ok(md->resume({}));
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
  EXPECT_EQ(devices_["e"]->seen(), (Lines{"write 508+1"}));
  EXPECT_EQ(outside.status(), BlkStatus::kIoError);  // past the end of the new table
}

TEST_F(MappedDeviceTest, SuspendWaitsForWhatIsInFlight) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d hooks=h"});
  d_.keep(true);
  TestBio bio(*md, Op::kWrite, 0, 1);
  bio.submit();
  std::thread ender([&] {
    while (md->io_sums().in_flight != 0 && hooks.diary.take() != Lines{"presuspend 0"}) {
      std::this_thread::yield();
    }
    d_.end(0);
  });
  hooks.diary.take();
  expect_ok(md->suspend({}));
  EXPECT_EQ(md->io_sums().in_flight, 0U);
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);  // its owner may hear of it a moment later
  ender.join();
}

TEST_F(MappedDeviceTest, AnInterruptedSuspendIsUndone) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d hooks=h"});
  hooks.diary.take();
  d_.keep(true);
  TestBio bio(*md, Op::kWrite, 0, 1);
  TestBio late(*md, Op::kWrite, 1, 1);
  bio.submit();
  SuspendOptions options = noflush();
  int asked = 0;
  options.interrupted = [&] {
    if (++asked == 2) {
      late.submit();  // held back, until the suspend is given up
    }
    return asked == 3;
  };
  expect_error(md->suspend(options), EINTR, "interrupted");
  EXPECT_EQ(hooks.diary.take(), (Lines{"presuspend 0", "presuspend_undo 0"}));
  EXPECT_FALSE(md->info().suspended);
  EXPECT_FALSE(md->noflush_suspending());
  EXPECT_EQ(d_.kept(), 2U);
  d_.end_all();
  EXPECT_TRUE(bio.done() && late.done());
  d_.keep(false);
  expect_ok(md->suspend({}));
}

// The callback may let bios end: it is asked under no lock of the device.
TEST_F(MappedDeviceTest, BiosMayEndWhileASuspendAsksWhetherToGoOn) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  d_.keep(true);
  TestBio bio(*md, Op::kWrite, 0, 1);
  bio.submit();
  SuspendOptions options;
  options.interrupted = [&] {
    d_.end_all();
    return false;
  };
  expect_ok(md->suspend(options));
  EXPECT_TRUE(bio.done());
}

TEST_F(MappedDeviceTest, AnInterruptedResumeKeepsTheOldTable) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  d_.keep(true);
  TestBio bio(*md, Op::kWrite, 0, 1);
  bio.submit();
  expect_ok(load(*md, {"0 50 plain dev d"}));
  SuspendOptions options;
  options.interrupted = [] { return true; };
  expect_error(md->resume(options), EINTR, "interrupted");
  EXPECT_EQ(md->size_sectors(), 100U);
  EXPECT_TRUE(md->info().inactive);
  d_.end_all();
}

TEST_F(MappedDeviceTest, ADeviceWithoutATableCanBeSuspendedButNotResumed) {
  const auto md = make("md");
  expect_ok(md->suspend({}));
  TestBio bio(*md, Op::kRead, 0, 1);
  bio.submit();
  EXPECT_FALSE(bio.done());
  expect_error(md->resume({}), EINVAL, "no table");
  EXPECT_TRUE(md->info().suspended);
  expect_ok(load(*md, {"0 8 plain dev d"}));
  expect_ok(md->resume({}));
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
}

TEST_F(MappedDeviceTest, AFailedPreresumeLeavesTheNewTableLiveAndSuspended) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 8 plain dev d"});
  expect_ok(load(*md, {"0 16 plain dev d", "16 16 plain dev d hooks=h"}));
  hooks.preresume = [] { return Status(EIO, "the superblock is bad"); };
  TestBio bio(*md, Op::kRead, 8, 1);
  expect_error(md->resume({}), EIO, "plain: preresume failed: the superblock is bad");
  bio.submit();
  EXPECT_TRUE(md->info().suspended);
  EXPECT_FALSE(md->info().inactive);
  EXPECT_EQ(md->size_sectors(), 32U);
  EXPECT_FALSE(bio.done());
  hooks.preresume = nullptr;
  expect_ok(md->resume({}));
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
}

TEST_F(MappedDeviceTest, BiosWaitAtTheSuspendedLowerDevice) {
  const auto low = bring_up("low", {"0 100 plain dev d"});
  const auto top = bring_up("top", {"0 100 plain dev low"});
  expect_ok(low->suspend({}));
  TestBio bio(*top, Op::kRead, 0, 1);
  bio.submit();
  EXPECT_EQ(top->io_sums().in_flight, 1U);
  EXPECT_EQ(low->io_sums().in_flight, 0U);
  EXPECT_FALSE(bio.done());
  expect_ok(low->resume({}));
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
}

// noflush ----------------------------------------------------------------------------------------

TEST_F(MappedDeviceTest, ARequeuedBioGoesInAgainAfterANoflushSuspend) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d hooks=h"});
  hooks.map = [](probe::Target& target, Bio& bio) {
    return target.ti().host->noflush_suspending() ? MapIo::kRequeue : target.remap(bio);
  };
  TestBio bio(*md, Op::kWrite, 4, 1);
  hooks.presuspend = [&] {
    EXPECT_TRUE(md->noflush_suspending());
    bio.submit();  // maps while bios still enter
  };
  expect_ok(md->suspend(noflush()));
  EXPECT_FALSE(bio.done());
  EXPECT_TRUE(md->noflush_suspending());
  expect_ok(md->resume({}));
  EXPECT_FALSE(md->noflush_suspending());
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"write 4+1"}));
}

TEST_F(MappedDeviceTest, EndIoMayRequeueWhatFailed) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d io=8 ends hooks=h"});
  hooks.end_io = [](probe::Target& target, Bio&, BlkStatus& status) {
    return status != BlkStatus::kOk && target.ti().host->noflush_suspending() ? EndIo::kRequeue
                                                                              : EndIo::kDone;
  };
  d_.keep(true);
  TestBio bio(*md, Op::kWrite, 4, 12);
  bio.submit();
  SuspendOptions options = noflush();
  options.interrupted = [&] {
    if (d_.kept() == 2) {
      d_.end(0);
      d_.end(0, BlkStatus::kIoError);  // one piece of two: the whole goes in again
    }
    return false;
  };
  expect_ok(md->suspend(options));
  EXPECT_FALSE(bio.done());
  d_.keep(false);
  d_.seen();
  expect_ok(md->resume({}));
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(), (Lines{"write 4+4", "write 8+8"}));
}

TEST_F(MappedDeviceTest, ARequeueInAPlainSuspendIsAnIoError) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 100 plain dev d hooks=h"});
  hooks.map = [](probe::Target&, Bio&) { return MapIo::kRequeue; };
  TestBio bio(*md, Op::kWrite, 4, 1);
  hooks.presuspend = [&] { bio.submit(); };
  expect_ok(md->suspend({}));
  EXPECT_EQ(bio.status(), BlkStatus::kIoError);
}

TEST_F(MappedDeviceTest, RequeuedAndHeldBiosGoThroughTheSwappedTable) {
  probe::Hooks& hooks = add_hooks("h");
  add_device("e", 1000);
  const auto md = bring_up("md", {"0 100 plain dev d hooks=h"});
  hooks.map = [](probe::Target&, Bio&) { return MapIo::kRequeue; };
  TestBio requeued(*md, Op::kWrite, 4, 1);
  TestBio held(*md, Op::kWrite, 5, 1);
  hooks.presuspend = [&] { requeued.submit(); };
  expect_ok(load(*md, {"0 100 plain dev e"}));
  expect_ok(md->suspend(noflush()));
  held.submit();
  expect_ok(md->resume({}));
  EXPECT_EQ(devices_["e"]->seen(), (Lines{"write 4+1", "write 5+1"}));
  EXPECT_TRUE(requeued.done() && held.done());
}

// Removal ----------------------------------------------------------------------------------------

TEST_F(MappedDeviceTest, RemovingASuspendedDeviceFailsWhatWaits) {
  probe::Hooks& hooks = add_hooks("h");
  auto md = bring_up("md", {"0 100 plain dev d hooks=h"});
  expect_ok(md->suspend({}));
  hooks.diary.take();
  TestBio a(*md, Op::kWrite, 0, 1);
  TestBio b(*md, Op::kFlush, 0, 0);
  a.submit();
  b.submit();
  expect_ok(engine_->remove("md", false));
  EXPECT_EQ(a.status(), BlkStatus::kIoError);
  EXPECT_EQ(b.status(), BlkStatus::kIoError);
  EXPECT_EQ(hooks.diary.take(), (Lines{"dtr 0"}));
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kIoError);
  EXPECT_EQ(open_count("d"), 0);
}

TEST_F(MappedDeviceTest, RemovingARunningDeviceSuspendsItsTargets) {
  probe::Hooks& hooks = add_hooks("h");
  bring_up("md", {"0 100 plain dev d hooks=h"});
  hooks.diary.take();
  expect_ok(engine_->remove("md", false));
  EXPECT_EQ(hooks.diary.take(), (Lines{"presuspend 0", "postsuspend 0", "dtr 0"}));
}

TEST_F(MappedDeviceTest, RemovalDestroysBothTables) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  expect_ok(load(*md, {"0 100 plain dev d"}));
  EXPECT_EQ(open_count("d"), 2);
  expect_ok(engine_->remove("md", false));
  EXPECT_EQ(open_count("d"), 0);
}

TEST_F(MappedDeviceTest, ARemovedDeviceAnswersEnxio) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  expect_ok(engine_->remove("md", false));
  EXPECT_TRUE(md->removed());
  expect_error(load(*md, {"0 8 plain"}), ENXIO, "being removed");
  expect_error(md->clear(), ENXIO, "being removed");
  expect_error(md->suspend({}), ENXIO, "being removed");
  expect_error(md->resume({}), ENXIO, "being removed");
  const std::string_view words[] = {"hello"};
  expect_error(md->message(0, words).status(), ENXIO, "being removed");
  const auto work = [] { return BlkStatus::kOk; };
  EXPECT_EQ(md->run_exclusive(0, 8, work), BlkStatus::kIoError);
}

// wipe_table -------------------------------------------------------------------------------------

TEST_F(MappedDeviceTest, WipeReplacesTheTableByErrorOfTheSameSize) {
  const auto md = bring_up("md", {"0 60 fixed dev d", "60 40 fixed dev d"});
  expect_ok(md->wipe_table(noflush()));
  const auto lines = md->table_lines(Slot::kLive, false);
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].type, "error");
  EXPECT_EQ(lines[0].len, 100U);
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kIoError);
  EXPECT_EQ(open_count("d"), 0);
}

TEST_F(MappedDeviceTest, WipeNeedsATable) {
  const auto md = make("md");
  expect_error(md->wipe_table({}), EINVAL, "no table to wipe");
}

// Messages and queries ---------------------------------------------------------------------------

class QueryTest : public MappedDeviceTest {
 protected:
  static Result<std::string> say(MappedDevice& md, sector_t sector,
                                 std::vector<std::string_view> words) {
    return md.message(sector, words);
  }
};

TEST_F(QueryTest, MessagesGoToTheTargetOfTheirSector) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("md", {"0 8 plain", "8 8 plain hooks=h"});
  hooks.message = [](std::span<const std::string_view> argv) {
    return Result<std::string>(fmt::format("{} {}", argv.size(), argv.back()));
  };
  Result<std::string> reply = say(*md, 8, {"do", "it"});
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(*reply, "2 it");
  expect_error(say(*md, 7, {"do", "it"}).status(), EINVAL,
               "plain: Target type does not support messages");
  expect_error(say(*md, 16, {"do"}).status(), EINVAL, "Target message sector outside device");
}

// A message that stays inside its target until it is let go, on a thread of its own.
class LongMessageTest : public QueryTest {
 protected:
  LongMessageTest() {
    hooks_.message = [this](std::span<const std::string_view>) {
      inside_.count_down();
      go_on_.wait();
      hooks_.diary.add("message done");
      return Result<std::string>("done");
    };
    thread_ = std::thread([this] { reply_ = say(*md_, 0, {"commit"}); });
    inside_.wait();
    hooks_.diary.take();
  }
  ~LongMessageTest() override { finish(); }
  void finish() {
    if (!thread_.joinable()) {
      return;
    }
    go_on_.count_down();
    thread_.join();
    EXPECT_TRUE(reply_.ok() && *reply_ == "done");
  }
  // Does `work` on another thread and expects it to come to an end while the message is inside.
  template <typename Work>
  void expect_beside(Work work) {
    std::future<void> done = std::async(std::launch::async, work);
    const bool ended = done.wait_for(std::chrono::seconds(20)) == std::future_status::ready;
    EXPECT_TRUE(ended) << "waits for the message";
    if (!ended) {
      finish();
    }
  }

  probe::Hooks& hooks_ = add_hooks("h");
  const std::shared_ptr<MappedDevice> md_ = bring_up("md", {"0 100 plain dev d hooks=h"});
  std::latch inside_{1};
  std::latch go_on_{1};
  Result<std::string> reply_{Status(EINTR, "not yet")};
  std::thread thread_;
};

TEST_F(LongMessageTest, LoadAndClearDoNotWaitForIt) {
  expect_beside([this] {
    expect_ok(load(*md_, {"0 16 plain dev d"}));
    expect_ok(load(*md_, {"0 24 plain dev d"}));
    EXPECT_TRUE(md_->info().inactive);
    expect_ok(md_->clear());
    EXPECT_EQ(md_->status_lines(Slot::kLive, true).size(), 1U);
    expect_ok(md_->suspend({}));
    expect_ok(md_->resume({}));
  });
}

TEST_F(LongMessageTest, ASwapWaitsForItWithTheNewTableInPlace) {
  probe::Hooks& next = add_hooks("next");
  next.preresume = [this] {
    hooks_.diary.add("preresume of the next");
    return Status();
  };
  expect_beside([this] { expect_ok(load(*md_, {"0 16 plain dev d hooks=next"})); });
  std::thread swap([this] { expect_ok(md_->resume({})); });
  while (md_->size_sectors() != 16) {
    std::this_thread::yield();
  }
  // A status now is of the new table, and a load goes to the empty slot.
  expect_beside([this] {
    EXPECT_EQ(md_->status_lines(Slot::kLive, true).at(0).len, 16U);
    expect_ok(load(*md_, {"0 32 plain dev d"}));
  });
  EXPECT_EQ(hooks_.diary.take(), (Lines{"presuspend 0", "postsuspend 0"}));
  finish();
  swap.join();
  EXPECT_EQ(hooks_.diary.take(), (Lines{"message done", "preresume of the next", "dtr 0"}));
}

TEST_F(LongMessageTest, ARemovalWaitsForIt) {
  std::thread removal([this] { expect_ok(engine_->remove("md", false)); });
  while (md_->info().live) {
    std::this_thread::yield();
  }
  expect_beside([this] {
    expect_error(say(*md_, 0, {"more"}).status(), ENXIO, "being removed");
    expect_error(load(*md_, {"0 8 plain"}), ENXIO, "being removed");
  });
  finish();
  removal.join();
  EXPECT_EQ(hooks_.diary.take(), (Lines{"presuspend 0", "postsuspend 0", "message done", "dtr 0"}));
  EXPECT_EQ(open_count("d"), 0);
}

TEST_F(QueryTest, MessagesThatNoTargetSees) {
  const auto md = make("md");
  expect_error(say(*md, 0, {"do"}).status(), EINVAL, "The device has no table.");
  expect_error(say(*md, 0, {}).status(), EINVAL, "Empty message");
  expect_error(say(*md, 0, {""}).status(), EINVAL, "Empty message");
  expect_error(say(*md, 0, {"@nonsense"}).status(), EINVAL,
               "Unsupported message sent to DM core: @nonsense");
  expect_error(say(*md, 0, {"@cancel_deferred_remove", "x"}).status(), EINVAL,
               "Invalid arguments for @cancel_deferred_remove");
  EXPECT_TRUE(say(*md, 0, {"@cancel_deferred_remove"}).ok());
  EXPECT_TRUE(say(*md, 0, {"@stats_list"}).ok());
}

TEST_F(QueryTest, TableAndStatusLines) {
  const auto md = bring_up("md", {"0 8 plain", "8 4 plain"});
  expect_ok(load(*md, {"0 16 alone"}));
  auto lines = md->table_lines(Slot::kLive, false);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1].start, 8U);
  EXPECT_EQ(lines[1].len, 4U);
  EXPECT_EQ(lines[1].type, "plain");
  EXPECT_EQ(lines[1].words, "key 0000");
  EXPECT_EQ(md->table_lines(Slot::kLive, true)[0].words, "key 1234");
  EXPECT_EQ(md->table_lines(Slot::kInactive, false)[0].type, "alone");
  EXPECT_EQ(md->status_lines(Slot::kLive, false)[0].words, "flushed");
  EXPECT_EQ(md->status_lines(Slot::kLive, true)[0].words, "kept");
  expect_ok(md->suspend({}));
  EXPECT_EQ(md->status_lines(Slot::kLive, false)[0].words, "kept");  // commits nothing then
}

TEST_F(QueryTest, DependenciesAreNewestFirst) {
  add_device("e", 1000);
  bring_up("low", {"0 100 plain dev d"});
  const auto md = bring_up(
      "md", {"0 8 plain dev d", "8 8 plain dev low", "16 8 plain dev e", "24 8 plain dev d"});
  Lines names;
  for (const auto& dependency : md->dependencies(Slot::kLive)) {
    names.push_back(dependency.name + " " + dependency.numbers);
  }
  EXPECT_EQ(names, (Lines{"e -", "low 512:0", "d -"}));
  EXPECT_TRUE(md->dependencies(Slot::kInactive).empty());
}

// What 6.1 and 7.2 do: the first table is checked against its devices at load, a later one when it
// is to go live; it is then gone, and the device stays suspended with the old one.
TEST_F(QueryTest, OnlyTheFirstTableIsCheckedAgainstItsDevicesAtLoad) {
  add_device("small", 16);
  const auto md = make("md");
  expect_error(load(*md, {"0 24 plain dev small"}), EINVAL, "small too small for target");
  expect_ok(load(*md, {"0 16 plain dev small"}));
  expect_ok(md->resume({}));
  expect_ok(load(*md, {"0 24 plain dev small"}));
  EXPECT_TRUE(md->info().inactive);
  expect_error(md->resume({}), EINVAL, "small too small for target");
  EXPECT_FALSE(md->info().inactive);
  EXPECT_TRUE(md->info().suspended);
  EXPECT_EQ(md->size_sectors(), 16U);
  expect_ok(md->resume({}));
  EXPECT_EQ(TestBio(*md, Op::kRead, 8, 8).run(), BlkStatus::kOk);
}

TEST_F(QueryTest, GeometryHasLimitsAndGoesWithTheSize) {
  const auto md = make("md");
  expect_ok(md->set_geometry({1, 1, 1, 0}));  // as the kernel: no table needed
  expect_ok(load(*md, {"0 8 plain"}));
  expect_ok(md->resume({}));
  expect_ok(md->set_geometry({65535, 255, 255, 8}));
  expect_error(md->set_geometry({65536, 1, 1, 0}), EINVAL, "Geometry exceeds range limits");
  expect_error(md->set_geometry({1, 256, 1, 0}), EINVAL, "Geometry exceeds range limits");
  expect_error(md->set_geometry({1, 1, 256, 0}), EINVAL, "Geometry exceeds range limits");
  expect_error(md->set_geometry({2, 2, 2, 9}), EINVAL, "Start sector is beyond");
  expect_ok(md->set_geometry({2, 2, 2, 8}));
}

TEST_F(QueryTest, ExtentsComeFromBelow) {
  const auto low = bring_up("low", {"0 64 plain dev d at=4", "64 64 plain"});
  const Extent data = low->extent(0, 100);
  EXPECT_FALSE(data.hole);
  EXPECT_EQ(data.sectors, 8U);
  EXPECT_TRUE(low->extent(4, 100).hole);
  const Extent rest = low->extent(64, 1000);
  EXPECT_TRUE(rest.hole);
  EXPECT_EQ(rest.sectors, 64U);  // to the end of the target
  EXPECT_FALSE(make("bare")->extent(0, 8).hole);
}

// Under load, with threads -----------------------------------------------------------------------

// Threads write without pause while the table is swapped, suspended and resumed under them: every
// bio ends once, well, and no bio is in the old device once the swap is done.
TEST_F(MappedDeviceTest, SwapsUnderLoad) {
  add_device("e", 1 << 20);
  const auto md = bring_up("md", {"0 1000 plain dev d io=16"});
  constexpr int kThreads = 3;
  std::atomic<bool> stop{false};
  std::atomic<int> bad{0};
  std::atomic<std::uint64_t> done{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (sector_t at = static_cast<sector_t>(t); !stop.load(); at = (at + 37) % 900) {
        TestBio bio(*md, at % 3 == 0 ? Op::kRead : Op::kWrite, at, 1 + at % 64);
        bad += bio.submit().wait() != BlkStatus::kOk || bio.ended() != 1 ? 1 : 0;
        done.fetch_add(1);
      }
    });
  }
  for (int round = 0; round < 60; ++round) {
    const char* table = round % 2 == 0 ? "0 1000 plain dev e io=16" : "0 1000 plain dev d io=24";
    expect_ok(load(*md, {table}));
    expect_ok(md->resume(round % 3 == 0 ? noflush() : SuspendOptions()));
    Device& old = round % 2 == 0 ? d_ : *devices_["e"];
    old.seen();
    const std::uint64_t before = done.load();
    while (done.load() < before + 20) {
      std::this_thread::yield();
    }
    EXPECT_EQ(old.seen(), Lines{});
    devices_["e"]->seen();
    d_.seen();
  }
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(bad.load(), 0);
  EXPECT_EQ(md->io_sums().in_flight, 0U);
}

// Everything that controls a device at once, under load.
TEST_F(MappedDeviceTest, ControlFromManyThreads) {
  const auto md = bring_up("md", {"0 1000 plain dev d"});
  std::atomic<bool> stop{false};
  std::atomic<int> bad{0};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!stop.load()) {
      TestBio bio(*md, Op::kWrite, 3, 5);
      bad += bio.submit().wait() != BlkStatus::kOk ? 1 : 0;
      d_.seen();
    }
  });
  const auto repeat = [&](int times, const std::function<void(int)>& work) {
    threads.emplace_back([times, work] {
      for (int i = 0; i < times; ++i) {
        work(i);
      }
    });
  };
  repeat(60, [&](int) {
    expect_ok(md->suspend({}));
    expect_ok(md->resume({}));
  });
  repeat(60, [&](int i) {
    expect_ok(load(*md, {"0 1000 plain dev d"}));
    i % 4 == 0 ? expect_ok(md->clear()) : expect_ok(md->resume({}));
  });
  repeat(60, [&](int) {
    const auto work = [&] { return TestBio(*md, Op::kRead, 0, 1, kBioInternal).run(); };
    EXPECT_EQ(md->run_exclusive(0, 8, work), BlkStatus::kOk);
  });
  repeat(200, [&](int) {
    EXPECT_EQ(md->table_lines(Slot::kLive, false).size(), 1U);
    EXPECT_EQ(md->info().size, 1000U);
    static_cast<void>(md->io_sums());
  });
  for (std::size_t i = 1; i < threads.size(); ++i) {
    threads[i].join();
  }
  expect_ok(md->resume({}));
  stop = true;
  threads[0].join();
  EXPECT_EQ(bad.load(), 0);
}

// A device goes while threads still submit to it: every bio ends, well or with an I/O error.
TEST_F(MappedDeviceTest, RemovalUnderLoad) {
  for (int round = 0; round < 20; ++round) {
    const auto md = bring_up("md", {"0 1000 plain dev d"});
    std::atomic<int> bad{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] {
        BlkStatus status = BlkStatus::kOk;
        while (status == BlkStatus::kOk) {
          status = TestBio(*md, Op::kWrite, 3, 5).submit().wait();
        }
        bad += status != BlkStatus::kIoError ? 1 : 0;
      });
    }
    if (round % 2 == 0) {
      expect_ok(md->suspend({}));
    }
    expect_ok(engine_->remove("md", false));
    for (std::thread& thread : threads) {
      thread.join();
    }
    EXPECT_EQ(bad.load(), 0);
    d_.seen();
  }
}

}  // namespace
}  // namespace mapperfs
