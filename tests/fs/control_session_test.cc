#include "fs/control_session.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "tests/fs/world.h"

namespace mapperfs {
namespace {

TEST(ControlSession, MakesSwapsAndAnswers) {
  World world;
  world.control_ok("disk: 0 1024 zero\ndisk: 1024 1024 error\n");
  EXPECT_EQ(world.ask("table disk"), "disk: 0 1024 zero \ndisk: 1024 1024 error \n");
  world.control_ok("disk: 0 4096 zero");
  EXPECT_EQ(world.device("disk")->size_sectors(), 4096U);
  EXPECT_EQ(world.ask("list"),
            "disk\t\t" + std::to_string(kMapperMajor) + "\t0\tL--w\t0\t0\t1\t256\t4096\t\t\t\n");
}

TEST(ControlSession, AnswersAnEmptySlotWithItsNameAlone) {
  World world;
  world.control_ok("create bare");
  EXPECT_EQ(world.ask("table"), "bare: \n");
  EXPECT_EQ(world.ask("status --inactive bare"), "bare: \n");
}

TEST(ControlSession, CollectsATransactionCutAnywhere) {
  const std::string text = "# head\nbegin\na: 0 8 zero\na: 8 8 error\nb: 0 8 zero\ncommit\n";
  for (std::size_t step = 1; step < text.size(); ++step) {
    World world;
    ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
    // Up to the end of the line `begin` the first write must hold what is to be executed.
    const std::size_t first = std::max<std::size_t>(step, text.find("a: 0"));
    ASSERT_TRUE(session.write(text.substr(0, first), false, {}).status.ok());
    for (std::size_t at = first; at < text.size(); at += step) {
      ASSERT_TRUE(session.write(text.substr(at, step), false, {}).status.ok()) << step;
    }
    EXPECT_EQ(world.ask("table"), "a: 0 8 zero \na: 8 8 error \nb: 0 8 zero \n") << step;
  }
}

TEST(ControlSession, DropsWhatIsNotCommitted) {
  World world;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  ASSERT_TRUE(session.write("begin\na: 0 8 zero\n", false, {}).status.ok());
  session.close();
  EXPECT_EQ(world.ask("list"), "");
  EXPECT_NE(world.engine.log().text().find("commit"), std::string::npos);
}

TEST(ControlSession, RefusesACutWriteOutsideOfATransaction) {
  World world;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  EXPECT_EQ(session.write("a: 0 8 zero\nb: 0 8 ze", true, {}).status.error(), EMSGSIZE);
  EXPECT_EQ(world.ask("list"), "");
  EXPECT_TRUE(session.write("begin\na: 0 8 zero\nb: 0 8 ze", true, {}).status.ok());
  EXPECT_TRUE(session.write("ro\ncommit", false, {}).status.ok());
  EXPECT_EQ(world.ask("table"), "a: 0 8 zero \nb: 0 8 zero \n");
}

TEST(ControlSession, KeepsTheOldTableWhereASwapFails) {
  World world;
  world.control_ok("disk: 0 8 linear /data/a.img 0\nload disk: 0 16 zero");
  const std::string before = world.state();
  EXPECT_EQ(world.control("disk: 0 64 linear /data/small.img 0").status.error(), EINVAL);
  EXPECT_EQ(world.state(), before);
}

TEST(ControlSession, LoadsReadOnlyWhereCreatedSo) {
  World world;
  world.control_ok("create --readonly disk\ndisk: 0 8 zero");
  EXPECT_TRUE(world.device("disk")->read_only());
  world.control_ok("disk: 0 16 zero");
  EXPECT_TRUE(world.device("disk")->read_only());
}

TEST(ControlSession, RestoresItsOwnBackup) {
  World world;
  world.control_ok(
      "create --uuid u low\nlow: 0 2048 ram\nb\\ d: 0 1024 linear low 0\n"
      "create --readonly ro\nro: 0 8 zero\ncreate bare");
  const std::string backup = backup_text(world.engine, world.notes);
  World other;
  other.control_ok(backup);
  EXPECT_EQ(backup_text(other.engine, other.notes), backup);
  EXPECT_EQ(other.ask("table"), world.ask("table"));
}

TEST(ControlSession, RefusesQueriesNobodyCanRead) {
  World world;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  RunOptions deaf;
  deaf.may_reply = false;
  EXPECT_EQ(session.write("list", false, deaf).status.error(), EINVAL);
}

TEST(ControlSession, StopsWhereItIsInterrupted) {
  World world;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  RunOptions options;
  options.interrupted = [] { return true; };
  EXPECT_EQ(session.write("a: 0 8 zero", false, options).status.error(), EINTR);
  EXPECT_EQ(world.ask("list"), "");
}

TEST(ControlSession, RemovesAndCancels) {
  World world;
  world.control_ok("disk: 0 8 zero");
  const std::shared_ptr<MappedDevice> disk = world.device("disk");
  ASSERT_TRUE(world.engine.open(*disk).ok());
  world.control_ok("remove --deferred disk");
  EXPECT_TRUE(disk->info().deferred_remove);
  world.control_ok("message disk 0 @CANCEL_deferred_remove");
  EXPECT_FALSE(disk->info().deferred_remove);
  EXPECT_EQ(world.control("remove --force disk").status.error(), EBUSY);
  EXPECT_EQ(world.ask("table disk"), "disk: 0 8 error \n");
  world.engine.close(*disk);
  world.control_ok("remove disk");
  world.control_ok("a: 0 8 zero\nb: 0 8 linear a 0\nremove_all --force");
  EXPECT_EQ(world.ask("list"), "");
}

TEST(ControlSession, NotesWhoIsToServeADevice) {
  World world;
  world.control_ok("create --passthrough disk\ndisk: 0 64 ram\nplain: 0 8 zero");
  EXPECT_TRUE(world.notes.wants_passthrough(world.device("disk")->serial()));
  EXPECT_FALSE(world.notes.wants_passthrough(world.device("plain")->serial()));
  EXPECT_EQ(backup_text(world.engine, world.notes),
            "begin\ncreate --passthrough disk\ndisk: 0 64 ram \nplain: 0 8 zero \ncommit\n");
  world.control_ok("passthrough disk off\npassthrough plain on");
  world.notes.set_default_passthrough(true);
  EXPECT_FALSE(world.notes.wants_passthrough(world.device("disk")->serial()));
  EXPECT_TRUE(world.notes.wants_passthrough(world.device("plain")->serial()));
  EXPECT_EQ(backup_text(world.engine, world.notes),
            "begin\ncreate disk\npassthrough disk off\ndisk: 0 64 ram \n"
            "create --passthrough plain\nplain: 0 8 zero \ncommit\n");
  EXPECT_EQ(world.control("passthrough disk maybe").status.error(), EINVAL);
  EXPECT_EQ(world.control("passthrough disk").status.error(), EINVAL);
  EXPECT_EQ(world.control("passthrough nosuch on").status.error(), ENXIO);
}

TEST(ControlSession, SaysWhoServesADevice) {
  World world;
  const auto served = [&] {
    return *world.open(FileKind::kServed, "disk", true, false)->read(0, 4096);
  };
  world.control_ok("disk: 0 64 ram");
  EXPECT_EQ(served(), "engine\n");
  world.control_ok("passthrough disk on");
  EXPECT_EQ(served(), "engine; passthrough from the next open on\n");
  const std::shared_ptr<MappedDevice> disk = world.device("disk");
  ASSERT_TRUE(disk->begin_bypass().ok());
  EXPECT_EQ(served(), "passthrough\n");
  EXPECT_EQ(world.control("disk: 0 64 zero").status.error(), EBUSY);
  EXPECT_NE(world.ask("list").find("\tP\t"), std::string::npos);
  EXPECT_EQ(world.ask("table --inactive"), "disk: \n");
  EXPECT_EQ(world.control("suspend disk").status.error(), EBUSY);
  EXPECT_EQ(world.control("remove --force disk").status.error(), EBUSY);
  disk->end_bypass();
  world.notes.update(disk->serial(), [](DeviceNote& note) { note.not_passed = "it rains"; });
  EXPECT_EQ(served(), "engine; no passthrough: it rains\n");
}

}  // namespace
}  // namespace mapperfs
