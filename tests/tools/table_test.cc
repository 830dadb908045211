#include <gtest/gtest.h>

#include "tools/mapperctl_table.h"

namespace mapperctl {
namespace {

TEST(ParseTable, ReadsOneTargetALine) {
  const ParsedTable table = parse_table("0 1024 linear /dev/ram0 0\n1024 8 zero\n", "on stdin");
  ASSERT_EQ(table.error, "");
  ASSERT_EQ(table.lines.size(), 2U);
  EXPECT_EQ(table.lines[0].length, 1024U);
  EXPECT_EQ(table.lines[0].type, "linear");
  EXPECT_EQ(table.lines[0].params, "/dev/ram0 0");
  EXPECT_EQ(table.lines[1].start, 1024U);
  EXPECT_EQ(table.lines[1].params, "");
}

TEST(ParseTable, SkipsBlankLinesAndComments) {
  const ParsedTable table =
      parse_table("# a comment\n\n  \t\n0 8 linear /dev/ram1 0 # tail\n   # indented\n", "x");
  ASSERT_EQ(table.error, "");
  ASSERT_EQ(table.lines.size(), 1U);
  EXPECT_EQ(table.lines[0].params, "/dev/ram1 0 ");
}

TEST(ParseTable, TakesTabsAndRunsOfBlanks) {
  const ParsedTable table = parse_table("\t0\t1024   linear    /dev/ram0 \t0  ", "x");
  ASSERT_EQ(table.lines.size(), 1U);
  EXPECT_EQ(table.lines[0].params, "/dev/ram0 \t0");
}

TEST(ParseTable, LetsTheTypeBeginRightBehindTheDigits) {
  const ParsedTable table = parse_table("0 8x linear /dev/ram0 0", "on stdin");
  ASSERT_EQ(table.lines.size(), 1U);
  EXPECT_EQ(table.lines[0].type, "x");
  EXPECT_EQ(table.lines[0].params, "linear /dev/ram0 0");
}

TEST(ParseTable, ReadsNumbersAsScanfDoes) {
  const ParsedTable table = parse_table("-8 99999999999999999999 zero\n+5 8 zero", "x");
  ASSERT_EQ(table.lines.size(), 2U);
  EXPECT_EQ(table.lines[0].start, ~uint64_t{0} - 7);
  EXPECT_EQ(table.lines[0].length, ~uint64_t{0});
  EXPECT_EQ(table.lines[1].start, 5U);
}

TEST(ParseTable, NamesTheLineThatIsWrong) {
  EXPECT_EQ(parse_table("0 abc linear /dev/ram0 0", "on stdin").error,
            "Invalid format on line 1 of table on stdin.");
  EXPECT_EQ(parse_table("0 8", "on stdin").error, "Invalid format on line 1 of table on stdin.");
  EXPECT_EQ(parse_table("0.5 8 zero", "on stdin").error,
            "Invalid format on line 1 of table on stdin.");
  EXPECT_EQ(parse_table("0 8 zero\n\n8 8\n", "").error, "Invalid format on line 3 of table .");
  EXPECT_EQ(parse_table("0x10 8 zero", "f").error, "Invalid format on line 1 of table f.");
}

TEST(ParseTable, RefusesLongTypeNames) {
  EXPECT_EQ(parse_table("0 8 abcdefghijklmnop /dev/ram0 0", "x").error,
            "Target type name abcdefghijklmnop is too long.");
  EXPECT_EQ(parse_table("0 8 abcdefghijklmno", "x").error, "");
}

TEST(ParseConcise, ReadsSeveralDevices) {
  const ParsedConcise parsed = parse_concise(
      "c0,,,rw,0 1024 linear /dev/ram0 0,1024 8 linear /dev/ram1 0;c1,uuid-c1,7,ro,0 16 zero");
  ASSERT_EQ(parsed.error, "");
  ASSERT_EQ(parsed.devices.size(), 2U);
  EXPECT_EQ(parsed.devices[0].name, "c0");
  EXPECT_EQ(parsed.devices[0].table, "0 1024 linear /dev/ram0 0\n1024 8 linear /dev/ram1 0");
  EXPECT_FALSE(parsed.devices[0].read_only);
  EXPECT_EQ(parsed.devices[1].uuid, "uuid-c1");
  EXPECT_EQ(parsed.devices[1].minor, "7");
  EXPECT_TRUE(parsed.devices[1].read_only);
}

TEST(ParseConcise, SkipsBlanksAfterSeparatorsAndUnescapes) {
  const ParsedConcise parsed = parse_concise("a\\,b\\;c\\\\, , , ,0 8 zero; d,,,,0 8 error");
  ASSERT_EQ(parsed.error, "");
  ASSERT_EQ(parsed.devices.size(), 2U);
  EXPECT_EQ(parsed.devices[0].name, "a,b;c\\");
  EXPECT_EQ(parsed.devices[1].name, "d");
}

TEST(ParseConcise, TellsWhatItParsedBeforeTheError) {
  EXPECT_EQ(parse_concise("a,b").error,
            "Five comma-separated fields are required for each device\n"
            "Parsed 2 fields: name: a uuid: b minor: (null) flags: (null) table: (null)");
  EXPECT_EQ(parse_concise("a,,,").error,
            "Incomplete entry: five comma-separated fields are required for each device\n"
            "Parsed 4 fields: name: a uuid:  minor:  flags:  table: (null)");
  EXPECT_EQ(parse_concise("a,,,ro,\\").error,
            "Backslash must be followed by another character at end of string.\n"
            "Parsed 5 fields: name: a uuid:  minor:  flags: ro table: ");
  EXPECT_EQ(parse_concise("a,,,xx,0 8 zero").error,
            "Invalid flags parameter 'xx' must be 'ro' or 'rw' or empty.");
}

TEST(ParseConcise, KeepsTheDevicesBeforeTheError) {
  const ParsedConcise parsed = parse_concise("a,,,,0 8 zero;b");
  EXPECT_NE(parsed.error, "");
  ASSERT_EQ(parsed.devices.size(), 1U);
  EXPECT_EQ(parsed.devices[0].name, "a");
}

TEST(EscapeConcise, IsReadBackAsItWas) {
  const std::string name = "x,y;z\\w";
  EXPECT_EQ(escape_concise(name), "x\\,y\\;z\\\\w");
  const ParsedConcise parsed = parse_concise(escape_concise(name) + ",,,,0 8 zero");
  ASSERT_EQ(parsed.devices.size(), 1U);
  EXPECT_EQ(parsed.devices[0].name, name);
}

}  // namespace
}  // namespace mapperctl
