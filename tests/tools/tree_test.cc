#include <gtest/gtest.h>

#include "tools/mapperctl_tree.h"

namespace mapperctl {
namespace {

Dep disk(int minor) { return {98, minor, false, "/dev/none" + std::to_string(minor)}; }
Dep mapped(int minor, const std::string& name) { return {254, minor, true, name}; }

Device device(const std::string& name, int minor, std::vector<Dep> deps,
              const std::string& uuid = {}, int64_t open_count = 0) {
  Device result;
  result.name = name;
  result.uuid = uuid;
  result.major = 254;
  result.minor = minor;
  result.attr = "L--w";
  result.open_count = open_count;
  result.deps = std::move(deps);
  return result;
}

// What a dmsetup drew of the same devices is what these tests expect.
std::vector<Device> five_devices() {
  return {device("b", 0, {}), device("c", 1, {disk(0)}, "", 1),
          device("st", 3, {disk(16), disk(0)}, "LVM-abc"),
          device("up", 2, {mapped(1, "c")}, "UU-1", 1),
          device("vg-lv", 4, {mapped(2, "up")}, "LVM-xyz")};
}

std::string draw(const TreeOptions& options, TreeSymbols symbols = TreeSymbols::kAscii,
                 size_t width = 0) {
  return draw_trees(five_devices(), options, symbols, width);
}

TEST(DrawTrees, DrawsUsersAboveWhatTheyUse) {
  EXPECT_EQ(draw({}),
            "b (254:0)\n"
            "st (254:3)\n"
            " |- (98:16)\n"
            " `- (98:0)\n"
            "vg-lv (254:4)\n"
            " `-up (254:2)\n"
            "    `-c (254:1)\n"
            "       `- (98:0)\n");
}

TEST(DrawTrees, TurnsUpsideDown) {
  TreeOptions options;
  options.inverted = true;
  EXPECT_EQ(draw(options),
            "b (254:0)\n"
            " (98:0)\n"
            " |-c (254:1)\n"
            " |  `-up (254:2)\n"
            " |     `-vg-lv (254:4)\n"
            " `-st (254:3)\n"
            " (98:16)\n"
            " `-st (254:3)\n");
}

TEST(DrawTrees, KnowsUtf8AndVt100) {
  const std::string utf = draw({}, TreeSymbols::kUtf);
  EXPECT_NE(utf.find(" \u251c\u2500 (98:16)\n \u2514\u2500 (98:0)\n"), std::string::npos);
  const std::string vt100 = draw({}, TreeSymbols::kVt100);
  EXPECT_NE(vt100.find(" \033(0\017tq\033(B (98:16)\n \033(0\017mq\033(B (98:0)\n"),
            std::string::npos);
}

TEST(DrawTrees, DrawsCompactly) {
  TreeOptions options;
  options.compact = true;
  EXPECT_EQ(draw(options),
            "b (254:0)\n"
            "st (254:3)-+- (98:16)\n"
            "           `- (98:0)\n"
            "vg-lv (254:4)---up (254:2)---c (254:1)--- (98:0)\n");
  options.inverted = true;
  EXPECT_EQ(draw(options),
            "b (254:0)\n"
            " (98:0)-+-c (254:1)---up (254:2)---vg-lv (254:4)\n"
            "        `-st (254:3)\n"
            " (98:16)---st (254:3)\n");
}

TEST(DrawTrees, LeavesNamelessDevicesOutWithoutNumbers) {
  TreeOptions options;
  options.device = false;
  options.uuid = true;
  EXPECT_EQ(draw(options), "b []\nst [LVM-abc]\nvg-lv [LVM-xyz]\n `-up [UU-1]\n    `-c []\n");
}

// The odd pictures of these two are dmsetup's own.
TEST(DrawTrees, DrawsCompactlyWhatHasAName) {
  const std::vector<Device> devices = {
      device("alone", 4, {}),
      device("bare", 5, {}),
      device("top", 3, {disk(16), mapped(2, "right"), mapped(1, "left")}),
      device("right", 2, {mapped(0, "base")}),
      device("left", 1, {mapped(0, "base")}),
      device("base", 0, {disk(0)}),
  };
  TreeOptions options;
  options.compact = true;
  options.device = false;
  EXPECT_EQ(draw_trees(devices, options, TreeSymbols::kAscii, 0),
            "alone\nbare\ntop-+-right---base---left---base");
}

TEST(DrawTrees, DrawsForksBelowForksOfOneLine) {
  const std::vector<Device> devices = {
      device("top", 4, {mapped(3, "above")}),
      device("above", 3, {disk(32), mapped(1, "b"), mapped(2, "mid")}),
      device("mid", 2, {mapped(1, "b"), mapped(0, "a")}),
      device("b", 1, {disk(16)}),
      device("a", 0, {disk(0)}),
      device("zz", 5, {}),
  };
  TreeOptions options;
  options.compact = true;
  EXPECT_EQ(draw_trees(devices, options, TreeSymbols::kAscii, 0),
            "top (254:4)---above (254:3)-+- (98:32)\n"
            "                               |-b (254:1)--- (98:16)\n"
            "                               `-mid (254:2)-+-b (254:1)--- (98:16)\n"
            "                                             `-a (254:0)--- (98:0)\n"
            "zz (254:5)\n");
  options.active = true;
  options.device = false;
  EXPECT_EQ(draw_trees(devices, options, TreeSymbols::kAscii, 0).substr(0, 36),
            "top [ACTIVE]\n `-above [ACTIVE]\n    |");
}

TEST(DrawTrees, DrawsChildrenOfWhatHasNoName) {
  const std::vector<Device> devices = {
      device("alone", 4, {}),
      device("bare", 5, {}),
      device("base", 0, {disk(0)}),
      device("left", 1, {mapped(0, "base")}),
      device("right", 2, {mapped(0, "base")}),
      device("top", 3, {disk(16), mapped(2, "right"), mapped(1, "left")}),
  };
  TreeOptions options;
  options.compact = options.inverted = true;
  options.device = false;
  EXPECT_EQ(draw_trees(devices, options, TreeSymbols::kAscii, 0),
            "alone\nbare\n     `-base-+-left---top\n            `-right---top\n     `-top\n");
}

TEST(DrawTrees, ShowsAttributesInTheirOrder) {
  TreeOptions options;
  options.active = options.open = options.rw = options.uuid = true;
  const std::string text = draw(options);
  EXPECT_NE(text.find("st (254:3) [ACTIVE, RW, 0, LVM-abc]\n"), std::string::npos);
  EXPECT_NE(text.find("`-c (254:1) [ACTIVE, RW, 1, ]\n"), std::string::npos);
}

TEST(DrawTrees, ShowsBlockNames) {
  TreeOptions options;
  options.blkdevname = true;
  const std::string text = draw(options);
  EXPECT_NE(text.find("st <dm-3> (254:3)\n"), std::string::npos);
  EXPECT_NE(text.find(" `-up <dm-2> (254:2)\n"), std::string::npos);
}

TEST(DrawTrees, NamesFilesByTheirPath) {
  Dep file;
  file.name = "/data/a.img";
  EXPECT_EQ(draw_trees({device("d", 0, {file})}, {}, TreeSymbols::kAscii, 0),
            "d (254:0)\n `- (/data/a.img)\n");
}

TEST(DrawTrees, CutsLinesToTheTerminal) {
  EXPECT_EQ(draw({}, TreeSymbols::kUtf, 8).substr(0, 9), "b (254:+\n");
  TreeOptions options;
  options.notrunc = true;
  EXPECT_EQ(draw(options, TreeSymbols::kUtf, 8).substr(0, 10), "b (254:0)\n");
}

}  // namespace
}  // namespace mapperctl
