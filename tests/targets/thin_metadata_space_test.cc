// Metadata that run low: whoever waits for events hears of it while there is time to act.
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

// 64 blocks of metadata: the mark is at 16 free ones.
class ThinMetadataSpace : public ThinTest {
 protected:
  static constexpr std::uint64_t kMark = 16;
  // Virtual blocks so far apart that each needs pages of its own.
  static constexpr sector_t kStride = 1009;

  ThinMetadataSpace() {
    thinp::PoolTuning tuning;
    tuning.nr_metadata_blocks = 64;
    thinp::set_pool_tuning(tuning);
    make_pool(1024);
    make_thin("thin", 0, 1 << 20);
    silent_ = events();
  }

  // As the status line has it, of a pool just committed.
  std::uint64_t free_metadata() {
    const std::string both =
        word(harness_.device("pool").status_lines(MappedDevice::Slot::kLive, false).at(0).words, 1);
    const std::size_t slash = both.find('/');
    return std::stoull(both.substr(slash + 1)) - std::stoull(both.substr(0, slash));
  }
  void write_one() {
    ASSERT_EQ(harness_.write("thin", written_ * kStride * kBlock, fake::pattern(8, written_)),
              BlkStatus::kOk);
    ++written_;
  }
  // Writes until no more than `blocks` are free.
  void use_up_to(std::uint64_t blocks) {
    while (free_metadata() > blocks && !HasFatalFailure()) {
      write_one();
    }
  }
  void give_back() {
    ASSERT_EQ(harness_.run_op("thin", Op::kDiscard, 0, written_ * kStride * kBlock),
              BlkStatus::kOk);
    written_ = 0;
    ASSERT_GT(free_metadata(), kMark);
  }
  // Events since the pool was there.
  std::uint32_t raised() { return events() - silent_; }
  std::size_t told() {
    const std::string log = harness_.engine().log().text();
    constexpr std::string_view kSentence =
        "reached low water mark for metadata device: sending event.";
    std::size_t count = 0;
    for (std::size_t at = log.find(kSentence); at != std::string::npos;
         at = log.find(kSentence, at + 1)) {
      ++count;
    }
    return count;
  }

  std::uint32_t silent_ = 0;
  sector_t written_ = 0;
};

TEST_F(ThinMetadataSpace, TheMarkSpeaksOnceACrossing) {
  use_up_to(kMark + 1);
  EXPECT_EQ(raised(), 0U);
  EXPECT_EQ(told(), 0U);
  use_up_to(kMark);
  EXPECT_EQ(raised(), 1U);
  EXPECT_EQ(told(), 1U);
  use_up_to(kMark / 2);
  EXPECT_EQ(message_error("create_thin 1"), 0);
  EXPECT_EQ(raised(), 1U) << "it is below since";
  give_back();
  EXPECT_EQ(raised(), 1U) << "there is space again";
  use_up_to(kMark);
  EXPECT_EQ(raised(), 2U);
  EXPECT_EQ(told(), 2U);
}

TEST_F(ThinMetadataSpace, ItNeedsNobodyWhoAsks) {
  use_up_to(kMark + 2);
  for (int i = 0; i < 8; ++i) {
    write_one();
  }
  harness_.env().advance(2 * kSecond);
  EXPECT_EQ(raised(), 1U) << "the pool commits by itself";
  EXPECT_LE(free_metadata(), kMark);
}

TEST_F(ThinMetadataSpace, ANewTableIsToldAnewAndAResumedOneIsNot) {
  use_up_to(kMark);
  ASSERT_EQ(raised(), 1U);
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  write_one();
  harness_.env().advance(2 * kSecond);
  EXPECT_EQ(told(), 1U);
  ASSERT_TRUE(harness_.set_table("pool", pool_line(1024)).ok());
  EXPECT_LE(free_metadata(), kMark);
  EXPECT_EQ(told(), 1U) << "nothing has changed";
  write_one();
  harness_.env().advance(2 * kSecond);
  EXPECT_EQ(told(), 2U);
}

TEST_F(ThinMetadataSpace, ItComesBeforeThePoolIsFull) {
  BlkStatus status = BlkStatus::kOk;
  for (; status == BlkStatus::kOk && written_ < 1000; ++written_) {
    status = harness_.write("thin", written_ * kStride * kBlock, fake::pattern(8, written_));
  }
  EXPECT_EQ(status, BlkStatus::kIoError);
  EXPECT_EQ(mode(), "ro");
  EXPECT_EQ(told(), 1U);
  EXPECT_EQ(raised(), 2U) << "one for the mark, one for the mode";
}

// Nothing ends that mode by itself; a table loaded anew does, until somebody asks for too much
// again.
TEST_F(ThinMetadataSpace, AFullPoolGoesOnWhereThereIsSpaceAgain) {
  const auto fill = [this] {
    while (harness_.write("thin", written_ * kStride * kBlock, fake::pattern(8, written_)) ==
           BlkStatus::kOk) {
      ++written_;
      ASSERT_LT(written_, 1000U);
    }
    EXPECT_EQ(mode(), "ro");
    EXPECT_EQ(word(harness_.status("pool"), 10), "-");
  };
  const auto reload = [this] {
    ASSERT_TRUE(harness_.set_table("pool", pool_line(1024)).ok());
    EXPECT_EQ(mode(), "rw");
  };
  fill();
  const sector_t all = written_;
  EXPECT_EQ(message_error("delete 0"), EOPNOTSUPP);
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, kBlock), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 0)) << "it could not be taken away";
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  EXPECT_EQ(mode(), "ro") << "a plain resume keeps it";
  reload();
  fill();
  EXPECT_EQ(written_, all) << "there was no room";
  reload();
  // Without a leaf left, half of them go.
  ASSERT_EQ(harness_.run_op("thin", Op::kDiscard, 0, all / 2 * kStride * kBlock), BlkStatus::kOk);
  EXPECT_GT(free_metadata(), 0U);
  fill();
  EXPECT_GT(written_, all);
  for (sector_t i = 0; i < written_; ++i) {
    EXPECT_EQ(harness_.read("thin", i * kStride * kBlock, 8),
              i < all / 2 ? filled(8, 0) : fake::pattern(8, i))
        << i;
  }
  remove("thin");
  remove("pool");
  const auto report = check_thin_metadata(dir_ / "meta", {});
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->clean());
}

}  // namespace

}  // namespace mapperfs::test
