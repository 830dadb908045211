// What a transport hands requests to, and the form in which it does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

struct fuse_in_header;

namespace mapperfs {

class IoRequest;

// A read, write or fsync of a device file.
struct IoCall {
  enum class Kind : std::uint8_t { kRead, kWrite, kSync };
  Kind kind = Kind::kRead;
  bool stable = false;       // a write of a file that is open with O_SYNC or O_DSYNC
  std::uint32_t bytes = 0;   // of a read: at most IoRequest::kMaxBytes are given
  std::uint64_t handle = 0;  // as the open was answered
  std::uint64_t offset = 0;  // bytes
};

// True where the request is one: `call` tells what it asks. `argument` is what comes behind the
// header, at least as far as the operation's own structure. `data_bytes` is how much data came; a
// write that claims more is none.
bool decode_io(const fuse_in_header& header, std::span<const std::byte> argument,
               std::size_t data_bytes, IoCall& call) noexcept;

// Threads of the transport call these; they must not wait.
class RequestHandler {
 public:
  virtual void serve_io(IoRequest& io, const IoCall& call) noexcept = 0;
  // Any other request, in one piece, as read(2) of /dev/fuse gives it; the memory is the
  // transport's again when this returns, and may be changed. False: the session is over.
  virtual bool serve_message(std::span<std::byte> message) = 0;

 protected:
  RequestHandler() = default;
  ~RequestHandler() = default;
};

}  // namespace mapperfs
