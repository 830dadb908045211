// create, load, remove and their like, against a scripted mount. Expected outputs are those of a
// dmsetup on a kernel.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/tools/fake_mount.h"

namespace mapperctl {
namespace {

using Commands = std::vector<std::string>;

TEST(Create, MakesLoadsAndResumes) {
  FakeMount mount;
  mount.answer("create d0", "");
  mount.answer("load d0: 0 8 linear /dev/ram0 0\nload d0: 8 8 zero ", "");
  mount.answer("resume d0", "");
  const auto run = mount.run({"dmsetup", "create", "d0"}, "0 8 linear /dev/ram0 0\n8 8 zero\n");
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out + run.err, "");
  EXPECT_EQ(mount.commands().size(), 3U);
}

TEST(Create, TakesSeveralTablesAsLinesOfOne) {
  FakeMount mount;
  mount.answer("create --readonly --uuid U-1 d0", "");
  mount.answer("load --readonly d0: 0 8 zero \nload --readonly d0: 8 8 error ", "");
  mount.answer("resume d0", "");
  const auto run = mount.run({"dmsetup", "create", "-r", "-u", "U-1", "d0", "--table", "0 8 zero",
                              "--table", "8 8 error"});
  EXPECT_EQ(run.status, 0) << run.err;
}

TEST(Create, TakesPathsInDevMapperForDevicesOfTheMount) {
  FakeMount mount;
  mount.device("lo", list_line("lo", "", 0, "L--w"));
  mount.answer("create up", "");
  mount.answer("load up: 0 8 linear lo 0\nload up: 8 8 linear /dev/mapper/other 0", "");
  mount.answer("resume up", "");
  const auto run = mount.run({"dmsetup", "create", "up"},
                             "0 8 linear /dev/mapper/lo 0\n8 8 linear /dev/mapper/other 0\n");
  EXPECT_EQ(run.status, 0) << run.err;
}

TEST(Create, MakesABareDeviceOfAnEmptyTable) {
  FakeMount mount;
  mount.answer("create d0", "");
  EXPECT_EQ(mount.run({"dmsetup", "create", "d0"}, "\n# nothing\n").status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "create", "d0", "--notable"}, "not read").status, 0);
  EXPECT_EQ(mount.commands(), Commands({"create d0", "create d0"}));
}

TEST(Create, RollsBackWhenTheTableIsRefused) {
  FakeMount mount;
  mount.answer("create bad", "");
  mount.refuse("load bad: 0 8 nosuch ", EINVAL, "unknown target type: nosuch\n");
  mount.device("bad", list_line("bad", "", 0, "---w"));
  mount.answer("remove bad", "");
  const auto run = mount.run({"mapperctl", "create", "bad", "--table", "0 8 nosuch"});
  EXPECT_EQ(run.status, 1);
  EXPECT_EQ(run.err,
            "device-mapper: reload ioctl on bad (253:0) failed: Invalid argument\n"
            "mapperctl: unknown target type: nosuch\n"
            "Command failed.\n");
  EXPECT_EQ(mount.commands().back(), "remove bad");
}

TEST(Create, CalledAsDmsetupAddsNothingToTheError) {
  FakeMount mount;
  mount.refuse("create --uuid TEST-uuid-1 d2", EBUSY, "the UUID is taken by d1");
  const auto run = mount.run({"dmsetup", "create", "d2", "--uuid", "TEST-uuid-1"}, "0 8 zero\n");
  EXPECT_EQ(run.err,
            "device-mapper: create ioctl on d2 TEST-uuid-1 failed: Device or resource busy\n"
            "Command failed.\n");
}

TEST(Create, RemovesTheDeviceWhenResumeFails) {
  FakeMount mount;
  mount.answer("create d", "");
  mount.answer("load d: 0 8 zero ", "");
  mount.refuse("resume d", EAGAIN);
  mount.answer("remove d", "");
  const auto run = mount.run({"dmsetup", "create", "d", "--table", "0 8 zero"});
  EXPECT_EQ(run.err,
            "device-mapper: resume ioctl on d  failed: Resource temporarily unavailable\n"
            "Command failed.\n");
  EXPECT_EQ(mount.commands().back(), "remove d");
}

struct NameCase {
  const char* name;
  const char* error;
};

TEST(Create, ChecksNamesBeforeAnythingIsAsked) {
  const std::string longest(128, 'n');
  const std::string too_long = "Name \"" + longest + "\" too long.\nCommand failed.\n";
  const NameCase cases[] = {
      {"x/y", "Name \"x/y\" invalid. It contains \"/\".\nCommand failed.\n"},
      {"/dev/foo/d", "Device /dev/foo/d not found\nCommand failed.\n"},
      {longest.c_str(), too_long.c_str()},
  };
  for (const NameCase& c : cases) {
    FakeMount mount;
    const auto run = mount.run({"dmsetup", "create", c.name, "--table", "0 8 zero"});
    EXPECT_EQ(run.err, c.error);
    EXPECT_TRUE(mount.commands().empty());
  }
}

TEST(Create, PrintsNamesOfErrorsAsTheyWereGiven) {
  FakeMount mount;
  mount.refuse("create ", EINVAL);
  EXPECT_EQ(mount.run({"dmsetup", "create", "", "--notable"}).err,
            "device-mapper: create ioctl on   failed: Invalid argument\nCommand failed.\n");
}

TEST(Create, ManglesNames) {
  FakeMount mount;
  mount.answer("create sp\\\\x20ace", "");
  EXPECT_EQ(mount.run({"dmsetup", "create", "sp ace", "--notable"}).status, 0);
}

TEST(Create, ReportsBadTables) {
  FakeMount mount;
  EXPECT_EQ(mount.run({"dmsetup", "create", "b"}, "0 8\n").err,
            "Invalid format on line 1 of table on stdin.\nCommand failed.\n");
  EXPECT_EQ(mount.run({"dmsetup", "create", "b", "/nowhere/table"}).err,
            "Couldn't open '/nowhere/table' for reading.\nCommand failed.\n");
  EXPECT_TRUE(mount.commands().empty());
}

TEST(CreateConcise, MakesEachDevice) {
  FakeMount mount;
  mount.answer("create c0", "");
  mount.answer("load c0: 0 8 zero \nload c0: 8 8 error ", "");
  mount.answer("resume c0", "");
  mount.answer("create --readonly --minor 5 --uuid U c1", "");
  mount.answer("load --readonly c1: 0 8 zero ", "");
  mount.answer("resume c1", "");
  const auto run = mount.run({"dmsetup", "create", "--concise"},
                             "c0,,,,0 8 zero,8 8 error;c1,U,5,ro,0 8 zero\n");
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(mount.commands().size(), 6U);
}

TEST(Load, FillsTheInactiveSlot) {
  FakeMount mount;
  mount.answer("load d0: 0 8 zero ", "");
  EXPECT_EQ(mount.run({"dmsetup", "load", "d0", "--table", "0 8 zero"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "reload", "d0"}, "0 8 zero").status, 0);
}

TEST(Load, OfAnEmptyTableIsRefused) {
  FakeMount mount;
  mount.device("d0", list_line("d0", "", 0, "L--w"));
  EXPECT_EQ(mount.run({"mapperctl", "load", "d0"}, "").err,
            "device-mapper: reload ioctl on d0  failed: Invalid argument\n"
            "mapperctl: d0: no targets specified\nCommand failed.\n");
}

TEST(Remove, StopsAtTheFirstThatFails) {
  FakeMount mount;
  mount.answer("remove a", "");
  mount.refuse("remove nosuch", ENXIO);
  const auto run = mount.run({"dmsetup", "remove", "a", "nosuch", "b"});
  EXPECT_EQ(run.status, 1);
  EXPECT_EQ(run.err,
            "device-mapper: remove ioctl on nosuch  failed: No such device or address\n"
            "Command failed.\n");
  EXPECT_EQ(mount.commands(), Commands({"remove a", "remove nosuch"}));
}

TEST(Remove, ForceLeavesAnErrorTableWhenTheDeviceIsOpen) {
  FakeMount mount;
  mount.device("lo", list_line("lo", "", 2, "L--w", 1));
  mount.answer("wipe_table --noflush --nolockfs lo", "");
  mount.refuse("remove lo", EBUSY);
  const auto run = mount.run({"dmsetup", "remove", "--force", "lo"});
  EXPECT_EQ(
      run.err,
      "device-mapper: remove ioctl on lo  failed: Device or resource busy\nCommand failed.\n");
}

TEST(Remove, ForceOfNothingComplainsOfEveryStep) {
  FakeMount mount;
  mount.refuse("list nope", ENXIO);
  mount.refuse("remove nope", ENXIO);
  EXPECT_EQ(mount.run({"dmsetup", "remove", "-f", "nope"}).err,
            "device-mapper: table ioctl on nope  failed: No such device or address\n"
            "device-mapper: reload ioctl on nope  failed: No such device or address\n"
            "device-mapper: remove ioctl on nope  failed: No such device or address\n"
            "Command failed.\n");
}

TEST(Remove, PassesDeferredOn) {
  FakeMount mount;
  mount.answer("remove --deferred lo", "");
  EXPECT_EQ(mount.run({"dmsetup", "remove", "--deferred", "/dev/mapper/lo"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "remove", "--deferred", "/mnt/fake/lo"}).status, 0);
}

TEST(RemoveAll, ForceSaysHowManyStay) {
  FakeMount mount;
  mount.device("lo", list_line("lo", "", 2, "L--w", 1));
  mount.answer("remove_all", "");
  mount.answer("wipe_table --noflush --nolockfs lo", "");
  const auto run = mount.run({"dmsetup", "remove_all", "-f"});
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.err, "Unable to remove 1 device(s).\n");
}

TEST(Suspend, PassesItsFlagsOn) {
  FakeMount mount;
  mount.answer("suspend --noflush --nolockfs d", "");
  mount.answer("resume --noflush d", "");
  EXPECT_EQ(mount.run({"dmsetup", "suspend", "--noflush", "--nolockfs", "d"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "resume", "--noflush", "d"}).status, 0);
}

TEST(Suspend, WantsADevice) {
  FakeMount mount;
  EXPECT_EQ(mount.run({"dmsetup", "suspend"}).err, "No device specified.\nCommand failed.\n");
}

TEST(Select, FindsDevicesByUuidAndNumber) {
  FakeMount mount;
  mount.device("up", list_line("up", "UU-1", 2, "L--w"));
  mount.answer("suspend up", "");
  mount.answer("message up 0 hi", "there");
  EXPECT_EQ(mount.run({"dmsetup", "suspend", "-u", "UU-1"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "suspend", "-j", "253", "-m", "2"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "message", "-u", "UU-1", "0", "hi"}).out, "there\n");
  EXPECT_EQ(mount.run({"dmsetup", "suspend", "-j", "253", "-m", "9"}).err,
            "device-mapper: suspend ioctl on  (253:9) failed: No such device or address\n"
            "Command failed.\n");
  EXPECT_EQ(mount.run({"dmsetup", "rename", "-u", "UU-2", "x"}).err,
            "device-mapper: rename ioctl on  UU-2 failed: No such device or address\n"
            "Command failed.\n");
}

TEST(Rename, ChangesNameOrSetsUuid) {
  FakeMount mount;
  mount.answer("rename d0 d1", "");
  mount.answer("rename d2 with\\\\x20space", "");
  mount.answer("setuuid d1 U-1", "");
  EXPECT_EQ(mount.run({"dmsetup", "rename", "d0", "d1"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "rename", "d2", "with space"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "rename", "d1", "--setuuid", "U-1"}).status, 0);
}

TEST(Rename, RefusesBadNewNames) {
  FakeMount mount;
  EXPECT_EQ(mount.run({"dmsetup", "rename", "d2", "a/b"}).err,
            "Name \"a/b\" invalid. It contains \"/\".\nCommand failed.\n");
  EXPECT_EQ(mount.run({"dmsetup", "rename", "d2"}).err, "No device specified.\nCommand failed.\n");
  const std::string longest(128, 'n');
  EXPECT_EQ(mount.run({"dmsetup", "rename", "d2", longest.c_str()}).err,
            "Name \"" + longest + "\" too long\nCommand failed.\n");
}

TEST(Message, JoinsWordsAndPrintsTheReply) {
  FakeMount mount;
  mount.answer("message ms 0 @stats_create - /4", "0");
  mount.answer("message ms 8 \\#a b", "");
  mount.answer("message ms 0 @stats_list", "0: 0+8 8 - -\n");
  EXPECT_EQ(mount.run({"dmsetup", "message", "ms", "0", "@stats_create", "-", "/4"}).out, "0\n");
  EXPECT_EQ(mount.run({"dmsetup", "message", "ms", "8", "#a\nb"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "message", "ms", "0", "@stats_list"}).out, "0: 0+8 8 - -\n");
}

TEST(Message, ChecksItsArguments) {
  FakeMount mount;
  mount.refuse("message a 0 ", EINVAL, "empty message");
  EXPECT_EQ(mount.run({"dmsetup", "message", "a", "x", "hello"}).err,
            "Invalid sector.\nCommand failed.\n");
  EXPECT_EQ(mount.run({"dmsetup", "message", "a", "0"}).err,
            "No message supplied.\n"
            "device-mapper: message ioctl on a  failed: Invalid argument\nCommand failed.\n");
}

TEST(Wait, WaitsForTheNumberGiven) {
  FakeMount mount;
  mount.device("ms", list_line("ms", "", 0, "L--w"));
  EXPECT_EQ(mount.run({"dmsetup", "wait", "ms", "5"}).status, 0);
  EXPECT_EQ(mount.commands().back(), "(wait ms 5)");
  EXPECT_EQ(mount.run({"dmsetup", "wait", "nosuch"}).err,
            "device-mapper: waitevent ioctl on nosuch  failed: No such device or address\n"
            "Command failed.\n");
}

TEST(AnyVerb, SaysWhichDeviceIsMissing) {
  FakeMount mount;
  mount.device("d", list_line("d", "", 0, "L--w"));
  EXPECT_EQ(mount.run({"mapperctl", "wait", "nosuch", "5"}).err,
            "device-mapper: waitevent ioctl on nosuch  failed: No such device or address\n"
            "mapperctl: there is no mapped device \"nosuch\"\nCommand failed.\n");
  EXPECT_EQ(mount.run({"mapperctl", "table", "-u", "nosuch"}).err,
            "device-mapper: table ioctl on  nosuch failed: No such device or address\n"
            "mapperctl: there is no mapped device with the UUID \"nosuch\"\nCommand failed.\n");
  EXPECT_EQ(mount.run({"mapperctl", "clear", "-j", "253", "-m", "9"}).err,
            "device-mapper: clear ioctl on  (253:9) failed: No such device or address\n"
            "mapperctl: there is no mapped device with the number 253:9\nCommand failed.\n");
}

TEST(Mangle, BringsNamesIntoTheirForm) {
  FakeMount mount;
  mount.device("d1", list_line("d1", "TEST-uuid-1", 0, "L--w"));
  mount.device("m n", list_line("m\\ n", "", 1, "L--w"));
  mount.device("ms", list_line("ms", "", 2, "L--w"));
  mount.answer("rename m\\ n m\\\\x20n", "");
  EXPECT_EQ(mount.run({"dmsetup", "mangle"}).out,
            "d1: TEST-uuid-1: name and UUID already in correct form\n"
            "m n: renaming to m\\x20n\n"
            "ms: [no UUID]: name already in correct form\n");
}

TEST(Mangle, GoesOnAfterANameItCannotMend) {
  FakeMount mount;
  mount.device("h", list_line("h\\\\x5cx20n", "", 0, "---w"));
  mount.device("z", list_line("z", "", 1, "---w"));
  const auto run = mount.run({"dmsetup", "mangle"});
  EXPECT_EQ(run.out, "z: [no UUID]: name already in correct form\n");
  EXPECT_EQ(run.err,
            "The name \"h\\x5cx20n\" seems to be mangled more than once. Manual intervention "
            "required to rename the device.\nCommand failed.\n");
}

TEST(AnyVerb, SaysWhenNothingIsMounted) {
  FakeMount mount;
  mount.unreachable(ENOENT);
  const auto run = mount.run({"mapperctl", "ls"});
  EXPECT_EQ(run.status, 1);
  EXPECT_EQ(run.err,
            "/mnt/fake/control: open failed: No such file or directory\n"
            "Failure to communicate with mapperfs.\n"
            "Check that a mapperfs is mounted on /mnt/fake.\nCommand failed.\n");
}

TEST(AnyVerb, SaysHowToTakeADeadMountAway) {
  FakeMount mount;
  mount.unreachable(ENOTCONN);
  const auto run = mount.run({"mapperctl", "ls"});
  EXPECT_NE(run.err.find("fusermount3 -u /mnt/fake takes it away"), std::string::npos) << run.err;
}

// What was asked of the daemon, questions left out.
Commands changes_of(const FakeMount& mount) {
  Commands changes;
  for (const std::string& command : mount.commands()) {
    const bool asks = command.starts_with("list") || command.starts_with("table");
    if (!asks) changes.push_back(command);
  }
  return changes;
}

TEST(Remove, TakesThoseThatASelectionLetsThrough) {
  FakeMount mount;
  mount.refuse("list d", ENXIO);
  for (const char* name : {"a", "b", "c"}) {
    mount.device(name, list_line(name, "", name[0] - 'a', "L--w"));
    mount.answer(std::string("remove ") + name, "");
  }
  EXPECT_EQ(mount.run({"dmsetup", "remove", "-S", "name=a || name=c"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "remove", "-S", "name=b", "a", "b"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "remove", "-S", "name=b", "a"}).out, "");
  EXPECT_EQ(mount.run({"dmsetup", "remove", "-S", "name=none"}).out, "");
  EXPECT_EQ(mount.run({"dmsetup", "remove", "-S", "nosuch=1"}).status, 1);
  EXPECT_EQ(changes_of(mount), Commands({"remove a", "remove c", "remove b"}));
}

TEST(Remove, OfASelectionStopsAtTheFirstNamedThatIsMissing) {
  FakeMount mount;
  mount.refuse("list d", ENXIO);
  for (const char* name : {"a", "b"}) {
    mount.device(name, list_line(name, "", name[0] - 'a', "L--w"));
    mount.answer(std::string("remove ") + name, "");
  }
  const auto missing = mount.run({"dmsetup", "remove", "-S", "name!=x", "a", "d", "b"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_EQ(missing.err, "Device does not exist.\nCommand failed.\n");
  EXPECT_EQ(changes_of(mount), Commands({"remove a"}));
}

TEST(Remove, OfASelectionFromAllGoesOnAfterAFailure) {
  FakeMount mount;
  mount.device("a", list_line("a", "", 0, "L--w", 1));
  mount.device("b", list_line("b", "", 1, "L--w"));
  mount.refuse("remove a", EBUSY);
  mount.answer("remove b", "");
  const auto run = mount.run({"dmsetup", "remove", "-S", ""});
  EXPECT_EQ(run.status, 1);
  EXPECT_EQ(run.err,
            "device-mapper: remove ioctl on a  failed: Device or resource busy\nCommand failed.\n");
  EXPECT_EQ(changes_of(mount), Commands({"remove a", "remove b"}));
  EXPECT_EQ(mount.run({"dmsetup", "remove", "-S", "name!=x", "a", "b"}).status, 1);
  EXPECT_EQ(changes_of(mount), Commands({"remove a", "remove b", "remove a"}));
}

TEST(WipeTable, OfASelectionKnowsWhoUsesADevice) {
  FakeMount mount;
  mount.device("a", list_line("a", "", 0, "L--w", 1));
  mount.device("s", list_line("s", "", 1, "L--w", 0, 0, "253:0=a"));
  mount.answer("wipe_table a", "");
  mount.answer("wipe_table s", "");
  EXPECT_EQ(mount.run({"dmsetup", "wipe_table", "-S", "device_ref_count=0"}).status, 0);
  EXPECT_EQ(changes_of(mount), Commands({"wipe_table s"}));
  EXPECT_EQ(mount.run({"dmsetup", "wipe_table", "-S", "device_ref_count=1", "s", "a"}).status, 0);
  EXPECT_EQ(changes_of(mount), Commands({"wipe_table s", "wipe_table a"}));
  EXPECT_EQ(mount.run({"dmsetup", "wipe_table", "-S", "names_using_dev=s && selected=0"}).status,
            0);
  EXPECT_EQ(changes_of(mount).size(), 2U);
}

TEST(WipeTable, OfASelectionByStatisticsIsRefused) {
  FakeMount mount;
  mount.device("a", list_line("a", "", 0, "L--w"));
  for (const char* selection : {"read_count=0", "name=a || region_id=0", "!(obj_type=x)"}) {
    const auto run = mount.run({"dmsetup", "wipe_table", "-S", selection});
    EXPECT_EQ(run.status, 1) << selection;
    EXPECT_NE(run.err.find("is one of statistics"), std::string::npos) << run.err;
  }
  EXPECT_EQ(changes_of(mount), Commands());
}

TEST(Suspend, OfASelectionCountsTheTargetsAskedFor) {
  FakeMount mount;
  mount.device("a", list_line("a", "", 0, "LI-w"));
  mount.device("b", list_line("b", "", 1, "L--w"));
  mount.answer("table --inactive a", "a: 0 4 zero \na: 4 4 error \n");
  mount.answer("table --inactive b", "b: \n");
  mount.answer("suspend a", "");
  mount.answer("suspend b", "");
  EXPECT_EQ(mount.run({"dmsetup", "suspend", "--inactive", "-S", "segments=1"}).status, 0);
  EXPECT_EQ(changes_of(mount), Commands());
  EXPECT_EQ(mount.run({"dmsetup", "suspend", "--inactive", "-S", "segments=2"}).status, 0);
  EXPECT_EQ(mount.run({"dmsetup", "suspend", "--inactive", "-S", "segments=0", "a", "b"}).status,
            0);
  EXPECT_EQ(changes_of(mount), Commands({"suspend a", "suspend b"}));
}

// What the first is shown as is no name; what the second is shown as is the name of the third.
TEST(Suspend, OfASelectionIsForTheVeryDevice) {
  FakeMount mount;
  mount.device("a\\\\x2fb", list_line("a\\\\x2fb", "", 0, "L--w"));
  mount.device("x\\\\x5cx20y", list_line("x\\\\x5cx20y", "", 1, "L--w"));
  mount.device("x\\\\x20y", list_line("x\\\\x20y", "", 2, "L--w"));
  mount.answer("suspend a\\\\x2fb", "");
  mount.answer("suspend x\\\\x5cx20y", "");
  EXPECT_EQ(mount.run({"dmsetup", "suspend", "-S", "minor<2"}).status, 0);
  EXPECT_EQ(changes_of(mount), Commands({"suspend a\\\\x2fb", "suspend x\\\\x5cx20y"}));
}

TEST(Suspend, FindsNothingToSelectFrom) {
  FakeMount mount;
  mount.answer("list", "");
  const auto run = mount.run({"dmsetup", "suspend", "-S", "name=a"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, "No devices found\n");
}

}  // namespace
}  // namespace mapperctl
