#include <gtest/gtest.h>

#include <cerrno>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

TEST(LinearTarget, MapsFirstAndLastSectorToTheOffset) {
  Harness harness;
  fake::MemDev& ram = harness.opener().add_mem("ram0", 32768);
  ASSERT_TRUE(harness.set_table("d", "0 8 linear ram0 32760").ok());
  EXPECT_EQ(harness.write("d", 0, filled(1, 1)), BlkStatus::kOk);
  EXPECT_EQ(harness.write("d", 7, filled(1, 2)), BlkStatus::kOk);
  EXPECT_EQ(ram.peek(32760, 1), filled(1, 1));
  EXPECT_EQ(ram.peek(32767, 1), filled(1, 2));
}

TEST(LinearTarget, TellsOfEachMistakeInTheKernelsWordsAndErrno) {
  Harness harness;
  harness.add_rams();
  harness.opener().add_error("null", ENOTBLK);
  const struct {
    const char* args;
    int error;
    const char* text;
  } cases[] = {
      {"", EINVAL, "linear: Invalid argument count"},
      {"ram0 0 0", EINVAL, "linear: Invalid argument count"},
      {"nosuch 0", ENOENT, "linear: Device lookup failed"},
      {"null 0", ENOTBLK, "linear: Device lookup failed"},
      {"nosuch x", EINVAL, "linear: Invalid device sector"},  // the offset is looked at first
      {"ram0 -1", EINVAL, "linear: Invalid device sector"},
      {"ram0 32768", EINVAL, "ram0 too small for target: start=32768, len=8, dev_size=32768"},
      {"ram0 18446744073709551615", EINVAL, "ram0 too small for target"},
  };
  for (const auto& each : cases) {
    const Status status = harness.try_table(std::string("0 8 linear ") + each.args);
    EXPECT_EQ(status.error(), each.error) << each.args;
    EXPECT_NE(status.message().find(each.text), std::string::npos) << status.message();
  }
}

TEST(LinearTarget, AFlushOfManyLinesReachesEachDeviceOnce) {
  Harness harness;
  fake::MemDev& ram0 = harness.opener().add_mem("ram0", 1024);
  fake::MemDev& ram1 = harness.opener().add_mem("ram1", 1024);
  ASSERT_TRUE(harness
                  .set_table("d",
                             "0 8 linear ram0 0\n8 8 linear ram1 0\n16 8 linear ram0 8\n"
                             "24 8 linear ram0 16")
                  .ok());
  EXPECT_EQ(harness.run_op("d", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(ram0.take_seen().size(), 1U);
  EXPECT_EQ(ram1.take_seen().size(), 1U);
}

TEST(LinearTarget, HolesShowThroughAtTheOffset) {
  Harness harness;
  fake::MemDev& ram = harness.opener().add_mem("ram0", 1024);
  ram.poke(64, filled(8, 1));
  ASSERT_TRUE(harness.set_table("d", "0 64 linear ram0 32").ok());
  EXPECT_TRUE(harness.device("d").extent(0, 64).hole);
  EXPECT_EQ(harness.device("d").extent(0, 64).sectors, 32U);
  EXPECT_FALSE(harness.device("d").extent(32, 64).hole);
}

TEST(LinearTarget, PassesFuaAndOtherFlagsOn) {
  Harness harness;
  fake::MemDev& ram = harness.opener().add_mem("ram0", 1024);
  ASSERT_TRUE(harness.set_table("d", "0 64 linear ram0 0").ok());
  EXPECT_EQ(harness.write("d", 3, filled(2, 1), kBioFua), BlkStatus::kOk);
  EXPECT_EQ(ram.take_seen(), (std::vector<fake::SeenBio>{{Op::kWrite, 3, 2, kBioFua}}));
}

TEST(LinearTarget, StandsOnAnotherMappedDeviceByItsName) {
  Harness harness;
  harness.add_rams();
  ASSERT_TRUE(harness.set_table("lower", "0 64 linear ram0 8").ok());
  ASSERT_TRUE(harness.set_table("upper", "0 32 linear lower 16").ok());
  EXPECT_EQ(harness.table("upper"), "0 32 linear lower 16");
  EXPECT_EQ(harness.write("upper", 0, filled(4, 9)), BlkStatus::kOk);
  EXPECT_EQ(harness.read("lower", 16, 4), filled(4, 9));
}

}  // namespace

}  // namespace mapperfs::test
