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
  std::string_view says;  // in the sentence

  friend std::ostream& operator<<(std::ostream& out, const BadCase& bad) {
    return out << bad.text.substr(0, 200);
  }
};

const std::string kLong(200, 'n');

std::vector<BadCase> bad_tables() {
  return {
      {"Gap", "x: 0 8 zero\nx: 16 8 zero", EINVAL, "x"},
      {"Overlap", "x: 0 8 zero\nx: 4 8 zero", EINVAL, "x"},
      {"NotFromZero", "x: 8 8 zero", EINVAL, "x"},
      {"OutOfOrder", "x: 8 8 zero\nx: 0 8 zero", EINVAL, "x"},
      {"ZeroLength", "x: 0 0 zero", EINVAL, "x"},
      {"TooLarge", "x: 0 36028797018963968 zero", EINVAL, "x"},
      {"Wraps", "x: 0 8 zero\nx: 8 18446744073709551615 zero", EINVAL, "x"},
      {"UnknownTarget", "x: 0 8 nonsense", EINVAL, "nonsense"},
      {"TargetNameInCapitals", "x: 0 8 ZERO", EINVAL, "ZERO"},
      {"TargetNameTooLong", "x: 0 8 " + kLong, EINVAL, "nnn"},
      {"NoFields", "x:", EINVAL, "x"},
      {"OneField", "x: 0", EINVAL, "x"},
      {"TwoFields", "x: 0 8", EINVAL, "x"},
      {"StartNoNumber", "x: zero 8 zero", EINVAL, "start"},
      {"StartNegative", "x: -8 8 zero", EINVAL, "-8"},
      {"StartWithSign", "x: +0 8 zero", EINVAL, "+0"},
      {"StartHex", "x: 0x0 8 zero", EINVAL, "0x0"},
      {"StartTrailing", "x: 0k 8 zero", EINVAL, "0k"},
      {"LengthNoNumber", "x: 0 eight zero", EINVAL, "eight"},
      {"LengthOverflow", "x: 0 99999999999999999999 zero", EINVAL, "99999999999999999999"},
      {"TrailingJunkZero", "x: 0 8 zero junk", EINVAL, "x"},
      {"TrailingJunkLinear", "x: 0 8 linear /data/a.img 0 junk", EINVAL, "x"},
      {"LinearNoArguments", "x: 0 8 linear", EINVAL, "x"},
      {"LinearNoOffset", "x: 0 8 linear /data/a.img", EINVAL, "x"},
      {"LinearBadOffset", "x: 0 8 linear /data/a.img ten", EINVAL, "ten"},
      {"LinearNegativeOffset", "x: 0 8 linear /data/a.img -1", EINVAL, "-1"},
      {"MissingDevice", "x: 0 8 linear /data/missing.img 0", ENOENT, "/data/missing.img"},
      {"ClaimedDevice", "x: 0 8 linear /data/claimed.img 0", EBUSY, "/data/claimed.img"},
      {"TooSmallDevice", "x: 0 64 linear /data/small.img 0", EINVAL, "/data/small.img"},
      {"TooSmallBehindOffset", "x: 0 16 linear /data/small.img 8", EINVAL, "/data/small.img"},
      {"OwnDevice", "base: 0 2048 linear base 0", EINVAL, "base"},
      {"OwnDeviceByPath", "base: 0 2048 linear /mnt/own/base 0", EINVAL, "base"},
      {"OwnDeviceNew", "x: 0 8 linear x 0", EINVAL, "x"},
      {"Cycle", "base: 0 1024 linear upper 0", EINVAL, "upper"},
      {"StripedNoArguments", "x: 0 8 striped", EINVAL, "x"},
      {"StripedZeroStripes", "x: 0 8 striped 0 8 /data/a.img 0", EINVAL, "x"},
      {"StripedFewDevices", "x: 0 16 striped 2 8 /data/a.img 0", EINVAL, "x"},
      {"StripedBadChunk", "x: 0 16 striped 2 big /data/a.img 0 /data/a.img 64", EINVAL, "big"},
      {"StripedNotDivisible", "x: 0 17 striped 2 8 /data/a.img 0 /data/a.img 64", EINVAL, "x"},
      {"SingletonInCompany", "x: 0 8 ram\nx: 8 8 zero", EINVAL, "ram"},
      {"TwoSingletons", "x: 0 8 ram\nx: 8 8 ram", EINVAL, "ram"},
      {"RamArguments", "x: 0 8 ram fast", EINVAL, "x"},
      {"DelayBadDelay", "x: 0 8 delay /data/a.img 0 soon", EINVAL, "soon"},
      {"FlakeyNoInterval", "x: 0 8 flakey /data/a.img 0", EINVAL, "x"},
      {"DustBlockSize", "x: 0 8 dust /data/a.img 0 3", EINVAL, "x"},
      {"SecondLineBad", "x: 0 8 zero\nx: 8 8 linear /data/missing.img 0", ENOENT, "missing"},
      {"SwapFailsBadTable", "base: 0 8 nonsense", EINVAL, "nonsense"},
      {"SwapFailsTooSmall", "upper: 0 64 linear /data/small.img 0", EINVAL, "small"},
      {"LoadUnknownDevice", "load nobody: 0 8 zero", ENXIO, "nobody"},
      {"LoadNoName", "load 0 8 zero", EINVAL, "load"},
      {"LoadBadTable", "load base: 0 8 zero\nload base: 9 8 zero", EINVAL, "base"},
  };
}

std::vector<BadCase> bad_commands() {
  return {
      {"UnknownVerb", "frobnicate base", EINVAL, "frobnicate"},
      {"VerbInCapitals", "REMOVE base", EINVAL, "REMOVE"},
      {"UnknownOption", "remove --gently base", EINVAL, "--gently"},
      {"OptionOfAnotherVerb", "suspend --force base", EINVAL, "--force"},
      {"TooFewOperands", "rename base", EINVAL, "rename"},
      {"TooManyOperands", "clear base upper", EINVAL, "clear"},
      {"NoOperand", "remove", EINVAL, "remove"},
      {"RemoveNobody", "remove nobody", ENXIO, "nobody"},
      {"RemoveOpen", "remove held", EBUSY, "held"},
      {"RemoveInUse", "remove base", EBUSY, "base"},
      {"SuspendNobody", "suspend nobody", ENXIO, "nobody"},
      {"ResumeNobody", "resume nobody", ENXIO, "nobody"},
      {"ResumeWithoutTable", "resume asleep", EINVAL, "asleep"},
      {"ClearNobody", "clear nobody", ENXIO, "nobody"},
      {"CreateTaken", "create base", EBUSY, "base"},
      {"CreateUuidTaken", "create x taken-uuid", EBUSY, "taken-uuid"},
      {"CreateMinorTaken", "create --minor 0 x", ENXIO, "0"},
      {"CreateMinorNoNumber", "create --minor one x", EINVAL, "one"},
      {"CreateMinorTooLarge", "create --minor 1048576 x", EINVAL, "1048576"},
      {"CreateTwoUuids", "create --uuid a x b", EINVAL, "UUID"},
      {"CreateUuidTooLong", "create x " + kLong, EINVAL, "128"},
      {"CreateOptionWithoutValue", "create x --uuid", EINVAL, "--uuid"},
      {"NameTooLong", "create " + kLong, EINVAL, "127"},
      {"NameControl", "create control", EINVAL, "control"},
      {"NameSys", "sys: 0 8 zero", EINVAL, "sys"},
      {"NameDot", "create .", EINVAL, "."},
      {"NameDots", "create ..", EINVAL, ".."},
      {"NameSlash", "create a/b", EINVAL, "a/b"},
      {"NameEmpty", ": 0 8 zero", EINVAL, "the device name is empty"},
      {"CreateNameEmpty", "create ", EINVAL, "create: the device name is empty"},
      {"LoadNameEmpty", "load : 0 8 zero", ENXIO, "\"\""},
      {"RemoveNameEmpty", "remove --force", EINVAL, "remove: the device name is empty"},
      {"RenameToNothing", "rename base ", EINVAL, "rename: the new name is empty"},
      {"SetUuidToNothing", "setuuid base", EINVAL, "setuuid: the UUID is empty"},
      {"RenameNobody", "rename nobody x", ENXIO, "nobody"},
      {"RenameTaken", "rename base held", EBUSY, "held"},
      {"RenameBadName", "rename base a/b", EINVAL, "a/b"},
      {"SetUuidAgain", "setuuid empty other", EINVAL, "uuid"},
      {"SetUuidTaken", "setuuid base taken-uuid", EBUSY, "taken-uuid"},
      {"MessageNobody", "message nobody 0 hello", ENXIO, "nobody"},
      {"MessageNoWords", "message base 0", EINVAL, "message: Empty message received."},
      {"MessageBadSector", "message base first hello", EINVAL, "first"},
      {"MessageNotTaken", "message base 0 hello", EINVAL, "base"},
      {"MessageOutside", "message base 99999 hello", EINVAL, "99999"},
      {"MessageWithoutTable", "message empty 0 hello", EINVAL, "empty"},
      {"MessageOfTheCore", "message base 0 @nonsense", EINVAL, "@nonsense"},
      {"GeometryWords", "setgeometry base a b c d", EINVAL, "a"},
      {"GeometryTooLarge", "setgeometry base 65536 1 1 0", EINVAL, "65536"},
      {"WipeNobody", "wipe_table nobody", ENXIO, "nobody"},
      {"CancelNobody", "cancel_deferred_remove nobody", ENXIO, "nobody"},
      {"QueryNobody", "table nobody", ENXIO, "nobody"},
      {"CommitAlone", "commit", EINVAL, "commit"},
      {"BeginTwice", "begin\nbegin\ncommit", EINVAL, "begin"},
      {"LinesApart", "a: 0 8 zero\nb: 0 8 zero\na: 8 8 zero", EINVAL, "a"},
      {"Nul", std::string("x: 0 8\0zero", 11), EINVAL, "NUL"},
      {"NotUtf8", "\xff\xfe\x80", EINVAL, "\xff\xfe"},
      {"NotUtf8Target", "x: 0 8 \xc3\x28", EINVAL, "\xc3\x28"},
      {"CarriageReturn", "remove base\r", ENXIO, "base\r"},
      {"LongWord", std::string(100000, 'q'), EINVAL, "qqq"},
      {"OnlyBackslash", "\\", EINVAL, "\\"},
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
  EXPECT_NE(outcome.status.message().find(bad.says), std::string::npos)
      << "\"" << outcome.status.message() << "\" does not say \"" << bad.says << "\"";
  EXPECT_EQ(outcome.reply, outcome.status.message() + "\n");
  EXPECT_NE(world_.engine.log().text().find(outcome.status.message()), std::string::npos);
  if (bad.name == "LinesApart") {
    world_.control_ok("remove a\nremove b");  // the lines before the bad one keep their effect
  }
  EXPECT_EQ(world_.state(), before);
}

std::string case_name(const testing::TestParamInfo<BadCase>& info) {
  return std::string(info.param.name);
}
INSTANTIATE_TEST_SUITE_P(Tables, BadControl, testing::ValuesIn(bad_tables()), case_name);
INSTANTIATE_TEST_SUITE_P(Commands, BadControl, testing::ValuesIn(bad_commands()), case_name);

TEST(BadControlCount, IsAtLeastSixty) {
  EXPECT_GE(bad_tables().size() + bad_commands().size(), 60U);
}

}  // namespace
}  // namespace mapperfs
