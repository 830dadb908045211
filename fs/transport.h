// How requests come from the kernel and answers go back: the seam below the file system, which
// does not know which transport serves it.
//
// Requests are read from /dev/fuse (dev_readers.h) or come on rings of io_uring (rings.h). Reads,
// writes and fsyncs of device files go straight to the file system; all others go through libfuse,
// whose answers come back through reply() (message_router.h). Where rings serve, /dev/fuse still
// brings what does not travel on them (INIT, FORGET, INTERRUPT).
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "engine/status.h"

struct fuse_init_out;

namespace mapperfs {

class DevReaders;
class DescriptorPlace;
class MessageRouter;
class ReplyPlace;
class RequestHandler;
class Rings;

enum class TransportKind : std::uint8_t { kAuto, kDev, kUring };

// "auto", "dev" or "uring"; EINVAL otherwise.
Result<TransportKind> parse_transport(const std::string& word);

class Transport {
 public:
  struct Options {
    TransportKind kind = TransportKind::kAuto;
    unsigned ring_depth = 0;             // places on each ring; 0: by memory
    std::uint32_t max_write = 1U << 20;  // bytes: the largest request that will be agreed upon
  };
  // `log` takes sentences about the choice, at any time until the end.
  Transport(Options options, std::function<void(const std::string&)> log);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // Asynchronous requests that the kernel may have under way at once.
  [[nodiscard]] std::uint16_t max_background() const;
  // Serves the session behind the descriptor until the file system is unmounted or stop() is
  // called; `routed` says that libfuse's answers come to reply(), without which there are no rings
  // and no descriptors but this. 0 or an errno. `handler` outlives the transport.
  int serve(int fd, bool routed, RequestHandler& handler);
  // Makes serve() return. Any thread, not a signal handler. Waits until nothing is read any more.
  void stop();
  // After serve(), when all that serves requests has stopped: waits until every read, write and
  // fsync was answered.
  void end();
  // What libfuse writes, as writev(2). Any thread.
  ssize_t reply(std::span<const iovec> pieces);
  // What serves, as sys/version says it; settled once the first request has come. Any thread.
  [[nodiscard]] std::string name() const;

 private:
  void before_init(fuse_init_out& answer, std::uint64_t offered);
  void after_init();

  const Options options_;
  const std::function<void(const std::string&)> log_;
  bool want_rings_ = false;
  unsigned depth_ = 0;
  int fd_ = -1;
  std::mutex mutex_;
  bool stopping_ = false;  // mutex_
  // Set once by serve(), under mutex_; the parts know which threads may use them.
  std::unique_ptr<DescriptorPlace> notices_;  // what answers no request: the session's descriptor
  std::unique_ptr<MessageRouter> router_;
  std::unique_ptr<DevReaders> readers_;
  std::unique_ptr<Rings> rings_;
};

}  // namespace mapperfs
