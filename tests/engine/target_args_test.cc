#include "engine/target_args.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace mapperfs {
namespace {

using Words = std::vector<std::string>;

// Knows no device; remembers what it was asked for.
class NoDevices final : public DeviceOpener {
 public:
  Result<DevRef> open(const std::string& word, DeviceMode mode) override {
    asked.emplace_back(word, mode);
    return Status(ENOENT, "no such file: " + word);
  }
  std::vector<std::pair<std::string, DeviceMode>> asked;
};

struct Args {
  explicit Args(Words words) : args(std::move(words), DeviceMode::kReadOnly, opener) {}
  NoDevices opener;
  TargetArgs args;
};

TEST(ParseDecimal, TakesWholeWordsOfDigitsOnly) {
  std::uint64_t value = 7;
  EXPECT_TRUE(parse_decimal("0", value));
  EXPECT_EQ(value, 0U);
  EXPECT_TRUE(parse_decimal("00012", value));
  EXPECT_EQ(value, 12U);
  EXPECT_TRUE(parse_decimal("18446744073709551615", value));
  EXPECT_EQ(value, std::numeric_limits<std::uint64_t>::max());
  for (const char* wrong : {"", "-1", "+1", " 1", "1 ", "1x", "x", "0x10", "1.5",
                            "18446744073709551616", "99999999999999999999999"}) {
    EXPECT_FALSE(parse_decimal(wrong, value)) << wrong;
  }
}

TEST(ParseDecimal, TakesOnePlusWhereItIsToldTo) {
  std::uint64_t value = 7;
  EXPECT_TRUE(parse_decimal("+12", value, Sign::kPlus));
  EXPECT_EQ(value, 12U);
  EXPECT_TRUE(parse_decimal("12", value, Sign::kPlus));
  for (const char* wrong : {"", "+", "++1", "-1", "+-1", "+ 1", "1+", "+18446744073709551616"}) {
    EXPECT_FALSE(parse_decimal(wrong, value, Sign::kPlus)) << wrong;
  }
}

TEST(SplitWords, SplitsAtBlanksAndTabs) {
  EXPECT_EQ(split_words("  a\tb  c\n"), (Words{"a", "b", "c"}));
  EXPECT_EQ(split_words(""), Words{});
  EXPECT_EQ(split_words(" \t "), Words{});
}

TEST(SplitWords, BackslashTakesTheNextCharacterLiterally) {
  EXPECT_EQ(split_words("a\\ b c"), (Words{"a b", "c"}));
  EXPECT_EQ(split_words("a\\\\b"), (Words{"a\\b"}));
  EXPECT_EQ(split_words("\\x"), (Words{"x"}));
  EXPECT_EQ(split_words("\\ "), (Words{" "}));
  EXPECT_EQ(split_words("end\\"), (Words{"end\\"}));
}

TEST(SplitWords, QuotesAreNothingSpecial) {
  EXPECT_EQ(split_words("\"a b\" 'c'"), (Words{"\"a", "b\"", "'c'"}));
}

TEST(EscapeWord, IsReadBackInOnePiece) {
  for (const char* word : {"plain", "with blank", "tab\there", "back\\slash", "#comment", "a#b",
                           "new\nline", "\\", " ", "trailing\\ "}) {
    EXPECT_EQ(split_words(escape_word(word)), (Words{word})) << word;
  }
  EXPECT_EQ(escape_word("/data/my disk.img"), "/data/my\\ disk.img");
}

TEST(TargetArgs, ReadsWordsAndNumbers) {
  Args a({"dev", "4096", "17"});
  EXPECT_EQ(a.args.count(), 3U);
  EXPECT_EQ(a.args.word(0, "no dev"), "dev");
  EXPECT_EQ(a.args.sector(1, "no sector"), 4096U);
  EXPECT_EQ(a.args.number(2, 17, 17, "no number"), 17U);
  EXPECT_EQ(a.args.u32(2, 1, "no u32"), 17U);
  EXPECT_FALSE(a.args.failed());
  EXPECT_TRUE(a.args.status().ok());
}

TEST(TargetArgs, TheFirstThingWrongSticks) {
  Args a({"x", "y"});
  EXPECT_EQ(a.args.sector(0, "Invalid offset"), 0U);
  EXPECT_EQ(a.args.sector(1, "Invalid other"), 0U);
  EXPECT_EQ(a.args.word(1, "No word"), "");
  a.args.fail(EIO, "later", "detail");
  EXPECT_TRUE(a.args.failed());
  EXPECT_EQ(a.args.status().error(), EINVAL);
  EXPECT_EQ(a.args.status().message(), "Invalid offset: \"x\" is not a decimal number of sectors");
}

TEST(TargetArgs, MissingWordsAreNamed) {
  Args a({"1"});
  EXPECT_EQ(a.args.word(2, "Need a word"), "");
  EXPECT_EQ(a.args.status().message(), "Need a word: argument 3 is missing");
}

TEST(TargetArgs, CountsAreCheckedAndSaid) {
  Args few({"1"});
  few.args.require_count(2, 2, "Invalid argument count");
  EXPECT_EQ(few.args.status().message(), "Invalid argument count: 1 given, 2 needed");
  Args fewer({"1"});
  fewer.args.require_count(2, 4, "Invalid argument count");
  EXPECT_EQ(fewer.args.status().message(), "Invalid argument count: 1 given, at least 2 needed");
  Args many({"1", "2", "3"});
  many.args.require_count(1, 2, "Invalid argument count");
  EXPECT_EQ(many.args.status().message(), "Invalid argument count: 3 given, at most 2 taken");
  Args right({"1", "2"});
  right.args.require_count(1, 2, "Invalid argument count");
  EXPECT_FALSE(right.args.failed());
}

TEST(TargetArgs, NumbersHaveLimits) {
  Args low({"3"});
  low.args.number(0, 4, 9, "Bad number");
  EXPECT_EQ(low.args.status().message(), "Bad number: 3 is not between 4 and 9");
  Args high({"10"});
  high.args.number(0, 4, 9, "Bad number");
  EXPECT_TRUE(high.args.failed());
  Args word({"nine"});
  word.args.number(0, 4, 9, "Bad number");
  EXPECT_EQ(word.args.status().message(), "Bad number: \"nine\" is not a decimal number");
  Args wide({"4294967296"});
  wide.args.u32(0, 0, "Bad u32");
  EXPECT_EQ(wide.args.status().message(), "Bad u32: 4294967296 is not between 0 and 4294967295");
}

TEST(TargetArgs, APlusIsTakenWhereTheKernelTakesIt) {
  Args a({"+8", "+4294967296"});
  EXPECT_EQ(a.args.u32(0, 1, "Bad chunk", Sign::kPlus), 8U);
  EXPECT_EQ(a.args.sector(0, "Bad start", Sign::kPlus), 8U);
  EXPECT_FALSE(a.args.failed());
  EXPECT_EQ(a.args.u32(1, 0, "Bad chunk", Sign::kPlus), 0U);
  EXPECT_EQ(a.args.status().message(), "Bad chunk: +4294967296 is not between 0 and 4294967295");
  Args none({"+8"});
  EXPECT_EQ(none.args.u32(0, 1, "Bad interval"), 0U);
  EXPECT_EQ(none.args.status().message(), "Bad interval: \"+8\" is not a decimal number");
}

TEST(TargetArgs, NumbersPastTheirLargestAreNoWords) {
  Args sector({"18446744073709551616"});
  sector.args.sector(0, "Bad sector");
  EXPECT_EQ(sector.args.status().message(),
            "Bad sector: 18446744073709551616 is too large for a number of sectors: at most "
            "18446744073709551615");
  Args number({"99999999999999999999"});
  number.args.number(0, 4, 9, "Bad number");
  EXPECT_EQ(number.args.status().message(),
            "Bad number: 99999999999999999999 is not between 4 and 9");
  Args only({"1"});
  only.args.group(0, 0, "Bad group");
  EXPECT_EQ(only.args.status().message(), "Bad group: 1 is not 0");
}

TEST(TargetArgs, GroupsAnnounceTheirWords) {
  Args a({"x", "2", "one", "two", "three"});
  const auto group = a.args.group(1, 3, "Bad group");
  ASSERT_EQ(group.size(), 2U);
  EXPECT_EQ(group[0], "one");
  EXPECT_EQ(group[1], "two");
  Args empty({"0"});
  EXPECT_TRUE(empty.args.group(0, 3, "Bad group").empty());
  EXPECT_FALSE(empty.args.failed());
}

TEST(TargetArgs, GroupsThatDoNotFitAreRefused) {
  Args most({"4", "a", "b", "c", "d"});
  EXPECT_TRUE(most.args.group(0, 3, "Bad group").empty());
  EXPECT_EQ(most.args.status().message(), "Bad group: 4 is not between 0 and 3");
  Args missing({"2", "a"});
  EXPECT_TRUE(missing.args.group(0, 3, "Bad group").empty());
  EXPECT_EQ(missing.args.status().message(), "Bad group: 2 announced, 1 follow");
  Args huge({"18446744073709551615", "a"});
  EXPECT_TRUE(huge.args.group(0, std::numeric_limits<std::size_t>::max(), "Bad group").empty());
  EXPECT_TRUE(huge.args.failed());
}

TEST(TargetArgs, DevicesAreOpenedInTheTablesModeAndTheirErrnoIsKept) {
  Args a({"/no/such", "/other"});
  EXPECT_FALSE(a.args.device(0, "Device lookup failed"));
  EXPECT_EQ(a.args.status().error(), ENOENT);
  EXPECT_EQ(a.args.status().message(), "Device lookup failed: no such file: /no/such");
  EXPECT_FALSE(a.args.device(1, "Device lookup failed"));
  ASSERT_EQ(a.opener.asked.size(), 1U);  // nothing is opened after the first failure
  EXPECT_EQ(a.opener.asked[0].second, DeviceMode::kReadOnly);
  Args b({"/no/such"});
  EXPECT_FALSE(b.args.device(0, DeviceMode::kReadWrite, "Device lookup failed"));
  EXPECT_EQ(b.opener.asked.at(0).second, DeviceMode::kReadWrite);
}

}  // namespace
}  // namespace mapperfs
