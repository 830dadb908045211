#include "fs/control_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "tests/fs/world.h"

namespace mapperfs {
namespace {

using Rest = ControlSession::Rest;

// What a program that copies does to an open file: writes of `step` bytes each, then a close.
Status copy(ControlSession& session, std::string_view text, std::size_t step) {
  for (; !text.empty(); text.remove_prefix(std::min(step, text.size()))) {
    const std::string_view piece = text.substr(0, step);
    const Outcome outcome =
        session.write(piece, ControlSession::rest_of(piece, false, true), RunOptions());
    if (!outcome.status.ok()) {
      return outcome.status;
    }
  }
  Status status = session.finish({}).status;
  session.close();
  return status;
}

// `lines` lines of one sector each.
std::string long_table(const std::string& name, std::size_t lines) {
  std::string text;
  for (std::size_t i = 0; i < lines; ++i) {
    text += name + ": " + std::to_string(i) + " 1 zero\n";
  }
  return text;
}

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
    ASSERT_TRUE(session.write(text.substr(0, first), Rest::kNone, {}).status.ok());
    for (std::size_t at = first; at < text.size(); at += step) {
      ASSERT_TRUE(session.write(text.substr(at, step), Rest::kNone, {}).status.ok()) << step;
    }
    EXPECT_EQ(world.ask("table"), "a: 0 8 zero \na: 8 8 error \nb: 0 8 zero \n") << step;
  }
}

TEST(ControlSession, DropsWhatIsNotCommitted) {
  World world;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  ASSERT_TRUE(session.write("begin\na: 0 8 zero\n", Rest::kNone, {}).status.ok());
  session.close();
  EXPECT_EQ(world.ask("list"), "");
  EXPECT_NE(world.engine.log().text().find("commit"), std::string::npos);
}

TEST(ControlSession, RefusesACutWriteOutsideOfATransaction) {
  World world;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  EXPECT_EQ(session.write("a: 0 8 zero\nb: 0 8 ze", Rest::kRefused, {}).status.error(), EMSGSIZE);
  EXPECT_EQ(world.ask("list"), "");
  EXPECT_TRUE(session.write("begin\na: 0 8 zero\nb: 0 8 ze", Rest::kRefused, {}).status.ok());
  EXPECT_TRUE(session.write("ro\ncommit", Rest::kNone, {}).status.ok());
  EXPECT_EQ(world.ask("table"), "a: 0 8 zero \nb: 0 8 zero \n");
}

TEST(ControlSession, JoinsTheWritesOfAProgramThatCopies) {
  const std::string text = "small: 0 8 zero\n" + long_table("disk", 12788) + "last: 0 8 zero\n";
  for (const std::size_t step : {512U, 4096U, 65536U, 131072U}) {
    World world;
    ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
    const Status status = copy(session, text, step);
    EXPECT_TRUE(status.ok()) << step << ": " << status.message();
    EXPECT_EQ(world.device("disk")->size_sectors(), 12788U) << step;
    EXPECT_EQ(world.device("last")->size_sectors(), 8U) << step;
  }
}

TEST(ControlSession, JoinsPiecesThatEndWithALine) {
  // 256 lines of 16 bytes: a whole piece, and the table goes on in the next.
  std::string text;
  for (std::size_t i = 0; i < 300; ++i) {
    text += "d: " + std::to_string(i) + " 1 zero";
    text.resize(16 * i + 15, ' ');
    text += '\n';
  }
  for (const std::size_t lines : {256U, 257U, 300U}) {
    World world;
    ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
    EXPECT_TRUE(copy(session, std::string_view(text).substr(0, 16 * lines), 4096).ok()) << lines;
    EXPECT_EQ(world.device("d")->size_sectors(), lines);
  }
}

TEST(ControlSession, NeverRunsHalfALine) {
  World world;
  world.control_ok("disk: 0 4096 zero");
  const std::string before = world.state();
  const std::string text = long_table("disk", 12788);
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  const Status status = copy(session, text.substr(0, 131072), 131072);  // the writer was killed
  EXPECT_EQ(status.error(), EINVAL);
  EXPECT_EQ(world.state(), before);
  EXPECT_NE(world.engine.log().text().find("131072 bytes was closed: the last line"),
            std::string::npos);
  // One who waits for replies hears at once.
  EXPECT_EQ(ControlSession::rest_of(text.substr(0, 131072), false, false), Rest::kRefused);
  EXPECT_EQ(session.write(text.substr(0, 131072), Rest::kRefused, {}).status.error(), EMSGSIZE);
  EXPECT_EQ(world.state(), before);
}

TEST(ControlSession, TakesAShortLineWithoutItsNewline) {
  EXPECT_EQ(ControlSession::rest_of("remove disk", false, true), Rest::kNone);
  EXPECT_EQ(ControlSession::rest_of("", false, true), Rest::kNone);
  EXPECT_EQ(ControlSession::rest_of(std::string(5000, 'x') + "\n", false, true), Rest::kNone);
  EXPECT_EQ(ControlSession::rest_of(std::string(511, 'x') + "\n", false, true), Rest::kPossible);
  // Who waits for replies writes what is complete.
  EXPECT_EQ(ControlSession::rest_of(std::string(4095, 'x') + "\n", false, false), Rest::kNone);
}

TEST(ControlSession, HoldsWhatFollowsATransaction) {
  const std::string tail = long_table("disk", 3000);
  World world;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  const std::string text = "begin\na: 0 8 zero\ncommit\n" + tail + "begin\nb: 0 8 zero\ncommit\n";
  EXPECT_TRUE(copy(session, text, 4096).ok());
  EXPECT_EQ(world.device("disk")->size_sectors(), 3000U);
  EXPECT_EQ(world.device("a")->size_sectors() + world.device("b")->size_sectors(), 16U);
}

TEST(ControlSession, RefusesACutWriteWithACommentToo) {
  World world;
  world.control_ok("keep: 0 8 zero");
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  for (const std::string& text : {std::string(1048576, '#'), "#" + std::string(1048574, ' ') + "\n",
                                  std::string("begin\ncommit\n# half")}) {
    EXPECT_EQ(session.write(text, Rest::kRefused, {}).status.error(), EMSGSIZE);
  }
  EXPECT_TRUE(session.write("begin\ncommit\n# whole\n", Rest::kRefused, {}).status.ok());
}

TEST(ControlSession, SaysWhyATableInPiecesIsRefused) {
  World world;
  world.control_ok("disk: 0 2000 zero");
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  EXPECT_TRUE(session.write("disk: 0 1000 zero\n", Rest::kNone, {}).status.ok());
  for (const char* line : {"disk: 1000 500 zero\n", "disk: 1500 500 zero\n"}) {
    const Outcome outcome = session.write(line, Rest::kNone, {});
    EXPECT_EQ(outcome.status.error(), EINVAL);
    EXPECT_NE(outcome.status.message().find("bash's echo"), std::string::npos)
        << outcome.status.message();
  }
  const Outcome other = world.control("disk: 1000 1000 zero");
  EXPECT_EQ(other.status.message().find("bash"), std::string::npos) << other.status.message();
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
  const Status status = session.write("list", Rest::kNone, deaf).status;
  EXPECT_EQ(status.error(), EINVAL);
  EXPECT_TRUE(status.message().starts_with("list: a query needs")) << status.message();
}

TEST(ControlSession, StopsWhereItIsInterrupted) {
  World world;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  RunOptions options;
  options.interrupted = [] { return true; };
  EXPECT_EQ(session.write("a: 0 8 zero", Rest::kNone, options).status.error(), EINTR);
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

TEST(ControlSession, InACrowdRunsWhatDoesNotWaitOrEndsWaits) {
  World world;
  world.control_ok("disk: 0 16 zero\nload disk: 0 32 zero");
  RunOptions options;
  options.crowded = true;
  ControlSession session(world.executor, ControlSession::Kind::kControl, nullptr);
  for (const char* taken : {"resume disk", "list", "table", "load disk: 0 8 zero", "clear disk",
                            "disk: 0 24 zero", "wipe_table disk", "remove --force disk"}) {
    const Outcome outcome = session.write(taken, ControlSession::Rest::kNone, options);
    EXPECT_TRUE(outcome.status.ok()) << taken << ": " << outcome.status.message();
  }
  world.control_ok("disk: 0 16 zero");
  const std::string before = world.state();
  for (const char* refused :
       {"suspend disk", "message disk 0 hello", "status", "remove disk", "remove_all"}) {
    const Outcome outcome = session.write(refused, ControlSession::Rest::kNone, options);
    EXPECT_EQ(outcome.status.error(), EAGAIN) << refused;
    EXPECT_NE(outcome.reply.find("too many commands"), std::string::npos) << outcome.reply;
  }
  EXPECT_EQ(world.state(), before);
}

}  // namespace
}  // namespace mapperfs
