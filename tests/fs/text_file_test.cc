#include "fs/text_file.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <sstream>

#include "tests/fs/world.h"

namespace mapperfs {
namespace {

std::string whole(TextFile& file) {
  Result<std::string> text = file.read(0, 1U << 20);
  EXPECT_TRUE(text.ok()) << text.status().message();
  return text.ok() ? text.take() : std::string();
}

TEST(TextFile, ShowsADeviceAsDmsetupDoes) {
  World world;
  world.control_ok("create disk a-uuid\ndisk: 0 2048 zero\nload disk: 0 16 zero");
  EXPECT_EQ(whole(*world.open(FileKind::kInfo, "disk", true, false)),
            "Name:              disk\n"
            "State:             ACTIVE\n"
            "Read Ahead:        256\n"
            "Tables present:    LIVE & INACTIVE\n"
            "Open count:        0\n"
            "Event number:      0\n"
            "Major, minor:      " +
                std::to_string(kMapperMajor) +
                ", 0\n"
                "Number of targets: 1\n"
                "UUID: a-uuid\n\n");
  EXPECT_EQ(whole(*world.open(FileKind::kTable, "disk", true, false)), "0 2048 zero \n");
  EXPECT_EQ(whole(*world.open(FileKind::kInactive, "disk", true, false)), "0 16 zero \n");
  EXPECT_EQ(whole(*world.open(FileKind::kUuid, "disk", true, false)), "a-uuid\n");
  EXPECT_EQ(whole(*world.open(FileKind::kEvent, "disk", true, false)), "0\n");
}

TEST(TextFile, ShowsNoReadAheadBeforeTheFirstTable) {
  World world;
  world.control_ok("create bare\ncreate loaded\nload loaded: 0 16 zero");
  const std::string line = "Read Ahead:        256\n";
  EXPECT_EQ(whole(*world.open(FileKind::kInfo, "bare", true, false)).find(line), std::string::npos);
  EXPECT_NE(whole(*world.open(FileKind::kInfo, "loaded", true, false)).find(line),
            std::string::npos);
  const std::string major = std::to_string(kMapperMajor);
  EXPECT_EQ(world.ask("list bare"), "bare\t\t" + major + "\t0\t---w\t0\t0\t0\t\t0\t\t\t\n");
}

TEST(TextFile, ListsTheNewestTargetFirst) {
  World world;
  const std::string text = world.ask("targets");
  EXPECT_EQ(text, targets_text(world.registry));
  EXPECT_NE(text.find("\nlinear           v"), std::string::npos) << text;
  const size_t zero = text.find("zero ");
  const size_t linear = text.find("linear ");
  const size_t error = text.find("error ");
  EXPECT_LT(zero, linear) << text;
  EXPECT_LT(linear, error) << text;
  EXPECT_EQ(error, text.rfind('\n', text.size() - 2) + 1) << text;
}

TEST(TextFile, TakesTables) {
  World world;
  world.control_ok("create disk");
  const auto table = world.open(FileKind::kTable, "disk", false, true);
  EXPECT_TRUE(table->write("begin\n0 8 zero\n", 0, false, {}).ok());
  EXPECT_TRUE(table->write("8 8 error\ncommit\n", 15, false, {}).ok());
  EXPECT_EQ(world.ask("table disk"), "disk: 0 8 zero \ndisk: 8 8 error \n");
  EXPECT_EQ(table->write("\n", 0, false, {}).error(), EINVAL);
  const auto inactive = world.open(FileKind::kInactive, "disk", false, true);
  EXPECT_TRUE(inactive->write("0 8 zero\n", 0, false, {}).ok());
  EXPECT_TRUE(world.device("disk")->info().inactive);
  EXPECT_TRUE(inactive->write("\n", 0, false, {}).ok());
  EXPECT_FALSE(world.device("disk")->info().inactive);
}

TEST(TextFile, GivesTheReplyFromItsBeginning) {
  World world;
  const auto control = world.open(FileKind::kControl, "", true, true);
  ASSERT_TRUE(control->write("targets\n", 0, false, {}).ok());
  const std::string reply = whole(*control);
  EXPECT_EQ(*control->read(5, 7), reply.substr(5, 7));
  ASSERT_TRUE(control->write("targets\n", 8, false, {}).ok());
  EXPECT_EQ(*control->read(16, 10), reply.substr(0, 10)) << "a reader that does not seek";
  EXPECT_EQ(*control->read(26, 10), reply.substr(10, 10));
  EXPECT_EQ(control->write("nonsense\n", 36, false, {}).error(), EINVAL);
  EXPECT_NE(whole(*control).find("nonsense"), std::string::npos);
}

TEST(TextFile, SeesEvents) {
  World world;
  world.control_ok("disk: 0 8 zero");
  const auto event = world.open(FileKind::kEvent, "disk", true, false);
  EXPECT_FALSE(event->event_came());
  world.control_ok("rename disk disc");
  EXPECT_TRUE(event->event_came());
  EXPECT_EQ(whole(*event), "1\n");
  EXPECT_FALSE(event->event_came());
  world.control_ok("remove disc");
  EXPECT_EQ(event->read(0, 10).status().error(), ENXIO);
}

TEST(TextFile, CountsStatistics) {
  World world;
  world.control_ok("disk: 0 8 zero");
  std::istringstream fields(whole(*world.open(FileKind::kStats, "disk", true, false)));
  int count = 0;
  for (std::string field; fields >> field; ++count) {
    EXPECT_EQ(field, "0");
  }
  EXPECT_EQ(count, 17);
}

TEST(TextFile, SendsMessages) {
  World world;
  world.control_ok("disk: 0 64 dust /data/a.img 0 512");
  const auto message = world.open(FileKind::kMessage, "disk", true, true);
  ASSERT_TRUE(message->write("addbadblock 3\n", 0, false, {}).ok());
  ASSERT_TRUE(message->write("0 countbadblocks\n", 0, false, {}).ok());
  EXPECT_NE(whole(*message).find('1'), std::string::npos);
  EXPECT_EQ(message->write("nonsense\n", 0, false, {}).error(), EINVAL);
  EXPECT_EQ(message->write("7\n", 0, false, {}).error(), EINVAL);
  EXPECT_EQ(whole(*message), "disk: message: Empty message received.\n");
}

TEST(TextFile, SaysWhyAWriteIsRefusedUnseen) {
  World world;
  const std::unique_ptr<TextFile> file = world.open(FileKind::kControl, "", true, true);
  EXPECT_EQ(file->refuse(crowded_status("control"), 0).error(), EAGAIN);
  EXPECT_NE(whole(*file).find("control: too many commands"), std::string::npos);
  EXPECT_NE(world.engine.log().text().find("too many commands"), std::string::npos);
}

TEST(TextFile, DropsWhatItHoldsWithAWriteThatIsRefused) {
  World world;
  const std::unique_ptr<TextFile> file = world.open(FileKind::kControl, "", false, true);
  const std::string piece = "create disk\n" + std::string(500, '#');
  ASSERT_EQ(piece.size() % kSectorBytes, 0U);
  ASSERT_TRUE(file->write(piece, 0, false, {}).ok());
  ASSERT_TRUE(file->holds());
  EXPECT_EQ(file->refuse(crowded_status("control"), piece.size()).error(), EAGAIN);
  EXPECT_FALSE(file->holds());
  EXPECT_EQ(world.ask("list"), "");
}

TEST(TextFile, TakesNoMessageInACrowd) {
  World world;
  world.control_ok("disk: 0 16 zero");
  RunOptions options;
  options.crowded = true;
  const std::unique_ptr<TextFile> file = world.open(FileKind::kMessage, "disk", true, true);
  EXPECT_EQ(file->write("hello", 0, false, options).error(), EAGAIN);
}

}  // namespace
}  // namespace mapperfs
