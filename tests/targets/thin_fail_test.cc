// A pool whose metadata can be neither written nor read any more: it fails, and says so, until it
// is made anew.
#include <rocksdb/env.h>

#include <cerrno>
#include <memory>

#include "tests/metadata/fault_fs.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

using mapperfs::testing::FaultFs;

class ThinFail : public ThinTest {
 protected:
  ThinFail() : fs_(std::make_shared<FaultFs>()), env_(rocksdb::NewCompositeEnv(fs_)) {
    thinp::PoolTuning tuning;
    std::filesystem::create_directory(dir_ / "meta");  // where the pool looks whether it is there
    tuning.env = env_.get();
    thinp::set_pool_tuning(tuning);
  }
  ~ThinFail() override { take_down(); }  // while the file system is there

  // Two devices of a pool of `blocks` blocks that have one block each, flushed.
  void set_up(std::uint64_t blocks) {
    make_pool(blocks);
    make_thin("thin", 0, 64);
    make_thin("other", 1, 64);
    for (const char* name : {"thin", "other"}) {
      ASSERT_EQ(harness_.write(name, 0, fake::pattern(kBlock, 1)), BlkStatus::kOk);
      ASSERT_EQ(harness_.run_op(name, Op::kFlush, 0, 0), BlkStatus::kOk);
    }
    silent_ = events();
  }
  // The next commit fails, and the last one cannot be found.
  void break_metadata() {
    ASSERT_EQ(fs_->damage("CURRENT"), 1);
    fs_->fail_after(1, FaultFs::Fault::kIoError, FaultFs::kForEver);
  }
  void mend_metadata() {
    fs_->disarm();
    ASSERT_EQ(fs_->damage("CURRENT"), 1);  // the bit flips back
  }
  void take_down() {
    for (const char* name : {"thin", "other", "third", "pool"}) {
      if (harness_.engine().find(name).ok()) {
        remove(name);
      }
    }
  }
  void expect_failed() {
    EXPECT_EQ(harness_.status("pool"), "0 1024 thin-pool Fail");
    EXPECT_EQ(harness_.status("thin"), "0 8192 thin Fail");
    EXPECT_EQ(harness_.table("thin"), "0 8192 thin Fail");
    EXPECT_TRUE(
        harness_.device("pool").status_lines(MappedDevice::Slot::kLive, false).at(0).words ==
        "Fail")
        << "it commits no more";
    for (const char* name : {"thin", "other"}) {
      for (const sector_t sector : {sector_t{0}, 9 * kBlock}) {
        EXPECT_EQ(harness_.run_op(name, Op::kRead, sector, 8), BlkStatus::kIoError);
        EXPECT_EQ(harness_.run_op(name, Op::kWrite, sector, 8), BlkStatus::kIoError);
        EXPECT_EQ(harness_.run_op(name, Op::kWrite, sector, 8, kBioFua), BlkStatus::kIoError);
        EXPECT_EQ(harness_.run_op(name, Op::kDiscard, sector, kBlock), BlkStatus::kIoError);
      }
      EXPECT_EQ(harness_.run_op(name, Op::kFlush, 0, 0), BlkStatus::kIoError);
    }
    for (const char* text : {"create_thin 7", "create_snap 7 0", "delete 1", "nosuch",
                             "set_transaction_id 0 1", "reserve_metadata_snap"}) {
      EXPECT_EQ(message_error(text), EOPNOTSUPP) << text;
    }
    const Status refused = harness_.set_table("third", "0 8192 thin pool 1");
    EXPECT_EQ(refused.error(), EINVAL);
    EXPECT_NE(refused.message().find("Pool is in fail mode"), std::string::npos)
        << refused.message();
  }

  const std::shared_ptr<FaultFs> fs_;
  const std::unique_ptr<rocksdb::Env> env_;
  std::uint32_t silent_ = 0;
};

TEST_F(ThinFail, IsForGoodUntilThePoolIsMadeAnew) {
  set_up(8);
  ASSERT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 2)), BlkStatus::kOk);
  break_metadata();
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kIoError);
  EXPECT_EQ(events(), silent_ + 1);
  EXPECT_NE(harness_.engine().log().text().find("switching pool to fail mode"), std::string::npos);
  expect_failed();
  // Whatever is done to it while it is there.
  fs_->disarm();
  ASSERT_TRUE(harness_.set_table("pool", pool_line(8)).ok());
  expect_failed();
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  expect_failed();
  EXPECT_EQ(events(), silent_ + 1) << "its mode has not changed since";
  take_down();
  EXPECT_EQ(harness_.set_table("pool", pool_line(8)).error(), EILSEQ) << "it is damaged still";
  mend_metadata();
  make_pool(8);
  EXPECT_EQ(mode(), "rw");
  EXPECT_EQ(used(), "2/8");
  open_thin("thin", 0, 64);
  open_thin("other", 1, 64);
  EXPECT_EQ(harness_.read("thin", 0, kBlock), fake::pattern(kBlock, 1));
  EXPECT_EQ(harness_.read("other", 0, kBlock), fake::pattern(kBlock, 1));
  EXPECT_EQ(harness_.read("thin", kBlock, 8), filled(8, 0)) << "nobody was told that it lasts";
  EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 3)), BlkStatus::kOk);
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  take_down();
  ASSERT_NO_FATAL_FAILURE(clear_needs_check(env_.get()));  // and nothing wrong is found
}

TEST_F(ThinFail, EndsWhatWaitsForSpace) {
  set_up(2);
  std::vector<std::unique_ptr<fake::AsyncBio>> waiting;
  for (const sector_t block : {sector_t{5}, sector_t{6}}) {
    waiting.push_back(std::make_unique<fake::AsyncBio>(harness_.device("thin"), block * kBlock,
                                                       fake::pattern(8, block)));
    waiting.back()->submit();
  }
  harness_.env().run();
  ASSERT_EQ(mode(), "out_of_data_space");
  break_metadata();
  EXPECT_EQ(message_error("create_thin 7"), 0) << "as the kernel: the pool's mode tells";
  harness_.env().run();
  EXPECT_EQ(harness_.status("pool"), "0 256 thin-pool Fail");
  for (const auto& bio : waiting) {
    ASSERT_TRUE(bio->done());
    EXPECT_EQ(bio->status(), BlkStatus::kIoError);
  }
  // What was to come about a second or a minute later brings nothing back.
  harness_.env().advance(61 * kSecond);
  EXPECT_EQ(harness_.status("pool"), "0 256 thin-pool Fail");
  EXPECT_EQ(harness_.env().armed_timers(), 0U);
}

// What a suspended pool holds ends when the resumed one has failed meanwhile.
TEST_F(ThinFail, EndsWhatASuspendedPoolHolds) {
  set_up(8);
  ASSERT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 2)), BlkStatus::kOk);
  break_metadata();
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok()) << "its commit fails";
  fake::AsyncBio read(harness_.device("thin"), Op::kRead, 0, 8);
  fake::AsyncBio write(harness_.device("other"), 0, fake::pattern(8, 1));
  fake::AsyncBio flush(harness_.device("other"), Op::kFlush, 0, 0);
  for (fake::AsyncBio* bio : {&read, &write, &flush}) {
    bio->submit();
  }
  harness_.env().run();
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  harness_.env().run();
  for (fake::AsyncBio* bio : {&read, &write, &flush}) {
    ASSERT_TRUE(bio->done());
    EXPECT_EQ(bio->status(), BlkStatus::kIoError);
  }
  expect_failed();
}

}  // namespace

}  // namespace mapperfs::test
