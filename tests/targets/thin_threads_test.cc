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
  explicit ThinThreads(std::uint64_t pool_blocks = kPoolBlocks)
      : env_(make_real_env()), engine_(*env_, registry_, opener_) {
    register_targets(registry_);
    opener_.add_mem("data", kPoolBlocks * kBlock);
    load_pool(pool_blocks);
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
  void load_pool(std::uint64_t blocks) {
    load("pool", fmt::format("0 {} thin-pool {} data 128 0", blocks * kBlock, dir_ / "meta"));
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

  // How long writers go on beyond their rounds, and how many rounds all have done.
  struct Pace {
    std::atomic<bool> go_on{true};
    std::atomic<unsigned> rounds{0};
  };
  // Writes and checks blocks [first, first + blocks) of `name`, which are this thread's alone.
  void work(const std::string& name, std::uint64_t first, std::uint64_t blocks, unsigned seed,
            int rounds, Pace* pace = nullptr) {
    std::mt19937_64 random(seed);
    std::vector<unsigned> tags(blocks * 8, 0);  // by 16 sectors
    MappedDevice& md = device(name);
    for (int i = 0; i < rounds || (pace != nullptr && pace->go_on); ++i) {
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
      if (pace != nullptr) {
        ++pace->rounds;
      }
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

class ThinThreadsGrowth : public ThinThreads {
 protected:
  static constexpr std::uint64_t kBlocks = 64;
  ThinThreadsGrowth() : ThinThreads(kBlocks) {}
};

// The pool never has more blocks than its devices, so that what is written past their old ends
// needs its growth. Between two steps the writers do some rounds, and they outlast all steps.
TEST_F(ThinThreadsGrowth, ThePoolAndThinDevicesGrowUnderTheirWriters) {
  constexpr std::uint64_t kFirst = 32;
  constexpr std::uint64_t kStep = 8;
  constexpr std::uint64_t kSteps = 4;
  make_thin(0, kFirst);
  make_thin(1, kFirst);
  Pace pace;
  std::vector<std::thread> writers;
  for (unsigned i = 0; i < 4; ++i) {
    writers.emplace_back(
        [&, i] { work(fmt::format("t{}", i % 2), i / 2 * 16, 16, i + 1, 100, &pace); });
  }
  std::uint64_t blocks = kFirst;
  for (; blocks < kFirst + kSteps * kStep; blocks += kStep) {
    const unsigned before = pace.rounds;
    while (pace.rounds < before + 8 && !HasFailure()) {  // a writer that fails ends
      std::this_thread::yield();
    }
    load_pool(2 * (blocks + kStep));
    for (const unsigned id : {0U, 1U}) {
      load(fmt::format("t{}", id), fmt::format("0 {} thin pool {}", (blocks + kStep) * kBlock, id));
      EXPECT_EQ(device(fmt::format("t{}", id)).size_sectors(), (blocks + kStep) * kBlock);
      const fake::Bytes data = fake::pattern(kStep * kBlock, blocks + id);
      EXPECT_EQ(fake::write(device(fmt::format("t{}", id)), blocks * kBlock, data), BlkStatus::kOk);
    }
  }
  pace.go_on = false;
  for (std::thread& writer : writers) {
    writer.join();
  }
  for (std::uint64_t at = kFirst; at < blocks; at += kStep) {
    for (const unsigned id : {0U, 1U}) {
      EXPECT_TRUE(fake::read_back(device(fmt::format("t{}", id)), at * kBlock, kStep * kBlock) ==
                  fake::pattern(kStep * kBlock, at + id))
          << "block " << at << " of " << id;
    }
  }
}

class ThinThreadsWithoutSpace : public ThinThreads {
 protected:
  static constexpr std::uint64_t kBlocks = 8;
  ThinThreadsWithoutSpace() : ThinThreads(kBlocks) {}

  bool out_of_space() {
    const auto lines = device("pool").status_lines(MappedDevice::Slot::kLive, true);
    return lines.front().words.find("out_of_data_space") != std::string::npos;
  }
  void suspend_and_resume(const std::string& name, bool noflush) {
    SuspendOptions options;
    options.noflush = noflush;
    EXPECT_TRUE(device(name).suspend(options).ok());
    EXPECT_TRUE(device(name).resume({}).ok());
  }
};

// Each writer waits for space again and again, and is sent to and fro while it does.
TEST_F(ThinThreadsWithoutSpace, WaitingWritersAllGetTheirBlocks) {
  constexpr unsigned kThreads = 4;
  constexpr std::uint64_t kEach = 24;
  make_thin(0, kThreads * kEach);
  std::atomic<unsigned> running{kThreads};
  std::vector<std::thread> writers;
  for (unsigned i = 0; i < kThreads; ++i) {
    writers.emplace_back([&, i] {
      for (std::uint64_t block = i * kEach; block < (i + 1) * kEach; ++block) {
        EXPECT_EQ(fake::write(device("t0"), block * kBlock + 3, fake::pattern(60, block)),
                  BlkStatus::kOk);
      }
      --running;
    });
  }
  for (std::uint64_t blocks = kBlocks; running != 0;) {
    if (!out_of_space()) {
      std::this_thread::yield();
      continue;
    }
    suspend_and_resume("t0", true);
    suspend_and_resume("pool", blocks % 8 == 0);
    blocks += 4;
    load_pool(blocks);
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  for (std::uint64_t block = 0; block < kThreads * kEach; ++block) {
    EXPECT_EQ(fake::read_back(device("t0"), block * kBlock + 3, 60), fake::pattern(60, block));
  }
}

}  // namespace

}  // namespace mapperfs::test
