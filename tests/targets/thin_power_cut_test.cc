// The power goes at random moments, of the data device and of the metadata's at once: unsynced
// bytes of the database are dropped, kept or torn, unflushed sectors lost. Then the checker finds
// nothing, and a pool opened on what is left has every flushed write, in none but its own device.
// Run at length in November 2026: seeds 1001 to 3500, nothing lost.
#include <rocksdb/env.h>

#include "metadata/thin_check.h"
#include "tests/fake/sanitizer.h"
#include "tests/metadata/fault_fs.h"
#include "tests/targets/thin_model.h"

namespace mapperfs::test {

namespace {

using mapperfs::testing::FaultFs;

// Every fifth switches logs, which takes the longest; all have the same threads.
constexpr unsigned kSeeds = fake::kThreadSanitizer ? 2 : fake::kAddressSanitizer ? 6 : 12;

class ThinPowerCut : public ThinModel {
 protected:
  ThinPowerCut() : fs_(std::make_shared<FaultFs>()), env_(rocksdb::NewCompositeEnv(fs_)) {
    thinp::PoolTuning tuning;
    tuning.env = env_.get();
    if (switches_logs()) {
      tuning.memtable_bytes = std::size_t{64} << 10;
    }
    thinp::set_pool_tuning(tuning);
    // The pool looks whether the directory is there; what is in it is the other file system's.
    std::filesystem::create_directory(dir_ / meta_);
  }

  ~ThinPowerCut() override { close(); }  // while the file system is there

  [[nodiscard]] bool cut() const override { return fs_->struck(); }
  // Whether the pool lives so long that the database switches its logs and writes files. Few seeds,
  // since its threads sit out a second when they meet an error; with zeroing and without, as
  // zeroes() goes by another prime.
  [[nodiscard]] static bool switches_logs() { return GetParam() % 5 == 0; }

  void crash() override {
    if (!cut()) {
      // In the middle of the commit that a status asks for, if there is something to commit. Later,
      // a commit would flush data that was lost before.
      fs_->fail_after(1, FaultFs::Fault::kCut);
      static_cast<void>(
          harness_.device("pool").status_lines(MappedDevice::Slot::kLive, /*noflush=*/false));
    }
    fault_.crash();
    close();
    fs_->restore_power(GetParam() * 1000 + ++crashes_);
    fs_->fail_after(std::uint64_t{1} << 60, FaultFs::Fault::kCut);  // not struck any more
    check();
    open();
    adopt_all();
  }
  void check() {
    ThinCheckOptions options;
    options.env = env_.get();
    const auto report = check_thin_metadata(dir_ / meta_, options);
    if (!report.ok()) {
      // Nothing of the pool may be there yet.
      ASSERT_TRUE(report.status().error() == EINVAL && model_.size() <= 1)
          << report.status().message();
      return;
    }
    EXPECT_TRUE(report->clean()) << (report->messages.empty() ? "leaks" : report->messages.front());
    EXPECT_FALSE(report->needs_check);
  }

  const std::shared_ptr<FaultFs> fs_;
  const std::unique_ptr<rocksdb::Env> env_;
};

TEST_P(ThinPowerCut, LeavesWhatWasFlushedAndNothingForeign) {
  fault_.crash();
  fault_.sync();
  open();
  for (int cuts = 0; cuts < 6 && !HasFailure(); ++cuts) {
    const int life = switches_logs() ? 8 : 1;
    fs_->fail_after(1 + below(static_cast<std::size_t>(60 * life)), FaultFs::Fault::kCut);
    for (int i = 0; i < 200 * life && !cut() && !HasFailure(); ++i) {
      step();
    }
    crash();
    verify();
  }
  if (!HasFailure()) {
    expect_nothing_leaks();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ThinPowerCut, seeds(kSeeds));

}  // namespace

}  // namespace mapperfs::test
