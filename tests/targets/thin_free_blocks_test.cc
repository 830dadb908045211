// Free blocks that somebody has to find: those of deleted devices, whatever comes between, and the
// only one of a pool.
#include <array>
#include <functional>
#include <memory>
#include <utility>

#include "metadata/thin_check.h"
#include "targets/targets.h"
#include "targets/thin/pool.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

// Maps `blocks` blocks so far apart that each has pages of its own.
void fill_far_apart(ThinMetadata& metadata, std::uint32_t id, std::uint64_t blocks) {
  constexpr std::uint64_t kApart = 2311;
  ASSERT_TRUE(metadata.create_thin(id).ok());
  const auto device = metadata.open_device(id);
  ASSERT_TRUE(device.ok());
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const auto block = metadata.allocate_data_block();
    ASSERT_TRUE(block.ok());
    ASSERT_TRUE((*device)->insert(i * kApart, *block).ok());
  }
}

class ThinDeletion : public ThinTest {
 protected:
  static constexpr std::uint64_t kPages = 400;  // many more than a deletion takes at a time

  thinp::Pool& pool() { return *thinp::find_pool(harness_.device("pool")); }
  // A deleted device whose blocks are not all free, and nobody at work: past the pool, whose worker
  // would be drained by what takes the pool down.
  void delete_large() {
    make_pool(1024);
    fill_far_apart(pool().metadata(), 1, kPages);
    ASSERT_TRUE(pool().metadata().delete_device(1).ok());
    ASSERT_TRUE(pool().metadata().commit().ok());
    expect_pending();
  }
  void expect_pending() {
    const ThinPoolStatus now = pool().metadata().status();
    EXPECT_TRUE(now.reclaim_pending);
    EXPECT_GT(now.used_data_blocks, 0U);
    EXPECT_LT(now.used_data_blocks, kPages) << "a part is free at once";
  }
  void expect_all_free(std::string_view meta = "meta") {
    harness_.env().advance(2 * kSecond);
    EXPECT_FALSE(pool().metadata().status().reclaim_pending);
    EXPECT_EQ(used(), "0/1024");
    EXPECT_EQ(pool().metadata().free_data_blocks(), 1024U);
    remove("pool");
    const auto report = check_thin_metadata(dir_ / meta, {});
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_TRUE(report->clean());
    EXPECT_EQ(report->leaked_data_blocks, 0U);
  }
};

TEST_F(ThinDeletion, APoolOpenedInTheMidstOfOneGoesOn) {
  delete_large();
  remove("pool");
  make_pool(1024);
  expect_pending();
  expect_all_free();
}

TEST_F(ThinDeletion, APoolOpenedAfterACrashInTheMidstOfOneGoesOn) {
  delete_large();
  copy_metadata("meta", "crashed");
  remove("pool");
  ASSERT_TRUE(harness_.set_table("pool", pool_line(1024, "128 0", "crashed")).ok());
  expect_pending();
  expect_all_free("crashed");
}

TEST_F(ThinDeletion, AResumedPoolGoesOn) {
  delete_large();
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  harness_.env().advance(2 * kSecond);
  expect_pending();
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  expect_all_free();
}

// Virtual time, and something that happens when a timer is armed next.
class ArmedEnv final : public Env {
 public:
  std::function<void()> when_armed;

  [[nodiscard]] std::uint64_t now_ns() const override { return sim_.now_ns(); }
  void arm(Timer& timer, std::uint64_t when_ns) override {
    sim_.arm(timer, when_ns);
    if (when_armed) {
      std::exchange(when_armed, nullptr)();
    }
  }
  void cancel(Timer& timer) override { sim_.cancel(timer); }
  std::unique_ptr<Worker> make_worker(const std::string& name) override {
    return sim_.make_worker(name);
  }
  void run_blocking(std::function<void()> work) override { sim_.run_blocking(std::move(work)); }
  std::uint64_t random_seed() override { return sim_.random_seed(); }
  fake::SimEnv& sim() { return sim_; }

 private:
  fake::SimEnv sim_;
};

// The worker has found nothing left, and arms the commit's timer before it says that it is done.
TEST(ThinDeletionEnd, ADeletionThatComesAsTheLastOneEndsIsNotForgotten) {
  constexpr std::uint64_t kPages = 75;  // a few more than a deletion frees itself
  TempDir dir;
  ArmedEnv env;
  fake::FakeOpener opener;
  opener.add_mem("data", 1024 * 128);
  TargetRegistry registry;
  register_targets(registry);
  Engine engine(env, registry, opener);
  MappedDevice& md = **engine.create("pool", {});
  const std::string line = fmt::format("0 {} thin-pool {} data 128 0", 1024 * 128, dir / "meta");
  ASSERT_TRUE(md.load(parse_lines(line), DeviceMode::kReadWrite).ok());
  ASSERT_TRUE(md.resume({}).ok());
  const auto delete_device = [&md](std::string_view id) {
    const std::array<std::string_view, 2> words = {"delete", id};
    EXPECT_TRUE(md.message(0, words).ok());
  };
  ThinMetadata& metadata = thinp::find_pool(md)->metadata();
  fill_far_apart(metadata, 1, kPages);
  fill_far_apart(metadata, 2, kPages);
  ASSERT_TRUE(metadata.commit().ok());
  delete_device("1");
  ASSERT_TRUE(metadata.status().reclaim_pending);
  env.when_armed = [&] {
    EXPECT_FALSE(metadata.status().reclaim_pending) << "this is not the end of the deletion";
    delete_device("2");
    EXPECT_TRUE(metadata.status().reclaim_pending);
  };
  env.sim().advance(2 * kSecond);
  EXPECT_FALSE(env.when_armed) << "the worker armed no timer";
  EXPECT_FALSE(metadata.status().reclaim_pending) << "nobody takes the second device apart";
  EXPECT_EQ(metadata.status().used_data_blocks, 0U);
  engine.shut_down();
}

// Three pages of counts, the last one not full.
class ThinLastBlock : public ThinTest, public ::testing::WithParamInterface<const char*> {
 protected:
  static constexpr std::uint64_t kBlocks = 2 * 512 + 100;

  ThinLastBlock() { harness_.opener().add_mem("data", kBlocks * kBlock); }
};

TEST_P(ThinLastBlock, IsFoundWhereverItIs) {
  make_pool(kBlocks, GetParam());
  make_thin("thin", 0, 2 * kBlocks);
  for (std::uint64_t i = 0; i < kBlocks; ++i) {
    ASSERT_EQ(harness_.write("thin", i * kBlock, fake::pattern(1, i)), BlkStatus::kOk);
  }
  const std::string full = fmt::format("{}/{}", kBlocks, kBlocks);
  EXPECT_EQ(used(), full);
  const auto volume = thinp::find_pool(harness_.device("pool"))->open_volume(0);
  ASSERT_TRUE(volume.ok());
  // Behind the last one given out, before it, the same again, and at both ends of a page.
  std::uint64_t next = kBlocks;
  for (const std::uint64_t at : {700U, 3U, 3U, 511U, 512U, 511U, 1123U, 0U, 1023U, 1024U, 2U}) {
    SCOPED_TRACE(fmt::format("virtual block {}", at));
    const std::uint64_t block = (*volume)->dev->lookup(at)->data_block;
    ASSERT_EQ(harness_.run_op("thin", Op::kDiscard, at * kBlock, kBlock), BlkStatus::kOk);
    ASSERT_EQ(harness_.write("thin", next * kBlock, fake::pattern(kBlock, next)), BlkStatus::kOk);
    EXPECT_EQ((*volume)->dev->lookup(next)->data_block, block);
    EXPECT_EQ(harness_.read("thin", next * kBlock, kBlock), fake::pattern(kBlock, next));
    EXPECT_EQ(mode(), "rw");
    EXPECT_EQ(used(), full);
    // Back to where the loop looks for it.
    ASSERT_EQ(harness_.run_op("thin", Op::kDiscard, next * kBlock, kBlock), BlkStatus::kOk);
    ASSERT_EQ(harness_.write("thin", at * kBlock, fake::pattern(1, at)), BlkStatus::kOk);
    EXPECT_EQ((*volume)->dev->lookup(at)->data_block, block);
    ++next;
  }
}

INSTANTIATE_TEST_SUITE_P(Pools, ThinLastBlock,
                         ::testing::Values("128 0", "128 0 1 skip_block_zeroing",
                                           "128 0 1 no_discard_passdown"));

}  // namespace

}  // namespace mapperfs::test
