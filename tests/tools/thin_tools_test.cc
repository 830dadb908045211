// The thin tools over directories of their own, and beside the tools of thin-provisioning-tools
// where those are installed: same text, and metadata that travels both ways.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "metadata/store.h"
#include "metadata/thin_metadata.h"
#include "tools/thin_tool.h"

namespace mapperthin {
namespace {

using mapperfs::ThinMetadata;
using mapperfs::ThinMetadataOptions;

constexpr char kXml[] =
    "<superblock uuid=\"\" time=\"2\" transaction=\"3\" flags=\"0\" version=\"2\" "
    "data_block_size=\"128\" nr_data_blocks=\"1000\">\n"
    "  <device dev_id=\"1\" mapped_blocks=\"8\" transaction=\"0\" creation_time=\"0\" "
    "snap_time=\"2\">\n"
    "    <single_mapping origin_block=\"0\" data_block=\"1\" time=\"0\"/>\n"
    "    <single_mapping origin_block=\"1\" data_block=\"2\" time=\"1\"/>\n"
    "    <single_mapping origin_block=\"2\" data_block=\"9\" time=\"0\"/>\n"
    "    <single_mapping origin_block=\"3\" data_block=\"3\" time=\"0\"/>\n"
    "    <range_mapping origin_begin=\"6\" data_begin=\"12\" length=\"2\" time=\"0\"/>\n"
    "    <range_mapping origin_begin=\"100\" data_begin=\"500\" length=\"2\" time=\"1\"/>\n"
    "  </device>\n"
    "  <device dev_id=\"2\" mapped_blocks=\"6\" transaction=\"2\" creation_time=\"2\" "
    "snap_time=\"2\">\n"
    "    <single_mapping origin_block=\"0\" data_block=\"1\" time=\"0\"/>\n"
    "    <single_mapping origin_block=\"1\" data_block=\"2\" time=\"1\"/>\n"
    "    <single_mapping origin_block=\"2\" data_block=\"10\" time=\"0\"/>\n"
    "    <single_mapping origin_block=\"3\" data_block=\"33\" time=\"0\"/>\n"
    "    <single_mapping origin_block=\"6\" data_block=\"12\" time=\"0\"/>\n"
    "    <single_mapping origin_block=\"50\" data_block=\"40\" time=\"1\"/>\n"
    "  </device>\n"
    "</superblock>\n";

struct Answer {
  int status = -1;
  std::string out;
  std::string err;
};

class ThinTools : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "thin_tools-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    write("a.xml", kXml);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name)) << text;
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::stringstream text;
    text << std::ifstream(path(name)).rdbuf();
    return text.str();
  }

  static Answer run(std::vector<std::string> words, const std::string& input = {}) {
    std::vector<char*> argv;
    for (std::string& word : words) {
      argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    Answer result;
    result.status =
        run_thin_tool(static_cast<int>(words.size()), argv.data(), Console{in, out, err, false});
    result.out = out.str();
    result.err = err.str();
    return result;
  }
  // The directory `name`, made from kXml.
  [[nodiscard]] std::string restored(const std::string& name) const {
    const Answer made = run({"thin-restore", "-q", "-i", path("a.xml"), "-o", path(name)});
    EXPECT_EQ(made.status, 0) << made.err;
    return path(name);
  }
  static std::unique_ptr<ThinMetadata> open(const std::string& dir) {
    auto pool = ThinMetadata::open(dir, ThinMetadataOptions());
    EXPECT_TRUE(pool.ok()) << pool.status().message();
    return pool.ok() ? pool.take() : nullptr;
  }

  std::string folder_;
};

TEST_F(ThinTools, RestoreAndDumpAreEachOthersInverse) {
  const std::string dir = restored("meta");
  EXPECT_EQ(run({"thin-dump", dir}).out, kXml);
  const Answer to_file = run({"thin_dump", "-o", path("out.xml"), dir});
  EXPECT_EQ(to_file.status, 0) << to_file.err;
  EXPECT_EQ(to_file.out, "");
  EXPECT_EQ(read("out.xml"), kXml);
  EXPECT_EQ(run({"thin-restore", "-i", "-", "-o", path("two")}, kXml).status, 0);
  EXPECT_EQ(run({"thin-dump", path("two")}).out, kXml);
}

TEST_F(ThinTools, DumpTakesItsOptions) {
  const std::string dir = restored("meta");
  const std::string one = run({"thin-dump", "--dev-id", "2", dir}).out;
  EXPECT_EQ(one.find("dev_id=\"1\""), std::string::npos);
  EXPECT_NE(one.find("dev_id=\"2\""), std::string::npos);
  EXPECT_EQ(run({"thin-dump", "--skip-mappings", dir}).out.find("_mapping"), std::string::npos);
  const std::string changed =
      run({"thin-dump", dir, "--transaction-id", "77", "--nr-data-blocks", "2000"}).out;
  EXPECT_NE(changed.find("transaction=\"77\""), std::string::npos);
  EXPECT_NE(changed.find("nr_data_blocks=\"2000\""), std::string::npos);
  EXPECT_NE(run({"thin-dump", "-f", "human_readable", dir}).out.find("(6..7) -> (12..13), 0"),
            std::string::npos);
  EXPECT_EQ(run({"thin-dump", "--dev-id", "9", dir}).status, 1);
}

TEST_F(ThinTools, CheckTellsWhatThinCheckTells) {
  const std::string dir = restored("meta");
  const Answer checked = run({"thin-check", dir});
  EXPECT_EQ(checked.status, 0) << checked.err;
  EXPECT_TRUE(checked.out.starts_with("TRANSACTION_ID=3\nMETADATA_FREE_BLOCKS=")) << checked.out;
  EXPECT_EQ(checked.err,
            "examining superblock\nexamining devices tree\nexamining mapping tree\n"
            "checking space map counts\n");
  EXPECT_EQ(run({"thin-check", "--super-block-only", dir}).err, "examining superblock\n");
  const Answer quiet = run({"thin-check", "-q", dir});
  EXPECT_EQ(quiet.status, 0);
  EXPECT_EQ(quiet.out + quiet.err, "");
}

TEST_F(ThinTools, LsTellsHowFarADeviceIsMapped) {
  const std::string dir = restored("meta");
  ASSERT_TRUE(open(dir)->create_thin(3).ok());  // not committed: not there
  const std::string fields = "HIGHEST_BLOCK,HIGHEST_SECTOR,HIGHEST_BYTE,HIGHEST_MAPPED";
  EXPECT_EQ(run({"thin-ls", "--no-headers", "-o", fields, dir}).out,
            "101 13055 6684671 6528KiB \n 50  6527 3342335 3264KiB \n");
  {
    const auto pool = open(dir);
    ASSERT_TRUE(pool->create_thin(3).ok());
    ASSERT_TRUE(pool->commit().ok());
  }
  EXPECT_TRUE(run({"thin-ls", "--no-headers", "-o", fields, dir})
                  .out.ends_with("  -     -       -       0 \n"));
}

// As docs/targets/thin-pool.md tells who has used up a pool's snapshots.
TEST_F(ThinTools, TimesAreBegunAnewWithSed) {
  std::string xml = kXml;
  const std::string first = " time=\"2\"";
  xml.replace(xml.find(first), first.size(), " time=\"16777215\"");
  write("old.xml", xml);
  const std::string command =
      "sed -E 's/(creation_|snap_)?time=\"[0-9]+\"/\\1time=\"1\"/g; "
      "s/(_mapping.*) time=\"1\"/\\1 time=\"0\"/' " +
      path("old.xml") + " > " + path("anew.xml");
  ASSERT_EQ(::system(command.c_str()), 0);
  ASSERT_EQ(run({"thin-restore", "-i", path("old.xml"), "-o", path("old")}).status, 0);
  EXPECT_EQ(open(path("old"))->create_snap(3, 1).error(), EOVERFLOW);
  const Answer made = run({"thin-restore", "-i", path("anew.xml"), "-o", path("anew")});
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(run({"thin-check", path("anew")}).status, 0);
  const auto pool = open(path("anew"));
  EXPECT_TRUE(pool->create_snap(3, 1).ok());
  EXPECT_TRUE((*pool->open_device(2))->lookup(50)->shared);
}

TEST_F(ThinTools, CheckSaysThatTheFlagStaysIfMappingsAreSkipped) {
  const std::string dir = restored("meta");
  EXPECT_EQ(run({"thin-check", "--skip-mappings", "--clear-needs-check-flag", dir}).status, 0);
  ASSERT_TRUE(open(dir)->set_needs_check().ok());
  const Answer kept = run({"thin-check", "--skip-mappings", "--clear-needs-check-flag", dir});
  EXPECT_EQ(kept.status, 1);
  EXPECT_NE(kept.err.find("it stays, as the mappings were not checked"), std::string::npos)
      << kept.err;
  EXPECT_TRUE(open(dir)->status().needs_check);
  EXPECT_EQ(run({"thin-check", "-q", "--skip-mappings", "--clear-needs-check-flag", dir}).status,
            1);
  EXPECT_EQ(run({"thin-check", "--clear-needs-check-flag", dir}).status, 0);
}

TEST_F(ThinTools, CheckClearsTheFlagWhenAsked) {
  const std::string dir = restored("meta");
  ASSERT_TRUE(open(dir)->set_needs_check().ok());
  EXPECT_NE(run({"thin-check", dir}).err.find("needs_check flag is set"), std::string::npos);
  EXPECT_NE(run({"thin-dump", dir}).out.find("flags=\"1\""), std::string::npos);
  EXPECT_EQ(run({"thin-check", "--clear-needs-check-flag", dir}).status, 0);
  EXPECT_FALSE(open(dir)->status().needs_check);
}

// Takes the first record of a kind (docs/formats/thin.md) out of the database.
void lose_record(const std::string& dir, std::string_view kind) {
  auto store = mapperfs::open_rocks_store(dir, mapperfs::StoreOptions());
  ASSERT_TRUE(store.ok()) << store.status().message();
  const auto batch = (*store)->new_batch();
  const mapperfs::Status found = (*store)->scan(kind, [&](std::string_view key, std::string_view) {
    batch->erase(key);
    return false;
  });
  ASSERT_TRUE(found.ok());
  ASSERT_FALSE(batch->empty()) << "no record of kind " << kind;
  ASSERT_TRUE((*store)->write(*batch).ok());
}

TEST_F(ThinTools, CheckMendsLeaksAndNothingElse) {
  const std::string dir = restored("meta");
  lose_record(dir, "D");  // a device, whose pages and blocks nobody has now
  const Answer leaking = run({"thin-check", dir});
  EXPECT_EQ(leaking.status, 1);
  EXPECT_NE(leaking.err.find("8 data blocks and 1 pages"), std::string::npos) << leaking.err;
  EXPECT_EQ(run({"thin-check", "--ignore-non-fatal-errors", dir}).status, 0);
  EXPECT_NE(run({"thin-check", "--auto-repair", dir}).err.find(": repaired"), std::string::npos);
  EXPECT_EQ(run({"thin-check", dir}).status, 0);

  lose_record(dir, "P");  // a page of the other device
  const Answer damaged = run({"thin-check", "--auto-repair", "--ignore-non-fatal-errors", dir});
  EXPECT_EQ(damaged.status, 1);
  EXPECT_NE(damaged.err.find("is missing"), std::string::npos) << damaged.err;
  const Answer quiet = run({"thin-check", "-q", dir});
  EXPECT_EQ(quiet.status, 1);
  EXPECT_EQ(quiet.out + quiet.err, "");
}

TEST_F(ThinTools, APoolInUseIsReadWhenAskedFor) {
  const std::string dir = restored("meta");
  const auto pool = open(dir);
  ASSERT_NE(pool, nullptr);
  const Answer refused = run({"thin-dump", dir});
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("in use"), std::string::npos) << refused.err;
  EXPECT_NE(refused.err.find("--metadata-snap"), std::string::npos) << refused.err;
  EXPECT_EQ(run({"thin-dump", "--live", dir}).out, kXml);
  EXPECT_EQ(run({"thin-check", "--live", dir}).status, 0);

  EXPECT_EQ(run({"thin-dump", "-m", dir}).err, "thin-dump: no current metadata snap\n");
  ASSERT_TRUE(pool->reserve_metadata_snap().ok());
  ASSERT_TRUE(pool->delete_device(1).ok());
  ASSERT_TRUE(pool->commit().ok());
  EXPECT_NE(run({"thin-dump", "-m", dir}).out.find("dev_id=\"1\""), std::string::npos);
  EXPECT_EQ(run({"thin-dump", "--live", dir}).out.find("dev_id=\"1\""), std::string::npos);
  const std::string root = std::to_string(pool->status().held_root);
  EXPECT_EQ(run({"thin-ls", "-m" + root, "--no-headers", "-o", "DEV,MAPPED_BLOCKS", dir}).out,
            "1 8 \n2 6 \n");
  EXPECT_EQ(run({"thin-ls", "-m" + root + "1", dir}).status, 1);
  EXPECT_EQ(run({"thin-delta", "-m", "--snap1", "1", "--snap2", "2", dir}).status, 0);
  EXPECT_EQ(run({"thin-check", "-m", dir}).status, 0);
}

TEST_F(ThinTools, DeltaMergesNeighbours) {
  const std::string dir = restored("meta");
  EXPECT_EQ(run({"thin-delta", "--thin1", "1", "--thin2", "2", dir}).out,
            "<superblock uuid=\"\" time=\"2\" transaction=\"3\" data_block_size=\"128\" "
            "nr_data_blocks=\"1000\">\n"
            "  <diff left=\"1\" right=\"2\">\n"
            "    <same begin=\"0\" length=\"2\"/>\n"
            "    <different begin=\"2\" length=\"2\"/>\n"
            "    <same begin=\"6\" length=\"1\"/>\n"
            "    <left_only begin=\"7\" length=\"1\"/>\n"
            "    <right_only begin=\"50\" length=\"1\"/>\n"
            "    <left_only begin=\"100\" length=\"2\"/>\n"
            "  </diff>\n"
            "</superblock>\n");
  EXPECT_EQ(run({"thin-delta", "--snap1", "1", "--snap2", "9", dir}).err,
            "Unable to find mapping tree for snap2 (9)\n");
}

TEST_F(ThinTools, TrimPunchesWhatIsFree) {
  const std::string dir = restored("meta");
  const std::string data = path("data");
  std::ofstream(data) << std::string(std::size_t{1000} * 65536, 'x');
  const Answer trimmed = run({"thin-trim", "--metadata-dev", dir, "--data-dev", data});
  EXPECT_EQ(trimmed.status, 0) << trimmed.err;
  EXPECT_EQ(trimmed.out, "989 of 1000 blocks were free and are discarded\n");
  std::ifstream file(data);
  for (const auto& [block, kept] : {std::pair(1, 'x'), std::pair(33, 'x'), std::pair(501, 'x'),
                                    std::pair(0, '\0'), std::pair(999, '\0')}) {
    file.seekg(std::streamoff{65536} * block + 65535);
    EXPECT_EQ(file.get(), kept) << "block " << block;
  }
  std::filesystem::resize_file(data, 65536 * 999);
  EXPECT_NE(run({"thin-trim", "--metadata-dev", dir, "--data-dev", data}).err.find("not its data"),
            std::string::npos);
  const auto pool = open(dir);
  EXPECT_EQ(run({"thin-trim", "--metadata-dev", dir, "--data-dev", data}).status, 1);
}

// On stderr, and from the beginning to the end: also of a pool whose last device is empty and whose
// last data block is used.
TEST_F(ThinTools, AllThatMayTakeLongTellHowFarTheyAre) {
  std::string xml = kXml;
  constexpr std::string_view kLast = "data_block=\"40\"";
  xml.replace(xml.find(kLast), kLast.size(), "data_block=\"999\"");
  xml.insert(xml.find("</superblock>"),
             "  <device dev_id=\"3\" mapped_blocks=\"0\" transaction=\"2\" creation_time=\"2\" "
             "snap_time=\"2\">\n  </device>\n");
  write("a.xml", xml);
  const std::string dir = restored("meta");
  std::ofstream(path("data")).close();
  std::filesystem::resize_file(path("data"), std::uintmax_t{1000} * 65536);
  const std::vector<std::vector<std::string>> all = {
      {"thin-check", dir},
      {"thin-dump", dir},
      {"thin-restore", "-i", path("a.xml"), "-o", path("again")},
      {"thin-ls", "-o", "DEV,EXCLUSIVE_BLOCKS", dir},
      {"thin-delta", "--snap1", "1", "--snap2", "2", dir},
      {"thin-rmap", "--region", "0..1000", dir},
      {"thin-trim", "--metadata-dev", dir, "--data-dev", path("data")},
  };
  for (const std::vector<std::string>& words : all) {
    std::vector<std::string> asked = words;
    asked.insert(asked.begin() + 1, "--progress");
    const Answer told = run(asked);
    EXPECT_EQ(told.status, 0) << told.err;
    const std::size_t last = told.err.rfind('%');
    ASSERT_NE(last, std::string::npos) << words[0];
    EXPECT_EQ(std::string_view(told.err).substr(0, last).substr(last - 6), ": 100 ")
        << words[0] << ": " << told.err;
    EXPECT_EQ(told.out.find(" %"), std::string::npos) << words[0];
    if (words[0] != "thin-restore") {
      EXPECT_EQ(run(words).err.find(" %"), std::string::npos) << words[0] << ": nobody asked";
    }
  }
}

TEST_F(ThinTools, WhatIsWrongIsSaid) {
  const std::string dir = restored("meta");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"thin-dump"}, "No input file provided."},
      {{"thin-dump", "--nosuch", dir}, "thin-dump: --nosuch: no such option"},
      {{"thin-dump", "--dev-id"}, "thin-dump: --dev-id: needs an argument"},
      {{"thin-dump", "--dev-id", "x", dir}, "\"x\" is no device id"},
      {{"thin-dump", "-f", "custom", dir}, "unknown format \"custom\""},
      {{"thin-dump", dir, dir}, "one argument too many"},
      {{"thin-dump", path("nosuch")}, "no directory with thin metadata"},
      {{"thin-dump", folder_}, "there is none"},
      {{"thin-dump", "-o", "/dev/full", dir}, "No space left on device"},
      {{"thin-restore", "-o", dir}, "No input file provided."},
      {{"thin-restore", "-i", path("a.xml")}, "No output file provided."},
      {{"thin-restore", "-i", path("nosuch"), "-o", path("b")}, "No such file"},
      {{"thin-restore", "-i", path("a.xml"), "-o", dir}, "there is a pool already"},
      {{"thin-delta", "--snap1", "1", dir}, "--snap2 not specified."},
      {{"thin-rmap", dir}, "No regions provided."},
      {{"thin-rmap", "--region", "5..5", dir}, "badly formed region (end <= begin)"},
      {{"thin-rmap", "--region", "5", dir}, "badly formed region (no dots)"},
      {{"thin-ls", "-o", "DEV,NOSUCH", dir}, "unknown field \"NOSUCH\""},
      {{"thin-trim", "--metadata-dev", dir}, "both needed"},
      {{"thin-check", "--live", "--auto-repair", dir}, "cannot be changed"},
      {{"thin-frob", dir}, "thin-frob is no verb"},
  };
  for (const auto& [words, sentence] : cases) {
    const Answer refused = run(words);
    EXPECT_EQ(refused.status, 1) << sentence;
    EXPECT_NE(refused.err.find(sentence), std::string::npos) << sentence << "\n" << refused.err;
    EXPECT_EQ(refused.out, "") << sentence;
  }
}

TEST_F(ThinTools, HelpAndVersionEndWell) {
  const Answer help = run({"thin-delta", "--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_NE(help.out.find("--snap1"), std::string::npos);
  EXPECT_EQ(help.out.find("--region"), std::string::npos);
  EXPECT_EQ(run({"thin-ls", "-V"}).status, 0);
}

// What mapperctl is told goes to mapperthin, which lies beside it.
TEST_F(ThinTools, MapperctlRunsThem) {
  const std::string command =
      std::string(MAPPERCTL_BINARY) + " --mount /nosuch thin-dump " + restored("meta");
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), &::pclose);
  ASSERT_NE(pipe, nullptr);
  std::string text(sizeof(kXml) + 100, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), pipe.get()));
  EXPECT_EQ(text, kXml);
}

// The tools of Debian's package, asked the same questions of the same metadata.
class ThinToolsBesideDebians : public ThinTools {
 protected:
  void SetUp() override {
    ThinTools::SetUp();
    if (::access("/usr/sbin/thin_restore", X_OK) != 0) {
      GTEST_SKIP() << "thin-provisioning-tools is not installed";
    }
    std::ofstream(path("disk")).close();
    std::filesystem::resize_file(path("disk"), 4 << 20);
    ASSERT_EQ(theirs("thin_restore -q -i " + path("a.xml") + " -o " + path("disk")), "[0]");
  }
  // stdout of one of their tools, then its exit status.
  static std::string theirs(const std::string& command) {
    const std::string line = "/usr/sbin/" + command + " 2>/dev/null; echo \"[$?]\"";
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(line.c_str(), "r"), &::pclose);
    std::string text;
    std::array<char, 4096> piece = {};
    while (pipe != nullptr) {
      const std::size_t got = std::fread(piece.data(), 1, piece.size(), pipe.get());
      if (got == 0) {
        break;
      }
      text.append(piece.data(), got);
    }
    return text.empty() ? text : text.substr(0, text.size() - 1);
  }
};

TEST_F(ThinToolsBesideDebians, AnswersAreTheSame) {
  const std::string dir = restored("meta");
  const std::vector<std::vector<std::string>> questions = {
      {"thin_dump"},
      {"thin_dump", "-f", "human_readable"},
      {"thin_dump", "--dev-id", "2"},
      {"thin_dump", "--skip-mappings"},
      {"thin_dump", "-m"},
      {"thin_ls"},
      {"thin_ls", "--no-headers"},
      {"thin_ls", "-o", "DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS,SHARED_BLOCKS,MAPPED_SECTORS"},
      {"thin_ls", "-o", "EXCLUSIVE_SECTORS,SHARED_SECTORS,MAPPED_BYTES,EXCLUSIVE_BYTES"},
      {"thin_ls", "-o", "SHARED_BYTES,MAPPED,EXCLUSIVE,SHARED,TRANSACTION,CREATE_TIME,SNAP_TIME"},
      {"thin_ls", "-o", "NOSUCH"},
      {"thin_delta", "--snap1", "1", "--snap2", "2"},
      {"thin_delta", "--snap1", "1", "--snap2", "2", "--verbose"},
      {"thin_delta", "--snap1", "2", "--snap2", "1", "--verbose"},
      {"thin_rmap", "--region", "0..1000"},
      {"thin_rmap", "--region", "2..3", "--region", "500..501"},
      {"thin_check", "-q"},
  };
  for (std::vector<std::string> words : questions) {
    std::string command;
    for (const std::string& word : words) {
      command += word + " ";
    }
    words.push_back(dir);
    const Answer ours = run(words);
    const std::string status = "[" + std::to_string(ours.status) + "]";
    EXPECT_EQ(ours.out + status, theirs(command + path("disk"))) << command;
  }
}

TEST_F(ThinToolsBesideDebians, MetadataTravelsBothWays) {
  const std::string from_disk = path("from_disk.xml");
  ASSERT_EQ(theirs("thin_dump -o " + from_disk + " " + path("disk")), "[0]");
  ASSERT_EQ(run({"thin-restore", "-i", from_disk, "-o", path("meta")}).status, 0);
  const auto pool = open(path("meta"));
  ASSERT_NE(pool, nullptr);
  ASSERT_TRUE(pool->create_snap(7, 2).ok());
  ASSERT_TRUE(pool->commit().ok());
  const Answer dumped = run({"thin-dump", "--live", "-o", path("back.xml"), path("meta")});
  ASSERT_EQ(dumped.status, 0) << dumped.err;
  EXPECT_EQ(theirs("thin_restore -q -i " + path("back.xml") + " -o " + path("disk")), "[0]");
  EXPECT_EQ(theirs("thin_check -q " + path("disk")), "[0]");
  EXPECT_EQ(theirs("thin_dump " + path("disk")), read("back.xml") + "[0]");
}

// Sizes to which thin_ls gives each of its units.
TEST_F(ThinToolsBesideDebians, SizesAreRoundedTheSame) {
  std::string xml = kXml;
  xml.resize(xml.find("  <device"));
  int id = 0;
  for (const char* blocks : {"1", "16", "17", "128", "129", "3000"}) {
    xml += "  <device dev_id=\"" + std::to_string(++id) + "\" mapped_blocks=\"" + blocks +
           "\" transaction=\"0\" creation_time=\"0\" snap_time=\"0\">\n"
           "    <range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"" +
           blocks + "\" time=\"0\"/>\n  </device>\n";
  }
  const std::size_t at = xml.find("nr_data_blocks=\"1000\"");
  xml.replace(at, 21, "nr_data_blocks=\"9000\"");
  write("sizes.xml", xml + "</superblock>\n");
  ASSERT_EQ(theirs("thin_restore -q -i " + path("sizes.xml") + " -o " + path("disk")), "[0]");
  ASSERT_EQ(run({"thin-restore", "-i", path("sizes.xml"), "-o", path("meta")}).status, 0);
  // Theirs do not look whether a device would write in place what it shares; ours do.
  const Answer checked = run({"thin-check", path("meta")});
  EXPECT_EQ(checked.status, 1);
  EXPECT_NE(checked.err.find("in place"), std::string::npos) << checked.err;
  EXPECT_EQ(run({"thin-ls", "-o", "DEV,MAPPED,SHARED", path("meta")}).out + "[0]",
            theirs("thin_ls -o DEV,MAPPED,SHARED " + path("disk")));
}

TEST(ProgressLine, TellsTenthsWhereThereIsNoTerminal) {
  std::ostringstream err;
  ProgressLine line(err, ProgressLine::Style::kLines);
  for (std::uint64_t done = 0; done <= 100; done += 5) {
    line.show("device 1", done, 100);
  }
  line.show("device 2", 7, 0);
  EXPECT_EQ(err.str(),
            "device 1: 0 %\ndevice 1: 10 %\ndevice 1: 20 %\ndevice 1: 30 %\ndevice 1: 40 %\n"
            "device 1: 50 %\ndevice 1: 60 %\ndevice 1: 70 %\ndevice 1: 80 %\ndevice 1: 90 %\n"
            "device 1: 100 %\ndevice 2: 0 %\n");
}

TEST(ProgressLine, WaitsASecondAndCleansUpOnATerminal) {
  std::ostringstream err;
  std::chrono::steady_clock::time_point now;
  {
    ProgressLine line(err, ProgressLine::Style::kTerminal, [&now] { return now; });
    line.show("searching", 1, 4);
    EXPECT_EQ(err.str(), "");
    now += std::chrono::milliseconds(1100);
    line.show("searching", 2, 4);
    line.show("searching", 3, 4);  // too soon after the last
    EXPECT_EQ(err.str(), "\rsearching: 50 %");
  }
  EXPECT_EQ(err.str(), "\rsearching: 50 %\r               \r");
}

}  // namespace
}  // namespace mapperthin
