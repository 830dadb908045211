// XML both ways, the questions asked of a pool, and what a kernel's pool looks like here.
#include "metadata/thin_xml.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "metadata/thin_query.h"
#include "tests/fake/sanitizer.h"
#include "tests/metadata/churn.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

constexpr const char* kDir = "/restored";

// A file system to restore into.
struct Place {
  Place() : fs(std::make_shared<FaultFs>()), env(rocksdb::NewCompositeEnv(fs)) {}
  std::shared_ptr<FaultFs> fs;
  std::unique_ptr<rocksdb::Env> env;

  Status restore(const std::string& xml, ThinRestoreOptions options = {}) {
    std::size_t at = 0;
    options.env = env.get();
    return restore_thin_metadata(
        [&](char* buffer, std::size_t size) -> Result<std::size_t> {
          // Odd pieces, so that every boundary falls into an element sometimes.
          const std::size_t take =
              std::min({size, xml.size() - at, std::size_t{xml.size() < 100000 ? 7U : 4093U}});
          std::copy_n(xml.data() + at, take, buffer);
          at += take;
          return take;
        },
        kDir, options);
  }
  std::unique_ptr<ThinMetadata> open() {
    ThinMetadataOptions options;
    options.env = env.get();
    auto pool = ThinMetadata::open(kDir, options);
    EXPECT_TRUE(pool.ok()) << pool.status().message();
    return pool.ok() ? pool.take() : nullptr;
  }
  void expect_clean() { mapperfs::testing::expect_clean(env.get(), kDir); }
};

std::string dump(ThinMetadata& pool, const ThinDumpOptions& options = {}) {
  std::string text;
  const Status s = dump_thin_metadata(pool, options, [&text](std::string_view piece) {
    text += piece;
    return Status();
  });
  EXPECT_TRUE(s.ok()) << s.message();
  return text;
}

std::string data_file(const std::string& name) {
  std::ifstream file(std::string(MAPPERFS_TEST_DATA) + "/" + name);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_FALSE(text.str().empty()) << name;
  return text.str();
}

std::string pool_xml(const std::string& inside) {
  return "<superblock uuid=\"\" time=\"1\" transaction=\"2\" flags=\"0\" version=\"2\" "
         "data_block_size=\"128\" nr_data_blocks=\"1000\">\n" +
         inside + "</superblock>\n";
}

std::string device_xml(const std::string& inside, int id = 1, const std::string& mapped = "1") {
  return "  <device dev_id=\"" + std::to_string(id) + "\" mapped_blocks=\"" + mapped +
         "\" transaction=\"0\" creation_time=\"0\" snap_time=\"1\">\n" + inside + "  </device>\n";
}

TEST(ThinXml, TakesAKernelsPoolAndGivesItBack) {
  const std::string xml = data_file("kernel_pool.xml");
  Place place;
  ASSERT_TRUE(place.restore(xml).ok());
  auto pool = place.open();
  ASSERT_NE(pool, nullptr);
  ThinDumpOptions options;
  options.flags_attribute = false;
  EXPECT_EQ(dump(*pool, options), xml + "\n");  // the file was cut before its last newline
  EXPECT_EQ(pool->status().used_data_blocks, 8U);
  EXPECT_EQ(*pool->data_references(0), 2U);
  pool.reset();
  place.expect_clean();
}

TEST(ThinXml, GivesBackWhateverAPoolMaps) {
  for (std::uint64_t seed = 1; seed <= seed_count(5); ++seed) {
    SCOPED_TRACE(seed);
    Pool pool(2000);
    Churn churn(*pool, seed);
    for (int i = 0; i < 200; ++i) {
      churn.step();
    }
    ASSERT_TRUE(churn.commit().ok());
    const std::string xml = dump(*pool);
    Place place;
    ASSERT_TRUE(place.restore(xml).ok());
    auto restored = place.open();
    ASSERT_NE(restored, nullptr);
    Picture expected = churn.model;
    expected.held.clear();
    expected.has_held = false;
    EXPECT_TRUE(picture_of(*restored) == expected);
    EXPECT_EQ(restored->status().used_data_blocks, blocks_of(expected).size());
    restored.reset();
    place.expect_clean();
  }
}

TEST(ThinXml, SharesPagesAgain) {
  std::string runs;
  for (int i = 0; i < 20000; i += 2) {
    runs += "<single_mapping origin_block=\"" + std::to_string(i) + "\" data_block=\"" +
            std::to_string(i / 40) + "\" time=\"0\"/>\n";
  }
  std::string devices;
  for (int id = 0; id < 8; ++id) {
    devices += device_xml(runs, id);
  }
  Place one;
  ASSERT_TRUE(one.restore(pool_xml(device_xml(runs))).ok());
  Place many;
  ASSERT_TRUE(many.restore(pool_xml(devices)).ok());
  EXPECT_EQ(one.open()->status().used_metadata_blocks, many.open()->status().used_metadata_blocks);
  many.expect_clean();
  auto pool = many.open();
  ASSERT_TRUE(pool->delete_device(3).ok());
  provision(*pool, *must_open(*pool, 4), 1);
  ASSERT_TRUE(pool->commit().ok());
  pool.reset();
  many.expect_clean();
}

TEST(ThinXml, UnderstandsDefinitionsAndComments) {
  Place place;
  const Status s = place.restore(
      "<?xml version=\"1.0\"?>\n<!-- by <hand> -->\n" +
      pool_xml("<def name=\"a&amp;b\"><range_mapping origin_begin=\"3\" data_begin=\"7\" "
               "length=\"2\" time=\"1\"></range_mapping></def>" +
               device_xml("<single_mapping origin_block=\"0\" data_block=\"1\" time=\"0\"/>"
                          "<ref name=\"a&amp;b\"/>") +
               device_xml("<ref name=\"a&amp;b\"/>", 2)));
  ASSERT_TRUE(s.ok()) << s.message();
  auto pool = place.open();
  EXPECT_EQ(must_open(*pool, 1)->lookup(4)->data_block, 8U);
  EXPECT_EQ(must_open(*pool, 1)->mapped_blocks(), 3U);
  EXPECT_EQ(must_open(*pool, 2)->mapped_blocks(), 2U);
}

// As thin_restore 0.9 of thin-provisioning-tools, which takes each of these without a word.
TEST(ThinXml, CountsMappingsWhateverTheXmlSays) {
  const std::string runs =
      "<range_mapping origin_begin=\"0\" data_begin=\"3\" length=\"4\" time=\"0\"/>"
      "<single_mapping origin_block=\"9\" data_block=\"9\" time=\"0\"/>";
  for (const char* said : {"0", "1", "5", "77", "18446744073709551615"}) {
    SCOPED_TRACE(said);
    Place place;
    const Status s = place.restore(pool_xml(device_xml(runs, 1, said) + device_xml("", 2, said)));
    ASSERT_TRUE(s.ok()) << s.message();
    auto pool = place.open();
    EXPECT_EQ(must_open(*pool, 1)->mapped_blocks(), 5U);
    EXPECT_EQ(must_open(*pool, 2)->mapped_blocks(), 0U);
    pool.reset();
    place.expect_clean();
  }
}

TEST(ThinXml, KeepsTheFlagThatAsksForAChecking) {
  std::string xml = pool_xml("");
  xml.replace(xml.find("flags=\"0\""), 9, "flags=\"1\"");
  Place place;
  ASSERT_TRUE(place.restore(xml).ok());
  EXPECT_TRUE(place.open()->status().needs_check);
  EXPECT_EQ(dump(*place.open()), xml);
}

TEST(ThinXml, RefusesBadXml) {
  const std::string mapping = "<single_mapping origin_block=\"1\" data_block=\"1\" time=\"0\"/>";
  std::string device_open = pool_xml(device_xml(""));
  device_open.resize(device_open.find("  </device>"));
  const std::pair<std::string, std::string> cases[] = {
      {"", "begin with"},
      {"<device/>", "begin with"},
      {"text", "outside"},
      {"<superblock time=\"0\"", "does not end"},
      {"<superblock time=0>", "without quotes"},
      {"<superblock time=\"0\" time=\"0\">", "twice"},
      {"<superblock time=\"x\" transaction=\"0\"/>", "not a number"},
      {"<superblock transaction=\"0\" data_block_size=\"128\" nr_data_blocks=\"1\"/>", "no time"},
      {pool_xml("<other/>"), "not expected"},
      {pool_xml(device_xml("<ref name=\"x\"/>")), "no <def>"},
      {pool_xml(device_xml(mapping + mapping)), "out of order"},
      {pool_xml(device_xml("") + device_xml("")), "exists"},
      {pool_xml(device_xml("<single_mapping origin_block=\"1\" data_block=\"1000\" time=\"0\"/>")),
       "past the end"},
      {pool_xml(device_xml("<single_mapping origin_block=\"1\" time=\"0\"/>")), "no data_block"},
      {pool_xml(device_xml("<range_mapping origin_begin=\"1\" data_begin=\"1\" length=\"0\" "
                           "time=\"0\"/>")),
       "0 blocks"},
      {pool_xml("<device dev_id=\"16777216\" mapped_blocks=\"0\" transaction=\"0\" "
                "creation_time=\"0\" snap_time=\"0\"/>"),
       "the most is"},
      {device_open, "ends before"},
  };
  for (const auto& [xml, why] : cases) {
    Place place;
    const Status s = place.restore(xml);
    EXPECT_FALSE(s.ok()) << xml;
    EXPECT_NE(s.message().find(why), std::string::npos) << s.message() << "\nfor\n" << xml;
  }
}

// Each in two of the next would be 2^60 mappings.
TEST(ThinXml, RefusesDefinitionsThatMultiply) {
  std::string xml =
      "<def name=\"0\"><single_mapping origin_block=\"1\" data_block=\"1\" "
      "time=\"0\"/></def>\n";
  for (int i = 1; i <= 60; ++i) {
    const std::string ref = "<ref name=\"" + std::to_string(i - 1) + "\"/>";
    xml += "<def name=\"" + std::to_string(i) + "\">" + ref + ref + "</def>\n";
  }
  Place place;
  const Status s = place.restore(pool_xml(xml));
  EXPECT_EQ(s.error(), EINVAL);
  EXPECT_NE(s.message().find("line 3: block 1 of a <def> is out of order"), std::string::npos)
      << s.message();
}

// A definition of a definition, deeper than a stack would allow; empty ones take no time either.
TEST(ThinXml, UnderstandsDefinitionsOfDefinitions) {
  constexpr int kDepth = fake::kSanitized ? 20'000 : 100'000;
  std::string xml =
      "<def name=\"e\"/><def name=\"0\"><single_mapping origin_block=\"7\" "
      "data_block=\"9\" time=\"0\"/></def>\n";
  for (int i = 1; i <= kDepth; ++i) {
    xml += "<def name=\"" + std::to_string(i) + "\"><ref name=\"e\"/><ref name=\"" +
           std::to_string(i - 1) + "\"/><ref name=\"e\"/></def>\n";
  }
  Place place;
  const Status s = place.restore(
      pool_xml(xml + device_xml("<ref name=\"" + std::to_string(kDepth) + "\"></ref>" +
                                "<single_mapping origin_block=\"8\" data_block=\"3\" "
                                "time=\"0\"></single_mapping>")));
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(must_open(*place.open(), 1)->lookup(7)->data_block, 9U);
  EXPECT_EQ(must_open(*place.open(), 1)->mapped_blocks(), 2U);
}

std::string superblock_xml(const std::string& attributes) {
  return "<superblock time=\"0\" " + attributes + "></superblock>";
}

TEST(ThinXml, TakesWhatIsGivenInPlaceOfMissingAttributes) {
  ThinRestoreOptions options;
  options.transaction_id = 4;
  options.data_block_size = 256;
  options.nr_data_blocks = 77;
  Place place;
  const Status s = place.restore(superblock_xml(""), options);
  ASSERT_TRUE(s.ok()) << s.message();
  const auto pool = place.open();
  EXPECT_EQ(pool->status().transaction_id, 4U);
  EXPECT_EQ(pool->data_block_size(), 256U);
  EXPECT_EQ(pool->status().total_data_blocks, 77U);
}

TEST(ThinXml, RefusesSizesBeforeAnythingIsMade) {
  const std::string blocks = "transaction=\"0\" nr_data_blocks=\"10\" ";
  const std::pair<std::string, std::string> cases[] = {
      {blocks + "data_block_size=\"0\"", "a data block size of 0 sectors"},
      {blocks + "data_block_size=\"100\"", "a data block size of 100 sectors"},
      {blocks + "data_block_size=\"2097280\"", "up to 2097152"},
      {blocks + "data_block_size=\"4294967424\"", "a data block size of 4294967424 sectors"},
      {"transaction=\"0\" data_block_size=\"128\" nr_data_blocks=\"68719476737\"",
       "68719476737 data blocks are more than 68719476736"},
  };
  for (const auto& [attributes, why] : cases) {
    Place place;
    const Status s = place.restore(superblock_xml(attributes));
    EXPECT_EQ(s.error(), EINVAL);
    EXPECT_NE(s.message().find(why), std::string::npos) << s.message();
    EXPECT_EQ(place.fs->changes(), 0U);
  }
  Place place;
  ThinRestoreOptions options;
  options.data_block_size = 4294967424;
  EXPECT_EQ(place.restore(superblock_xml(blocks), options).error(), EINVAL);
}

TEST(ThinXml, LeavesNothingThatOpensIfItFails) {
  Place place;
  EXPECT_EQ(place.restore(pool_xml(device_xml("<junk/>"))).error(), EINVAL);
  ThinMetadataOptions options;
  options.env = place.env.get();
  EXPECT_EQ(ThinMetadata::open(kDir, options).status().error(), EILSEQ);
}

TEST(ThinXml, DoesNotRestoreOverAPool) {
  const std::string xml = pool_xml(
      device_xml("    <single_mapping origin_block=\"5\" data_block=\"7\" time=\"1\"/>\n"));
  Place place;
  ASSERT_TRUE(place.restore(xml).ok());
  EXPECT_EQ(place.restore(pool_xml("")).error(), EEXIST);
  place.expect_clean();
  EXPECT_EQ(dump(*place.open()), xml);
}

TEST(ThinXml, DumpsTheMetadataSnapshot) {
  Pool pool;
  ASSERT_TRUE(pool->create_thin(5).ok());
  provision(*pool, *must_open(*pool, 5), 9);
  ASSERT_TRUE(pool->set_transaction_id(0, 3).ok());
  ASSERT_TRUE(pool->reserve_metadata_snap().ok());
  ASSERT_TRUE(pool->set_transaction_id(3, 4).ok());
  ASSERT_TRUE(pool->delete_device(5).ok());
  ASSERT_TRUE(pool->commit().ok());
  pool.reopen();
  ThinDumpOptions options;
  options.metadata_snap = true;
  const std::string text = dump(*pool, options);
  EXPECT_NE(text.find("transaction=\"3\""), std::string::npos) << text;
  EXPECT_NE(text.find("<single_mapping origin_block=\"9\" data_block=\"0\" time=\"0\"/>"),
            std::string::npos)
      << text;
  options.format = ThinDumpOptions::Format::kHumanReadable;
  EXPECT_NE(dump(*pool, options).find("    9 -> 0, 0\n"), std::string::npos);
}

// thin_delta's text, from the differences that the library gives.
std::string delta_text(ThinMetadata& pool) {
  using Kind = ThinDifference::Kind;
  std::string text =
      "<superblock uuid=\"\" time=\"1\" transaction=\"3\" data_block_size=\"128\" "
      "nr_data_blocks=\"64\">\n  <diff left=\"0\" right=\"1\">\n";
  const auto add = [&text](const ThinDifference& d) {
    const char* name = d.kind == Kind::kSame        ? "same"
                       : d.kind == Kind::kLeftOnly  ? "left_only"
                       : d.kind == Kind::kRightOnly ? "right_only"
                                                    : "different";
    std::ostringstream line;
    line << "    <" << name << " begin=\"" << d.begin << "\" length=\"" << d.length << "\"/>\n";
    text += line.str();
    return true;
  };
  std::uint64_t told = 0;
  std::uint64_t all = 0;
  const Status s =
      compare_thin_devices(pool, ThinView::kPool, 0, 1, add,
                           [&](std::string_view stage, std::uint64_t done, std::uint64_t total) {
                             EXPECT_EQ(stage, "comparing");
                             EXPECT_TRUE(done >= told && done <= total);
                             told = done;
                             all = total;
                           });
  EXPECT_TRUE(s.ok());
  EXPECT_EQ(told, all);
  EXPECT_EQ(all, must_open(pool, 0)->mapped_blocks() + must_open(pool, 1)->mapped_blocks());
  return text + "  </diff>\n</superblock>\n";
}

TEST(ThinQuery, ComparesAsThinDeltaDoes) {
  Place place;
  ASSERT_TRUE(place.restore(data_file("kernel_pool.xml")).ok());
  auto pool = place.open();
  EXPECT_EQ(delta_text(*pool), data_file("kernel_pool_delta.xml"));
  const auto ignore = [](const ThinDifference&) { return true; };
  EXPECT_EQ(compare_thin_devices(*pool, ThinView::kPool, 0, 99, ignore, {}).error(), ENODATA);
}

TEST(ThinQuery, CountsWhatIsExclusiveAsThinLsDoes) {
  Place place;
  ASSERT_TRUE(place.restore(data_file("kernel_pool.xml")).ok());
  auto pool = place.open();
  auto usage = list_thin_usage(*pool, ThinView::kPool, {});
  ASSERT_TRUE(usage.ok());
  ASSERT_EQ(usage->size(), 3U);
  const std::uint64_t expected[][3] = {{1, 4, 31}, {2, 4, 31}, {1, 0, 1}};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ((*usage)[i].exclusive_blocks, expected[i][0]);
    EXPECT_EQ((*usage)[i].shared_blocks, expected[i][1]);
    EXPECT_EQ((*usage)[i].highest_block, expected[i][2]);
  }
}

TEST(ThinQuery, FindsOwnersAsThinRmapDoes) {
  Place place;
  ASSERT_TRUE(place.restore(data_file("kernel_pool.xml")).ok());
  auto pool = place.open();
  auto runs = reverse_thin_map(*pool, ThinView::kPool, {{0, 10}}, {});
  ASSERT_TRUE(runs.ok());
  std::ostringstream text;
  for (const ThinReverseRun& run : *runs) {
    text << "data " << run.data_begin << ".." << run.data_begin + run.length << " -> thin("
         << run.device_id << ") " << run.virtual_begin << ".." << run.virtual_begin + run.length
         << "\n";
  }
  EXPECT_EQ(text.str(),
            "data 0..1 -> thin(0) 0..1\ndata 0..1 -> thin(1) 0..1\ndata 2..3 -> thin(0) 2..3\n"
            "data 2..3 -> thin(1) 2..3\ndata 3..4 -> thin(0) 7..8\ndata 3..5 -> thin(1) 7..9\n"
            "data 5..6 -> thin(0) 31..32\ndata 5..6 -> thin(1) 31..32\n"
            "data 6..7 -> thin(1) 1..2\ndata 7..8 -> thin(0) 8..9\ndata 8..9 -> thin(7) 1..2\n");
}

}  // namespace
}  // namespace mapperfs::testing
