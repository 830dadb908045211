// The file system of the metadata fails one change after the other, as a disk does that is full
// or broken, once or for longer.
#include <rocksdb/env.h>

#include <cerrno>
#include <ostream>
#include <vector>

#include "tests/fake/sanitizer.h"
#include "tests/metadata/fault_fs.h"
#include "tests/targets/thin_scenario.h"

namespace mapperfs::test {

namespace {

using mapperfs::testing::FaultFs;

struct FaultCase {
  FaultFs::Fault fault;
  std::uint64_t times;  // changes that fail, one after the other
  const char* table = "128 0";
};

constexpr std::uint64_t kStepsOfReopening = 24;
constexpr std::uint64_t kStride = fake::kSanitized ? 6 : 2;

void PrintTo(const FaultCase& fault, std::ostream* out) {
  *out << (fault.fault == FaultFs::Fault::kNoSpace ? "ENOSPC" : "EIO") << " of " << fault.times
       << " with " << fault.table;
}

class OnFaultFs : public ThinScenario {
 protected:
  ~OnFaultFs() override { tear_down(); }  // while the file system is there

  // A file system for the pool that is made next. There is none.
  void begin(std::size_t memtable_bytes = std::size_t{32} << 20) {
    env_.reset();
    fs_ = std::make_shared<FaultFs>();
    env_ = rocksdb::NewCompositeEnv(fs_);
    thinp::PoolTuning tuning;
    tuning.env = env_.get();
    tuning.memtable_bytes = memtable_bytes;
    thinp::set_pool_tuning(tuning);
  }

  std::shared_ptr<FaultFs> fs_;
  std::unique_ptr<rocksdb::Env> env_;
};

class ThinMetadataFailure : public OnFaultFs, public ::testing::WithParamInterface<FaultCase> {
 protected:
  // What it says it can do, it does, and no more.
  void expect_bounds_kept() {
    const bool fail = failed();
    EXPECT_EQ(message_error("create_thin 7"), EOPNOTSUPP);
    EXPECT_GT(events(), 0U);
    const BlkStatus old_data = fail ? BlkStatus::kIoError : BlkStatus::kOk;
    EXPECT_EQ(harness_.run_op("thin", Op::kRead, 0, 8), old_data);
    EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, kBlock), old_data);
    EXPECT_EQ(harness_.run_op("thin", Op::kWrite, 7 * kBlock, 8), BlkStatus::kIoError)
        << "a new block";
    const std::string status = harness_.status("pool");
    if (fail) {
      EXPECT_EQ(status, "0 8192 thin-pool Fail");
      EXPECT_EQ(harness_.status("thin"), "0 1024 thin Fail");
      EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kIoError);
    } else {
      EXPECT_EQ(word(status, 7), "ro");
      EXPECT_EQ(word(status, 10), "needs_check");
    }
  }
};

TEST_P(ThinMetadataFailure, OfEachChangeLosesNothingThatWasFlushed) {
  std::uint64_t step = 1;
  bool struck = true;
  for (; struck && !HasFailure(); ++step) {
    SCOPED_TRACE(fmt::format("change {}", step));
    tear_down();
    begin();
    set_up(64, GetParam().table);
    fs_->fail_after(step, GetParam().fault, GetParam().times);
    live();
    struck = fs_->struck();
    flag_may_be_lost_ = GetParam().times != 1;
    for (const BlkStatus failure : failures_) {
      EXPECT_EQ(failure, BlkStatus::kIoError) << "as the kernel, even where space was short";
    }
    EXPECT_EQ(aborted(), struck);
    if (struck) {
      expect_bounds_kept();
      EXPECT_FALSE(failed()) << "what was committed can be read, however long nothing is written";
    }
    fs_->disarm();
    expect_sound();
  }
  EXPECT_GT(step, 18U) << "nine commits, each written and synced";
}

// So long that the pool can go back to its last commit at once, or that opening it for writing
// fails in each of its steps: a new log, a new list of files, the flag.
std::vector<FaultCase> fault_cases() {
  std::vector<FaultCase> cases;
  for (const FaultFs::Fault fault : {FaultFs::Fault::kNoSpace, FaultFs::Fault::kIoError}) {
    cases.push_back({fault, 1});
    cases.push_back({fault, FaultFs::kForEver});
  }
  bool space = false;
  for (std::uint64_t times = 2; times <= kStepsOfReopening; times += kStride) {
    cases.push_back({space ? FaultFs::Fault::kNoSpace : FaultFs::Fault::kIoError, times});
    space = !space;
  }
  // Blocks are given elsewhere.
  cases.push_back({FaultFs::Fault::kIoError, 1, "128 0 1 skip_block_zeroing"});
  cases.push_back({FaultFs::Fault::kNoSpace, FaultFs::kForEver, "128 0 1 skip_block_zeroing"});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Faults, ThinMetadataFailure, ::testing::ValuesIn(fault_cases()));

// The table is refused with what the file system said, or the pool is there and says how it is.
class ThinMetadataOpening : public OnFaultFs,
                            public ::testing::WithParamInterface<std::pair<FaultFs::Fault, int>> {
 protected:
  // True: the fault struck.
  bool open_with_fault(std::uint64_t step) {
    fs_->fail_after(step, GetParam().first);
    const Status status = harness_.set_table("pool", pool_line(64));
    fs_->disarm();
    refused_ = !status.ok();
    refusals_ += refused_ ? 1 : 0;
    if (refused_) {
      EXPECT_EQ(status.error(), GetParam().second) << status.message();
      EXPECT_NE(status.message().find("Error creating metadata object"), std::string::npos)
          << status.message();
    }
    return fs_->struck();
  }

  bool refused_ = false;
  int refusals_ = 0;
};

TEST_P(ThinMetadataOpening, OfANewPoolSaysWhatTheFileSystemSaid) {
  blocks_ = 64;
  rest_ = "128 0";
  bool struck = true;
  for (std::uint64_t step = 1; struck && !HasFailure(); ++step) {
    SCOPED_TRACE(fmt::format("change {}", step));
    begin();
    struck = open_with_fault(step);
    if (!refused_) {
      expect_sound();
    }
    set_up(64);
    live();
    expect_sound();
    tear_down();
  }
  EXPECT_GT(refusals_, 8);
}

TEST_P(ThinMetadataOpening, OfAPoolThatIsThereSaysWhatTheFileSystemSaid) {
  begin();
  set_up(64);
  live();
  bool struck = true;
  for (std::uint64_t step = 1; struck && !HasFailure(); ++step) {
    SCOPED_TRACE(fmt::format("change {}", step));
    for (const auto& [name, device] : model_) {
      remove(name);
    }
    remove("pool");
    struck = open_with_fault(step);
    if (refused_) {
      make_pool(64);
    }
    EXPECT_EQ(mode(), "rw");
    for (const auto& [name, device] : model_) {
      open_thin(name, device.id, kDeviceBlocks, device.origin);
    }
    verify();
  }
  EXPECT_GT(refusals_, 8);
}

INSTANTIATE_TEST_SUITE_P(Faults, ThinMetadataOpening,
                         ::testing::Values(std::pair{FaultFs::Fault::kNoSpace, ENOSPC},
                                           std::pair{FaultFs::Fault::kIoError, EIO}));

// Who asks for what cannot be read is told. A change that cannot be made may end in an abort.
class ThinMetadataReading : public OnFaultFs {
 protected:
  static constexpr sector_t kApart = 1009;  // blocks, so that each has pages of its own
  static constexpr unsigned kWrites = 900;

  void make_wide() {
    begin();
    make_pool(1024);
    make_thin("thin", 0, 1 << 20);
    for (unsigned i = 0; i < kWrites; ++i) {
      ASSERT_EQ(harness_.write("thin", i * kApart * kBlock, fake::pattern(1, i)), BlkStatus::kOk);
    }
    reopen();
  }
  // It knows nothing then but what opening reads.
  void reopen() {
    remove("thin");
    remove("pool");
    make_pool(1024);
    open_thin("thin", 0, 1 << 20);
  }
  // Reads what is there and writes beside it. How many bios fail.
  int use() {
    int failures = 0;
    for (unsigned i = 0; i < kWrites; i += 9) {
      for (const Op op : {Op::kRead, Op::kWrite}) {
        const sector_t block = i * kApart + (op == Op::kWrite ? 1 : 0);
        const BlkStatus status = harness_.run_op("thin", op, block * kBlock, 1);
        EXPECT_TRUE(status == BlkStatus::kOk || status == BlkStatus::kIoError);
        failures += status == BlkStatus::kOk ? 0 : 1;
      }
    }
    return failures;
  }
};

TEST_F(ThinMetadataReading, OfEachPartFailsWhoAsked) {
  std::uint64_t step = 1;
  for (bool struck = true; struck && !HasFailure(); ++step) {
    SCOPED_TRACE(fmt::format("read {}", step));
    make_wide();
    fs_->fail_read(step);
    const int failures = use();
    struck = fs_->struck();
    fs_->disarm();
    EXPECT_EQ(failures != 0, struck);
    EXPECT_FALSE(failed());
    if (mode() == "ro") {
      remove("thin");
      remove("pool");
      ASSERT_NO_FATAL_FAILURE(clear_needs_check(env_.get()));
      make_pool(1024);
      open_thin("thin", 0, 1 << 20);
    }
    EXPECT_EQ(mode(), "rw");
    for (unsigned i = 0; i < kWrites; ++i) {
      ASSERT_EQ(harness_.read("thin", i * kApart * kBlock, 1), fake::pattern(1, i)) << i;
    }
    remove("thin");
    remove("pool");
  }
  EXPECT_GT(step, 4U) << "little was read";
}

TEST_F(ThinMetadataReading, OfTheHighestBlockShowsInTheStatus) {
  make_wide();
  const std::string sound = harness_.status("thin");
  EXPECT_EQ(sound, fmt::format("0 {} thin {} {}", kBlock << 20, kWrites * kBlock,
                               ((kWrites - 1) * kApart + 1) * kBlock - 1));
  reopen();
  fs_->fail_read(1);
  EXPECT_EQ(harness_.status("thin"), fmt::format("0 {} thin Error", kBlock << 20));
  EXPECT_TRUE(fs_->struck());
  EXPECT_EQ(harness_.status("thin"), sound) << "it is read again";
  EXPECT_EQ(mode(), "rw");
  remove("thin");
  remove("pool");
}

// Logs are switched and files written all the time, by threads of the database too.
class ThinMetadataLog : public OnFaultFs, public ::testing::WithParamInterface<unsigned> {
 protected:
  static constexpr sector_t kBlocks = 4096;  // of the thin device, far apart

  // A new block, a flush, and now and then a snapshot for another: many pages.
  void round(unsigned number) {
    const sector_t block = number * 997 % kBlocks;
    if (harness_.run_op("thin", Op::kWrite, block * kBlock, 8) != BlkStatus::kOk ||
        harness_.write("thin", block * kBlock, fake::pattern(8, number)) != BlkStatus::kOk) {
      return;
    }
    if (harness_.run_op("thin", Op::kFlush, 0, 0) == BlkStatus::kOk) {
      flushed_[block] = number;
    }
    if (number % 4 == 0 && message_error(fmt::format("create_snap {} 0", number)) == 0 &&
        number != 4) {
      static_cast<void>(message_error(fmt::format("delete {}", number - 4)));
      harness_.env().advance(2 * kSecond);
    }
  }
  void expect_flushed() {
    for (const auto& [block, number] : flushed_) {
      ASSERT_EQ(harness_.read("thin", block * kBlock, 8), fake::pattern(8, number)) << block;
    }
  }

  std::map<sector_t, unsigned> flushed_;
};

TEST_P(ThinMetadataLog, LosesNothingToAnErrorWhereverItStrikes) {
  begin(std::size_t{64} << 10);
  make_pool(1024);
  make_thin("thin", 0, kBlocks);
  fs_->fail_after(GetParam() * 17,
                  GetParam() % 2 == 0 ? FaultFs::Fault::kNoSpace : FaultFs::Fault::kIoError,
                  1 + GetParam() % 3);
  for (unsigned number = 1; number <= 160 && !aborted(); ++number) {
    round(number);
  }
  EXPECT_TRUE(fs_->struck());
  fs_->disarm();
  EXPECT_GT(flushed_.size(), 0U);
  if (!failed()) {
    expect_flushed();
  }
  const bool flagged = aborted() && !failed();
  remove("thin");
  remove("pool");
  ThinCheckOptions options;
  options.env = env_.get();
  options.clear_needs_check = flagged;
  const auto report = check_thin_metadata(dir_ / "meta", options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->clean()) << fmt::format("{}", fmt::join(report->messages, "; "));
  make_pool(1024);
  EXPECT_EQ(mode(), "rw");
  open_thin("thin", 0, kBlocks);
  expect_flushed();
  round(500);
  EXPECT_EQ(flushed_[500 * 997 % kBlocks], 500U);
  remove("thin");
}

INSTANTIATE_TEST_SUITE_P(Steps, ThinMetadataLog, ::testing::Range(1U, 17U));

TEST_F(ThinTest, AReadOnlyPoolIsNotMadeInAnEmptyDirectory) {
  std::filesystem::create_directory(dir_ / "empty");
  for (const char* meta : {"empty", "missing"}) {
    const Status status = harness_.set_table("pool", pool_line(16, "128 0 1 read_only", meta));
    EXPECT_EQ(status.error(), EPERM) << meta;
    EXPECT_NE(status.message().find("Error creating metadata object"), std::string::npos)
        << status.message();
    EXPECT_NE(status.message().find("read_only forbids"), std::string::npos) << status.message();
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / "empty"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "missing"));
}

}  // namespace

}  // namespace mapperfs::test
