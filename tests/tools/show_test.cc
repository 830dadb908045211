// info, ls, deps, table, status and reports, against a scripted mount. Expected outputs are those
// of a dmsetup on a kernel, with the numbers of the script.
#include <gtest/gtest.h>

#include <cerrno>
#include <sstream>
#include <string>
#include <vector>

#include "tests/tools/fake_mount.h"

namespace mapperctl {
namespace {

class ShowTest : public testing::Test {
 protected:
  void SetUp() override {
    mount_.device("d1", list_line("d1", "TEST-uuid-1", 0, "L--w", 0, 2, "1:1=/dev/ram1"));
    mount_.device("lo", list_line("lo", "", 2, "LIsr", 1, 0, "1:3=/dev/ram3", "D"));
    mount_.device("up", list_line("up", "LVM-x", 3, "L--w", 0, 0, "253:2=lo"));
    mount_.refuse("list nope", ENXIO);
    mount_.refuse("table nope", ENXIO);
    mount_.answer("table",
                  "d1: 0 1000 linear 1:1 0\nlo: 0 512 zero \nlo: 512 512 error \n"
                  "up: 0 1024 linear lo 0\n");
    mount_.answer("table d1", "d1: 0 1000 linear 1:1 0\n");
    mount_.answer("table lo", "lo: 0 512 zero \nlo: 512 512 error \n");
    mount_.answer("table --inactive d1", "d1: \n");
    mount_.answer("status",
                  "d1: 0 1000 linear \nlo: 0 512 zero \nlo: 512 512 error \nup: 0 1024 linear \n");
    mount_.answer("targets", "linear v1.5.0\nzero v1.2.0\n");
    mount_.answer("version", "version: 0.1.0\ntransport: dev\n");
  }

  FakeMount mount_;
};

TEST_F(ShowTest, InfoPrintsALineAField) {
  EXPECT_EQ(mount_.run({"dmsetup", "info", "lo"}).out,
            "Name:              lo\n"
            "State:             SUSPENDED (READ-ONLY) (DEFERRED REMOVE)\n"
            "Read Ahead:        256\n"
            "Tables present:    LIVE & INACTIVE\n"
            "Open count:        1\n"
            "Event number:      0\n"
            "Major, minor:      253, 2\n"
            "Number of targets: 1\n"
            "\n");
  EXPECT_NE(mount_.run({"dmsetup", "info", "d1"}).out.find("\nUUID: TEST-uuid-1\n\n"),
            std::string::npos);
}

TEST_F(ShowTest, InfoCountsTargetsOfTheTableAskedFor) {
  mount_.answer("table --inactive", "d1: \nlo: 0 512 zero \nlo: 512 512 error \nup: \n");
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--noheadings", "-o", "name,segments"}).out,
            "d1:1\nlo:1\nup:1\n");
  EXPECT_EQ(
      mount_.run({"dmsetup", "info", "-c", "--inactive", "--noheadings", "-o", "name,segments"})
          .out,
      "d1:0\nlo:2\nup:0\n");
  EXPECT_EQ(
      mount_.run({"dmsetup", "info", "-c", "--inactive", "--noheadings", "-o", "segments", "lo"})
          .out,
      "2\n");
}

TEST_F(ShowTest, InfoHasNoReadAheadOfADeviceThatHasNone) {
  mount_.device("n", "n\t\t253\t7\t---w\t0\t0\t0\t\t0\t\t\t");
  EXPECT_EQ(mount_.run({"dmsetup", "info", "n"}).out.find("Read Ahead"), std::string::npos);
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--noheadings", "-o", "read_ahead", "n"}).out,
            "0\n");
}

TEST_F(ShowTest, InfoOfNothingSaysSo) {
  const auto run = mount_.run({"dmsetup", "info", "nope"});
  EXPECT_EQ(run.err, "Device does not exist.\nCommand failed.\n");
  EXPECT_EQ(run.status, 1);
}

TEST_F(ShowTest, InfoShowsWhatCameBeforeTheMissingOne) {
  const auto run = mount_.run({"dmsetup", "info", "-c", "-o", "name", "d1", "nope", "lo"});
  EXPECT_EQ(run.out, "Name            \nd1              \n");
  EXPECT_EQ(run.err, "Device does not exist.\nCommand failed.\n");
}

TEST_F(ShowTest, InfoColumnsAreAligned) {
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c"}).out,
            "Name             Maj Min Stat Open Targ Event  UUID                            \n"
            "d1               253   0 L--w    0    1      2 TEST-uuid-1                     \n"
            "lo               253   2 LIsr    1    1      0                                 \n"
            "up               253   3 L--w    0    1      0 LVM-x                           \n");
}

TEST_F(ShowTest, InfoColumnsKnowEveryField) {
  const auto run = mount_.run(
      {"dmsetup", "info", "-c", "-o",
       "name,uuid,major,minor,attr,open,segments,events,read_ahead,device_count,devs_used,"
       "subsystem,"
       "suspended,tables_loaded,readonly,devno,blkdevname,names_using_dev,devnos_using_dev",
       "d1"});
  EXPECT_EQ(
      run.out,
      "Name             UUID                             Maj Min Stat Open Targ Event  RAhead "
      "#Devs DevNamesUsed     Subsys Suspended Tables Read-only DevNo BlkDevName       "
      "RefNames RefDevNos\n"
      "d1               TEST-uuid-1                      253   0 L--w    0    1      2    256 "
      "    1                  TEST   Active    Live   Writeable 253:0 dm-0             "
      "                  \n");
}

TEST_F(ShowTest, InfoColumnsTellWhoUsesWhom) {
  EXPECT_EQ(mount_
                .run({"dmsetup", "info", "-c", "--noheadings", "-o",
                      "name,device_ref_count,names_using_dev,devnos_using_dev,devs_used"})
                .out,
            "d1:0:::\nlo:1:up:253:3:\nup:0:::lo\n");
}

TEST_F(ShowTest, ReportsSortAndSelect) {
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--noheadings", "-o", "name", "-O", "-minor"}).out,
            "up\nlo\nd1\n");
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--noheadings", "-o", "name", "-S", "open>0"}).out,
            "lo\n");
  EXPECT_EQ(mount_
                .run({"dmsetup", "info", "-c", "--noheadings", "-o", "name,selected", "-S",
                      "minor<3 && !(name=lo)"})
                .out,
            "d1:1\nlo:0\nup:0\n");
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "-S", "name=none"}).out, "");
}

TEST_F(ShowTest, ReportsPrintPairsRowsAndSeparators) {
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--nameprefixes", "-o", "name,minor", "d1"}).out,
            "Name Min\nDM_NAME='d1' DM_MINOR='0'\n");
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--rows", "-o", "name,minor"}).out,
            "Name d1 lo up\nMin 0 2 3\n");
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--separator", "/", "-o", "name,minor", "d1"}).out,
            "Name/Min\nd1/0\n");
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--headings", "full", "-o", "minor", "d1"}).out,
            "minor\n    0\n");
}

TEST_F(ShowTest, LsNamesDevices) {
  EXPECT_EQ(mount_.run({"dmsetup", "ls"}).out, "d1\t(253:0)\nlo\t(253:2)\nup\t(253:3)\n");
  EXPECT_EQ(mount_.run({"dmsetup", "ls", "-o", "blkdevname"}).out,
            "d1\t(dm-0)\nlo\t(dm-2)\nup\t(dm-3)\n");
  EXPECT_EQ(mount_.run({"dmsetup", "ls", "--target", "error"}).out, "lo\t(253, 2)\n");
  EXPECT_EQ(mount_.run({"dmsetup", "ls", "--target", "none"}).out, "");
}

TEST_F(ShowTest, LsDrawsTrees) {
  EXPECT_EQ(mount_.run({"dmsetup", "ls", "--tree", "-o", "ascii"}).out,
            "d1 (253:0)\n `- (1:1)\nup (253:3)\n `-lo (253:2)\n    `- (1:3)\n");
}

TEST_F(ShowTest, DepsCountsWhatIsUsed) {
  EXPECT_EQ(mount_.run({"dmsetup", "deps", "d1"}).out, "1 dependencies\t: (1, 1)\n");
  EXPECT_EQ(mount_.run({"dmsetup", "deps", "-o", "devname", "d1", "up"}).out,
            "d1: 1 dependencies\t: (ram1)\nup: 1 dependencies\t: (lo)\n");
  EXPECT_EQ(mount_.run({"dmsetup", "deps", "-o", "blkdevname", "up"}).out,
            "1 dependencies\t: (dm-2)\n");
  EXPECT_EQ(mount_.run({"dmsetup", "deps", "nope"}).err,
            "device-mapper: deps ioctl on nope  failed: No such device or address\n"
            "Command failed.\n");
}

TEST_F(ShowTest, TablesGetANameWhenThereAreSeveral) {
  EXPECT_EQ(mount_.run({"dmsetup", "table", "d1"}).out, "0 1000 linear 1:1 0\n");
  EXPECT_EQ(mount_.run({"dmsetup", "table", "d1", "lo"}).out,
            "d1: 0 1000 linear 1:1 0\nlo: 0 512 zero \nlo: 512 512 error \n");
  EXPECT_EQ(mount_.run({"dmsetup", "table", "--target", "error"}).out, "lo: 512 512 error \n");
  EXPECT_EQ(mount_.run({"dmsetup", "table", "--inactive", "d1"}).out, "\n");
  EXPECT_EQ(mount_.run({"dmsetup", "table", "nope"}).err,
            "device-mapper: table ioctl on nope  failed: No such device or address\n"
            "Command failed.\n");
}

TEST_F(ShowTest, OnlyTheTableOfNothingIsAnError) {
  mount_.refuse("status nope", ENXIO);
  for (const char* verb : {"status", "measure"}) {
    const auto run = mount_.run({"dmsetup", verb, "nope"});
    EXPECT_EQ(run.err, "Device does not exist.\nCommand failed.\n") << verb;
    EXPECT_EQ(run.status, 1);
  }
  EXPECT_EQ(mount_.run({"dmsetup", "status", "-u", "nope"}).err,
            "Device does not exist.\nCommand failed.\n");
}

TEST_F(ShowTest, StatusOfAllIsSelectable) {
  mount_.answer("status d1", "d1: 0 1000 linear \n");
  EXPECT_EQ(mount_.run({"dmsetup", "status", "-S", "name=d1"}).out, "d1: 0 1000 linear \n");
  EXPECT_EQ(mount_.run({"dmsetup", "status", "--target", "linear"}).out,
            "d1: 0 1000 linear \nup: 0 1024 linear \n");
}

TEST_F(ShowTest, SelectionAsksNoOtherDevice) {
  mount_.answer("status lo", "lo: 0 512 zero \nlo: 512 512 error \n");
  EXPECT_EQ(mount_.run({"dmsetup", "status", "-S", "name=lo", "lo"}).out,
            "lo: 0 512 zero \nlo: 512 512 error \n");
  EXPECT_EQ(mount_.run({"dmsetup", "status", "-S", "name=lo", "d1", "lo"}).status, 0);
  EXPECT_EQ(mount_.run({"dmsetup", "status", "-S", "name=lo"}).status, 0);
  for (const std::string& command : mount_.commands()) {
    EXPECT_TRUE(command == "list" || command.ends_with(" lo")) << command;
  }
}

TEST_F(ShowTest, SelectionShowsThoseBeforeTheFirstMissing) {
  const auto run = mount_.run({"dmsetup", "table", "-S", "name=d1", "d1", "nope", "lo"});
  EXPECT_EQ(run.out, "d1: 0 1000 linear 1:1 0\n");
  EXPECT_EQ(run.err, "Device does not exist.\nCommand failed.\n");
  EXPECT_EQ(mount_.run({"dmsetup", "deps", "-S", "name=d1", "d1", "nope"}).out,
            "d1: 1 dependencies\t: (1, 1)\n");
}

TEST_F(ShowTest, SelectionKnowsWhoUsesADevice) {
  EXPECT_EQ(mount_.run({"dmsetup", "table", "-S", "device_ref_count=1"}).out,
            "lo: 0 512 zero \nlo: 512 512 error \n");
  EXPECT_EQ(mount_.run({"dmsetup", "table", "-S", "names_using_dev=up", "d1", "lo"}).out,
            "lo: 0 512 zero \nlo: 512 512 error \n");
  EXPECT_EQ(mount_.run({"dmsetup", "deps", "-S", "devnos_using_dev=253:3"}).out,
            "lo: 1 dependencies\t: (1, 3)\n");
  EXPECT_EQ(mount_.run({"dmsetup", "deps", "-S", "selected=1", "d1"}).out,
            "d1: 1 dependencies\t: (1, 1)\n");
}

TEST_F(ShowTest, SelectionByStatisticsIsRefused) {
  for (const char* selection : {"read_count=0", "name=d1 || region_id=0"}) {
    for (const char* verb : {"table", "status", "deps"}) {
      const auto run = mount_.run({"dmsetup", verb, "-S", selection});
      EXPECT_EQ(run.status, 1) << verb;
      EXPECT_EQ(run.out, "") << verb;
      EXPECT_NE(run.err.find("is one of statistics"), std::string::npos) << run.err;
    }
    EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "-S", selection}).status, 1);
  }
}

TEST_F(ShowTest, InfoCountsWhatTheInactiveTableUses) {
  mount_.device("d1", list_line("d1", "", 0, "LI-w", 0, 0, "1:1=/dev/ram1") + "253:2=lo 253:3=up");
  const char* const fields = "device_count,devnos_used,devs_used";
  EXPECT_EQ(mount_.run({"dmsetup", "info", "-c", "--noheadings", "-o", fields, "d1"}).out,
            "1:1:1:\n");
  mount_.answer("table --inactive", "d1: 0 8 zero \nlo: \nup: \n");
  EXPECT_EQ(
      mount_.run({"dmsetup", "info", "-c", "--inactive", "--noheadings", "-o", fields, "d1"}).out,
      "2:253:2,253:3:\n");
}

TEST_F(ShowTest, ConciseTablesAreOneLine) {
  EXPECT_EQ(mount_.run({"dmsetup", "table", "--concise"}).out,
            "d1,TEST-uuid-1,0,rw,0 1000 linear 1:1 0;lo,,2,ro,0 512 zero ,512 512 error ;"
            "up,LVM-x,3,rw,0 1024 linear lo 0\n");
}

TEST_F(ShowTest, ExecRunsACommandForEachDevice) {
  testing::internal::CaptureStdout();
  const auto run = mount_.run({"dmsetup", "ls", "--exec", "echo a"});
  EXPECT_EQ(testing::internal::GetCapturedStdout(),
            "a /mnt/fake/d1\na /mnt/fake/lo\na /mnt/fake/up\n");
  EXPECT_EQ(run.out, "");
}

TEST_F(ShowTest, MeasureSaysWhatLinearIsMadeOf) {
  EXPECT_EQ(mount_.run({"dmsetup", "measure", "d1"}).out,
            "0 1000 linear target_name=linear,target_version=1.5.0,device_name=1:1,start=0;\n");
}

TEST_F(ShowTest, TargetsAreAlignedWithTheirVersions) {
  EXPECT_EQ(mount_.run({"dmsetup", "targets"}).out,
            "linear           v1.5.0\nzero             v1.2.0\n");
  EXPECT_EQ(mount_.run({"dmsetup", "target-version", "zero", "linear"}).out,
            "zero             v1.2.0\nlinear           v1.5.0\n");
  EXPECT_EQ(mount_.run({"dmsetup", "target-version", "nosuch"}).err,
            "device-mapper: target-version ioctl on nosuch  failed: Invalid argument\n"
            "Command failed.\n");
}

TEST_F(ShowTest, VersionKeepsItsOwnLinesForItsOwnName) {
  const std::string two = "Library version:   1.02.205 (2025-02-27)\nDriver version:    4.50.0\n";
  EXPECT_EQ(mount_.run({"dmsetup", "version"}).out, two);
  EXPECT_EQ(mount_.run({"mapperctl", "version"}).out,
            two + "mapperfs:          0.1.0\ntransport:         dev\n");
}

TEST_F(ShowTest, JsonIsOneDocument) {
  EXPECT_EQ(mount_.run({"mapperctl", "table", "--json", "lo"}).out,
            "[\n  {\n    \"name\": \"lo\",\n    \"targets\": [\n      {\n        \"start\": 0,\n"
            "        \"length\": 512,\n        \"type\": \"zero\",\n        \"table\": \"\"\n"
            "      },\n      {\n        \"start\": 512,\n        \"length\": 512,\n"
            "        \"type\": \"error\",\n        \"table\": \"\"\n      }\n    ]\n  }\n]\n");
  EXPECT_EQ(mount_.run({"mapperctl", "info", "-c", "--json", "-o", "name,minor", "d1"}).out,
            "[\n  {\n    \"name\": \"d1\",\n    \"minor\": 0\n  }\n]\n");
}

TEST_F(ShowTest, GraphIsDot) {
  const std::string dot = mount_.run({"mapperctl", "graph"}).out;
  EXPECT_EQ(dot.substr(0, 18), "digraph mapperfs {");
  EXPECT_NE(dot.find("\"device up\" -> \"device lo\";"), std::string::npos);
  EXPECT_NE(dot.find("\"device d1\" -> \"below /dev/ram1\";"), std::string::npos);
}

TEST_F(ShowTest, TopShowsEveryDevice) {
  mount_.file("sys/d1/stats", "1 0 8 1 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
  const auto run = mount_.run({"mapperctl", "top", "--once", "--interval", "0.01"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_NE(run.out.find("\nd1               "), std::string::npos) << run.out;
}

// Fields of sys/NAME/stats: reads, merged, sectors, ms; writes, merged, sectors, ms; in flight,
// busy ms, queue ms; discards, merged, sectors, ms; flushes, ms.
class TopTest : public ShowTest {
 protected:
  // Grows by 1000 reads of 8 sectors in 4000 ms, 500 writes of 16 sectors in 1250 ms; 3 ms busy.
  void SetUp() override {
    ShowTest::SetUp();
    mount_.file_changes("sys/d1/stats",
                        {"10 1 80 40 20 1 320 50 3 100 90 5 1 5 5 5 5\n",
                         "1010 1 8080 4040 520 1 8320 1300 7 103 5340 9 1 9 9 9 9\n"});
  }
  // The value of "key" in the JSON of one device.
  static double value(const std::string& json, const std::string& key) {
    const size_t at = json.find("\"" + key + "\": ");
    EXPECT_NE(at, std::string::npos) << key << " in " << json;
    return at == std::string::npos ? 0 : std::stod(json.substr(at + key.size() + 4));
  }
};

TEST_F(TopTest, EveryColumnComesFromItsOwnField) {
  const auto run = mount_.run({"mapperctl", "--json", "top", "--once", "--interval", "0.01"});
  ASSERT_EQ(run.status, 0) << run.err;
  const std::string d1 = run.out.substr(run.out.find("\"d1\""));
  // How long it was between the two readings is the clock's affair; all rates are of that time.
  const double seconds = 1000 / value(d1, "reads_per_second");
  ASSERT_GE(seconds, 0.01);
  const double rounding = 0.006 + 0.001 / seconds;
  EXPECT_NEAR(value(d1, "writes_per_second"), 500 / seconds, rounding);
  EXPECT_NEAR(value(d1, "read_mib_per_second"), 8000 / 2048.0 / seconds, rounding);
  EXPECT_NEAR(value(d1, "write_mib_per_second"), 8000 / 2048.0 / seconds, rounding);
  EXPECT_NEAR(value(d1, "busy_percent"), 0.3 / seconds, rounding);
  EXPECT_DOUBLE_EQ(value(d1, "read_wait_ms"), 4);
  EXPECT_DOUBLE_EQ(value(d1, "write_wait_ms"), 2.5);
  EXPECT_DOUBLE_EQ(value(d1, "in_flight"), 7);
}

TEST_F(TopTest, PrintsTheColumnsInTheOrderOfTheirHeadings) {
  const auto run = mount_.run({"mapperctl", "top", "--once", "--interval", "0.01"});
  std::istringstream words(run.out);
  std::vector<std::string> heading(9);
  for (std::string& word : heading) words >> word;
  EXPECT_EQ(heading, std::vector<std::string>({"Name", "r/s", "w/s", "rMiB/s", "wMiB/s", "r_ms",
                                               "w_ms", "InFl", "Busy%"}));
  std::vector<std::string> row(9);
  for (std::string& word : row) words >> word;
  EXPECT_EQ(row[0], "d1");
  EXPECT_NEAR(std::stod(row[1]), 2 * std::stod(row[2]), 2);
  EXPECT_EQ(row[3], row[4]);
  EXPECT_EQ(row[5], "4.00");
  EXPECT_EQ(row[6], "2.50");
  EXPECT_EQ(row[7], "7");
  EXPECT_GT(std::stod(row[8]), 0);
  EXPECT_LE(std::stod(row[8]), 30.0);
}

TEST_F(TopTest, BusyIsNeverMoreThanAllOfTheTime) {
  mount_.file_changes("sys/d1/stats", {"0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
                                       "1 0 8 1 0 0 0 0 1 90000 0 0 0 0 0 0 0\n"});
  const auto run = mount_.run({"mapperctl", "--json", "top", "--once", "--interval", "0.01"});
  EXPECT_DOUBLE_EQ(value(run.out.substr(run.out.find("\"d1\"")), "busy_percent"), 100);
}

TEST_F(ShowTest, LogIsTheDaemons) {
  mount_.file("sys/log", "a sentence\n");
  EXPECT_EQ(mount_.run({"mapperctl", "log"}).out, "a sentence\n");
}

TEST_F(ShowTest, ServedSaysWhoServesEachDevice) {
  mount_.file("sys/d1/served", "passthrough\n");
  EXPECT_EQ(mount_.run({"mapperctl", "served", "d1"}).out, "d1: passthrough\n");
  EXPECT_NE(mount_.run({"mapperctl", "served", "--json", "d1"}).out.find("\"passthrough\""),
            std::string::npos);
  EXPECT_NE(mount_.run({"mapperctl", "served", "nosuch"}).status, 0);
}

TEST_F(ShowTest, PassthroughIsSwitchedByItsVerb) {
  mount_.answer("passthrough d1 on", "");
  mount_.refuse("passthrough d2 off", ENXIO, "no such device");
  EXPECT_EQ(mount_.run({"mapperctl", "passthrough", "d1", "on"}).status, 0);
  EXPECT_EQ(mount_.run({"mapperctl", "passthrough", "d2", "off"}).err,
            "mapperctl: no such device\nCommand failed.\n");
  EXPECT_NE(mount_.run({"mapperctl", "passthrough", "d1", "perhaps"}).status, 0);
}

TEST(Show, EmptyMountsHaveNoDevices) {
  for (const char* verb : {"ls", "table", "status", "info", "deps", "mangle"}) {
    FakeMount mount;
    mount.answer("list", "");
    mount.answer("table", "");
    mount.answer("status", "");
    EXPECT_EQ(mount.run({"dmsetup", verb}).out, "No devices found\n") << verb;
  }
}

TEST(Stats, CreatesAndListsRegions) {
  FakeMount mount;
  mount.device("s1", "s1\t\t253\t0\tL--w\t0\t0\t1\t256\t1024\t\t\t");
  mount.answer("message s1 0 @stats_create 0+1024 /4 0 dmstats -", "1\n");
  mount.answer("message s1 0 @stats_list",
               "0: 0+1024 1024 dmstats -\n1: 0+1024 256 dmstats -\n2: 0+512 512 pp uu\n");
  EXPECT_EQ(mount.run({"dmsetup", "stats", "create", "--areas", "4", "s1"}).out,
            "s1: Created new region with 4 area(s) as region ID 1\n");
  EXPECT_EQ(mount.run({"dmsetup", "stats", "list"}).out,
            "Name             GrpID RgID ObjType RgStart RgSize  #Areas ArSize  ProgID \n"
            "s1                   -    0 region        0 512.00k      1 512.00k dmstats\n"
            "s1                   -    1 region        0 512.00k      4 128.00k dmstats\n");
}

TEST(Stats, PrintsAndDeletesRegions) {
  FakeMount mount;
  mount.device("s1", list_line("s1", "", 0, "L--w"));
  mount.answer("message s1 0 @stats_list", "1: 0+1024 256 pp -\n");
  mount.answer("message s1 0 @stats_print_clear 1", "0+256 0 0\n");
  mount.answer("message s1 0 @stats_delete 1", "");
  EXPECT_EQ(
      mount.run({"dmsetup", "stats", "print", "--regionid", "1", "s1", "--clear", "--allprograms"})
          .out,
      "0+256 0 0\n");
  EXPECT_EQ(mount.run({"dmsetup", "stats", "delete", "--allregions", "--allprograms", "s1"}).status,
            0);
}

// In the words of dmsetup 1.02.185, which differ from command to command.
TEST(Stats, SaysThatARegionIsMissing) {
  FakeMount mount;
  mount.device("s1", list_line("s1", "", 0, "L--w"));
  mount.answer("message s1 0 @stats_list", "1: 0+1024 256 dmstats -\n");
  mount.refuse("message s1 0 @stats_print 77", ENOENT);
  const auto err_of = [&mount](const char* action) {
    return mount.run({"dmsetup", "stats", action, "--regionid", "77", "s1"}).err;
  };
  EXPECT_EQ(err_of("clear"), "No such region: 77.\nCommand failed.\n");
  EXPECT_EQ(err_of("delete"),
            "Region ID 77 does not exist\nCould not delete statistics region\nCommand failed.\n");
  EXPECT_EQ(err_of("print"),
            "device-mapper: message ioctl on s1  failed: No such file or directory\n"
            "Could not print statistics region.\nCommand failed.\n");
  mount.answer("message s1 0 @stats_list", "1: 0+1024 256 another -\n");
  EXPECT_EQ(err_of("clear"), "");
}

TEST(Stats, NoAreasAreOneArea) {
  FakeMount mount;
  mount.device("s1", "s1\t\t253\t0\tL--w\t0\t0\t1\t256\t1024\t\t\t");
  mount.answer("message s1 0 @stats_create 0+1024 /1 0 dmstats -", "1\n");
  mount.answer("message s1 0 @stats_list", "1: 0+1024 1024 dmstats -\n");
  EXPECT_EQ(mount.run({"dmsetup", "stats", "create", "--areas", "0", "s1"}).out,
            "s1: Created new region with 1 area(s) as region ID 1\n");
}

}  // namespace
}  // namespace mapperctl
