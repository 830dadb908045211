#include "fs/request_handler.h"

#include <fcntl.h>

#include "tests/fs/fuse_messages.h"

namespace mapperfs {
namespace {

using fuse_test::Message;

bool decode(const Message& message, IoCall& call, std::size_t data_bytes = 0) {
  fuse_in_header header{};
  std::memcpy(&header, message.data(), sizeof(header));
  return decode_io(header, std::span(message).subspan(sizeof(header)), data_bytes, call);
}

TEST(DecodeIo, KnowsReadsWritesAndFsyncsOfDevices) {
  IoCall call;
  ASSERT_TRUE(decode(fuse_test::read_message(2, 4096, 512), call));
  EXPECT_EQ(call.kind, IoCall::Kind::kRead);
  EXPECT_EQ(call.offset, 4096U);
  EXPECT_EQ(call.bytes, 512U);
  EXPECT_EQ(call.handle, 11U);
  ASSERT_TRUE(decode(fuse_test::write_message(4, 512, "data"), call, 4));
  EXPECT_EQ(call.kind, IoCall::Kind::kWrite);
  EXPECT_EQ(call.bytes, 4U);
  EXPECT_FALSE(call.stable);
  fuse_fsync_in sync{};
  sync.fh = 12;
  ASSERT_TRUE(decode(fuse_test::make_message(FUSE_FSYNC, 6, fuse_test::kDeviceNode, sync), call));
  EXPECT_EQ(call.kind, IoCall::Kind::kSync);
  EXPECT_EQ(call.handle, 12U);
}

TEST(DecodeIo, SeesThatAWriteMustBeStable) {
  for (const int flag : {O_SYNC, O_DSYNC}) {
    fuse_write_in in{};
    in.flags = static_cast<std::uint32_t>(flag);
    IoCall call;
    ASSERT_TRUE(decode(fuse_test::make_message(FUSE_WRITE, 2, fuse_test::kDeviceNode, in), call));
    EXPECT_TRUE(call.stable);
  }
}

TEST(DecodeIo, LeavesAllElseToLibfuse) {
  IoCall call;
  fuse_read_in read{};
  EXPECT_FALSE(decode(fuse_test::make_message(FUSE_READ, 2, fuse_test::kControlNode, read), call));
  EXPECT_FALSE(
      decode(fuse_test::make_message(FUSE_GETATTR, 2, fuse_test::kDeviceNode, read), call));
}

TEST(DecodeIo, RefusesWhatIsCutShort) {
  IoCall call;
  Message message = fuse_test::read_message(2, 0, 512);
  message.resize(message.size() - 1);
  EXPECT_FALSE(decode(message, call));
  EXPECT_FALSE(decode(fuse_test::write_message(4, 0, "data"), call, 3)) << "a byte is missing";
}

}  // namespace
}  // namespace mapperfs
