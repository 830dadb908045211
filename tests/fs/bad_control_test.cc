// Bad lines and tables: each gives the kernel's errno and a sentence that names the thing, and
// leaves everything as it was.

#include <gtest/gtest.h>

#include <cerrno>
#include <ostream>
#include <string>
#include <vector>

#include "tests/fs/world.h"

namespace mapperfs {
namespace {

struct BadCase {
  std::string_view name;  // of the test
  std::string text;
  int error;
  std::vector<std::string_view> says;  // in the sentence: what, where, which value, which limit

  friend std::ostream& operator<<(std::ostream& out, const BadCase& bad) {
    return out << bad.text.substr(0, 200);
  }
};

const std::string kLong(200, 'n');

std::vector<BadCase> bad_tables() {
  return {
      {"Gap",
       "x: 0 8 zero\nx: 16 8 zero",
       EINVAL,
       {"x:", "line 2", "zero", "starts at sector 16", "ends at 8"}},
      {"Overlap",
       "x: 0 8 zero\nx: 4 8 zero",
       EINVAL,
       {"x:", "line 2", "zero", "starts at sector 4", "ends at 8"}},
      {"NotFromZero",
       "x: 8 8 zero",
       EINVAL,
       {"x:", "line 1", "zero", "starts at sector 8", "ends at 0"}},
      {"OutOfOrder",
       "x: 8 8 zero\nx: 0 8 zero",
       EINVAL,
       {"x:", "line 1", "zero", "starts at sector 8", "ends at 0"}},
      {"ZeroLength", "x: 0 0 zero", EINVAL, {"x:", "zero-length", "zero at sector 0"}},
      {"TooLarge",
       "x: 0 36028797018963968 zero",
       EINVAL,
       {"x:", "length 36028797018963968", "18014398509481983"}},
      {"Wraps",
       "x: 0 8 zero\nx: 8 18446744073709551615 zero",
       EINVAL,
       {"x:", "line 2", "length 18446744073709551615", "18014398509481983"}},
      {"UnknownTarget", "x: 0 8 nonsense", EINVAL, {"x:", "nonsense: unknown target type"}},
      {"TargetNameInCapitals", "x: 0 8 ZERO", EINVAL, {"x:", "ZERO: unknown target type"}},
      {"TargetNameTooLong", "x: 0 8 " + kLong, EINVAL, {"x:", "nnn", "200 bytes", "at most 15"}},
      {"NoFields", "x:", EINVAL, {"x:", "empty table line", "START LENGTH TARGET"}},
      {"OneField", "x: 0", EINVAL, {"x:", "\"0\"", "START LENGTH TARGET"}},
      {"TwoFields", "x: 0 8", EINVAL, {"x:", "\"0 8\"", "START LENGTH TARGET"}},
      {"StartNoNumber", "x: zero 8 zero", EINVAL, {"x:", "start \"zero\" is not a decimal"}},
      {"StartNegative", "x: -8 8 zero", EINVAL, {"x:", "start \"-8\" is not a decimal"}},
      {"StartWithSign", "x: +0 8 zero", EINVAL, {"x:", "start \"+0\" is not a decimal"}},
      {"StartHex", "x: 0x0 8 zero", EINVAL, {"x:", "start \"0x0\" is not a decimal"}},
      {"StartTrailing", "x: 0k 8 zero", EINVAL, {"x:", "start \"0k\" is not a decimal"}},
      {"LengthNoNumber", "x: 0 eight zero", EINVAL, {"x:", "length \"eight\" is not a decimal"}},
      {"LengthOverflow",
       "x: 0 99999999999999999999 zero",
       EINVAL,
       {"x:", "length 99999999999999999999 is too large", "18446744073709551615"}},
      {"TrailingJunkZero", "x: 0 8 zero junk", EINVAL, {"x:", "zero", "1 given, 0 needed"}},
      {"TrailingJunkLinear",
       "x: 0 8 linear /data/a.img 0 junk",
       EINVAL,
       {"x:", "linear", "3 given, 2 needed"}},
      {"LinearNoArguments", "x: 0 8 linear", EINVAL, {"x:", "linear", "0 given, 2 needed"}},
      {"LinearNoOffset",
       "x: 0 8 linear /data/a.img",
       EINVAL,
       {"x:", "linear", "1 given, 2 needed"}},
      {"LinearBadOffset",
       "x: 0 8 linear /data/a.img ten",
       EINVAL,
       {"x:", "linear", "\"ten\" is not a decimal"}},
      {"LinearNegativeOffset",
       "x: 0 8 linear /data/a.img -1",
       EINVAL,
       {"x:", "linear", "\"-1\" is not a decimal"}},
      {"MissingDevice",
       "x: 0 8 linear /data/missing.img 0",
       ENOENT,
       {"x:", "linear", "/data/missing.img", "ENOENT"}},
      {"ClaimedDevice",
       "x: 0 8 linear /data/claimed.img 0",
       EBUSY,
       {"x:", "linear", "/data/claimed.img", "EBUSY"}},
      {"TooSmallDevice",
       "x: 0 64 linear /data/small.img 0",
       EINVAL,
       {"x:", "/data/small.img too small", "start=0, len=64, dev_size=16"}},
      {"TooSmallBehindOffset",
       "x: 0 16 linear /data/small.img 8",
       EINVAL,
       {"x:", "/data/small.img too small", "start=8, len=16, dev_size=16"}},
      {"EmptyFile",
       "x: 0 8 linear /data/empty.img 0",
       EINVAL,
       {"x:", "/data/empty.img too small", "start=0, len=8, dev_size=0"}},
      {"EmptyFileOfLoop",
       "x: 0 8 loop /data/empty.img",
       EINVAL,
       {"x:", "/data/empty.img too small", "len=8, dev_size=0"}},
      {"OwnDevice",
       "base: 0 2048 linear base 0",
       EINVAL,
       {"base:", "linear", "\"base\" is the mapped device itself"}},
      {"OwnDeviceByPath",
       "base: 0 2048 linear /mnt/own/base 0",
       EINVAL,
       {"base:", "\"/mnt/own/base\" is the mapped device itself"}},
      {"OwnDeviceNew",
       "x: 0 8 linear x 0",
       EINVAL,
       {"x:", "linear", "\"x\" is the mapped device itself"}},
      {"Cycle",
       "base: 0 1024 linear upper 0",
       EINVAL,
       {"base:", "\"upper\" stands on \"base\"", "cycle"}},
      {"StripedNoArguments", "x: 0 8 striped", EINVAL, {"x:", "striped", "0 given, at least 2"}},
      {"StripedZeroStripes",
       "x: 0 8 striped 0 8 /data/a.img 0",
       EINVAL,
       {"x:", "striped", "stripe count: 0 is not between 1 and 65535"}},
      {"StripedFewDevices",
       "x: 0 16 striped 2 8 /data/a.img 0",
       EINVAL,
       {"x:", "striped", "4 given, 6 needed"}},
      {"StripedBadChunk",
       "x: 0 16 striped 2 big /data/a.img 0 /data/a.img 64",
       EINVAL,
       {"x:", "striped", "chunk_size: \"big\""}},
      {"StripedNotDivisible",
       "x: 0 17 striped 2 8 /data/a.img 0 /data/a.img 64",
       EINVAL,
       {"x:", "striped", "17 sectors over 2 stripes"}},
      {"SingletonInCompany",
       "x: 0 8 ram\nx: 8 8 zero",
       EINVAL,
       {"x:", "line 2", "ram must appear alone"}},
      {"TwoSingletons",
       "x: 0 8 ram\nx: 8 8 ram",
       EINVAL,
       {"x:", "line 2", "ram must appear alone"}},
      {"RamArguments", "x: 0 8 ram fast", EINVAL, {"x:", "ram", "1 given, 0 needed"}},
      {"RamCarriageReturn", "x: 0 8 ram\r", EINVAL, {"x:", "ram\\r: unknown target type"}},
      {"OffsetTooLarge",
       "x: 0 8 linear /data/a.img 18446744073709551616",
       EINVAL,
       {"x:", "linear", "18446744073709551616 is too large", "at most 18446744073709551615"}},
      {"StripedManyStripes",
       "x: 0 8 striped 70000 8 /data/a.img 0",
       EINVAL,
       {"x:", "striped", "70000 is not between 1 and 65535"}},
      {"SwitchOptionalArguments",
       "x: 0 8 switch 1 8 1 x /data/a.img 0",
       EINVAL,
       {"x:", "switch", "optional args: 1 is not 0"}},
      {"FlakeyWraps",
       "x: 0 8 flakey /data/a.img 0 4294967295 1",
       EINVAL,
       {"x:", "flakey", "Interval overflow", "4294967296 s are more than 4294967295"}},
      {"DelayBadDelay",
       "x: 0 8 delay /data/a.img 0 soon",
       EINVAL,
       {"x:", "delay", "Invalid delay: \"soon\""}},
      {"FlakeyNoInterval",
       "x: 0 8 flakey /data/a.img 0",
       EINVAL,
       {"x:", "flakey", "2 given, at least 4"}},
      {"DustBlockSize",
       "x: 0 8 dust /data/a.img 0 3",
       EINVAL,
       {"x:", "dust", "at least 512: 3 given"}},
      {"SecondLineBad",
       "x: 0 8 zero\nx: 8 8 linear /data/missing.img 0",
       ENOENT,
       {"x:", "line 2", "linear", "/data/missing.img"}},
      {"SwapFailsBadTable",
       "base: 0 8 nonsense",
       EINVAL,
       {"base:", "nonsense: unknown target type"}},
      {"SwapFailsTooSmall",
       "upper: 0 64 linear /data/small.img 0",
       EINVAL,
       {"upper:", "/data/small.img", "len=64, dev_size=16"}},
      {"LoadUnknownDevice", "load nobody: 0 8 zero", ENXIO, {"no mapped device \"nobody\""}},
      {"LoadNoName", "load 0 8 zero", EINVAL, {"load: \"0\"", "NAME:"}},
      {"LoadBadTable",
       "load base: 0 8 zero\nload base: 9 8 zero",
       EINVAL,
       {"base:", "line 2", "starts at sector 9", "ends at 8"}},
  };
}

std::vector<BadCase> bad_commands() {
  return {
      {"UnknownVerb", "frobnicate base", EINVAL, {"unknown command \"frobnicate\""}},
      {"VerbInCapitals", "REMOVE base", EINVAL, {"unknown command \"REMOVE\""}},
      {"UnknownOption",
       "remove --gently base",
       EINVAL,
       {"remove: unknown option \"--gently\"", "[--force] [--deferred]"}},
      {"OptionOfAnotherVerb",
       "suspend --force base",
       EINVAL,
       {"suspend: unknown option \"--force\"", "[--noflush]"}},
      {"TooFewOperands", "rename base", EINVAL, {"rename: base", "the new name is empty"}},
      {"TooManyOperands", "clear base upper", EINVAL, {"clear: 2 operands", "clear NAME"}},
      {"NoOperand", "remove", EINVAL, {"remove: the device name is empty"}},
      {"RemoveNobody", "remove nobody", ENXIO, {"no mapped device \"nobody\""}},
      {"RemoveOpen", "remove held", EBUSY, {"\"held\" is in use", "open count 1"}},
      {"RemoveInUse", "remove base", EBUSY, {"\"base\" is in use", "open count 1"}},
      {"SuspendNobody", "suspend nobody", ENXIO, {"no mapped device \"nobody\""}},
      {"ResumeNobody", "resume nobody", ENXIO, {"no mapped device \"nobody\""}},
      {"ResumeWithoutTable", "resume asleep", EINVAL, {"asleep: cannot resume", "no table"}},
      {"ClearNobody", "clear nobody", ENXIO, {"no mapped device \"nobody\""}},
      {"CreateTaken", "create base", EBUSY, {"\"base\" exists already"}},
      {"CreateUuidTaken",
       "create x taken-uuid",
       EBUSY,
       {"\"taken-uuid\" belongs to mapped device \"empty\""}},
      {"CreateMinorTaken",
       "create --minor 0 x",
       ENXIO,
       {"minor 0 is taken by mapped device \"base\""}},
      {"CreateMinorNoNumber", "create --minor one x", EINVAL, {"create: minor \"one\"", "1048576"}},
      {"CreateMinorTooLarge",
       "create --minor 1048576 x",
       EINVAL,
       {"create: minor \"1048576\"", "below 1048576"}},
      {"CreateTwoUuids", "create --uuid a x b", EINVAL, {"create: two UUIDs"}},
      {"CreateUuidTooLong",
       "create x " + kLong,
       EINVAL,
       {"uuid \"nnn", "200 bytes", "at most 128"}},
      {"CreateOptionWithoutValue", "create x --uuid", EINVAL, {"create: --uuid needs a value"}},
      {"NameTooLong", "create " + kLong, EINVAL, {"device name \"nnn", "200 bytes", "at most 127"}},
      {"NameControl",
       "create control",
       EINVAL,
       {"device name cannot be", ": \"control\" is taken"}},
      {"NameSys", "sys: 0 8 zero", EINVAL, {"device name cannot be", ": \"sys\" is taken"}},
      {"NameLog", "log: 0 8 ram", EINVAL, {"device name cannot be", ": \"log\" is taken"}},
      {"NameTargets", "create targets", EINVAL, {"cannot be", ": \"targets\" is taken"}},
      {"NameVersion", "rename base version", EINVAL, {"cannot be", ": \"version\" is taken"}},
      {"NameDot", "create .", EINVAL, {"device name cannot be", ": \".\" is taken"}},
      {"NameDots", "create ..", EINVAL, {"device name cannot be", ": \"..\" is taken"}},
      {"NameSlash", "create a/b", EINVAL, {"device name \"a/b\"", "'/'"}},
      {"NameEmpty", ": 0 8 zero", EINVAL, {"the device name is empty"}},
      {"CreateNameEmpty", "create ", EINVAL, {"create: the device name is empty"}},
      {"LoadNameEmpty", "load : 0 8 zero", ENXIO, {"no mapped device \"\""}},
      {"RemoveNameEmpty", "remove --force", EINVAL, {"remove: the device name is empty"}},
      {"RenameToNothing", "rename base ", EINVAL, {"rename: base: the new name is empty"}},
      {"SetUuidToNothing", "setuuid base", EINVAL, {"setuuid: base: the UUID is empty"}},
      {"RenameNobody", "rename nobody x", ENXIO, {"rename non-existent device, nobody to x"}},
      {"RenameTaken", "rename base held", EBUSY, {"mapped device base", "already exists: held"}},
      {"RenameBadName", "rename base a/b", EINVAL, {"device name \"a/b\"", "'/'"}},
      {"SetUuidAgain",
       "setuuid empty other",
       EINVAL,
       {"uuid of mapped device empty", "already set to taken-uuid"}},
      {"SetUuidTaken",
       "setuuid base taken-uuid",
       EBUSY,
       {"\"taken-uuid\" belongs to mapped device \"empty\""}},
      {"MessageNobody", "message nobody 0 hello", ENXIO, {"no mapped device \"nobody\""}},
      {"MessageNoWords", "message base 0", EINVAL, {"message: base: Empty message received."}},
      {"MessageBadSector",
       "message base first hello",
       EINVAL,
       {"message: sector \"first\" is not a decimal"}},
      {"MessageNotTaken",
       "message base 0 hello",
       EINVAL,
       {"base: ram:", "does not support messages"}},
      {"MessageOutside", "message base 99999 hello", EINVAL, {"base:", "99999 is not below 2048"}},
      {"MessageWithoutTable", "message empty 0 hello", EINVAL, {"empty:", "no table"}},
      {"MessageOfTheCore", "message base 0 @nonsense", EINVAL, {"base:", "@nonsense"}},
      {"GeometryWords",
       "setgeometry base a b c d",
       EINVAL,
       {"setgeometry: \"a\" is not a decimal"}},
      {"GeometryTooLarge",
       "setgeometry base 65536 1 1 0",
       EINVAL,
       {"base:", "65536 cylinders (at most 65535)"}},
      {"WipeNobody", "wipe_table nobody", ENXIO, {"no mapped device \"nobody\""}},
      {"CancelNobody", "cancel_deferred_remove nobody", ENXIO, {"no mapped device \"nobody\""}},
      {"QueryNobody", "table nobody", ENXIO, {"no mapped device \"nobody\""}},
      {"CommitAlone", "commit", EINVAL, {"\"commit\"", "no \"begin\""}},
      {"BeginTwice", "begin\nbegin\ncommit", EINVAL, {"\"begin\"", "another transaction"}},
      {"LinesApart",
       "a: 0 8 zero\nb: 0 8 zero\na: 8 8 zero",
       EINVAL,
       {"line 3", "a: table lines of one name"}},
      {"LinesApartOfALiveTable",
       "upper: 0 8 zero\nb: 0 8 zero\nupper: 8 8 zero",
       EINVAL,
       {"line 3", "upper: table lines of one name"}},
      {"LinesApartOneBad",
       "upper: 0 8 zero\nb: 0 8 zero\nupper: 8 eight zero",
       EINVAL,
       {"line 3", "upper: length \"eight\""}},
      {"LoadLinesApart",
       "load upper: 0 8 zero\nload base: 0 8 zero\nload upper: 8 8 zero",
       EINVAL,
       {"line 3", "upper: table lines of one name"}},
      {"Nul", std::string("x: 0 8\0zero", 11), EINVAL, {"a NUL byte"}},
      {"NotUtf8", "\xff\xfe\x80", EINVAL, {"unknown command \"\xff\xfe"}},
      {"NotUtf8Target", "x: 0 8 \xc3\x28", EINVAL, {"x:", "\xc3\x28: unknown target type"}},
      {"CarriageReturn", "remove base\r", ENXIO, {"no mapped device \"base\\r\""}},
      {"LongWord", std::string(100000, 'q'), EINVAL, {"unknown command \"qqq", "neither a verb"}},
      {"OnlyBackslash", "\\", EINVAL, {"unknown command \"\\\""}},
  };
}

class BadControl : public testing::TestWithParam<BadCase> {
 protected:
  void SetUp() override {
    world_.control_ok(
        "base: 0 2048 ram\nupper: 0 1024 linear base 0\nheld: 0 8 zero\n"
        "create empty taken-uuid\ncreate asleep\nsuspend asleep");
    held_ = world_.device("held");
    ASSERT_TRUE(world_.engine.open(*held_).ok());
  }
  void TearDown() override { world_.engine.close(*held_); }

  World world_;
  std::shared_ptr<MappedDevice> held_;
};

TEST_P(BadControl, IsRefusedAndLeavesNothing) {
  const BadCase& bad = GetParam();
  const std::string before = world_.state();

  const Outcome outcome = world_.control(bad.text);

  EXPECT_EQ(errno_name(outcome.status.error()), errno_name(bad.error)) << outcome.status.message();
  for (const std::string_view words : bad.says) {
    EXPECT_NE(outcome.status.message().find(words), std::string::npos)
        << "\"" << outcome.status.message() << "\" does not say \"" << words << "\"";
  }
  EXPECT_EQ(outcome.reply, outcome.status.message() + "\n");
  EXPECT_NE(world_.engine.log().text().find(outcome.status.message()), std::string::npos);
  EXPECT_EQ(world_.state(), before);
}

std::string case_name(const testing::TestParamInfo<BadCase>& info) {
  return std::string(info.param.name);
}
INSTANTIATE_TEST_SUITE_P(Tables, BadControl, testing::ValuesIn(bad_tables()), case_name);
INSTANTIATE_TEST_SUITE_P(Commands, BadControl, testing::ValuesIn(bad_commands()), case_name);

TEST(BadControlCount, SaysMoreThanALetter) {
  for (const auto& cases : {bad_tables(), bad_commands()}) {
    for (const BadCase& bad : cases) {
      EXPECT_FALSE(bad.says.empty()) << bad.name;
      for (const std::string_view words : bad.says) {
        EXPECT_TRUE(words.size() >= 2) << bad.name << ": " << words;
      }
    }
  }
}

TEST(BadControlCount, IsAtLeastSixty) {
  EXPECT_GE(bad_tables().size() + bad_commands().size(), 60U);
}

}  // namespace
}  // namespace mapperfs
