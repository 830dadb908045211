#include <gtest/gtest.h>

#include "tools/mapperctl_names.h"

namespace mapperctl {
namespace {

TEST(Mangle, LeavesPlainNamesAlone) {
  const Mangled result = mangle("vg-lv_1.a:b=c@d#e+f", "name", kMaxNameBytes, Mangling::kAuto);
  EXPECT_EQ(result.text, "vg-lv_1.a:b=c@d#e+f");
  EXPECT_FALSE(result.changed);
}

TEST(Mangle, WritesOtherCharactersAsHex) {
  EXPECT_EQ(mangle("x,y;z", "name", kMaxNameBytes, Mangling::kAuto).text, "x\\x2cy\\x3bz");
  EXPECT_EQ(mangle("\xc3\xa4", "name", kMaxNameBytes, Mangling::kAuto).text, "\\xc3\\xa4");
}

TEST(Mangle, AutoKeepsWhatIsMangledAlready) {
  const Mangled result = mangle("x\\x2cy", "name", kMaxNameBytes, Mangling::kAuto);
  EXPECT_EQ(result.text, "x\\x2cy");
  EXPECT_FALSE(result.changed);
}

TEST(Mangle, AutoTakesMalformedSequencesAsTheyAre) {
  EXPECT_EQ(mangle("bad\\xzz", "name", kMaxNameBytes, Mangling::kAuto).text, "bad\\xzz");
}

TEST(Mangle, AutoRefusesMixtures) {
  const std::string sentence =
      "The name \"x\\x2cy;z\" contains mixed mangled and unmangled characters or it's already "
      "mangled improperly.";
  EXPECT_EQ(mangle("x\\x2cy;z", "name", kMaxNameBytes, Mangling::kAuto).error, sentence);
  EXPECT_NE(mangle("y;z\\x2c", "name", kMaxNameBytes, Mangling::kAuto).error, "");
  EXPECT_NE(mangle("bad\\x2", "name", kMaxNameBytes, Mangling::kAuto).error, "");
}

TEST(Mangle, HexManglesTheBackslashToo) {
  EXPECT_EQ(mangle("h\\x20n", "name", kMaxNameBytes, Mangling::kHex).text, "h\\x5cx20n");
}

TEST(Mangle, NoneLeavesEverything) {
  EXPECT_EQ(mangle("a b;\\x2c", "name", kMaxNameBytes, Mangling::kNone).text, "a b;\\x2c");
}

TEST(Mangle, LimitsTheMangledForm) {
  const std::string longest(kMaxUuidBytes, 'u');
  EXPECT_EQ(mangle(longest, "UUID", kMaxUuidBytes, Mangling::kAuto).text, longest);
  EXPECT_EQ(mangle(longest + "u", "UUID", kMaxUuidBytes, Mangling::kAuto).error,
            "Mangled form of the UUID too long for \"" + longest + "u\".");
}

TEST(Unmangle, TakesMangledNamesBack) {
  EXPECT_EQ(unmangle("x\\x2cy\\x3bz"), "x,y;z");
  EXPECT_EQ(unmangle("bad\\xzz"), "bad\\xzz");
  EXPECT_EQ(unmangle("end\\x2"), "end\\x2");
}

TEST(Unmangle, IsTheOppositeForEveryByte) {
  for (int byte = 1; byte < 256; ++byte) {
    const std::string raw = std::string("a") + static_cast<char>(byte) + "b";
    EXPECT_EQ(unmangle(mangle(raw, "name", kMaxNameBytes, Mangling::kHex).text), raw) << byte;
  }
}

TEST(IsMangledTwice, SeesTheSecondLayer) {
  EXPECT_TRUE(is_mangled_twice("h\\x5cx20n"));
  EXPECT_FALSE(is_mangled_twice("h\\x20n"));
  EXPECT_FALSE(is_mangled_twice("plain"));
}

struct SplitCase {
  const char* name;
  LvmName parts;
};

TEST(SplitLvmName, SplitsAtSingleHyphens) {
  const SplitCase cases[] = {
      {"vg-lv", {"vg", "lv", ""}},
      {"vg--a-lv--b-layer", {"vg-a", "lv-b", "layer"}},
      {"plain", {"plain", "", ""}},
      {"vg-", {"vg-", "", ""}},
      {"a-b-c-d", {"a", "b", "c"}},
      {"a--b--c", {"a-b-c", "", ""}},
      {"a---b", {"a-", "b", ""}},
      {"a----b", {"a--b", "", ""}},
      {"vg-lv--", {"vg", "lv-", ""}},
      {"", {"", "", ""}},
      {"vg00-lvol--1", {"vg00", "lvol-1", ""}},
  };
  for (const SplitCase& c : cases) {
    const LvmName parts = split_lvm_name(c.name);
    EXPECT_EQ(parts.vg, c.parts.vg) << c.name;
    EXPECT_EQ(parts.lv, c.parts.lv) << c.name;
    EXPECT_EQ(parts.layer, c.parts.layer) << c.name;
  }
}

TEST(UuidPrefix, IsWhatStandsBeforeTheHyphen) {
  EXPECT_EQ(uuid_prefix("LVM-abc-def"), "LVM");
  EXPECT_EQ(uuid_prefix("none"), "");
}

}  // namespace
}  // namespace mapperctl
