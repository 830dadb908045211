#include <gtest/gtest.h>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

// Writes every sector with its own number, so that legs can be asked what they hold.
void number_sectors(Harness& harness, sector_t sectors) {
  fake::Bytes data;
  for (sector_t i = 0; i < sectors; ++i) {
    const fake::Bytes one = fake::pattern(1, i);
    data.insert(data.end(), one.begin(), one.end());
  }
  ASSERT_EQ(harness.write("s", 0, data), BlkStatus::kOk);
}

TEST(StripedTarget, LaysChunksOutAsTheKernelDoes) {
  Harness harness;
  harness.add_rams();
  fake::MemDev& ram1 = harness.opener().add_mem("ram1", 32768);
  fake::MemDev& ram2 = harness.opener().add_mem("ram2", 32768);
  ASSERT_TRUE(harness.set_table("s", "0 49152 striped 3 8 ram0 0 ram1 64 ram2 128").ok());
  EXPECT_EQ(harness.table("s"), "0 49152 striped 3 8 ram0 0 ram1 64 ram2 128");
  EXPECT_EQ(harness.status("s"), "0 49152 striped 3 ram0 ram1 ram2 1 AAA");
  number_sectors(harness, 96);
  const struct {
    fake::MemDev& dev;
    sector_t at;
    sector_t holds;
  } chunks[] = {{ram1, 64, 8}, {ram1, 72, 32}, {ram1, 88, 80}, {ram2, 128, 16}, {ram2, 152, 88}};
  for (const auto& chunk : chunks) {
    EXPECT_EQ(chunk.dev.peek(chunk.at, 1), fake::pattern(1, chunk.holds)) << chunk.at;
    EXPECT_EQ(chunk.dev.peek(chunk.at + 7, 1), fake::pattern(1, chunk.holds + 7)) << chunk.at;
  }
}

TEST(StripedTarget, TakesChunksThatAreNoPowerOfTwo) {
  Harness harness;
  fake::MemDev& ram0 = harness.opener().add_mem("ram0", 32768);
  harness.opener().add_mem("ram1", 32768);
  harness.opener().add_mem("ram2", 32768);
  ASSERT_TRUE(harness.set_table("s", "0 49104 striped 3 24 ram0 0 ram1 0 ram2 0").ok());
  number_sectors(harness, 240);
  EXPECT_EQ(ram0.peek(24, 1), fake::pattern(1, 72));
  EXPECT_EQ(ram0.peek(95, 1), fake::pattern(1, 216 + 23));
}

TEST(StripedTarget, AnnouncesChunkAndRowAsIoSizes) {
  Harness harness;
  harness.add_rams();
  ASSERT_TRUE(harness.set_table("s", "0 49152 striped 3 8 ram0 0 ram1 64 ram2 128").ok());
  const QueueLimits limits = harness.device("s").limits();
  EXPECT_EQ(limits.chunk_sectors, 8U);
  EXPECT_EQ(limits.io_min, 4096U);
  EXPECT_EQ(limits.io_opt, 12288U);
}

TEST(StripedTarget, AFailingLegTurnsToDAndRaisesOneEvent) {
  Harness harness;
  harness.add_rams();
  ASSERT_TRUE(harness.set_table("bad1", "0 16 linear ram1 0\n16 16368 error").ok());
  ASSERT_TRUE(harness.set_table("s", "0 32768 striped 2 8 ram0 0 bad1 0").ok());
  EXPECT_EQ(harness.run_op("s", Op::kWrite, 8, 8), BlkStatus::kOk);
  EXPECT_EQ(harness.status("s"), "0 32768 striped 2 ram0 bad1 1 AA");
  EXPECT_EQ(harness.run_op("s", Op::kRead, 56, 8), BlkStatus::kIoError);
  EXPECT_EQ(harness.status("s"), "0 32768 striped 2 ram0 bad1 1 AD");
  EXPECT_EQ(harness.device("s").event_nr(), 1U);
  EXPECT_EQ(harness.run_op("s", Op::kRead, 64, 8), BlkStatus::kOk);
  EXPECT_EQ(harness.status("s"), "0 32768 striped 2 ram0 bad1 1 AD");
}

TEST(StripedTarget, OnlyTheFirstFourteenErrorsRaiseEvents) {
  Harness harness;
  harness.add_rams();
  harness.add_fault_dev("bad", 1024).add_fault({.op = Op::kRead});
  ASSERT_TRUE(harness.set_table("s", "0 64 striped 2 8 ram0 0 bad 0").ok());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(harness.run_op("s", Op::kRead, 8, 8), BlkStatus::kIoError);
  }
  EXPECT_EQ(harness.device("s").event_nr(), 14U);
}

TEST(StripedTarget, ReadsAheadAndUnsupportedOperationsAreNoErrors) {
  Harness harness;
  harness.add_rams();
  fake::FaultDev& bad = harness.add_fault_dev("bad", 1024);
  bad.add_fault({.op = Op::kRead});
  bad.add_fault({.op = Op::kWrite, .status = BlkStatus::kNotSupported});
  ASSERT_TRUE(harness.set_table("s", "0 64 striped 2 8 ram0 0 bad 0").ok());
  EXPECT_EQ(harness.run_op("s", Op::kRead, 8, 8, kBioReadahead), BlkStatus::kIoError);
  EXPECT_EQ(harness.run_op("s", Op::kWrite, 8, 8), BlkStatus::kNotSupported);
  EXPECT_EQ(harness.status("s"), "0 64 striped 2 ram0 bad 1 AA");
  EXPECT_EQ(harness.device("s").event_nr(), 0U);
}

TEST(StripedTarget, AllStripesOnTheFailedDeviceCountTheError) {
  Harness harness;
  harness.add_rams();
  harness.add_fault_dev("bad", 1024).add_fault({.op = Op::kRead});
  ASSERT_TRUE(harness.set_table("s", "0 96 striped 3 8 bad 0 ram0 0 bad 512").ok());
  EXPECT_EQ(harness.run_op("s", Op::kRead, 0, 8), BlkStatus::kIoError);
  EXPECT_EQ(harness.status("s"), "0 96 striped 3 bad ram0 bad 1 DAD");
  EXPECT_EQ(harness.device("s").event_nr(), 1U);
}

TEST(StripedTarget, EveryDiscardGivesEachLegItsOwnRun) {
  for (const sector_t chunk : {4U, 5U}) {
    for (sector_t from = 0; from < 60; from += 7) {
      for (sector_t to = from + 1; to <= 60; ++to) {
        Harness harness;
        for (const char* leg : {"a", "b", "c"}) {
          harness.opener().add_mem(leg, 64);
        }
        ASSERT_TRUE(
            harness.set_table("s", "0 60 striped 3 " + std::to_string(chunk) + " a 0 b 1 c 2")
                .ok());
        fake::Bytes data = fake::pattern(60, from * 64 + to);
        ASSERT_EQ(harness.write("s", 0, data), BlkStatus::kOk);
        ASSERT_EQ(harness.run_op("s", Op::kDiscard, from, to - from), BlkStatus::kOk);
        std::fill(data.begin() + static_cast<std::ptrdiff_t>(from << kSectorShift),
                  data.begin() + static_cast<std::ptrdiff_t>(to << kSectorShift), std::byte{0});
        ASSERT_EQ(harness.read("s", 0, 60), data)
            << "chunk " << chunk << ", " << from << " to " << to;
      }
    }
  }
}

TEST(StripedTarget, AFlushInAMixedTableReachesEveryLeg) {
  Harness harness;
  fake::MemDev& a = harness.opener().add_mem("a", 64);
  fake::MemDev& b = harness.opener().add_mem("b", 64);
  harness.opener().add_mem("c", 64);
  ASSERT_TRUE(harness.set_table("s", "0 32 striped 2 8 a 0 b 0\n32 8 delay c 0 0").ok());
  EXPECT_EQ(harness.run_op("s", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(a.take_seen().size(), 1U);
  EXPECT_EQ(b.take_seen().size(), 1U);
}

}  // namespace

}  // namespace mapperfs::test
