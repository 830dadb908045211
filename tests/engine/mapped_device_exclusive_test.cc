// Exclusive work on a range of a mapped device: whom it keeps out, for whom it waits, and what
// happens when the device is suspended, swapped or removed meanwhile.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <deque>
#include <functional>
#include <thread>

#include "tests/engine/world.h"

namespace mapperfs {
namespace {

using probe::Device;
using probe::Lines;
using probe::TestBio;

constexpr int kInternal = kBioInternal;

SuspendOptions interrupted_by(std::function<bool()> interrupted) {
  SuspendOptions options;
  options.interrupted = std::move(interrupted);
  return options;
}

class ExclusiveTest : public probe::World {
 protected:
  ExclusiveTest() {
    d_.mutable_limits().max_discard_sectors = kUnlimitedSectors;
    d_.mutable_limits().max_write_zeroes_sectors = kUnlimitedSectors;
    // A bio that must not wait is a question whether it would; the device below does not see it.
    hooks_h_.map = [](probe::Target& target, Bio& bio) {
      if ((bio.flags & kBioNowait) == 0) {
        return target.remap(bio);
      }
      bio.end_io(BlkStatus::kOk);
      return MapIo::kSubmitted;
    };
  }
  std::shared_ptr<MappedDevice> bring_up_asked(const std::string& name = "md") {
    return bring_up(name, {"0 1000 plain dev d hooks=h discard=1 zeroes=1 flush=1 has-cache"});
  }
  static bool holds_back(MappedDevice& md, sector_t sector) {
    return TestBio(md, Op::kRead, sector, 1, kBioNowait).run() == BlkStatus::kAgain;
  }
  static void await_held_back(MappedDevice& md, sector_t sector) {
    while (!holds_back(md, sector)) {
      std::this_thread::yield();
    }
  }
  static std::function<BlkStatus()> note(std::atomic<int>& runs) {
    return [&runs] {
      ++runs;
      return BlkStatus::kOk;
    };
  }

  Device& d_ = add_device("d", 1 << 20);
  probe::Hooks& hooks_h_ = add_hooks("h");
};

// Who is kept out --------------------------------------------------------------------------------

TEST_F(ExclusiveTest, KeepsOutWhatOverlapsInOrder) {
  const auto md = bring_up_asked();
  std::deque<TestBio> held;
  held.emplace_back(*md, Op::kWrite, 8, 8);
  held.emplace_back(*md, Op::kRead, 0, 9);
  held.emplace_back(*md, Op::kRead, 15, 1);
  held.emplace_back(*md, Op::kDiscard, 0, 1000);
  held.emplace_back(*md, Op::kWriteZeroes, 12, 20);
  held.emplace_back(*md, Op::kWrite, 4, 5, kBioPreflush);
  const auto work = [&] {
    for (TestBio& bio : held) {
      EXPECT_FALSE(bio.submit().done());
    }
    EXPECT_EQ(d_.seen(), Lines{});
    return BlkStatus::kOk;
  };
  EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kOk);
  for (const TestBio& bio : held) {
    EXPECT_TRUE(bio.done());
    EXPECT_EQ(bio.status(), BlkStatus::kOk);
  }
  EXPECT_EQ(d_.seen(), (Lines{"write 8+8", "read 0+9", "read 15+1", "discard 0+1000",
                              "zeroes 12+20", "flush", "write 4+5"}));
}

TEST_F(ExclusiveTest, EverythingElseGoesOn) {
  const auto md = bring_up_asked();
  const auto work = [&] {
    TestBio(*md, Op::kWrite, 0, 8).run_ok();
    TestBio(*md, Op::kRead, 16, 1).run_ok();
    TestBio(*md, Op::kDiscard, 16, 100).run_ok();
    TestBio(*md, Op::kFlush, 0, 0).run_ok();
    TestBio(*md, Op::kWrite, 8, 8, kInternal).run_ok();
    return BlkStatus::kOk;
  };
  EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kOk);
  EXPECT_EQ(d_.seen(),
            (Lines{"write 0+8", "read 16+1", "discard 16+100", "flush", "write 8+8 internal"}));
}

TEST_F(ExclusiveTest, RangesThatWrapAroundAreComparedAsTheyAre) {
  const auto md = bring_up_asked();
  TestBio over(*md, Op::kDiscard, 4, ~sector_t{0});
  const auto work = [&] {
    EXPECT_FALSE(over.submit().done());
    EXPECT_EQ(TestBio(*md, Op::kDiscard, ~sector_t{0}, 100).run(), BlkStatus::kIoError);
    return BlkStatus::kOk;
  };
  EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kOk);
  EXPECT_TRUE(over.done());
  EXPECT_EQ(over.status(), BlkStatus::kIoError);
}

TEST_F(ExclusiveTest, AnEmptyFlushPassesWhereverItSaysItIs) {
  const auto md = bring_up_asked();
  const auto work = [&] { return TestBio(*md, Op::kFlush, 9, 0).run(); };
  EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kOk);
}

TEST_F(ExclusiveTest, WhoMustNotWaitIsSentAway) {
  const auto md = bring_up_asked();
  const auto work = [&] {
    EXPECT_TRUE(holds_back(*md, 8));
    EXPECT_FALSE(holds_back(*md, 16));
    EXPECT_EQ(TestBio(*md, Op::kRead, 8, 1, kBioReadahead).run(), BlkStatus::kIoError);
    return BlkStatus::kOk;
  };
  EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kOk);
  EXPECT_FALSE(holds_back(*md, 8));
}

TEST_F(ExclusiveTest, GivesTheOutcomeOfItsWork) {
  const auto md = bring_up_asked();
  const auto work = [] { return BlkStatus::kMedium; };
  EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kMedium);
}

// What comes from a device above is held where it comes in, exclusive work of that device included.
TEST_F(ExclusiveTest, BiosOfDevicesAboveAreHeldBack) {
  const auto low = bring_up_asked("low");
  const auto top = bring_up("top", {"0 100 plain dev low at=500"});
  TestBio from_above(*top, Op::kWrite, 0, 8);
  std::atomic<int> runs{0};
  std::thread above;
  const auto work = [&] {
    TestBio(*top, Op::kWrite, 8, 8).run_ok();
    above = std::thread([&] {
      const auto change = [&] {
        ++runs;
        return TestBio(*top, Op::kWrite, 16, 8, kInternal).run();
      };
      EXPECT_EQ(top->run_exclusive(16, 8, change), BlkStatus::kOk);
    });
    above.join();  // passes: it is beside the range
    EXPECT_FALSE(from_above.submit().done());
    return TestBio(*low, Op::kWrite, 500, 8, kInternal).run();
  };
  EXPECT_EQ(low->run_exclusive(500, 8, work), BlkStatus::kOk);
  EXPECT_TRUE(from_above.done());
  EXPECT_EQ(runs.load(), 1);
  EXPECT_EQ(d_.seen(),
            (Lines{"write 508+8", "write 516+8 internal", "write 500+8 internal", "write 500+8"}));
}

TEST_F(ExclusiveTest, InternalBiosOfADeviceAboveWaitBelow) {
  const auto low = bring_up_asked("low");
  const auto top = bring_up("top", {"0 100 plain dev low io=4"});
  TestBio whole(*top, Op::kRead, 0, 2, kInternal);
  TestBio cut(*top, Op::kRead, 0, 8, kInternal);
  const auto work = [&] {
    EXPECT_FALSE(whole.submit().done());
    EXPECT_FALSE(cut.submit().done());
    return BlkStatus::kOk;
  };
  EXPECT_EQ(low->run_exclusive(0, 8, work), BlkStatus::kOk);
  EXPECT_TRUE(whole.done() && cut.done());
  expect_ok(low->suspend({}));
  TestBio held(*top, Op::kRead, 0, 8, kInternal);
  EXPECT_FALSE(held.submit().done());
  expect_ok(low->resume({}));
  EXPECT_TRUE(held.done());
}

// For whom it waits ------------------------------------------------------------------------------

TEST_F(ExclusiveTest, WaitsForWhatIsUnderWayWhileOthersGoOn) {
  const auto md = bring_up_asked();
  d_.keep(true);
  TestBio slow(*md, Op::kRead, 100, 1);
  slow.submit();
  d_.keep(false);
  std::atomic<int> runs{0};
  std::thread writer([&] { EXPECT_EQ(md->run_exclusive(8, 8, note(runs)), BlkStatus::kOk); });
  await_held_back(*md, 8);
  TestBio overlapping(*md, Op::kWrite, 8, 1);
  EXPECT_FALSE(overlapping.submit().done());
  for (int i = 0; i < 1000; ++i) {
    TestBio(*md, Op::kWrite, 16, 8).run_ok();
  }
  EXPECT_EQ(runs.load(), 0);
  EXPECT_FALSE(overlapping.done());
  d_.end(0);
  writer.join();
  EXPECT_EQ(runs.load(), 1);
  EXPECT_TRUE(overlapping.done());
}

// One bio is always under way, another one each time.
TEST_F(ExclusiveTest, AStreamOfOthersDoesNotKeepItWaiting) {
  const auto md = bring_up_asked();
  d_.keep(true);
  std::deque<TestBio> stream;
  stream.emplace_back(*md, Op::kRead, 100, 1).submit();
  std::atomic<int> runs{0};
  for (int round = 1; round <= 3; ++round) {
    std::thread writer([&] { EXPECT_EQ(md->run_exclusive(8, 8, note(runs)), BlkStatus::kOk); });
    while (runs.load() < round) {
      stream.emplace_back(*md, Op::kRead, 100, 1).submit();
      d_.end(0);
      EXPECT_EQ(d_.kept(), 1U);
    }
    writer.join();
  }
  d_.end(0);
  EXPECT_EQ(md->io_sums().in_flight, 0U);
}

TEST_F(ExclusiveTest, OneComesAfterTheOther) {
  const auto md = bring_up_asked();
  std::atomic<int> inside{0};
  std::vector<std::thread> threads;
  for (sector_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) {
        const auto work = [&] {
          EXPECT_EQ(++inside, 1);
          TestBio(*md, Op::kWrite, i * 4, 8, kInternal).run_ok();
          --inside;
          return BlkStatus::kOk;
        };
        EXPECT_EQ(md->run_exclusive(i * 4, 8, work), BlkStatus::kOk);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_FALSE(holds_back(*md, 8));
}

// The work itself is no I/O; its bios are.
TEST_F(ExclusiveTest, OnlyBiosAreCounted) {
  const auto md = bring_up_asked();
  const auto work = [&] {
    EXPECT_EQ(md->io_sums().in_flight, 0U);
    d_.keep(true);
    TestBio bio(*md, Op::kWrite, 8, 8, kInternal);
    bio.submit();
    EXPECT_EQ(md->io_sums().in_flight, 1U);
    d_.end(0);
    d_.keep(false);
    EXPECT_EQ(md->io_sums().in_flight, 0U);
    return BlkStatus::kOk;
  };
  EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kOk);
  EXPECT_EQ(md->io_sums().ios[static_cast<std::size_t>(StatGroup::kWrite)], 1U);
}

// Suspend, swap and removal ----------------------------------------------------------------------

TEST_F(ExclusiveTest, ASuspendWaitsForTheWorkAndCanBeInterrupted) {
  const auto md = bring_up_asked();
  int asked = 0;
  const auto work = [&] {
    const Status status = md->suspend(interrupted_by([&] {
      // Held back like all bios, but for those of the work.
      EXPECT_TRUE(holds_back(*md, 500));
      TestBio(*md, Op::kWrite, 8, 8, kInternal).run_ok();
      return ++asked == 3;
    }));
    expect_error(status, EINTR, "interrupted");
    EXPECT_FALSE(holds_back(*md, 500));
    EXPECT_TRUE(holds_back(*md, 8));
    return BlkStatus::kOk;
  };
  EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kOk);
  EXPECT_EQ(asked, 3);
  expect_ok(md->suspend({}));
  expect_ok(md->resume({}));
}

// While it waits for a slow bio, a suspend is given up, another one comes, and the table is
// swapped; then it runs, on the new table.
TEST_F(ExclusiveTest, ASuspendComesBetweenWhileItWaits) {
  Device& other = add_device("other", 1000);
  const auto md = bring_up_asked();
  d_.keep(true);
  TestBio slow(*md, Op::kRead, 100, 1);
  slow.submit();
  std::atomic<int> runs{0};
  std::thread writer([&] {
    const auto work = [&] {
      ++runs;
      return TestBio(*md, Op::kWrite, 8, 8, kInternal).run();
    };
    EXPECT_EQ(md->run_exclusive(8, 8, work), BlkStatus::kOk);
  });
  await_held_back(*md, 8);
  expect_error(md->suspend(interrupted_by([] { return true; })), EINTR, "interrupted");
  EXPECT_FALSE(holds_back(*md, 500));
  TestBio overlapping(*md, Op::kWrite, 8, 1);
  EXPECT_FALSE(overlapping.submit().done());
  expect_ok(md->suspend(interrupted_by([&] {
    d_.end_all();
    return false;
  })));
  EXPECT_TRUE(slow.done());
  EXPECT_EQ(runs.load(), 0);
  expect_ok(load(*md, {"0 1000 plain dev other"}));
  expect_ok(md->resume({}));
  writer.join();
  EXPECT_EQ(overlapping.wait(), BlkStatus::kOk);
  EXPECT_EQ(runs.load(), 1);
  EXPECT_EQ(other.seen().size(), 2U);
}

// A target that pushes bios back: the work gets its bio back as well, leaves, so that the suspend
// ends, and begins anew after the resume.
TEST_F(ExclusiveTest, BeginsAnewWhereANoflushSuspendPushesItsBiosBack) {
  const auto md = bring_up("md", {"0 100 plain dev d hooks=h io=4"});
  hooks_h_.map = [&](probe::Target& target, Bio& bio) {
    return md->noflush_suspending() ? MapIo::kRequeue : target.remap(bio);
  };
  int runs = 0;
  std::thread control;
  const auto work = [&] {
    if (++runs == 1) {
      control = std::thread([&] {
        SuspendOptions noflush;
        noflush.noflush = true;
        expect_ok(md->suspend(noflush));
        expect_ok(md->resume({}));
      });
      while (!md->noflush_suspending()) {
        std::this_thread::yield();
      }
      EXPECT_EQ(TestBio(*md, Op::kRead, 0, 2, kInternal).run(), BlkStatus::kRequeue);
    }
    return TestBio(*md, Op::kWrite, 0, 8, kInternal).run();  // cut in two
  };
  EXPECT_EQ(md->run_exclusive(0, 8, work), BlkStatus::kOk);
  control.join();
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(d_.seen(), (Lines{"write 0+4", "write 4+4"}));
  EXPECT_EQ(md->io_sums().in_flight, 0U);
}

TEST_F(ExclusiveTest, WaitsForTheResume) {
  const auto md = bring_up_asked();
  expect_ok(md->suspend({}));
  std::atomic<int> runs{0};
  std::thread worker([&] { EXPECT_EQ(md->run_exclusive(8, 8, note(runs)), BlkStatus::kOk); });
  EXPECT_EQ(runs.load(), 0);
  expect_ok(md->resume({}));
  worker.join();
  EXPECT_EQ(runs.load(), 1);
}

TEST_F(ExclusiveTest, GivesUpWhenASuspendedDeviceIsRemoved) {
  for (int round = 0; round < 50; ++round) {
    const auto md = bring_up_asked();
    expect_ok(md->suspend({}));
    std::atomic<int> runs{0};
    std::thread worker(
        [&] { EXPECT_EQ(md->run_exclusive(8, 8, note(runs)), BlkStatus::kIoError); });
    expect_ok(engine_->remove("md", false));
    worker.join();
    EXPECT_EQ(runs.load(), 0);
  }
}

TEST_F(ExclusiveTest, GivesUpWhenTheDeviceIsRemovedWhileItWaits) {
  const auto md = bring_up_asked();
  d_.keep(true);
  TestBio slow(*md, Op::kRead, 100, 1);
  slow.submit();
  std::atomic<int> runs{0};
  std::thread writer([&] { EXPECT_EQ(md->run_exclusive(8, 8, note(runs)), BlkStatus::kIoError); });
  await_held_back(*md, 8);
  TestBio overlapping(*md, Op::kWrite, 8, 1);
  EXPECT_FALSE(overlapping.submit().done());
  std::thread remover([&] { expect_ok(engine_->remove("md", false)); });
  await_held_back(*md, 500);
  d_.end(0);
  remover.join();
  writer.join();
  EXPECT_EQ(overlapping.wait(), BlkStatus::kIoError);
  EXPECT_EQ(runs.load(), 0);
}

// All at once ------------------------------------------------------------------------------------

// Plain ints that bios of a range and exclusive work on it change: whatever is not exclusive loses
// counts, and ThreadSanitizer sees it.
TEST_F(ExclusiveTest, NothingIsLostAmongManyThreads) {
  constexpr int kRounds = 400;
  int near = 0;
  int far = 0;
  hooks_h_.map = [&](probe::Target& target, Bio& bio) {
    if (bio.op == Op::kWrite) {
      ++(bio.sector == 8 ? near : far);
    }
    return target.remap(bio);
  };
  const auto md = bring_up("md", {"0 1000 plain dev d hooks=h"});
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  const auto exclusive = [&](sector_t sector, int& count) {
    threads.emplace_back([&md, sector, &count] {
      for (int i = 0; i < kRounds; ++i) {
        const auto work = [&] {
          const int seen = count;
          const BlkStatus status = TestBio(*md, Op::kRead, sector, 8, kInternal).run();
          count = seen + 1;
          return status;
        };
        EXPECT_EQ(md->run_exclusive(sector, 8, work), BlkStatus::kOk);
      }
    });
  };
  const auto plain = [&](sector_t sector) {
    threads.emplace_back([&md, sector, this] {
      for (int i = 0; i < kRounds; ++i) {
        EXPECT_EQ(TestBio(*md, Op::kWrite, sector, 8).submit().wait(), BlkStatus::kOk);
        d_.seen();
      }
    });
  };
  exclusive(8, near);
  exclusive(8, near);
  exclusive(200, far);
  plain(8);
  plain(200);
  std::thread control([&] {
    for (int i = 0; !stop.load(); ++i) {
      if (i % 2 == 0) {
        expect_ok(load(*md, {"0 1000 plain dev d hooks=h"}));
      } else {
        expect_ok(md->suspend({}));
      }
      expect_ok(md->resume({}));
    }
  });
  for (std::thread& thread : threads) {
    thread.join();
  }
  stop = true;
  control.join();
  EXPECT_EQ(near, 3 * kRounds);
  EXPECT_EQ(far, 2 * kRounds);
}

}  // namespace
}  // namespace mapperfs
