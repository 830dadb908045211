// The engine's verbs: names, uuids, minors, removal, renames, openers, who stands on whom.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <future>
#include <latch>
#include <thread>
#include <utility>

#include "tests/engine/world.h"

namespace mapperfs {
namespace {

using probe::Device;
using probe::Lines;
using probe::TestBio;
using Slot = MappedDevice::Slot;

class EngineTest : public probe::World {
 protected:
  Status create_status(const std::string& name, const Engine::CreateOptions& options = {}) {
    return engine_->create(name, options).status();
  }
  Lines names(const std::vector<std::shared_ptr<MappedDevice>>& devices) {
    Lines names;
    for (const auto& device : devices) {
      names.push_back(device->name());
    }
    return names;
  }
  Device& d_ = add_device("d", 1 << 20);
};

// Names, uuids, minors ---------------------------------------------------------------------------

TEST_F(EngineTest, NamesHaveRules) {
  for (const char* wrong : {"", "a/b", "/", "control", "sys", ".", "..", "a\nb"}) {
    EXPECT_EQ(create_status(wrong).error(), EINVAL) << wrong;
  }
  EXPECT_EQ(create_status(std::string("a\0b", 3)).error(), EINVAL);
  expect_error(create_status(std::string(128, 'x')), EINVAL, "too long: 128 bytes, at most 127");
  for (const std::string& right :
       {std::string("a"), std::string(127, 'x'), std::string("..."), std::string("Control"),
        std::string("a b\tc"), std::string("\xff\xfe"), std::string("#:=")}) {
    expect_ok(create_status(right));
  }
  EXPECT_EQ(engine_->list().size(), 7U);
}

TEST_F(EngineTest, NamesAndUuidsAreUnique) {
  expect_ok(create_status("a", {"u1", -1}));
  expect_error(create_status("a"), EBUSY, "\"a\" exists already");
  expect_error(create_status("b", {"u1", -1}), EBUSY, "uuid \"u1\" belongs to mapped device \"a\"");
  expect_error(create_status("b", {std::string(129, 'u'), -1}), EINVAL, "too long");
  expect_ok(create_status("b", {std::string(128, 'u'), -1}));
  expect_ok(engine_->remove("a", false));
  expect_ok(create_status("c", {"u1", -1}));
}

TEST_F(EngineTest, MinorsAreTheLowestFreeOrTheOneAskedFor) {
  EXPECT_EQ(make("a")->minor(), 0U);
  EXPECT_EQ(make("b")->minor(), 1U);
  expect_ok(create_status("c", {"", 77}));
  EXPECT_EQ((*engine_->find("c"))->minor(), 77U);
  expect_error(create_status("e", {"", 77}), ENXIO, "minor 77 is taken by mapped device \"c\"");
  expect_error(create_status("e", {"", 1 << 20}), ENXIO, "not below");
  expect_ok(engine_->remove("a", false));
  EXPECT_EQ(make("e")->minor(), 0U);
  EXPECT_EQ(make("f")->minor(), 2U);
  EXPECT_EQ((*engine_->find("f"))->numbers(), "512:2");
}

TEST_F(EngineTest, SerialsAreNeverUsedTwice) {
  const std::uint64_t first = make("a")->serial();
  EXPECT_EQ(engine_->find_serial(first)->name(), "a");
  expect_ok(engine_->remove("a", false));
  EXPECT_EQ(engine_->find_serial(first), nullptr);
  EXPECT_NE(make("a")->serial(), first);
}

TEST_F(EngineTest, WhatIsNotThereIsEnxio) {
  expect_error(engine_->find("a").status(), ENXIO, "no mapped device \"a\"");
  expect_error(engine_->remove("a", false), ENXIO, "no mapped device \"a\"");
  expect_error(engine_->remove("a", true), ENXIO, "no mapped device \"a\"");
  expect_error(engine_->cancel_deferred_remove("a"), ENXIO, "no mapped device \"a\"");
  expect_error(engine_->rename("a", "b"), ENXIO, "non-existent device, a to b");
  expect_error(engine_->set_uuid("a", "u"), ENXIO, "no mapped device \"a\"");
}

TEST_F(EngineTest, RenameKeepsTheDeviceAndRaisesAnEvent) {
  const auto md = bring_up("a", {"0 8 plain"});
  make("b");
  expect_ok(engine_->rename("a", "c"));
  EXPECT_EQ(md->name(), "c");
  EXPECT_EQ(md->event_nr(), 1U);
  EXPECT_EQ((*engine_->find("c")).get(), md.get());
  EXPECT_EQ(engine_->find("a").status().error(), ENXIO);
  EXPECT_EQ(diary_.take(), (Lines{"renamed a to c", "event 0"}));
  expect_error(engine_->rename("c", "b"), EBUSY, "Unable to change name on mapped device c");
  expect_error(engine_->rename("c", "c"), EBUSY, "already exists: c");
  expect_error(engine_->rename("c", "x/y"), EINVAL, "cannot contain '/'");
  expect_error(engine_->rename("zz", "c"), EBUSY, "already exists");
}

TEST_F(EngineTest, AUuidIsSetOnce) {
  const auto md = make("a");
  expect_error(engine_->set_uuid("a", ""), EINVAL, "1 to 128 bytes");
  expect_ok(engine_->set_uuid("a", "u1"));
  EXPECT_EQ(md->uuid(), "u1");
  EXPECT_EQ(md->event_nr(), 1U);
  expect_error(engine_->set_uuid("a", "u2"), EINVAL, "uuid is already set to u1");
  make("b");
  expect_error(engine_->set_uuid("b", "u1"), EBUSY, "belongs to mapped device \"a\"");
  expect_error(engine_->set_uuid("a", "u1"), EBUSY, "belongs to mapped device \"a\"");
}

// Openers and removal ----------------------------------------------------------------------------

TEST_F(EngineTest, AnOpenDeviceIsNotRemoved) {
  const auto md = bring_up("a", {"0 8 plain dev d"});
  expect_ok(engine_->open(*md));
  expect_ok(engine_->open(*md));
  EXPECT_EQ(md->info().open_count, 2);
  expect_error(engine_->remove("a", false), EBUSY, "open count 2");
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kOk);
  engine_->close(*md);
  engine_->close(*md);
  expect_ok(engine_->remove("a", false));
  EXPECT_EQ(diary_.take(), (Lines{"event 0", "removed a"}));
  expect_error(engine_->open(*md), ENXIO, "being removed");
}

TEST_F(EngineTest, DeferredRemovalWaitsForTheLastOpener) {
  const auto md = bring_up("a", {"0 8 plain dev d"});
  expect_ok(engine_->open(*md));
  expect_ok(engine_->open(*md));
  expect_ok(engine_->remove("a", true));
  EXPECT_TRUE(md->info().deferred_remove);
  expect_error(engine_->remove("a", false), EBUSY, "in use");
  engine_->close(*md);
  EXPECT_TRUE(engine_->find("a").ok());
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kOk);
  engine_->close(*md);
  EXPECT_EQ(engine_->find("a").status().error(), ENXIO);
  EXPECT_EQ(open_count("d"), 0);
}

TEST_F(EngineTest, DeferredRemovalOfAClosedDeviceIsRemoval) {
  bring_up("a", {"0 8 plain"});
  expect_ok(engine_->remove("a", true));
  EXPECT_EQ(engine_->find("a").status().error(), ENXIO);
}

TEST_F(EngineTest, DeferredRemovalCanBeCancelled) {
  const auto md = bring_up("a", {"0 8 plain"});
  expect_ok(engine_->open(*md));
  expect_ok(engine_->remove("a", true));
  const std::string_view words[] = {"@Cancel_deferred_REMOVE"};
  EXPECT_TRUE(md->message(0, words).ok());
  EXPECT_FALSE(md->info().deferred_remove);
  engine_->close(*md);
  EXPECT_TRUE(engine_->find("a").ok());
}

TEST_F(EngineTest, ATableIsAnOpenerOfTheDeviceBelow) {
  const auto low = bring_up("low", {"0 100 plain dev d"});
  const auto top = make("top");
  expect_ok(load(*top, {"0 50 plain dev low", "50 50 plain dev low at=50"}));
  EXPECT_EQ(low->info().open_count, 1);
  expect_error(engine_->remove("low", false), EBUSY, "open count 1");
  expect_ok(top->resume({}));
  EXPECT_EQ(low->info().open_count, 1);
  expect_ok(load(*top, {"0 100 plain dev low"}));
  EXPECT_EQ(low->info().open_count, 2);
  expect_ok(engine_->remove("low", true));
  expect_ok(engine_->remove("top", false));
  EXPECT_EQ(engine_->find("low").status().error(), ENXIO);  // its last opener went
  EXPECT_EQ(open_count("d"), 0);
}

TEST_F(EngineTest, RemoveAllGoesOnAsLongAsSomethingGoes) {
  bring_up("a", {"0 100 plain dev d"});
  bring_up("b", {"0 100 plain dev a"});
  bring_up("c", {"0 100 plain dev b"});
  const auto open = bring_up("open", {"0 100 plain dev d"});
  expect_ok(engine_->open(*open));
  expect_ok(engine_->remove_all(false));
  EXPECT_EQ(names(engine_->list()), (Lines{"open"}));
  EXPECT_FALSE(open->info().deferred_remove);
  expect_ok(engine_->remove_all(true));
  EXPECT_TRUE(open->info().deferred_remove);
  engine_->close(*open);
  EXPECT_TRUE(engine_->list().empty());
}

TEST_F(EngineTest, RemovalWakesWhoWaitsForEvents) {
  const auto md = bring_up("a", {"0 8 plain"});
  expect_ok(engine_->remove("a", false));
  EXPECT_EQ(md->event_nr(), 1U);
  EXPECT_TRUE(md->removed());
}

TEST_F(EngineTest, TargetsRaiseEventsAndWriteToTheLog) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("vol", {"0 8 plain hooks=h"});
  hooks.map = [](probe::Target& target, Bio&) {
    target.ti().host->table_event();
    target.ti().host->log("a leg failed");
    return MapIo::kKill;
  };
  EXPECT_EQ(TestBio(*md, Op::kRead, 0, 1).run(), BlkStatus::kIoError);
  EXPECT_EQ(md->event_nr(), 1U);
  EXPECT_EQ(diary_.take(), (Lines{"event 0"}));
  EXPECT_EQ(engine_->log().text(), "vol: a leg failed\n");
}

// Words of tables --------------------------------------------------------------------------------

TEST_F(EngineTest, WordsOfMappedDevices) {
  const auto low = bring_up("low", {"0 100 plain dev d"});
  const auto md = make("md");
  for (const char* word : {"low", "/mnt/low", "512:0"}) {
    expect_ok(load(*md, {fmt::format("0 8 plain dev {}", word)}));
    EXPECT_EQ(md->dependencies(Slot::kInactive).at(0).name, "low") << word;
  }
  expect_error(load(*md, {"0 8 plain dev /mnt/none"}), ENOENT, "no mapped device \"none\"");
  expect_error(load(*md, {"0 8 plain dev 512:5"}), ENXIO, "there is no mapped device 512:5");
  expect_error(load(*md, {"0 8 plain dev none"}), ENOENT, "no such file: none");
  expect_error(load(*md, {"0 8 plain dev nbd://localhost/x"}), ENOENT, "\"nbd\" is not supported");
  expect_error(load(*md, {"0 8 plain dev 5000:1"}), EOVERFLOW, "at most 4095");
  expect_error(load(*md, {"0 8 plain dev 8:1048576"}), EOVERFLOW, "at most 1048575");
  EXPECT_EQ(low->info().open_count, 1);
}

TEST_F(EngineTest, AMappedDeviceGoesBeforeABackingDeviceOfThatName) {
  bring_up("x", {"0 100 plain dev d"});
  add_device("x", 100);
  const auto md = make("md");
  expect_ok(load(*md, {"0 8 plain dev x"}));
  EXPECT_EQ(md->dependencies(Slot::kInactive).at(0).numbers, "512:0");
}

TEST_F(EngineTest, ADeviceDoesNotStandOnItself) {
  const auto md = bring_up("md", {"0 100 plain dev d"});
  for (const char* word : {"md", "/mnt/md", "512:0"}) {
    expect_error(load(*md, {fmt::format("0 8 plain dev {}", word)}), EINVAL,
                 "is the mapped device itself");
  }
}

TEST_F(EngineTest, CyclesAreRefusedThroughLiveAndInactiveTables) {
  const auto a = bring_up("a", {"0 100 plain dev d"});
  const auto b = bring_up("b", {"0 100 plain dev a"});
  const auto c = make("c");
  expect_ok(load(*c, {"0 100 plain dev b"}));  // inactive only
  expect_error(load(*a, {"0 100 plain dev b"}), EINVAL, "cycle");
  expect_error(load(*a, {"0 100 plain dev d", "100 100 plain dev c"}), EINVAL, "cycle");
  EXPECT_EQ(c->info().open_count, 0);
  EXPECT_FALSE(a->info().inactive);
  expect_ok(c->clear());
  expect_ok(load(*a, {"0 100 plain dev c"}));
  expect_error(load(*c, {"0 100 plain dev b"}), EINVAL, "cycle");
}

class DepthTest : public EngineTest {
 protected:
  // s1 on d, s2 on s1 and so on.
  void stack(unsigned from, unsigned to) {
    for (unsigned i = from; i <= to; ++i) {
      bring_up(fmt::format("s{}", i), {i == 1 ? std::string("0 100 plain dev d")
                                              : fmt::format("0 100 plain dev s{}", i - 1)});
    }
  }
};

TEST_F(DepthTest, ThirtyTwoStandOnOneAnother) {
  stack(1, kMaxDepth);
  const auto top = *engine_->find(fmt::format("s{}", kMaxDepth));
  EXPECT_EQ(TestBio(*top, Op::kRead, 0, 8).run(), BlkStatus::kOk);
  const auto more = make("more");
  expect_error(load(*more, {fmt::format("0 100 plain dev s{}", kMaxDepth)}), EINVAL,
               "stacked 33 deep");
  expect_ok(load(*more, {fmt::format("0 100 plain dev s{}", kMaxDepth - 1)}));
}

TEST_F(DepthTest, CountsWhatStandsAboveToo) {
  stack(1, kMaxDepth);
  make("below");
  const auto bottom = *engine_->find("s1");
  expect_error(load(*bottom, {"0 100 plain dev below"}), EINVAL, "stacked 33 deep");
  expect_ok(load(*bottom, {"0 100 plain dev d at=8"}));
}

// Every device stands on both of the level below: 2^31 ways from top to bottom.
TEST_F(DepthTest, ManyWaysDownAreWalkedOnce) {
  for (unsigned level = 0; level < kMaxDepth; ++level) {
    for (const char* side : {"l", "r"}) {
      const std::string name = fmt::format("{}{}", side, level);
      if (level == 0) {
        bring_up(name, {"0 100 plain dev d"});
      } else {
        bring_up(name, {fmt::format("0 50 plain dev l{}", level - 1),
                        fmt::format("50 50 plain dev r{}", level - 1)});
      }
    }
  }
  EXPECT_EQ(engine_->list_bottom_up().back()->name(), fmt::format("r{}", kMaxDepth - 1));
  EXPECT_EQ(engine_->list_bottom_up().front()->name(), "l0");
}

TEST_F(EngineTest, ListsGoByNameOrBottomUp) {
  bring_up("c", {"0 100 plain dev d"});
  bring_up("b", {"0 100 plain dev c"});
  bring_up("a", {"0 100 plain dev b"});
  bring_up("e", {"0 100 plain dev c"});
  EXPECT_EQ(names(engine_->list()), (Lines{"a", "b", "c", "e"}));
  EXPECT_EQ(names(engine_->list_bottom_up()), (Lines{"c", "b", "e", "a"}));
}

// The end ----------------------------------------------------------------------------------------

TEST_F(EngineTest, ShutDownSuspendsAndRemovesFromTheTop) {
  probe::Hooks& low = add_hooks("low");
  probe::Hooks& top = add_hooks("top");
  const auto a = bring_up("a", {"0 100 plain dev d hooks=low"});
  const auto b = bring_up("b", {"0 100 plain dev a hooks=top"});
  expect_ok(engine_->open(*b));  // does not stop it
  low.diary.take();
  top.diary.take();
  top.presuspend = [&] { EXPECT_FALSE(a->removed()); };
  engine_->shut_down();
  EXPECT_EQ(low.diary.take(), (Lines{"presuspend 0", "postsuspend 0", "dtr 0"}));
  EXPECT_EQ(top.diary.take(), (Lines{"presuspend 0", "postsuspend 0", "dtr 0"}));
  EXPECT_EQ(diary_.take(), (Lines{"event 1", "removed b", "event 0", "removed a"}));
  engine_->close(*b);
  EXPECT_EQ(open_count("d"), 0);
}

TEST_F(EngineTest, ShutDownFailsBiosThatWait) {
  const auto md = bring_up("a", {"0 100 plain dev d"});
  expect_ok(md->suspend({}));
  TestBio bio(*md, Op::kRead, 0, 1);
  bio.submit();
  engine_->shut_down();
  EXPECT_EQ(bio.status(), BlkStatus::kIoError);
}

TEST_F(EngineTest, ShutDownFailsBiosThatWaitAtASuspendedLowerDevice) {
  const auto low = bring_up("low", {"0 100 plain dev d"});
  const auto top = bring_up("top", {"0 100 plain dev low"});
  expect_ok(low->suspend({}));
  TestBio bio(*top, Op::kRead, 0, 1);
  bio.submit();
  engine_->shut_down();
  EXPECT_EQ(bio.status(), BlkStatus::kIoError);
}

// As thin does with writes that wait for space.
TEST_F(EngineTest, ShutDownFailsBiosThatATargetKeepsAndGivesBack) {
  probe::Hooks& hooks = add_hooks("h");
  const auto md = bring_up("a", {"0 100 plain dev d hooks=h"});
  Bio* kept = nullptr;
  hooks.map = [&](probe::Target&, Bio& bio) {
    kept = &bio;
    return MapIo::kSubmitted;
  };
  hooks.presuspend = [&] {
    if (md->noflush_suspending() && kept != nullptr) {
      std::exchange(kept, nullptr)->end_io(BlkStatus::kRequeue);
    }
  };
  TestBio bio(*md, Op::kRead, 0, 1);
  bio.submit();
  engine_->shut_down(/*patience_ns=*/1);
  EXPECT_EQ(bio.status(), BlkStatus::kIoError);
}

TEST_F(EngineTest, ShutDownNamesWhatDoesNotEndAndEndsTheRest) {
  probe::Hooks& hooks = add_hooks("h");
  const auto stuck = bring_up("b", {"0 100 plain dev d hooks=h"});
  const auto below = bring_up("a", {"0 100 plain dev d"});
  const auto above = bring_up("c", {"0 100 plain dev d"});
  Bio* kept = nullptr;
  hooks.map = [&](probe::Target&, Bio& bio) {
    kept = &bio;
    return MapIo::kSubmitted;
  };
  TestBio bio(*stuck, Op::kRead, 0, 1);
  bio.submit();
  EXPECT_EQ(engine_->shut_down(/*patience_ns=*/1), (Lines{"b"}));
  EXPECT_TRUE(below->removed() && above->removed());
  EXPECT_FALSE(stuck->removed());
  // Whoever kept it lets go: then a second time ends it.
  kept->end_io(BlkStatus::kOk);
  EXPECT_EQ(bio.status(), BlkStatus::kOk);
  EXPECT_EQ(engine_->shut_down(/*patience_ns=*/1), Lines{});
  EXPECT_TRUE(stuck->removed());
}

TEST_F(EngineTest, ShutDownDoesNotWaitForWhoKeepsADevice) {
  probe::Hooks& hooks = add_hooks("h");
  const auto stuck = bring_up("b", {"0 100 plain dev d hooks=h"});
  Bio* kept = nullptr;
  hooks.map = [&](probe::Target&, Bio& bio) {
    kept = &bio;
    return MapIo::kSubmitted;
  };
  TestBio bio(*stuck, Op::kRead, 0, 1);
  bio.submit();
  const auto work = [] { return BlkStatus::kOk; };
  std::thread writer([&] { EXPECT_EQ(stuck->run_exclusive(0, 8, work), BlkStatus::kOk); });
  EXPECT_EQ(engine_->shut_down(/*patience_ns=*/1), (Lines{"b"}));
  kept->end_io(BlkStatus::kOk);
  writer.join();
  EXPECT_EQ(engine_->shut_down(), Lines{});
}

// A message waits for a bio that a suspended device keeps, and a swap waits for the message. The
// new table does not stand on that device, but the old one still does.
TEST_F(EngineTest, ShutDownEndsWhatTheMessageOfASwappedTableWaitsFor) {
  const auto low = bring_up("z", {"0 100 plain dev d"});  // after "a" where neither is lower
  probe::Hooks& hooks = add_hooks("h");
  const auto top = bring_up("a", {"0 100 plain dev z hooks=h"});
  std::latch inside{1};
  hooks.message = [&](std::span<const std::string_view>) {
    TestBio bio(*low, Op::kRead, 0, 1);
    bio.submit();
    inside.count_down();
    return bio.wait() == BlkStatus::kOk ? Result<std::string>("read") : Status(EIO, "failed");
  };
  expect_ok(low->suspend({}));
  expect_ok(top->suspend({}));
  std::thread message([&] {
    constexpr std::array<std::string_view, 1> kWords = {"commit"};
    expect_error(top->message(0, kWords).status(), EIO, "failed");
  });
  inside.wait();
  expect_ok(load(*top, {"0 16 plain"}));
  std::thread swap([&] { expect_ok(top->resume({})); });
  while (top->size_sectors() != 16) {
    std::this_thread::yield();
  }
  expect_error(load(*low, {"0 16 plain dev a"}), EINVAL, "would close a cycle");
  std::future<Lines> end =
      std::async(std::launch::async, [&] { return engine_->shut_down(/*patience_ns=*/1); });
  if (end.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
    ADD_FAILURE() << "waits for the message";
    expect_ok(low->resume({}));
  }
  EXPECT_EQ(end.get(), Lines{});
  message.join();
  swap.join();
}

TEST_F(EngineTest, ManyDevicesComeAndGoFromManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const std::string name = fmt::format("t{}-{}", t, i % 4);
        Result<std::shared_ptr<MappedDevice>> md = engine_->create(name, {});
        ASSERT_TRUE(md.ok());
        expect_ok(load(**md, {"0 100 plain dev d"}));
        expect_ok((*md)->resume({}));
        EXPECT_EQ(TestBio(**md, Op::kRead, 0, 1).run(), BlkStatus::kOk);
        expect_ok(engine_->rename(name, name + "-new"));
        static_cast<void>(engine_->list_bottom_up());
        expect_ok(engine_->remove(name + "-new", false));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_TRUE(engine_->list().empty());
}

}  // namespace
}  // namespace mapperfs
