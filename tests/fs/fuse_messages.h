// Requests as the kernel sends them, and its end of a connection, for tests of the transports.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "engine/unique_fd.h"
#include "fs/fuse_abi.h"
#include "fs/inode.h"

namespace mapperfs::fuse_test {

using Message = std::vector<std::byte>;

inline constexpr std::uint64_t kDeviceNode = Inode{7, FileKind::kDevice}.number();
inline constexpr std::uint64_t kControlNode = Inode{0, FileKind::kControl}.number();

template <typename Argument>
Message make_message(std::uint32_t opcode, std::uint64_t unique, std::uint64_t node,
                     const Argument& argument, const std::string& data = "") {
  fuse_in_header header{};
  header.len = static_cast<std::uint32_t>(sizeof(header) + sizeof(argument) + data.size());
  header.opcode = opcode;
  header.unique = unique;
  header.nodeid = node;
  Message message(header.len);
  std::memcpy(message.data(), &header, sizeof(header));
  std::memcpy(message.data() + sizeof(header), &argument, sizeof(argument));
  std::memcpy(message.data() + sizeof(header) + sizeof(argument), data.data(), data.size());
  return message;
}

// `caller`: the thread whose request it is.
inline Message read_message(std::uint64_t unique, std::uint64_t offset, std::uint32_t size,
                            std::uint32_t caller = 0) {
  fuse_read_in in{};
  in.fh = 11;
  in.offset = offset;
  in.size = size;
  Message message = make_message(FUSE_READ, unique, kDeviceNode, in);
  std::memcpy(message.data() + offsetof(fuse_in_header, pid), &caller, sizeof(caller));
  return message;
}

inline Message write_message(std::uint64_t unique, std::uint64_t offset, const std::string& data) {
  fuse_write_in in{};
  in.fh = 11;
  in.offset = offset;
  in.size = static_cast<std::uint32_t>(data.size());
  return make_message(FUSE_WRITE, unique, kDeviceNode, in, data);
}

struct Answer {
  fuse_out_header header{};
  std::string body;
};

// A connection: what /dev/fuse is to the daemon is here one end of a pair of sockets.
class FakeKernel {
 public:
  FakeKernel() {
    int pair[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    kernel_ = UniqueFd(pair[0]);
    daemon_ = UniqueFd(pair[1]);
  }
  [[nodiscard]] int daemon_fd() const { return daemon_.get(); }
  void send(const Message& message) const {
    EXPECT_EQ(::write(kernel_.get(), message.data(), message.size()),
              static_cast<ssize_t>(message.size()));
  }
  // The next answer; a failure after ten seconds.
  [[nodiscard]] Answer receive() const {
    Answer answer;
    pollfd ready{kernel_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, 10'000), 1) << "no answer";
    std::string bytes(1 << 16, '\0');
    const ssize_t n = ready.revents == 0 ? 0 : ::read(kernel_.get(), bytes.data(), bytes.size());
    EXPECT_GE(n, static_cast<ssize_t>(sizeof(answer.header)));
    if (n >= static_cast<ssize_t>(sizeof(answer.header))) {
      std::memcpy(&answer.header, bytes.data(), sizeof(answer.header));
      answer.body =
          bytes.substr(sizeof(answer.header), static_cast<std::size_t>(n) - sizeof(answer.header));
      EXPECT_EQ(answer.header.len, static_cast<std::uint32_t>(n));
    }
    return answer;
  }
  [[nodiscard]] bool silent() const {
    pollfd ready{kernel_.get(), POLLIN, 0};
    return ::poll(&ready, 1, 0) == 0;
  }
  void unmount() { kernel_ = UniqueFd(); }

 private:
  UniqueFd kernel_;
  UniqueFd daemon_;
};

}  // namespace mapperfs::fuse_test
