// How requests come from the kernel and answers go back. One is chosen when the file system is
// mounted; nothing above this seam knows which.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/status.h"

struct fuse_conn_info;
struct fuse_session;

namespace mapperfs {

enum class TransportKind : std::uint8_t { kAuto, kDev, kUring };

// "auto", "dev" or "uring"; EINVAL otherwise.
Result<TransportKind> parse_transport(const std::string& word);

class Transport {
 public:
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  // Options that the FUSE session must be made with, for requests of up to `max_write` bytes.
  [[nodiscard]] virtual std::vector<std::string> session_options(std::uint32_t max_write) = 0;
  // The kernel said what it can: before the connection is agreed upon.
  virtual void negotiate(fuse_conn_info& conn) = 0;
  // Serves until the file system is unmounted or the session is told to exit. 0 or an errno.
  virtual int serve(fuse_session& session) = 0;
  // After serve(), when every request has been answered: lets go of what answers needed.
  virtual void end(fuse_session& session) { static_cast<void>(session); }
  // What serves, as sys/version says it; settled once negotiate() has run. Any thread.
  [[nodiscard]] virtual std::string name() const = 0;

 protected:
  Transport() = default;
};

struct TransportChoice {
  std::unique_ptr<Transport> transport;
  // Why it is not the one that was asked for, or what to know about it; or empty.
  std::string note;
};

// kAuto is the safe one: /dev/fuse. Asking for one that cannot be had gives that and a note.
TransportChoice make_transport(TransportKind kind);

}  // namespace mapperfs
