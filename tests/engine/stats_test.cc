#include "engine/stats.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "engine/engine.h"
#include "engine/target_args.h"
#include "tests/fake/fake_opener.h"
#include "tests/fake/fault_dev.h"
#include "tests/fake/io.h"
#include "tests/fake/sim_env.h"

namespace mapperfs {

namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;

// Passes everything to its device, one to one.
class PassTarget final : public Target {
 public:
  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    DevRef dev = args.device(0, "Device lookup failed");
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(std::make_unique<PassTarget>(ti, std::move(dev)));
  }
  PassTarget(const TargetInfo& ti, DevRef dev)
      : Target(ti, features_of_pass()), dev_(std::move(dev)) {}
  MapIo map(Bio& bio) noexcept override {
    bio.remap(*dev_, bio.sector);
    return MapIo::kRemapped;
  }
  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    return dev_->table_name();
  }
  void iterate_devices(const DeviceFn& fn) const override { fn({dev_.get(), 0, ti().len}); }

 private:
  static TargetFeatures features_of_pass() {
    TargetFeatures features;
    features.num_flush_bios = 1;
    features.num_discard_bios = 1;
    return features;
  }
  const DevRef dev_;
};

constinit const TargetType kPassTarget = {"pass", {1, 0, 0}, 0, &PassTarget::ctr};

// A mapped device of 2048 sectors over a device whose bios can be held, as of the transcript.
class StatsRegionsTest : public testing::Test {
 protected:
  StatsRegionsTest() : below_("below", 2048, env_), engine_(env_, registry_, opener_) {
    registry_.add(kPassTarget);
    opener_.add("below", below_);
    auto made = engine_.create("ms", {});
    EXPECT_TRUE(made.ok());
    md_ = *made;
    EXPECT_TRUE(
        md_->load(std::vector<TableLine>{{0, 2048, "pass", "below"}}, DeviceMode::kReadWrite).ok());
    EXPECT_TRUE(md_->resume({}).ok());
  }

  Result<std::string> message(std::string_view text) {
    const std::vector<std::string> words = split_words(text);
    const std::vector<std::string_view> argv(words.begin(), words.end());
    return md_->message(0, argv);
  }
  std::string say(std::string_view text) {
    Result<std::string> reply = message(text);
    EXPECT_TRUE(reply.ok()) << text << ": " << reply.status().message();
    return reply.ok() ? reply.take() : std::string();
  }
  int error_of(std::string_view text) { return message(text).status().error(); }
  void write(sector_t sector, sector_t sectors) {
    EXPECT_EQ(fake::do_op(*md_, Op::kWrite, sector, sectors), BlkStatus::kOk);
  }
  void read(sector_t sector, sector_t sectors) {
    EXPECT_EQ(fake::do_op(*md_, Op::kRead, sector, sectors), BlkStatus::kOk);
  }

  fake::SimEnv env_;
  fake::FaultDev below_;
  fake::FakeOpener opener_;
  TargetRegistry registry_;
  Engine engine_;
  std::shared_ptr<MappedDevice> md_;
};

TEST_F(StatsRegionsTest, CreatesAndListsAsInTheTranscript) {
  EXPECT_EQ(say("@stats_list"), "");
  EXPECT_EQ(say("@stats_create - /4"), "0");
  EXPECT_EQ(say("@stats_create 0+1024 256"), "1");
  EXPECT_EQ(say("@stats_create 0+1024 512 2 precise_timestamps histogram:100,1000,10000 prog aux"),
            "2");
  EXPECT_EQ(error_of("@stats_create 0+1024 512 2 histogram:100 prog aux"), EINVAL);
  EXPECT_EQ(say("@stats_create 0+1024 512 1 precise_timestamps prog2"), "3");
  EXPECT_EQ(say("@stats_list"),
            "0: 0+2048 512 - -\n"
            "1: 0+1024 256 - -\n"
            "2: 0+1024 512 prog aux precise_timestamps histogram:100,1000,10000\n"
            "3: 0+1024 512 prog2 - precise_timestamps\n");
  EXPECT_EQ(say("@stats_list prog"),
            "2: 0+1024 512 prog aux precise_timestamps histogram:100,1000,10000\n");
  EXPECT_EQ(say("@stats_print 0"),
            "0+512 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            "512+512 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            "1024+512 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            "1536+512 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
  EXPECT_EQ(say("@stats_print 2 1 1"), "512+512 0 0 0 0 0 0 0 0 0 0 0 0 0 0:0:0:0\n");
}

TEST_F(StatsRegionsTest, CountsSequentialWritesAndReadsAsInTheTranscript) {
  say("@stats_create 0+1024 256");
  for (sector_t i = 0; i < 100; ++i) {
    write(i * 8, 8);
  }
  for (sector_t i = 0; i < 20; ++i) {
    read(i * 16, 16);
  }
  EXPECT_EQ(say("@stats_print 0"),
            "0+256 16 15 256 0 32 31 256 0 0 0 0 0 0\n"
            "256+256 4 4 64 0 32 32 256 0 0 0 0 0 0\n"
            "512+256 0 0 0 0 32 32 256 0 0 0 0 0 0\n"
            "768+256 0 0 0 0 4 4 32 0 0 0 0 0 0\n");
  EXPECT_EQ(say("@stats_print_clear 0 0 1"), "0+256 16 15 256 0 32 31 256 0 0 0 0 0 0\n");
  EXPECT_EQ(say("@stats_print 0 0 2"),
            "0+256 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            "256+256 4 4 64 0 32 32 256 0 0 0 0 0 0\n");
  EXPECT_EQ(say("@stats_clear 0"), "");
  EXPECT_EQ(say("@stats_print 0 1 1"), "256+256 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
}

TEST_F(StatsRegionsTest, SharesAnIoOutToTheAreasThatItTouches) {
  say("@stats_create 10+25 10");
  write(5, 40);
  EXPECT_EQ(say("@stats_print 0"),
            "10+10 0 0 0 0 1 0 10 0 0 0 0 0 0\n"
            "20+10 0 0 0 0 1 0 10 0 0 0 0 0 0\n"
            "30+10 0 0 0 0 1 0 5 0 0 0 0 0 0\n");
  write(0, 10);
  write(35, 10);
  EXPECT_EQ(say("@stats_print 0 2 1"), "30+10 0 0 0 0 1 0 5 0 0 0 0 0 0\n");
}

TEST_F(StatsRegionsTest, DiscardsCountAsWritesAndFlushesNot) {
  say("@stats_create - /1");
  EXPECT_EQ(fake::do_op(*md_, Op::kDiscard, 0, 100), BlkStatus::kOk);
  EXPECT_EQ(fake::flush(*md_), BlkStatus::kOk);
  EXPECT_EQ(say("@stats_print 0"), "0+2048 0 0 0 0 1 0 100 0 0 0 0 0 0\n");
}

TEST_F(StatsRegionsTest, MeasuresTimesInMillisecondsOrNanoseconds) {
  say("@stats_create - /1 1 histogram:5,20");
  say("@stats_create - /1 2 precise_timestamps histogram:5000000");
  below_.hold();
  fake::AsyncBio first(*md_, Op::kRead, 0, 8);
  fake::AsyncBio second(*md_, Op::kWrite, 100, 8);
  first.submit();
  env_.advance(4 * kMillisecond);
  second.submit();
  env_.advance(6 * kMillisecond);
  EXPECT_EQ(say("@stats_print 0"), "0+2048 0 0 0 0 0 0 0 0 2 10 16 10 6 0:0:0\n");
  below_.release();
  EXPECT_TRUE(first.done() && second.done());
  EXPECT_EQ(say("@stats_print 0"), "0+2048 1 0 8 10 1 0 8 6 0 10 16 10 6 0:2:0\n");
  EXPECT_EQ(say("@stats_print 1"),
            "0+2048 1 0 8 10000000 1 0 8 6000000 0 10000000 16000000 10000000 6000000 0:2\n");
}

TEST_F(StatsRegionsTest, HistogramBoundsBelongToTheUpperBucket) {
  say("@stats_create - /1 1 histogram:5,20");
  for (const std::uint64_t ms : {4U, 5U, 19U, 20U, 300U}) {
    below_.hold();
    fake::AsyncBio bio(*md_, Op::kRead, 0, 1);
    bio.submit();
    env_.advance(ms * kMillisecond);
    below_.release();
    EXPECT_TRUE(bio.done());
  }
  const std::string line = say("@stats_print 0");
  EXPECT_EQ(line.substr(line.rfind(' ')), " 1:2:2\n");
}

TEST_F(StatsRegionsTest, ClearKeepsWhatIsInFlight) {
  say("@stats_create - /1");
  below_.hold();
  fake::AsyncBio bio(*md_, Op::kRead, 0, 8);
  bio.submit();
  env_.advance(3 * kMillisecond);
  EXPECT_EQ(say("@stats_print_clear 0"), "0+2048 0 0 0 0 0 0 0 0 1 3 3 3 0\n");
  EXPECT_EQ(say("@stats_print 0"), "0+2048 0 0 0 0 0 0 0 0 1 0 0 0 0\n");
  below_.release();
  EXPECT_EQ(say("@stats_print 0"), "0+2048 1 0 8 3 0 0 0 0 0 0 0 0 0\n");
}

TEST_F(StatsRegionsTest, ABioInFlightIsNotCountedInARegionMadeMeanwhile) {
  below_.hold();
  fake::AsyncBio before_any(*md_, Op::kRead, 0, 8);
  before_any.submit();
  say("@stats_create - /1");
  fake::AsyncBio before_second(*md_, Op::kRead, 0, 8);
  before_second.submit();
  say("@stats_create - /1");
  below_.release();
  EXPECT_TRUE(before_any.done() && before_second.done());
  EXPECT_EQ(say("@stats_print 0"), "0+2048 1 0 8 0 0 0 0 0 0 0 0 0 0\n");
  EXPECT_EQ(say("@stats_print 1"), "0+2048 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
}

TEST_F(StatsRegionsTest, ARegionMayGoWhileItsBiosAreInFlight) {
  say("@stats_create - /1");
  below_.hold();
  fake::AsyncBio bio(*md_, Op::kRead, 0, 8);
  bio.submit();
  say("@stats_delete 0");
  EXPECT_TRUE(md_->stats().empty());
  EXPECT_EQ(say("@stats_create - /1"), "0");
  below_.release();
  EXPECT_TRUE(bio.done());
  EXPECT_EQ(say("@stats_print 0"), "0+2048 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
}

TEST_F(StatsRegionsTest, WorksOnASuspendedDevice) {
  ASSERT_TRUE(md_->suspend({}).ok());
  EXPECT_EQ(say("@stats_create - /1"), "0");
  EXPECT_EQ(say("@stats_delete 0"), "");
  ASSERT_TRUE(md_->resume({}).ok());
}

TEST_F(StatsRegionsTest, TakesTheLowestFreeNumber) {
  EXPECT_EQ(say("@stats_create - /1"), "0");
  EXPECT_EQ(say("@stats_create - /1"), "1");
  EXPECT_EQ(say("@stats_create - /1"), "2");
  say("@stats_delete 1");
  EXPECT_EQ(say("@stats_create 0+9999999 256"), "1");
  EXPECT_EQ(say("@stats_list"), "0: 0+2048 2048 - -\n1: 0+9999999 256 - -\n2: 0+2048 2048 - -\n");
}

TEST_F(StatsRegionsTest, SetsTheAuxiliaryWord) {
  say("@stats_create - /1");
  EXPECT_EQ(say("@stats_set_aux 0 hello_aux"), "");
  EXPECT_EQ(say("@STATS_LIST"), "0: 0+2048 2048 - hello_aux\n");
}

TEST_F(StatsRegionsTest, PrintsTheLinesAskedFor) {
  say("@stats_create - /4");
  EXPECT_EQ(say("@stats_print 0 3 9"), "1536+512 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
  EXPECT_EQ(say("@stats_print 0 9 1"), "");
  EXPECT_EQ(say("@stats_print 0 - 1"), "0+512 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
  EXPECT_EQ(say("@stats_print 0 3 -"), "1536+512 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
  EXPECT_EQ(say("@stats_print 0 18446744073709551615 2"), "");
}

TEST_F(StatsRegionsTest, RefusesWhatTheKernelRefuses) {
  say("@stats_create - /1");
  const std::pair<const char*, int> cases[] = {
      {"@stats_create", EINVAL},
      {"@stats_create -", EINVAL},
      {"@stats_create - 0", EINVAL},
      {"@stats_create - /0", EINVAL},
      {"@stats_create - x", EINVAL},
      {"@stats_create 0 8", EINVAL},
      {"@stats_create 0+0 8", EINVAL},
      {"@stats_create 8+x 8", EINVAL},
      {"@stats_create 18446744073709551615+1 8", EINVAL},
      {"@stats_create - 8 1", EINVAL},
      {"@stats_create - 8 1 nosuch", EINVAL},
      {"@stats_create - 8 1 histogram:", EINVAL},
      {"@stats_create - 8 1 histogram:5,3", EINVAL},
      {"@stats_create - 8 1 histogram:0,3", EINVAL},
      {"@stats_create - 8 1 histogram:1,x", EINVAL},
      {"@stats_create - 8 1 histogram:1,", EINVAL},
      {"@stats_create - 8 2 histogram:1 histogram:2", EINVAL},
      {"@stats_create - 8 0 prog aux extra", EINVAL},
      {"@stats_create 0+99999999 1", EOVERFLOW},
      {"@stats_print", EINVAL},
      {"@stats_print x", EINVAL},
      {"@stats_print 99", ENOENT},
      {"@stats_print 0 0", EINVAL},
      {"@stats_print_clear 99", ENOENT},
      {"@stats_clear 99", ENOENT},
      {"@stats_delete", EINVAL},
      {"@stats_delete x", EINVAL},
      {"@stats_delete -1", EINVAL},
      {"@stats_delete 99", ENOENT},
      {"@stats_set_aux 99 a", ENOENT},
      {"@stats_set_aux 0", EINVAL},
      {"@stats_list prog x", EINVAL},
      {"@stats_unknown", EINVAL},
  };
  for (const auto& [text, error] : cases) {
    EXPECT_EQ(error_of(text), error) << text;
  }
  EXPECT_NE(message("@stats_create")
                .status()
                .message()
                .find("Invalid parameters for message @stats_create"),
            std::string::npos);
  EXPECT_NE(message("@stats_unknown")
                .status()
                .message()
                .find("Unsupported message sent to DM core: @stats_unknown"),
            std::string::npos);
  EXPECT_EQ(say("@stats_list"), "0: 0+2048 2048 - -\n");
}

// One program's bios come on whichever of the transport's threads is free.
TEST_F(StatsRegionsTest, ABioThatFollowsOnAnotherThreadCountsAsMerged) {
  say("@stats_create - /1");
  read(0, 8);
  std::thread([this] { read(8, 8); }).join();
  read(16, 8);
  read(0, 8);
  EXPECT_TRUE(say("@stats_print 0").starts_with("0+2048 4 2 32 "));
}

TEST_F(StatsRegionsTest, CountsEveryBioOfManyThreadsWhileRegionsComeAndGo) {
  constexpr int kThreads = 4;
  constexpr std::uint64_t kBios = 2000;
  say("@stats_create - /1");
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this, i] {
      for (std::uint64_t bio = 0; bio < kBios; ++bio) {
        EXPECT_EQ(fake::do_op(*md_, i % 2 == 0 ? Op::kRead : Op::kWrite, bio % 2000, 2),
                  BlkStatus::kOk);
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    say("@stats_create - /7 1 histogram:1");
    say("@stats_print 1");
    say("@stats_delete 1");
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::uint64_t reads = 0;
  std::uint64_t read_merges = 0;
  std::uint64_t read_sectors = 0;
  std::uint64_t read_ms = 0;
  std::uint64_t writes = 0;
  const std::string line = say("@stats_print 0");
  ASSERT_EQ(std::sscanf(line.c_str(), "0+2048 %lu %lu %lu %lu %lu", &reads, &read_merges,
                        &read_sectors, &read_ms, &writes),
            5);
  EXPECT_EQ(reads, kBios * kThreads / 2);
  EXPECT_EQ(read_sectors, 2 * reads);
  EXPECT_EQ(writes, kBios * kThreads / 2);
}

}  // namespace

}  // namespace mapperfs
