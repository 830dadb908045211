#include <gtest/gtest.h>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

TEST(UnstripedTarget, UndoesATwoWayStripe) {
  Harness harness;
  fake::MemDev& ram0 = harness.opener().add_mem("ram0", 16384);
  fake::MemDev& ram1 = harness.opener().add_mem("ram1", 16384);
  ASSERT_TRUE(harness.set_table("s", "0 32768 striped 2 8 ram0 0 ram1 0").ok());
  ASSERT_TRUE(harness.set_table("u0", "0 16384 unstriped 2 8 0 s 0").ok());
  ASSERT_TRUE(harness.set_table("u1", "0 16384 unstriped 2 8 1 s 0").ok());
  EXPECT_EQ(harness.table("u1"), "0 16384 unstriped 2 8 1 s 0");
  const fake::Bytes data = fake::pattern(256, 1);
  ASSERT_EQ(harness.write("s", 0, data), BlkStatus::kOk);
  EXPECT_EQ(harness.read("u0", 0, 128), ram0.peek(0, 128));
  EXPECT_EQ(harness.read("u1", 3, 100), ram1.peek(3, 100));
}

TEST(UnstripedTarget, CountsChunksFromItsOwnStartInALongerTable) {
  Harness harness;
  harness.add_rams();
  fake::MemDev& ram1 = harness.opener().add_mem("ram1", 1024);
  ASSERT_TRUE(harness.set_table("u", "0 3 linear ram0 0\n3 16 unstriped 2 8 1 ram1 100").ok());
  EXPECT_EQ(harness.write("u", 3, fake::pattern(16, 1)), BlkStatus::kOk);
  const std::vector<fake::SeenBio> expected = {{Op::kWrite, 108, 8, 0}, {Op::kWrite, 124, 8, 0}};
  EXPECT_EQ(ram1.take_seen(), expected);
}

TEST(UnstripedTarget, AnIndexEqualToTheCountIsTakenAndFailsPastTheEnd) {
  Harness harness;
  harness.opener().add_mem("ram0", 32);
  ASSERT_TRUE(harness.set_table("u", "0 16 unstriped 2 8 2 ram0 0").ok());
  EXPECT_EQ(harness.run_op("u", Op::kRead, 0, 8), BlkStatus::kOk);
  EXPECT_EQ(harness.run_op("u", Op::kRead, 8, 8), BlkStatus::kIoError);
}

TEST(UnstripedTarget, DoesNotFlush) {
  Harness harness;
  fake::MemDev& ram = harness.opener().add_mem("ram0", 32);
  ASSERT_TRUE(harness.set_table("u", "0 16 unstriped 2 8 0 ram0 0").ok());
  EXPECT_EQ(harness.run_op("u", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_TRUE(ram.take_seen().empty());
}

TEST(UnstripedTarget, ChecksInTheKernelsOrder) {
  Harness harness;
  harness.add_rams();
  const struct {
    const char* args;
    const char* text;
  } cases[] = {
      {"2 8 0 ram0", "Invalid number of arguments"},
      {"0 0 0 nosuch x", "Invalid stripe count"},
      {"2 0 0 nosuch x", "Invalid chunk_size"},
      {"2 8 x nosuch x", "Invalid stripe number"},
      {"2 8 3 nosuch x", "Please provide stripe between [0, # of stripes]"},
      {"2 8 0 nosuch x", "Couldn't get striped device"},
      {"2 5 0 ram0 x", "Invalid striped device offset"},
      {"2 5 0 ram0 0", "Target length not divisible by chunk size"},
  };
  for (const auto& each : cases) {
    const Status status = harness.try_table(std::string("0 16 unstriped ") + each.args);
    EXPECT_NE(status.message().find(each.text), std::string::npos)
        << each.args << ": " << status.message();
  }
}

}  // namespace

}  // namespace mapperfs::test
