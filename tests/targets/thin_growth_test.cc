// A longer table for a pool whose metadata take no more changes.
#include <rocksdb/env.h>

#include <cerrno>
#include <memory>

#include "tests/metadata/fault_fs.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

using mapperfs::testing::FaultFs;

class ThinGrowth : public ThinTest {
 protected:
  ThinGrowth() : fs_(std::make_shared<FaultFs>()), env_(rocksdb::NewCompositeEnv(fs_)) {
    thinp::PoolTuning tuning;
    std::filesystem::create_directory(dir_ / "meta");  // where the pool looks whether it is there
    tuning.env = env_.get();
    thinp::set_pool_tuning(tuning);
    make_pool(64);
    make_thin("thin", 0, 256);
    EXPECT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1)), BlkStatus::kOk);
    EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  }
  ~ThinGrowth() override { take_down(); }  // while the file system is there

  void take_down() {
    for (const char* name : {"thin", "pool"}) {
      if (harness_.engine().find(name).ok()) {
        remove(name);
      }
    }
  }
  Status grow(std::uint64_t blocks, std::string_view rest = "128 0") {
    return harness_.set_table("pool", pool_line(blocks, rest));
  }
  bool logged(std::string_view sentence) {
    return harness_.engine().log().text().find(sentence) != std::string::npos;
  }
  // What was there is served, and no more.
  void expect_read_only() {
    EXPECT_EQ(mode(), "ro");
    EXPECT_EQ(used(), "1/64");
    EXPECT_EQ(harness_.read("thin", 0, kBlock), fake::pattern(kBlock, 1));
    EXPECT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1)), BlkStatus::kOk)
        << "in its place";
    EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 3)), BlkStatus::kIoError);
    EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
    EXPECT_EQ(message_error("create_thin 7"), EOPNOTSUPP);
  }
  // It grows as if nothing had been.
  void expect_growth() {
    EXPECT_TRUE(grow(128).ok());
    EXPECT_EQ(mode(), "rw");
    EXPECT_EQ(used(), "1/128");
    EXPECT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 4)), BlkStatus::kOk);
    EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
    EXPECT_EQ(harness_.read("thin", kBlock, 8), fake::pattern(8, 4));
    EXPECT_EQ(used(), "2/128");
  }

  const std::shared_ptr<FaultFs> fs_;
  const std::unique_ptr<rocksdb::Env> env_;
};

class ThinGrowthFault
    : public ThinGrowth,
      public ::testing::WithParamInterface<std::pair<FaultFs::Fault, const char*>> {};

TEST_P(ThinGrowthFault, LeavesTheOldSizeReadOnly) {
  const auto& [fault, said] = GetParam();
  fs_->fail_after(1, fault, FaultFs::kForEver);
  EXPECT_TRUE(grow(128).ok()) << "as the kernel's: the pool's mode tells";
  EXPECT_TRUE(fs_->struck());
  EXPECT_TRUE(logged("growing the data device from 64 to 128 blocks"));
  EXPECT_TRUE(logged(fmt::format("metadata operation 'commit' failed: error = -{}", said)));
  expect_read_only();
  EXPECT_EQ(word(harness_.status("pool"), 10), "needs_check");
  // Nor does it grow later on, before somebody has looked.
  fs_->disarm();
  EXPECT_TRUE(grow(256).ok());
  EXPECT_TRUE(logged("unable to grow the data device until repaired."));
  expect_read_only();
  take_down();
  ASSERT_NO_FATAL_FAILURE(clear_needs_check(env_.get()));
  make_pool(64);
  open_thin("thin", 0, 256);
  expect_growth();
}

INSTANTIATE_TEST_SUITE_P(Faults, ThinGrowthFault,
                         ::testing::Values(std::pair{FaultFs::Fault::kNoSpace, "28"},
                                           std::pair{FaultFs::Fault::kIoError, "5"}));

TEST_F(ThinGrowth, OfAReadOnlyPoolWaitsForAWritableTable) {
  const Status read_only = grow(64, "128 0 1 read_only");
  ASSERT_TRUE(read_only.ok()) << read_only.message();
  ASSERT_TRUE(grow(128, "128 0 1 read_only").ok());
  EXPECT_TRUE(logged("unable to grow the data device while the pool is read-only."));
  expect_read_only();
  EXPECT_EQ(word(harness_.status("pool"), 10), "-");
  EXPECT_FALSE(logged("metadata operation")) << "nothing has failed";
  expect_growth();
}

}  // namespace

}  // namespace mapperfs::test
