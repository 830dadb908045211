#include <gtest/gtest.h>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

TEST(DelayTarget, PrintsThreeSixAndNineArguments) {
  Harness harness;
  harness.add_rams();
  for (const char* line : {"0 1024 delay ram0 0 100", "0 1024 delay ram0 0 0 ram1 8 100",
                           "0 1024 delay ram0 0 10 ram1 0 20 ram2 0 30"}) {
    ASSERT_TRUE(harness.set_table("d", line).ok());
    EXPECT_EQ(harness.table("d"), line);
    EXPECT_EQ(harness.status("d"), "0 1024 delay 0 0 0");
  }
  EXPECT_EQ(harness.device("d").dependencies(MappedDevice::Slot::kLive).size(), 3U);
}

TEST(DelayTarget, HoldsEachClassForItsTime) {
  Harness harness;
  harness.add_rams();
  ASSERT_TRUE(harness.set_table("d", "0 1024 delay ram0 0 10 ram1 0 20 ram2 0 30").ok());
  fake::AsyncBio read(harness.device("d"), Op::kRead, 0, 8);
  fake::AsyncBio write(harness.device("d"), Op::kWrite, 0, 8);
  fake::AsyncBio discard(harness.device("d"), Op::kDiscard, 0, 8);
  fake::AsyncBio flush(harness.device("d"), Op::kFlush, 0, 0);
  for (fake::AsyncBio* bio : {&read, &write, &discard, &flush}) {
    bio->submit();
  }
  EXPECT_EQ(harness.status("d"), "0 1024 delay 1 2 1");
  harness.env().advance(10 * kMillisecond - 1);
  EXPECT_FALSE(read.done());
  harness.env().advance(1);
  EXPECT_TRUE(read.done() && !write.done() && !discard.done());
  harness.env().advance(10 * kMillisecond);
  EXPECT_TRUE(write.done() && discard.done() && !flush.done());
  EXPECT_EQ(harness.status("d"), "0 1024 delay 0 0 1");
  harness.env().advance(10 * kMillisecond);
  EXPECT_TRUE(flush.done());
  EXPECT_EQ(harness.env().armed_timers(), 0U);
}

TEST(DelayTarget, SendsEachClassToItsDevice) {
  Harness harness;
  harness.add_rams();
  fake::MemDev& ram1 = harness.opener().add_mem("ram1", 2048);
  fake::MemDev& ram2 = harness.opener().add_mem("ram2", 2048);
  ASSERT_TRUE(harness.set_table("d", "0 1024 delay ram0 0 1 ram1 8 2 ram2 0 3").ok());
  EXPECT_EQ(harness.write("d", 4, filled(2, 1)), BlkStatus::kOk);
  EXPECT_EQ(harness.run_op("d", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(ram1.take_seen(), (std::vector<fake::SeenBio>{{Op::kWrite, 12, 2, 0}}));
  EXPECT_EQ(ram2.take_seen().size(), 1U);
  EXPECT_EQ(harness.read("d", 4, 2), filled(2, 0));
}

TEST(DelayTarget, LetsExpiredBiosGoInTheOrderTheyCame) {
  Harness harness;
  fake::MemDev& ram0 = harness.opener().add_mem("ram0", 1024);
  ASSERT_TRUE(harness.set_table("d", "0 1024 delay ram0 0 30 ram0 0 10").ok());
  std::vector<std::unique_ptr<fake::AsyncBio>> bios;
  for (sector_t i = 0; i < 6; ++i) {
    const Op op = i % 2 == 0 ? Op::kRead : Op::kWrite;
    bios.push_back(std::make_unique<fake::AsyncBio>(harness.device("d"), op, i, 1));
    bios.back()->submit();
  }
  // Only suspend takes both classes at once.
  ASSERT_TRUE(harness.device("d").suspend({}).ok());
  std::vector<sector_t> order;
  for (const fake::SeenBio& bio : ram0.take_seen()) {
    order.push_back(bio.sector);
  }
  EXPECT_EQ(order, (std::vector<sector_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(harness.device("d").resume({}).ok());
}

TEST(DelayTarget, DelaysNothingBetweenSuspendAndResume) {
  Harness harness;
  harness.add_rams();
  ASSERT_TRUE(harness.set_table("d", "0 1024 delay ram0 0 1000").ok());
  fake::AsyncBio bio(harness.device("d"), Op::kRead, 0, 8);
  bio.submit();
  ASSERT_TRUE(harness.device("d").suspend({}).ok());
  EXPECT_TRUE(bio.done());
  EXPECT_EQ(harness.status("d"), "0 1024 delay 0 0 0");
  EXPECT_EQ(harness.env().armed_timers(), 0U);
  ASSERT_TRUE(harness.device("d").resume({}).ok());
  fake::AsyncBio after(harness.device("d"), Op::kRead, 0, 8);
  after.submit();
  EXPECT_FALSE(after.done());
  harness.env().advance(kSecond);
  EXPECT_TRUE(after.done());
}

TEST(DelayTarget, ZeroPassesStraight) {
  Harness harness;
  harness.add_rams();
  ASSERT_TRUE(harness.set_table("d", "0 1024 delay ram0 0 0").ok());
  fake::AsyncBio bio(harness.device("d"), Op::kWrite, 0, 8);
  bio.submit();
  EXPECT_TRUE(bio.done());
  EXPECT_EQ(harness.env().armed_timers(), 0U);
}

TEST(DelayTarget, AnErrorComesUpLate) {
  Harness harness;
  harness.add_fault_dev("bad", 1024).add_fault({.op = Op::kRead});
  ASSERT_TRUE(harness.set_table("d", "0 1024 delay bad 0 5").ok());
  fake::AsyncBio bio(harness.device("d"), Op::kRead, 0, 8);
  bio.submit();
  EXPECT_FALSE(bio.done());
  harness.env().advance(5 * kMillisecond);
  ASSERT_TRUE(bio.done());
  EXPECT_EQ(bio.status(), BlkStatus::kIoError);
}

TEST(DelayTarget, TheRemovalOfItsDeviceEndsWhatItHolds) {
  Harness harness;
  harness.add_rams();
  ASSERT_TRUE(harness.set_table("d", "0 1024 delay ram0 0 1000").ok());
  fake::AsyncBio bio(harness.device("d"), Op::kRead, 0, 8);
  bio.submit();
  EXPECT_TRUE(harness.engine().remove("d", false).ok());
  EXPECT_TRUE(bio.done());
  EXPECT_EQ(harness.env().armed_timers(), 0U);
}

}  // namespace

}  // namespace mapperfs::test
