#include "fs/control_parser.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace mapperfs {
namespace {

Command only(std::string_view text) {
  Script script = parse_control(text);
  EXPECT_TRUE(script.error.ok()) << script.error.message();
  EXPECT_EQ(script.commands.size(), 1U);
  return script.commands.empty() ? Command() : std::move(script.commands.front());
}

TEST(ControlParser, TakesConsecutiveLinesOfOneNameAsOneTable) {
  const Script script = parse_control("a: 0 8 zero\na: 8 8 error\n\nb: 0 8 zero");
  ASSERT_EQ(script.commands.size(), 2U);
  EXPECT_EQ(script.commands[0].name(), "a");
  EXPECT_EQ(script.commands[0].table.size(), 2U);
  EXPECT_EQ(script.commands[0].table[1].start, 8U);
  EXPECT_EQ(script.commands[1].line, 4U);
}

TEST(ControlParser, KeepsArgumentsAsTheyWereWritten) {
  const Command command = only("a: 0 8 linear /a\\ b/c\\\\d 17   x");
  EXPECT_EQ(command.table.front().args, "/a\\ b/c\\\\d 17   x");
}

TEST(ControlParser, CutsCommentsAtWordsOnly) {
  EXPECT_EQ(only("a: 0 8 linear /x#y 0 # z").table.front().args, "/x#y 0");
  EXPECT_EQ(only("  remove a # remove b").operands.size(), 1U);
  EXPECT_TRUE(parse_control("# all of it\n   \n\t# more").commands.empty());
}

TEST(ControlParser, UnescapesNames) {
  EXPECT_EQ(only("a\\ b: 0 8 zero").name(), "a b");
  EXPECT_EQ(only("a\\:: 0 8 zero").name(), "a:");
  EXPECT_EQ(only("a:b: 0 8 zero").name(), "a:b");
  EXPECT_EQ(only("remove \\#x").name(), "#x");
  EXPECT_EQ(only("remove \\--force").name(), "--force");
}

TEST(ControlParser, EscapedNamesComeBack) {
  for (const std::string name :
       {"a b", "#x", "--y", "back\\slash", "colon:", "tab\tbed", "\xc3\xa4"}) {
    EXPECT_EQ(only("remove " + escape_name(name)).name(), name);
    EXPECT_EQ(only(escape_name(name) + ": 0 8 zero").name(), name);
  }
}

TEST(ControlParser, FindsOptionsAnywhere) {
  const Command remove = only("remove disk --force --deferred");
  EXPECT_TRUE(remove.has(kOptForce));
  EXPECT_TRUE(remove.has(kOptDeferred));
  const Command create = only("create --uuid u --minor 7 disk --readonly");
  EXPECT_EQ(create.uuid, "u");
  EXPECT_EQ(create.minor, 7);
  EXPECT_TRUE(create.has(kOptReadonly));
}

TEST(ControlParser, LeavesMessagesAlone) {
  const Command message = only("message disk 16 set --thing a\\ b");
  EXPECT_EQ(message.sector, 16U);
  EXPECT_EQ(message.operands, (std::vector<std::string>{"disk", "set", "--thing", "a b"}));
}

TEST(ControlParser, KeepsWhatComesBeforeTheFirstBadLine) {
  const Script script = parse_control("remove a\na: 0 8 zero\na: eight 8 zero\nremove b");
  EXPECT_EQ(script.error.error(), EINVAL);
  EXPECT_EQ(script.lines, 3U);
  ASSERT_EQ(script.commands.size(), 1U) << "the table with the bad line is no table";
  EXPECT_EQ(script.commands.front().verb, Verb::kRemove);
}

TEST(ControlParser, ReadsBareTablesAndMessages) {
  EXPECT_EQ(parse_bare_table("# x\n0 8 zero\n\n8 8 error")->size(), 2U);
  EXPECT_EQ(parse_bare_table("0 8 zero\n8 8\n").status().error(), EINVAL);
  EXPECT_EQ(parse_message("12 resume now\n")->sector, 12U);
  EXPECT_EQ(parse_message("resume now")->operands.size(), 2U);
  EXPECT_EQ(parse_message("\n").status().error(), EINVAL);
}

}  // namespace
}  // namespace mapperfs
