// Writes that get their block in the thread that submits them, and the races of that with all who
// give blocks on a worker.
#include <atomic>
#include <thread>
#include <utility>

#include "targets/targets.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

constexpr std::string_view kNoZeroing = "128 0 1 skip_block_zeroing";

class ThinNow : public ThinTest {
 protected:
  // Whether a write of 4 KiB is over when submit_bio() returns, with no worker run since.
  bool at_once(const std::string& name, std::uint64_t block, std::uint8_t flags = 0) {
    fake::AsyncBio bio(harness_.device(name), block * kBlock, fake::pattern(8, 1), flags);
    const bool done = bio.submit().done();
    harness_.env().run();
    EXPECT_TRUE(bio.done());
    EXPECT_EQ(bio.status(), BlkStatus::kOk);
    return done;
  }
};

TEST_F(ThinNow, AWriteBesideAMappedBlockWaitsForNobody) {
  make_pool(128, kNoZeroing);
  make_thin("thin", 0, 64);
  EXPECT_FALSE(at_once("thin", 0)) << "the first makes the mapping's pages";
  EXPECT_TRUE(at_once("thin", 1));
  EXPECT_TRUE(at_once("thin", 2, kBioNowait));
  EXPECT_FALSE(at_once("thin", 3, kBioFua));
  EXPECT_EQ(used(), "4/128");
  EXPECT_EQ(harness_.read("thin", kBlock, 8), fake::pattern(8, 1));
  snap(1, 0);
  EXPECT_FALSE(at_once("thin", 4)) << "the mapping's page is shared";
  EXPECT_TRUE(at_once("thin", 5));
}

TEST_F(ThinNow, ABlockThatIsToBeFilledIsAWorkers) {
  harness_.add_rams();
  make_pool(128);
  make_thin("zeroed", 0, 64);
  EXPECT_FALSE(at_once("zeroed", 0));
  EXPECT_FALSE(at_once("zeroed", 1));
  ASSERT_TRUE(harness_.set_table("pool", pool_line(128, kNoZeroing)).ok());
  EXPECT_TRUE(at_once("zeroed", 2)) << "the new table says so";
  make_thin("copied", 1, 512, "ram0");
  EXPECT_FALSE(at_once("copied", 256)) << "past the origin, but the first of all";
  EXPECT_TRUE(at_once("copied", 257));
  EXPECT_FALSE(at_once("copied", 1)) << "of the origin's blocks";
}

TEST_F(ThinNow, TheLowWaterMarkIsSeenAllTheSame) {
  make_pool(16, "128 10 1 skip_block_zeroing");
  make_thin("thin", 0, 64);
  const std::uint32_t before = events();
  for (std::uint64_t block = 0; block < 6; ++block) {
    at_once("thin", block);
  }
  EXPECT_EQ(events(), before) << used();
  at_once("thin", 6);
  EXPECT_EQ(events(), before + 1) << used();
}

TEST_F(ThinNow, ASuspendedPoolHoldsThem) {
  make_pool(128, kNoZeroing);
  make_thin("thin", 0, 64);
  at_once("thin", 0);
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  fake::AsyncBio bio(harness_.device("thin"), kBlock, fake::pattern(8, 1));
  bio.submit();
  harness_.env().run();
  EXPECT_FALSE(bio.done());
  EXPECT_EQ(used(), "1/128");
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  harness_.env().run();
  EXPECT_TRUE(bio.done());
  EXPECT_EQ(used(), "2/128");
}

// A memory that sends another bio first whenever it is read.
class SendsAnother final : public BlockDevice {
 public:
  void submit(Bio& bio) noexcept override {
    if (fake::AsyncBio* const bio_first = std::exchange(first, nullptr); bio_first != nullptr) {
      done_at_once = bio_first->submit().done();
    }
    memory_.submit(bio);
  }
  [[nodiscard]] sector_t size_sectors() const override { return memory_.size_sectors(); }
  [[nodiscard]] QueueLimits limits() const override { return memory_.limits(); }
  [[nodiscard]] std::string table_name() const override { return memory_.table_name(); }

  fake::AsyncBio* first = nullptr;
  bool done_at_once = false;

 private:
  fake::MemDev memory_{"another", std::uint64_t{256} * 128};
};

TEST_F(ThinNow, AThreadThatFillsABlockGivesNone) {
  SendsAnother origin;
  harness_.opener().add("another", origin);
  make_pool(128, kNoZeroing);
  make_thin("copied", 1, 512, "another");
  EXPECT_FALSE(at_once("copied", 300)) << "the first of all";
  EXPECT_TRUE(at_once("copied", 301));
  fake::AsyncBio inner(harness_.device("copied"), 302 * kBlock, fake::pattern(8, 1));
  origin.first = &inner;
  EXPECT_FALSE(at_once("copied", 1)) << "of the origin's blocks";
  EXPECT_EQ(origin.first, nullptr);
  EXPECT_FALSE(origin.done_at_once);
  EXPECT_EQ(inner.status(), BlkStatus::kOk);
  EXPECT_EQ(used(), "4/128");
  remove("copied");  // its origin goes here
}

// The message's commit is kept waiting for the data device's flush.
TEST_F(ThinNow, AWriteGivesWayToAMessageForAWhile) {
  fake::FaultDev& slow = harness_.add_fault_dev("slow", 1024 * kBlock);
  ASSERT_TRUE(harness_
                  .set_table("pool", fmt::format("0 {} thin-pool {} slow {}", 128 * kBlock,
                                                 dir_ / "meta", kNoZeroing))
                  .ok());
  make_thin("thin", 0, 64);
  EXPECT_FALSE(at_once("thin", 0));
  slow.hold();
  std::thread message([this] { EXPECT_EQ(message_error("create_thin 1"), 0); });
  while (slow.waiting() == 0) {
    std::this_thread::yield();
  }
  fake::AsyncBio bio(harness_.device("thin"), kBlock, fake::pattern(8, 1));
  bio.submit();
  EXPECT_EQ(used(), "1/128") << "as many as the commit has";
  harness_.env().run();
  EXPECT_EQ(used(), "2/128") << "but the device takes too long";
  slow.release();
  message.join();
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
  EXPECT_TRUE(at_once("thin", 2));
}

// Each block is begun by several threads at once, one of which forces its own to a worker by FUA.
TEST(ThinNowThreads, ABlockIsGivenOnce) {
  constexpr sector_t kBlock = 128;
  constexpr std::uint64_t kBlocks = 400;
  TempDir dir;
  fake::FakeOpener opener;
  TargetRegistry registry;
  register_targets(registry);
  const std::unique_ptr<Env> env = make_real_env();
  Engine engine(*env, registry, opener);
  opener.add_mem("data", 4 * kBlocks * kBlock);
  const auto load = [&](const std::string& name, const std::string& line) {
    const auto found = engine.find(name);
    MappedDevice& md = found.ok() ? **found : **engine.create(name, {});
    EXPECT_TRUE(md.load(parse_lines(line), DeviceMode::kReadWrite).ok());
    EXPECT_TRUE(md.resume({}).ok());
    return &md;
  };
  const auto message = [&](std::string_view text) {
    const std::vector<std::string> words = split_words(text);
    const std::vector<std::string_view> argv(words.begin(), words.end());
    EXPECT_TRUE((*engine.find("pool"))->message(0, argv).ok());
  };
  load("pool",
       fmt::format("0 {} thin-pool {} data {}", 4 * kBlocks * kBlock, dir / "meta", kNoZeroing));
  message("create_thin 0");
  MappedDevice* const md = load("thin", fmt::format("0 {} thin pool 0", kBlocks * kBlock));
  std::vector<std::thread> writers;
  for (unsigned part = 0; part < 4; ++part) {
    writers.emplace_back([&, part] {
      for (std::uint64_t block = 0; block < kBlocks; ++block) {
        const std::uint8_t flags = (block + part) % 16 == 0 ? kBioFua : 0;
        fake::AsyncBio bio(*md, block * kBlock + part * 32, fake::pattern(32, part + 1), flags);
        ASSERT_EQ(bio.submit().wait(), BlkStatus::kOk);
      }
    });
  }
  std::atomic<bool> stop{false};
  std::thread control([&] {
    for (unsigned id = 1; !stop; ++id) {
      message(fmt::format("create_snap {} 0", id));
      EXPECT_TRUE((*engine.find("pool"))->suspend({}).ok());
      EXPECT_TRUE((*engine.find("pool"))->resume({}).ok());
      message(fmt::format("delete {}", id));
    }
  });
  for (std::thread& writer : writers) {
    writer.join();
  }
  stop = true;
  control.join();
  for (std::uint64_t block = 0; block < kBlocks; ++block) {
    for (unsigned part = 0; part < 4; ++part) {
      ASSERT_TRUE(fake::read_back(*md, block * kBlock + part * 32, 32) ==
                  fake::pattern(32, part + 1))
          << "block " << block << " part " << part;
    }
  }
  engine.shut_down();
}

}  // namespace

}  // namespace mapperfs::test
