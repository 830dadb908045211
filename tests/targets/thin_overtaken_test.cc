// An abort of the metadata's transaction while a flush is under way: what was acknowledged and is
// gone must not be what a flush has just called durable.
#include <rocksdb/env.h>

#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "tests/metadata/fault_fs.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

using mapperfs::testing::FaultFs;

// A data device where something else happens first when a flush comes, once.
class OvertakenDev final : public fake::MemDev {
 public:
  using MemDev::MemDev;
  std::function<void()> before_flush;

  void submit(Bio& bio) noexcept override {
    if (bio.op == Op::kFlush && before_flush) {
      // On a thread of its own: this one is inside a submission already.
      std::thread(std::exchange(before_flush, nullptr)).join();
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

}  // namespace

}  // namespace mapperfs::test
