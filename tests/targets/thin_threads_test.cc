// Many threads on one pool, in real time: each owns blocks of a thin device and knows what it
// wrote, while others take snapshots, discard, reload, and suspend.
#include <atomic>
#include <random>
#include <thread>

#include "targets/targets.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

constexpr sector_t kBlock = 128;
constexpr std::uint64_t kPoolBlocks = 4096;

class ThinThreads : public ::testing::Test {
 protected:
  ThinThreads() : env_(make_real_env()), engine_(*env_, registry_, opener_) {
    register_targets(registry_);
    opener_.add_mem("data", kPoolBlocks * kBlock);
    load("pool", fmt::format("0 {} thin-pool {} data 128 0", kPoolBlocks * kBlock, dir_ / "meta"));
  }
  ~ThinThreads() override { engine_.shut_down(); }

  MappedDevice& device(const std::string& name) {
    if (const auto found = engine_.find(name); found.ok()) {
      return **found;
    }
    return **engine_.create(name, {});
  }
  void load(const std::string& name, const std::string& line) {
    MappedDevice& md = device(name);
    Status status = md.load(parse_lines(line), DeviceMode::kReadWrite);
    if (status.ok()) {
      status = md.resume({});
    }
    EXPECT_TRUE(status.ok()) << status.message();
  }
  void message(std::string_view text) {
    const std::vector<std::string> words = split_words(text);
    const std::vector<std::string_view> argv(words.begin(), words.end());
    const auto reply = device("pool").message(0, argv);
    EXPECT_TRUE(reply.ok()) << reply.status().message();
  }
  void make_thin(unsigned id, std::uint64_t blocks) {
    message(fmt::format("create_thin {}", id));
    load(fmt::format("t{}", id), fmt::format("0 {} thin pool {}", blocks * kBlock, id));
  }

  // Writes and checks blocks [first, first + blocks) of `name`, which are this thread's alone.
  void work(const std::string& name, std::uint64_t first, std::uint64_t blocks, unsigned seed,
            int rounds) {
    std::mt19937_64 random(seed);
    std::vector<unsigned> tags(blocks * 8, 0);  // by 16 sectors
    MappedDevice& md = device(name);
    for (int i = 0; i < rounds; ++i) {
      const std::size_t cell = random() % tags.size();
      const sector_t sector = first * kBlock + cell * 16;
      if (random() % 3 != 0) {
        tags[cell] = seed * 1'000'000 + static_cast<unsigned>(i) + 1;
        ASSERT_EQ(fake::write(md, sector, fake::pattern(16, tags[cell])), BlkStatus::kOk);
      } else if (random() % 8 == 0) {
        const std::size_t block = cell / 8;
        ASSERT_EQ(fake::do_op(md, Op::kDiscard, (first + block) * kBlock, kBlock), BlkStatus::kOk);
        std::fill_n(tags.begin() + static_cast<std::ptrdiff_t>(block * 8), 8, 0U);
      } else if (random() % 16 == 0) {
        ASSERT_EQ(fake::flush(md), BlkStatus::kOk);
      }
      const std::size_t look = random() % tags.size();
      const fake::Bytes expected = tags[look] == 0 ? filled(16, 0) : fake::pattern(16, tags[look]);
      ASSERT_TRUE(fake::read_back(md, first * kBlock + look * 16, 16) == expected)
          << name << " cell " << look << " seed " << seed << " round " << i;
    }
  }

  TempDir dir_;
  fake::FakeOpener opener_;
  TargetRegistry registry_;
  std::unique_ptr<Env> env_;
  Engine engine_;
};

TEST_F(ThinThreads, WritersSnapshotsDiscardsAndSuspendsDoNotDisturbOneAnother) {
  make_thin(0, 64);
  make_thin(1, 64);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back(
        [this, i] { work(fmt::format("t{}", i % 2), i / 2 * 32, 32, i + 1, 400); });
  }
  std::thread control([&] {
    for (unsigned id = 10; !stop; ++id) {
      message(fmt::format("create_snap {} {}", id, id % 2));
      load("s", fmt::format("0 {} thin pool {}", 64 * kBlock, id));
      const fake::Bytes frozen = fake::read_back(device("s"), 0, 64 * kBlock);
      EXPECT_FALSE(frozen.empty());
      EXPECT_TRUE(device("pool").suspend({}).ok());
      EXPECT_TRUE(device("pool").resume({}).ok());
      EXPECT_TRUE(fake::read_back(device("s"), 0, 64 * kBlock) == frozen) << "snapshot " << id;
      EXPECT_TRUE(engine_.remove("s", false).ok());
      message(fmt::format("delete {}", id));
    }
  });
  for (std::thread& thread : threads) {
    thread.join();
  }
  stop = true;
  control.join();
}

TEST_F(ThinThreads, TwoWritersOfOneNewBlockBothGetTheirSectors) {
  make_thin(0, 1024);
  MappedDevice& md = device("t0");
  const auto write_half = [&](sector_t offset, unsigned seed) {
    for (sector_t block = 0; block < 300; ++block) {
      ASSERT_EQ(fake::write(md, block * kBlock + offset, fake::pattern(64, seed)), BlkStatus::kOk);
    }
  };
  std::thread first([&] { write_half(0, 1); });
  std::thread second([&] { write_half(64, 2); });
  first.join();
  second.join();
  for (sector_t block = 0; block < 300; ++block) {
    ASSERT_EQ(fake::read_back(md, block * kBlock, 64), fake::pattern(64, 1)) << block;
    ASSERT_EQ(fake::read_back(md, block * kBlock + 64, 64), fake::pattern(64, 2)) << block;
  }
  const auto lines = device("t0").status_lines(MappedDevice::Slot::kLive, true);
  EXPECT_EQ(lines.front().words, fmt::format("{} {}", 300 * kBlock, 300 * kBlock - 1));
}

}  // namespace

}  // namespace mapperfs::test
