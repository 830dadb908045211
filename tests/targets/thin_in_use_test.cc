// Snapshots, discards and aborts while bios are on their way to the data device.
#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "targets/targets.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

// A data device that keeps bios back until the test lets them go. What may wait runs on threads.
class ThinInUse : public ThinTest {
 protected:
  ThinInUse() : fault_(harness_.add_fault_dev("data", 1024 * kBlock)) {}
  ~ThinInUse() override {
    fault_.release();
    join();
    harness_.env().run();
  }

  // A write of 8 sectors, under way.
  fake::AsyncBio& send_write(const std::string& name, sector_t sector, std::uint64_t seed,
                             sector_t sectors = 8, std::uint8_t flags = 0) {
    bios_.push_back(std::make_unique<fake::AsyncBio>(harness_.device(name), sector,
                                                     fake::pattern(sectors, seed), flags));
    return bios_.back()->submit();
  }
  // The pool's workers, on a thread that may find itself waiting for the data device.
  void start_workers() {
    start([this] { harness_.env().run(); });
  }
  template <typename Fn>
  void start(Fn fn) {
    ++running_;
    threads_.emplace_back([this, fn] {
      fn();
      --running_;
    });
  }
  // The last to run the workers may have found nothing to do before another thread gave them what
  // it waits for.
  void join() {
    while (running_ != 0) {
      harness_.env().run();
      std::this_thread::yield();
    }
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
  }
  // Sends create_snap, and returns once the snapshot is there, though nobody has heard of it yet.
  void start_snapshot(unsigned id, unsigned origin) {
    start([this, id, origin] {
      EXPECT_EQ(message_error(fmt::format("create_snap {} {}", id, origin)), 0);
      ++snapshots_done_;
    });
    const std::string line = fmt::format("0 {} thin pool {}", 64 * kBlock, id);
    while (!harness_.try_table(line).ok()) {
      std::this_thread::yield();
    }
  }

  fake::FaultDev& fault_;
  std::vector<std::unique_ptr<fake::AsyncBio>> bios_;
  std::vector<std::thread> threads_;
  std::atomic<unsigned> running_{0};
  std::atomic<unsigned> snapshots_done_{0};
};

// The write's data is not in the block yet when the next one makes a copy of it.
TEST_F(ThinInUse, AWriteUnderWayIsInTheOriginAndInItsSnapshot) {
  make_pool(64);
  make_thin("thin", 0, 64);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1)), BlkStatus::kOk);
  fault_.hold();
  fake::AsyncBio& before = send_write("thin", 0, 2);
  ASSERT_EQ(fault_.waiting(), 1U);
  start_snapshot(1, 0);
  fake::AsyncBio& after = send_write("thin", 64, 3);
  std::atomic<bool> idle{false};
  start([&] {
    harness_.env().run();
    idle = true;
  });
  while (!idle && fault_.waiting() == 1) {
    std::this_thread::yield();
  }
  EXPECT_EQ(fault_.waiting(), 1U) << "the block is being copied";
  EXPECT_EQ(snapshots_done_, 0U);
  fault_.release(/*reverse=*/true);
  join();
  harness_.env().run();
  EXPECT_EQ(before.wait(), BlkStatus::kOk);
  EXPECT_EQ(after.wait(), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 2)) << "acknowledged, and lost";
  EXPECT_EQ(harness_.read("thin", 64, 8), fake::pattern(8, 3));
  open_thin("snap", 1, 64);
  EXPECT_EQ(harness_.read("snap", 0, 8), fake::pattern(8, 2));
  EXPECT_NE(harness_.read("snap", 64, 8), fake::pattern(8, 3));
}

// What needs no copy, or is to go back, does not wait for the snapshot.
TEST_F(ThinInUse, OnlyAWriteThatNeedsACopyWaitsForASnapshot) {
  make_pool(64);
  make_thin("thin", 0, 64);
  make_thin("other", 5, 64);
  for (const sector_t block : {sector_t{0}, sector_t{1}, sector_t{2}}) {
    ASSERT_EQ(harness_.write("thin", block * kBlock, fake::pattern(kBlock, block)), BlkStatus::kOk);
  }
  fault_.hold();
  fake::AsyncBio& before = send_write("thin", 0, 12);
  start_snapshot(1, 0);
  fake::AsyncBio& part = send_write("thin", 8, 13);
  harness_.env().run();
  EXPECT_EQ(fault_.waiting(), 1U);
  fake::AsyncBio& whole = send_write("thin", kBlock, 14, kBlock);
  start_workers();
  while (fault_.waiting() < 2) {
    std::this_thread::yield();
  }
  SuspendOptions noflush;
  noflush.noflush = true;
  start([&] { EXPECT_TRUE(harness_.device("thin").suspend(noflush).ok()); });
  fault_.release();
  join();
  harness_.env().run();
  EXPECT_EQ(before.wait(), BlkStatus::kOk);
  EXPECT_EQ(whole.wait(), BlkStatus::kOk);
  ASSERT_TRUE(harness_.device("thin").resume({}).ok());
  harness_.env().run();
  EXPECT_EQ(part.wait(), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 12));
  EXPECT_EQ(harness_.read("thin", 8, 8), fake::pattern(8, 13));
  EXPECT_EQ(harness_.read("thin", kBlock, kBlock), fake::pattern(kBlock, 14));
  open_thin("snap", 1, 64);
  EXPECT_EQ(harness_.read("snap", kBlock, kBlock), fake::pattern(kBlock, 1));
}

// The device above may be given up while the one below keeps what the snapshot waits for.
TEST_F(ThinInUse, AWriteThatWaitsForASnapshotGoesBackWithANoflushSuspend) {
  make_pool(64);
  make_thin("thin", 0, 64);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1)), BlkStatus::kOk);
  snap(1, 0);
  open_thin("snap", 1, 64);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8, 2)), BlkStatus::kOk);
  fault_.hold();
  fake::AsyncBio& before = send_write("thin", 0, 3);  // to its own block
  start_snapshot(2, 1);
  fake::AsyncBio& shared = send_write("snap", 0, 4);
  harness_.env().run();
  EXPECT_EQ(fault_.waiting(), 1U);
  SuspendOptions noflush;
  noflush.noflush = true;
  EXPECT_TRUE(harness_.device("snap").suspend(noflush).ok()) << "while the message waits";
  EXPECT_EQ(snapshots_done_, 0U);
  ASSERT_TRUE(harness_.device("snap").wipe_table(noflush).ok());
  EXPECT_EQ(shared.wait(), BlkStatus::kIoError);
  fault_.release();
  join();
  EXPECT_EQ(before.wait(), BlkStatus::kOk);
}

// Writers that fill one block after the other, on a slow device.
class ThinSlow : public ::testing::Test {
 protected:
  static constexpr sector_t kBlock = 128;
  static constexpr unsigned kWriters = 24;
  static constexpr std::uint64_t kBlocks = 4095;

  ThinSlow()
      : env_(make_real_env()),
        data_("data", 8192 * kBlock, *env_, slow()),
        engine_(*env_, registry_, opener_) {
    register_targets(registry_);
    opener_.add("data", data_);
    load("pool", fmt::format("0 {} thin-pool {} data 128 0 1 no_discard_passdown", 8192 * kBlock,
                             dir_ / "meta"));
  }
  ~ThinSlow() override { engine_.shut_down(); }

  static fake::FaultDev::Options slow() {
    fake::FaultDev::Options options;
    options.min_delay_ns = options.max_delay_ns = 20 * kMillisecond;
    return options;
  }
  MappedDevice& load(const std::string& name, const std::string& line) {
    MappedDevice& made = **engine_.create(name, {});
    EXPECT_TRUE(made.load(parse_lines(line), DeviceMode::kReadWrite).ok());
    EXPECT_TRUE(made.resume({}).ok());
    return made;
  }
  MappedDevice& make_thin(unsigned id) {
    const std::string number = fmt::format("{}", id);
    const std::array<std::string_view, 2> words = {"create_thin", number};
    EXPECT_TRUE((*engine_.find("pool"))->message(0, words).ok());
    return load(fmt::format("t{}", id), fmt::format("0 {} thin pool {}", 4096 * kBlock, id));
  }
  // Runs `what` while the writers write new blocks of `md`. How many blocks they had left then.
  std::uint64_t beside_writers(MappedDevice& md, const std::function<void()>& what) {
    std::atomic<bool> stop{false};
    std::vector<std::thread> writers;
    for (unsigned writer = 0; writer < kWriters; ++writer) {
      writers.emplace_back([&, writer] {
        for (std::uint64_t block = 1 + writer; !stop && block <= kBlocks; block += kWriters) {
          EXPECT_EQ(fake::write(md, block * kBlock, fake::pattern(8, block)), BlkStatus::kOk);
          ++written_;
        }
      });
    }
    while (written_ < kWriters) {
      std::this_thread::yield();
    }
    what();
    const std::uint64_t left = kBlocks - written_;
    stop = true;
    for (std::thread& writer : writers) {
      writer.join();
    }
    return left;
  }

  TempDir dir_;
  const std::unique_ptr<Env> env_;
  fake::FaultDev data_;
  fake::FakeOpener opener_;
  TargetRegistry registry_;
  Engine engine_;
  std::atomic<std::uint64_t> written_{0};
};

TEST_F(ThinSlow, ADiscardDoesNotStarveBehindFirstWrites) {
  MappedDevice& md = make_thin(0);
  MappedDevice& other = make_thin(1);
  ASSERT_EQ(fake::write(md, 0, fake::pattern(8, 1)), BlkStatus::kOk);
  ASSERT_EQ(fake::write(other, 0, fake::pattern(8, 1)), BlkStatus::kOk);
  const std::uint64_t left = beside_writers(md, [&] {
    for (MappedDevice* device : {&md, &other, &md, &md, &md}) {
      EXPECT_EQ(fake::do_op(*device, Op::kDiscard, 0, kBlock), BlkStatus::kOk);
    }
  });
  // Fair, each waits for the fills under way; else for a moment without any.
  EXPECT_GT(left, kBlocks * 3 / 4) << "the discards had to wait for the writers";
  EXPECT_EQ(fake::read_back(md, 0, 8), filled(8, 0));
}

TEST_F(ThinSlow, BlocksAreFilledAtTheSameTime) {
  MappedDevice& md = make_thin(0);
  ASSERT_EQ(fake::write(md, 0, fake::pattern(8, 1)), BlkStatus::kOk);
  std::size_t most = 0;
  const std::uint64_t left = beside_writers(md, [&] {
    while (most < 10 && written_ < kBlocks) {
      most = std::max(most, data_.waiting());
      std::this_thread::yield();
    }
  });
  EXPECT_GT(left, 0U) << "never ten bios at the device at a time";
}

// Threads whose writes share blocks, on a device that takes its time, and snapshots all the while.
TEST(ThinInUseThreads, NoSnapshotTakesAWriteAway) {
  constexpr sector_t kBlock = 128;
  constexpr unsigned kWriters = 8;
  constexpr std::uint64_t kBlocks = 2;
  constexpr sector_t kShare = kBlock / kWriters;
  TempDir dir;
  const std::unique_ptr<Env> env = make_real_env();
  fake::FaultDev::Options slow;
  slow.max_delay_ns = 20 * kMillisecond;
  fake::FaultDev data("data", 8192 * kBlock, *env, slow);
  fake::FakeOpener opener;
  opener.add("data", data);
  TargetRegistry registry;
  register_targets(registry);
  Engine engine(*env, registry, opener);
  const auto load = [&](const std::string& name, const std::string& line) {
    MappedDevice* const made = &**engine.create(name, {});
    EXPECT_TRUE(made->load(parse_lines(line), DeviceMode::kReadWrite).ok());
    EXPECT_TRUE(made->resume({}).ok());
    return made;
  };
  MappedDevice* const pool =
      load("pool", fmt::format("0 {} thin-pool {} data 128 0", 8192 * kBlock, dir / "meta"));
  const auto message = [&](std::string_view text) {
    const std::vector<std::string> words = split_words(text);
    const std::vector<std::string_view> argv(words.begin(), words.end());
    EXPECT_TRUE(pool->message(0, argv).ok()) << text;
  };
  message("create_thin 0");
  MappedDevice* const md = load("thin", fmt::format("0 {} thin pool 0", kBlocks * kBlock));
  std::atomic<unsigned> running{kWriters};
  std::vector<std::thread> writers;
  for (unsigned writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer] {
      std::array<fake::Bytes, kBlocks> last;
      for (unsigned round = 0; round < 40; ++round) {
        const sector_t sector = round % kBlocks * kBlock + writer * kShare;
        fake::Bytes& bytes = last.at(round % kBlocks);
        EXPECT_TRUE(bytes.empty() || fake::read_back(*md, sector, kShare) == bytes)
            << "writer " << writer << " round " << round;
        bytes = fake::pattern(kShare, writer * 1000 + round);
        EXPECT_EQ(fake::write(*md, sector, bytes), BlkStatus::kOk);
      }
      --running;
    });
  }
  for (unsigned id = 1; running != 0; ++id) {
    message(fmt::format("create_snap {} 0", id));
    message(fmt::format("delete {}", id));
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  engine.shut_down();
}

}  // namespace

}  // namespace mapperfs::test
