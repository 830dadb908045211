// loop, ram: the targets that no kernel has.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "tests/targets/harness.h"

namespace mapperfs::test {

namespace {

TEST(LoopTarget, SeveralFilesMakeOneDevice) {
  Harness harness;
  fake::MemDev& a = harness.opener().add_mem("/data/a", 64);
  fake::MemDev& b = harness.opener().add_mem("/data/b", 64);
  ASSERT_TRUE(harness.set_table("d", "0 64 loop /data/a\n64 32 loop /data/b 8").ok());
  EXPECT_EQ(harness.table("d"), "0 64 loop /data/a 0\n64 32 loop /data/b 8");
  EXPECT_EQ(harness.status("d"), "0 64 loop \n64 32 loop ");
  const fake::Bytes data = fake::pattern(96, 1);
  EXPECT_EQ(harness.write("d", 0, data), BlkStatus::kOk);
  EXPECT_EQ(harness.read("d", 0, 96), data);
  EXPECT_EQ(a.peek(63, 1), fake::Bytes(data.begin() + 63 * 512, data.begin() + 64 * 512));
  EXPECT_EQ(b.peek(8, 1), fake::Bytes(data.begin() + 64 * 512, data.begin() + 65 * 512));
  EXPECT_EQ(b.peek(0, 8), filled(8, 0));
}

TEST(LoopTarget, AFileMustBeLargeEnough) {
  Harness harness;
  harness.opener().add_mem("/data/a", 63);
  const Status status = harness.try_table("0 64 loop /data/a");
  EXPECT_EQ(status.error(), EINVAL);
  EXPECT_NE(status.message().find("/data/a too small for target: start=0, len=64, dev_size=63"),
            std::string::npos)
      << status.message();
}

TEST(LoopTarget, PathsWithBlanksComeBackEscaped) {
  Harness harness;
  harness.opener().add_mem("/data/my file", 64);
  ASSERT_TRUE(harness.set_table("d", "0 64 loop /data/my\\ file").ok());
  EXPECT_EQ(harness.table("d"), "0 64 loop /data/my\\ file 0");
}

TEST(LoopTarget, DiscardsPunchTheFile) {
  Harness harness;
  fake::MemDev& file = harness.opener().add_mem("/data/a", 64);
  ASSERT_TRUE(harness.set_table("d", "0 48 loop /data/a 16").ok());
  EXPECT_EQ(harness.write("d", 0, fake::pattern(48, 1)), BlkStatus::kOk);
  static_cast<void>(file.take_seen());
  EXPECT_EQ(harness.run_op("d", Op::kDiscard, 8, 16), BlkStatus::kOk);
  EXPECT_EQ(file.take_seen(), (std::vector<fake::SeenBio>{{Op::kDiscard, 24, 16, 0}}));
  EXPECT_TRUE(harness.device("d").extent(8, 16).hole);
}

TEST(LoopTarget, WordsThatAreWrongAreNamed) {
  Harness harness;
  harness.opener().add_mem("/data/a", 64);
  EXPECT_NE(harness.try_table("0 8 loop").message().find("Invalid argument count"),
            std::string::npos);
  EXPECT_NE(harness.try_table("0 8 loop /data/a 1 2").message().find("Invalid argument count"),
            std::string::npos);
  EXPECT_NE(harness.try_table("0 8 loop /data/a 8k").message().find("Invalid file offset: \"8k\""),
            std::string::npos);
  EXPECT_EQ(harness.try_table("0 8 loop /data/nosuch").error(), ENOENT);
}

TEST(RamTarget, KeepsDataUntilTheTableGoes) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("d", "0 8388608 ram").ok());
  EXPECT_EQ(harness.table("d"), "0 8388608 ram ");
  const fake::Bytes data = fake::pattern(24, 1);
  EXPECT_EQ(harness.write("d", 8388600 - 16, data), BlkStatus::kOk);
  EXPECT_EQ(harness.read("d", 8388600 - 16, 24), data);
  EXPECT_EQ(harness.read("d", 0, 8), filled(8, 0));
  ASSERT_TRUE(harness.set_table("d", "0 8388608 ram").ok());
  EXPECT_EQ(harness.read("d", 8388600 - 16, 24), filled(24, 0));
}

TEST(RamTarget, GivesMemoryBackOnDiscardAndShowsHoles) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("d", "0 1024 ram").ok());
  EXPECT_TRUE(harness.device("d").extent(0, 1024).hole);
  EXPECT_EQ(harness.write("d", 0, filled(64, 5)), BlkStatus::kOk);
  EXPECT_FALSE(harness.device("d").extent(16, 8).hole);
  EXPECT_EQ(harness.run_op("d", Op::kDiscard, 16, 32), BlkStatus::kOk);
  EXPECT_TRUE(harness.device("d").extent(16, 32).hole);
  EXPECT_EQ(harness.read("d", 16, 32), filled(32, 0));
  EXPECT_EQ(harness.read("d", 48, 16), filled(16, 5));
  EXPECT_EQ(harness.device("d").limits().discard_granularity, 4096U);
}

TEST(RamTarget, IsAloneInItsTable) {
  Harness harness;
  for (const char* table : {"0 8 ram\n8 8 zero", "0 8 zero\n8 8 ram", "0 8 ram\n8 8 ram"}) {
    const Status status = harness.try_table(table);
    EXPECT_EQ(status.error(), EINVAL) << table;
    EXPECT_NE(status.message().find("must appear alone in table"), std::string::npos) << table;
  }
}

// Past the engine: what FUSE passthrough needs. ---------------------------------------------------

TEST(RamTarget, SharesItsMemoryAsAFile) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("d", "0 64 ram").ok());
  EXPECT_EQ(harness.write("d", 0, filled(8, 1)), BlkStatus::kOk);
  const Result<int> file = harness.device("d").begin_bypass();
  ASSERT_TRUE(file.ok()) << file.status().message();
  fake::Bytes bytes = filled(8, 2);
  ASSERT_EQ(::pread(*file, bytes.data(), bytes.size(), 0), 4096);
  EXPECT_EQ(bytes, filled(8, 1));
  bytes = filled(8, 3);
  ASSERT_EQ(::pwrite(*file, bytes.data(), bytes.size(), 4096), 4096);
  EXPECT_EQ(harness.read("d", 8, 8), filled(8, 3));
  // Nobody makes the disk larger.
  EXPECT_EQ(::pwrite(*file, bytes.data(), bytes.size(), 64 * 512), -1);
  EXPECT_EQ(errno, EPERM);
  harness.device("d").end_bypass();
}

TEST(LoopTarget, HasNoWholeFileButWhereItMapsOneWhole) {
  Harness harness;
  harness.opener().add_mem("/data/a", 64);
  const auto why = [&](const char* table) {
    EXPECT_TRUE(harness.set_table("d", table).ok()) << table;
    const Result<int> file = harness.device("d").begin_bypass();
    EXPECT_FALSE(file.ok()) << table;
    return file.status().message();
  };
  EXPECT_EQ(why("0 32 loop /data/a 0\n32 32 loop /data/a 32"), "the table has 2 targets, not one");
  EXPECT_EQ(why("0 56 loop /data/a 8"),
            "sectors 8 to 64 are not the whole of /data/a, which has 64");
  EXPECT_EQ(why("0 56 linear /data/a 0"),
            "sectors 0 to 56 are not the whole of /data/a, which has 64");
  EXPECT_EQ(why("0 64 loop /data/a 0"), "/data/a is no file");
  EXPECT_EQ(why("0 64 zero"), "zero does not map one whole file");
}

TEST(MappedDevice, KeepsItsTableWhileTheEngineIsBypassed) {
  Harness harness;
  MappedDevice& device = harness.device("d");
  EXPECT_EQ(device.begin_bypass().status().message(), "the device has no table");
  ASSERT_TRUE(harness.set_table("d", "0 64 ram").ok());
  ASSERT_TRUE(device.begin_bypass().ok());
  ASSERT_TRUE(device.begin_bypass().ok());
  device.end_bypass();
  EXPECT_TRUE(device.bypassed());
  EXPECT_EQ(device.suspend({}).error(), EBUSY);
  EXPECT_EQ(device.wipe_table({}).error(), EBUSY);
  EXPECT_FALSE(device.info().inactive);
  EXPECT_TRUE(device.resume({}).ok());  // nothing to do
  ASSERT_TRUE(device.load(parse_lines("0 64 zero"), DeviceMode::kReadWrite).ok());
  EXPECT_EQ(device.resume({}).error(), EBUSY);
  EXPECT_EQ(harness.table("d"), "0 64 ram ");
  EXPECT_FALSE(device.info().suspended);
  device.end_bypass();
  EXPECT_TRUE(device.resume({}).ok());
  EXPECT_EQ(harness.table("d"), "0 64 zero ");
}

TEST(MappedDevice, IsNotBypassedWhileSuspendedOrReadOnly) {
  Harness harness;
  ASSERT_TRUE(harness.set_table("d", "0 64 ram").ok());
  MappedDevice& device = harness.device("d");
  ASSERT_TRUE(device.suspend({}).ok());
  EXPECT_EQ(device.begin_bypass().status().message(), "the device was suspended");
  ASSERT_TRUE(device.resume({}).ok());
  EXPECT_TRUE(device.begin_bypass().ok());
  device.end_bypass();
  ASSERT_TRUE(harness.set_table("d", "0 64 ram", DeviceMode::kReadOnly).ok());
  EXPECT_EQ(device.begin_bypass().status().message(),
            "the table is read-only, which the kernel would not know");
}

}  // namespace

}  // namespace mapperfs::test
