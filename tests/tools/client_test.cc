#include <gtest/gtest.h>

#include "tools/mapperctl_client.h"

namespace mapperctl {
namespace {

TEST(EscapeWord, QuotesWhatWouldEndTheWord) {
  EXPECT_EQ(escape_word("a b\\c"), "a\\ b\\\\c");
  EXPECT_EQ(escape_word("#x#"), "\\#x#");
  EXPECT_EQ(escape_word("--force"), "\\--force");
  EXPECT_EQ(escape_word("a:b:"), "a:b\\:");
  EXPECT_EQ(unescape_word(escape_word("-:")), "-:");
  EXPECT_EQ(unescape_word(escape_word("#a b\\x20\tc")), "#a b\\x20\tc");
}

TEST(ParseListLine, ReadsEveryField) {
  const auto device = parse_list_line(
      "a\\ b\tUU-1\t253\t7\tLIsr\t2\t5\t3\t256\t4096\tD\t253:1=c 8:0=/dev/sda -=/data/x\\ y\t");
  ASSERT_TRUE(device);
  EXPECT_EQ(device->name, "a b");
  EXPECT_EQ(device->uuid, "UU-1");
  EXPECT_EQ(device->minor, 7);
  EXPECT_TRUE(device->live() && device->inactive() && device->suspended() && device->read_only());
  EXPECT_TRUE(device->deferred_remove());
  EXPECT_EQ(device->event_nr, 5U);
  EXPECT_EQ(device->size, 4096U);
  ASSERT_EQ(device->deps.size(), 3U);
  EXPECT_TRUE(device->deps[0].mapped);
  EXPECT_FALSE(device->deps[1].mapped);
  EXPECT_EQ(device->deps[1].name, "/dev/sda");
  EXPECT_TRUE(device->deps[2].is_file());
  EXPECT_EQ(device->deps[2].name, "/data/x y");
}

TEST(ParseListLine, TakesATabOfANameForNoSeparator) {
  const auto device = parse_list_line("t\\\tb\tu\\\tv\t253\t7\tL--w\t0\t0\t1\t256\t8\t\t\t");
  ASSERT_TRUE(device);
  EXPECT_EQ(device->name, "t\tb");
  EXPECT_EQ(device->uuid, "u\tv");
  EXPECT_EQ(device->minor, 7);
  EXPECT_EQ(device->size, 8U);
}

TEST(ParseListLine, RefusesAShortLine) { EXPECT_FALSE(parse_list_line("a\tb\tc")); }

TEST(ParseTableReply, GathersTheLinesOfADevice) {
  const auto tables =
      parse_table_reply("a: 0 8 zero \na: 8 8 linear 1:3 0\nempty: \nb\\ c: 0 1 error \n");
  ASSERT_EQ(tables.size(), 3U);
  ASSERT_EQ(tables[0].lines.size(), 2U);
  EXPECT_EQ(tables[0].lines[1].params, "1:3 0");
  EXPECT_TRUE(tables[1].lines.empty());
  EXPECT_EQ(tables[2].name, "b c");
  EXPECT_EQ(tables[2].lines[0].type, "error");
}

TEST(ParseTableReply, SplitsAtTheLastColonOfTheName) {
  const auto tables = parse_table_reply("a:b: 0 8 zero \n");
  ASSERT_EQ(tables.size(), 1U);
  EXPECT_EQ(tables[0].name, "a:b");
}

}  // namespace
}  // namespace mapperctl
