// Requests that libfuse answers: on the way in they are handed over in one piece, and what libfuse
// writes is brought back to where the request came from, a descriptor or a place on a ring.
//
// libfuse knows one descriptor. fuse_session_custom_io() gives its answers to us instead; an answer
// is known by the number of its request, which the kernel never uses twice. The numbers stay the
// kernel's own, so an INTERRUPT, which always comes by descriptor, finds the request that it means.
//
// libfuse is given an INTERRUPT only once it knows the request. Otherwise it would answer EAGAIN
// for the kernel to send it again, which only goes by the descriptor that the request came from: an
// interrupt that overtakes its request on the way through two threads, or that is for a request of
// a ring, would be lost. It waits here instead.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <unordered_map>

#include "fs/request_handler.h"

struct fuse_in_header;
struct fuse_init_out;

namespace mapperfs {

// Where the answer to one request goes.
class ReplyPlace {
 public:
  // As writev(2), errno included: the header of the answer and what follows it. Any thread.
  virtual ssize_t reply(std::span<const iovec> pieces) noexcept = 0;

 protected:
  ReplyPlace() = default;
  ~ReplyPlace() = default;
};

// A descriptor of /dev/fuse, borrowed: the session's, or the one that the request came from.
class DescriptorPlace final : public ReplyPlace {
 public:
  explicit DescriptorPlace(int fd = -1) : fd_(fd) {}
  void set(int fd) { fd_ = fd; }
  ssize_t reply(std::span<const iovec> pieces) noexcept override {
    return ::writev(fd_, pieces.data(), static_cast<int>(pieces.size()));
  }

 private:
  int fd_;
};

// Threads: any, but for the set-up.
class MessageRouter {
 public:
  explicit MessageRouter(RequestHandler& handler) : handler_(handler) {}
  MessageRouter(const MessageRouter&) = delete;
  MessageRouter& operator=(const MessageRouter&) = delete;

  // Before the first message. `notices`: takes what answers no request (wake-ups of pollers,
  // forgotten pages). `before` may change libfuse's answer to INIT, given the kernel's flags;
  // `after` is called when the kernel has it. Outlive this.
  using BeforeInit = std::function<void(fuse_init_out& answer, std::uint64_t offered)>;
  void set_up(ReplyPlace& notices, BeforeInit before, std::function<void()> after);

  // Hands a request on; its answer goes to `place`. As RequestHandler::serve_message().
  bool hand_on(std::span<std::byte> message, ReplyPlace& place);
  // What libfuse writes.
  ssize_t reply(std::span<const iovec> pieces);

 private:
  enum class Patch : std::uint8_t { kNone, kInit, kDeviceOpen };
  struct Route {
    ReplyPlace* place = nullptr;
    Patch patch = Patch::kNone;
    bool known = false;        // libfuse has it in its list
    bool interrupted = false;  // before that
  };
  // Interrupts kept for requests that are still on their way, the newest: those of reads and
  // writes, which libfuse never sees, and of answered requests lie among them for ever. So many
  // would have to come between an interrupt and its request, which another thread has already read.
  static constexpr std::size_t kEarly = 64;

  Route take(std::uint64_t unique);
  [[nodiscard]] Route route_for(const fuse_in_header& header, std::span<std::byte> message);
  bool hand_on_interrupt(std::span<std::byte> message);
  bool interrupt(std::uint64_t unique);
  bool take_early(std::uint64_t unique);
  ssize_t reply_init(const Route& route, std::span<const iovec> pieces);

  RequestHandler& handler_;
  ReplyPlace* notices_ = nullptr;
  BeforeInit before_init_;
  std::function<void()> after_init_;
  std::uint64_t offered_ = 0;  // by INIT: one thread
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, Route> routes_;  // by unique; mutex_
  std::array<std::uint64_t, kEarly> early_{};        // by unique, 0: none; mutex_
  std::size_t next_early_ = 0;                       // the oldest of them; mutex_
};

}  // namespace mapperfs
