// What a flush or a FUA write has made sure of, and what comes between: an abort of the metadata's
// transaction, which takes acknowledged writes away, or a copy of the block to another place.
#include <rocksdb/env.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "targets/thin/pool.h"
#include "tests/metadata/fault_fs.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

using mapperfs::testing::FaultFs;

// A data device where something else happens first when a flush comes, once, and when FUA writes
// do.
class OvertakenDev final : public fake::MemDev {
 public:
  using MemDev::MemDev;
  std::function<void()> before_flush;
  std::function<void()> before_fua;

  void submit(Bio& bio) noexcept override {
    if (bio.op == Op::kFlush && before_flush) {
      // On a thread of its own: this one is inside a submission already.
      std::thread(std::exchange(before_flush, nullptr)).join();
    }
    if (before_fua && (bio.flags & kBioFua) != 0) {
      before_fua();
    }
    MemDev::submit(bio);
  }
};

class ThinOvertaken : public ThinTest {
 protected:
  ThinOvertaken()
      : fs_(std::make_shared<FaultFs>()),
        env_(rocksdb::NewCompositeEnv(fs_)),
        slow_("data", 1024 * kBlock) {
    thinp::PoolTuning tuning;
    tuning.env = env_.get();
    thinp::set_pool_tuning(tuning);
    harness_.opener().add("data", slow_);
    make_pool(64);
    make_thin("thin", 0, 64);
    EXPECT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1)), BlkStatus::kOk);
    EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(kBlock, 2)), BlkStatus::kOk);
    EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  }
  ~ThinOvertaken() override {  // while the file system is there
    for (const char* name : {"thin", "other", "pool"}) {
      if (harness_.engine().find(name).ok()) {
        remove(name);
      }
    }
  }

  // A discard whose commit the file system refuses: the pool goes back to its last one.
  void abort_by_discard() {
    fs_->fail_after(1, FaultFs::Fault::kNoSpace);
    EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, kBlock, kBlock), BlkStatus::kIoError);
    EXPECT_TRUE(fs_->struck());
  }

  const std::shared_ptr<FaultFs> fs_;
  const std::unique_ptr<rocksdb::Env> env_;
  OvertakenDev slow_;
};

TEST_F(ThinOvertaken, AFlushThatAnAbortOvertakesFails) {
  slow_.before_flush = [this] {
    ASSERT_EQ(harness_.write("thin", 2 * kBlock, fake::pattern(kBlock, 3)), BlkStatus::kOk);
    abort_by_discard();
  };
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kIoError);
  EXPECT_FALSE(slow_.before_flush) << "the flush never came to the data device";
  EXPECT_EQ(mode(), "ro");
  EXPECT_EQ(harness_.read("thin", 2 * kBlock, kBlock), filled(kBlock, 0)) << "it is gone";
  EXPECT_EQ(harness_.read("thin", 0, kBlock), fake::pattern(kBlock, 1));
  EXPECT_EQ(harness_.read("thin", kBlock, kBlock), fake::pattern(kBlock, 2))
      << "and the discard undone";
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kIoError)
      << "until it is opened again";
}

TEST_F(ThinOvertaken, AFlushOfADeviceThatLosesNothingSucceeds) {
  make_thin("other", 1, 64);
  ASSERT_EQ(harness_.write("other", 0, fake::pattern(kBlock, 4)), BlkStatus::kOk);
  ASSERT_EQ(harness_.run_op("other", Op::kFlush, 0, 0), BlkStatus::kOk);
  slow_.before_flush = [this] { abort_by_discard(); };
  EXPECT_EQ(harness_.run_op("other", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(mode(), "ro");
  EXPECT_EQ(harness_.read("other", 0, kBlock), fake::pattern(kBlock, 4));
  EXPECT_EQ(harness_.run_op("other", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kIoError);
}

// The block is shared and copied while the commit that a FUA write waits for flushes the data. The
// commit of the new place is kept back, as long as the write might go there without it.
TEST_F(ThinOvertaken, AFuaWriteWaitsForTheCommitOfTheBlockThatItGoesTo) {
  constexpr int kMostYields = 100'000;
  const auto volume = *thinp::find_pool(harness_.device("pool"))->open_volume(0);
  std::thread messenger;
  std::atomic<bool> written{false};
  bool was_committed = false;
  slow_.before_fua = [&] {
    was_committed = !volume->dev->changed();
    written = true;
  };
  ASSERT_EQ(harness_.write("thin", 2 * kBlock, fake::pattern(kBlock, 3)), BlkStatus::kOk);
  slow_.before_flush = [&] {
    slow_.before_flush = [&] {
      for (int i = 0; i < kMostYields && !written; ++i) {
        std::this_thread::yield();
      }
    };
    messenger = std::thread([&] { EXPECT_EQ(message_error("create_snap 1 0"), 0); });
    while (!harness_.try_table(fmt::format("0 {} thin pool 1", 64 * kBlock)).ok()) {
      std::this_thread::yield();
    }
    EXPECT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 4)), BlkStatus::kOk);
  };
  EXPECT_EQ(harness_.write("thin", 0, fake::pattern(8, 5), kBioFua), BlkStatus::kOk);
  EXPECT_TRUE(written);
  EXPECT_TRUE(was_committed) << "a crash would bring the old block back";
  ASSERT_TRUE(messenger.joinable()) << "there was no commit";
  messenger.join();
  slow_.before_fua = nullptr;
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 5));
  open_thin("other", 1, 64);
  EXPECT_EQ(harness_.read("other", 0, kBlock), fake::pattern(kBlock, 1));
}

}  // namespace

}  // namespace mapperfs::test
