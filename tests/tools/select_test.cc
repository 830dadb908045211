#include <gtest/gtest.h>

#include "tools/mapperctl_select.h"

namespace mapperctl {
namespace {

// A row with name "vol", two segments and the UUID "LVM-abc".
Cell row(const Field& field) {
  if (field.id == "name") return {"vol", {}};
  if (field.id == "segments") return {"2", 2};
  if (field.id == "uuid") return {"LVM-abc", {}};
  return {};
}

bool passes(std::string_view text) {
  const ParsedSelection parsed = parse_selection(text);
  EXPECT_EQ(parsed.error, "") << text;
  return parsed.selection && parsed.selection->matches(row);
}

TEST(Selection, ComparesText) {
  EXPECT_TRUE(passes("name=vol"));
  EXPECT_TRUE(passes("name = \"vol\""));
  EXPECT_FALSE(passes("name='other'"));
  EXPECT_TRUE(passes("name!=other"));
  EXPECT_TRUE(passes("NAME=vol"));
}

TEST(Selection, ComparesNumbers) {
  EXPECT_TRUE(passes("segments>1"));
  EXPECT_FALSE(passes("segments>2"));
  EXPECT_TRUE(passes("segments>=2"));
  EXPECT_TRUE(passes("segments<=2"));
  EXPECT_FALSE(passes("segments<2"));
  EXPECT_FALSE(passes("segments!=2"));
  EXPECT_TRUE(passes("segments=2.7"));
}

TEST(Selection, MatchesRegularExpressions) {
  EXPECT_TRUE(passes("name=~\"^v\""));
  EXPECT_TRUE(passes("name=~o"));
  EXPECT_TRUE(passes("name!~x"));
  EXPECT_FALSE(passes("name=~^o"));
}

TEST(Selection, BindsAndMoreTightlyThanOr) {
  EXPECT_TRUE(passes("name=vol || name=x && segments=9"));
  EXPECT_FALSE(passes("(name=vol || name=x) && segments=9"));
  EXPECT_TRUE(passes("name=x#segments=2"));
  EXPECT_FALSE(passes("name=vol,segments=9"));
  EXPECT_FALSE(passes("!(name=vol)"));
}

TEST(Selection, OfNothingPassesEverything) { EXPECT_TRUE(passes("")); }

struct ErrorCase {
  const char* text;
  const char* first_line;
};

TEST(Selection, SaysWhatIsWrong) {
  const ErrorCase cases[] = {
      {"nosuch=1", "Unrecognised selection field: nosuch"},
      {"name", "Unrecognised comparison operator: "},
      {"name=a b", "Expecting logical operator"},
      {"segments=x", "Failed to parse numeric value for selection field segments."},
      {"segments=-1", "Failed to parse numeric value for selection field segments."},
      {"name>1", "Operator can be used only with number, size, time or percent fields: name>1"},
      {"name since 1", "Operator can be used only with time fields: name since 1"},
      {"(name=vol", "Syntax error: right parenthesis expected at ''"},
      {"!name=vol", "Syntax error: left parenthesis expected at 'name=vol'"},
      {"name=\"vol", "Missing end quote."},
      {"=1", "Expecting field name"},
      {"name=vol &&", "Expecting field name"},
  };
  for (const ErrorCase& c : cases) {
    const ParsedSelection parsed = parse_selection(c.text);
    EXPECT_EQ(parsed.selection, nullptr) << c.text;
    EXPECT_EQ(parsed.error.substr(0, parsed.error.find('\n')), c.first_line) << c.text;
  }
}

TEST(Selection, QuotesWhereItStopped) {
  EXPECT_EQ(parse_selection("name=a b").error,
            "Expecting logical operator\nSelection syntax error at 'b'.\n"
            "Use 'help' for selection to get more help.");
}

}  // namespace
}  // namespace mapperctl
