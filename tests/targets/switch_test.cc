#include <gtest/gtest.h>

#include <cerrno>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

// Three paths of regions of 8 sectors; each path's device is full of its own byte.
class SwitchTest : public testing::Test {
 protected:
  SwitchTest() {
    for (int i = 0; i < 3; ++i) {
      harness_.opener().add_mem("ram" + std::to_string(i), 1024).poke(0, filled(512, i));
    }
    EXPECT_TRUE(harness_.set_table("w", "0 512 switch 3 8 0 ram0 0 ram1 0 ram2 0").ok());
  }
  // The paths of the first `count` regions, a digit each.
  std::string paths(sector_t count) {
    std::string digits;
    for (sector_t region = 0; region < count; ++region) {
      const fake::Bytes data = harness_.read("w", region * 8, 1);
      digits += static_cast<char>('0' + static_cast<int>(data.at(0)));
    }
    return digits;
  }
  std::string refusal(std::string_view message) {
    const Result<std::string> reply = harness_.message("w", message);
    EXPECT_FALSE(reply.ok()) << message;
    EXPECT_EQ(reply.status().error(), EINVAL);
    return reply.status().message();
  }

  Harness harness_;
};

TEST_F(SwitchTest, BeginsRoundRobin) {
  EXPECT_EQ(paths(64), "0120120120120120120120120120120120120120120120120120120120120120");
  EXPECT_EQ(harness_.table("w"), "0 512 switch 3 8 0 ram0 0 ram1 0 ram2 0");
  EXPECT_EQ(harness_.status("w"), "0 512 switch ");
}

TEST_F(SwitchTest, SetsRegionsOneByOneAndInRows) {
  EXPECT_TRUE(harness_.message("w", "set_region_mappings 0:1 1:2 2:0").ok());
  EXPECT_EQ(paths(4), "1200");
  EXPECT_TRUE(harness_.message("w", "SET_REGION_MAPPINGS 3:1 :2 :0 R2,3").ok());
  EXPECT_EQ(paths(9), "120120202");
  EXPECT_TRUE(harness_.message("w", "set_region_mappings").ok());
}

TEST_F(SwitchTest, NumbersAreHexadecimalAndAFirstColonMeansRegionOne) {
  EXPECT_TRUE(harness_.message("w", "set_region_mappings :0 a:0 1F:0").ok());
  EXPECT_EQ(paths(32), "00201201200201201201201201201200");
}

TEST_F(SwitchTest, RefusesInTheKernelsWords) {
  EXPECT_NE(refusal("set_region_mappings 1000:1").find("region number: 4096 >= 64"),
            std::string::npos);
  EXPECT_NE(refusal("set_region_mappings 0:7").find("device: 7 >= 3"), std::string::npos);
  EXPECT_NE(refusal("set_region_mappings R2,5").find("cycle length: 1 > 0"), std::string::npos);
  EXPECT_NE(refusal("set_region_mappings R0,1").find("cycle length: 0 is not between 1 and 1"),
            std::string::npos);
  EXPECT_NE(refusal("set_region_mappings 3f:0 R1,1").find("region number: 64 >= 64"),
            std::string::npos);
  EXPECT_NE(refusal("set_region_mappings 0:1 R1,ffffffffffffffff").find("region number"),
            std::string::npos);
  for (const char* bad : {"x", "1", "1:", ":", "1:x", "1:1x", "R", "R,1", "R1", "R1,", "R1,x"}) {
    EXPECT_NE(refusal(std::string("set_region_mappings ") + bad)
                  .find("argument: '" + std::string(bad) + "'"),
              std::string::npos)
        << bad;
  }
  EXPECT_NE(refusal("nosuch 0:1").find("Unrecognised message received"), std::string::npos);
}

TEST_F(SwitchTest, ArgumentsBeforeABadOneStay) {
  EXPECT_FALSE(harness_.message("w", "set_region_mappings 0:2 1:9 2:1").ok());
  EXPECT_EQ(paths(3), "212");
}

TEST_F(SwitchTest, EveryPathCountKeepsItsRegionsApart) {
  for (const unsigned paths_count : {1U, 2U, 5U, 9U, 17U, 33U}) {
    std::string table = "0 512 switch " + std::to_string(paths_count) + " 8 0";
    for (unsigned i = 0; i < paths_count; ++i) {
      const std::string word = "p" + std::to_string(i);
      harness_.opener().add_mem(word, 512).poke(0, filled(512, static_cast<int>(i)));
      table += " " + word + " 0";
    }
    ASSERT_TRUE(harness_.set_table("many", table).ok());
    for (sector_t region = 0; region < 64; ++region) {
      const fake::Bytes data = harness_.read("many", region * 8, 1);
      ASSERT_EQ(static_cast<unsigned>(data.at(0)), region % paths_count) << region;
    }
  }
}

TEST_F(SwitchTest, AMapTooLargeIsRefused) {
  harness_.opener().add_mem("vast", sector_t{1} << 40);
  const Status status = harness_.try_table("0 1099511627776 switch 1 1 0 vast 0");
  EXPECT_EQ(status.error(), ENOMEM);
  EXPECT_NE(status.message().find("Cannot allocate region table"), std::string::npos);
}

}  // namespace

}  // namespace mapperfs::test
