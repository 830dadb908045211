#include "fs/transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "fs/dev_readers.h"
#include "fs/fuse_abi.h"
#include "fs/message_router.h"
#include "fs/rings.h"

namespace mapperfs {
namespace {

// The kernel's default of 12 would be our queue depth.
constexpr std::uint16_t kDevBackground = 512;
constexpr unsigned kMaxHelpers = 8;

}  // namespace

Result<TransportKind> parse_transport(const std::string& word) {
  if (word == "auto") {
    return TransportKind::kAuto;
  }
  if (word == "dev") {
    return TransportKind::kDev;
  }
  if (word == "uring") {
    return TransportKind::kUring;
  }
  return Status(EINVAL, "transport \"" + word + "\" is none of auto, dev, uring");
}

Transport::Transport(Options options, std::function<void(const std::string&)> log)
    : options_(options), log_(std::move(log)) {
  if (options_.kind == TransportKind::kDev) {
    return;
  }
  const std::string why = Rings::why_not();
  want_rings_ = why.empty();
  if (!want_rings_ && options_.kind == TransportKind::kUring) {
    log_(fmt::format("transport: {}; /dev/fuse instead", why));
  }
  depth_ = options_.ring_depth != 0
               ? std::clamp(options_.ring_depth, Rings::kMinDepth, Rings::kMaxDepth)
               : Rings::default_depth(options_.max_write, std::thread::hardware_concurrency());
}

Transport::~Transport() { end(); }

// A request holds its place on a ring until it is answered, and the kernel has no other way for the
// next. I/O that a suspended device holds must not take them all: the `resume` needs one. So
// asynchronous I/O (fio and loop devices at any depth) gets half the places of one ring. What is
// left holds as many threads that wait for synchronous I/O; docs/design.md names the limit.
std::uint16_t Transport::max_background() const {
  return want_rings_ ? static_cast<std::uint16_t>(depth_ / 2) : kDevBackground;
}

int Transport::serve(int fd, bool routed, RequestHandler& handler) {
  fd_ = fd;
  if (!routed && want_rings_) {
    want_rings_ = false;
    log_(
        "transport: libfuse was built without custom io, which FUSE over io_uring needs; "
        "/dev/fuse instead");
  }
  std::unique_lock lock(mutex_);
  notices_ = std::make_unique<DescriptorPlace>(fd);
  router_ = std::make_unique<MessageRouter>(handler);
  router_->set_up(
      *notices_,
      [this](fuse_init_out& answer, std::uint64_t offered) { before_init(answer, offered); },
      [this] { after_init(); });
  rings_ = std::make_unique<Rings>(handler, *router_);
  readers_ = std::make_unique<DevReaders>(handler, *router_);
  DevReaders::Options readers;
  readers.fd = fd;
  readers.routed = routed;
  readers.helpers = std::min(std::max(1U, std::thread::hardware_concurrency()), kMaxHelpers);
  if (stopping_) {
    readers_->stop();
  }
  lock.unlock();
  const int error = readers_->serve(readers);
  rings_->close();
  return error;
}

// libfuse knows neither of these with all its versions that we build with; the kernel said that it
// does. Never where it did not: it would not look at the upper half of the flags.
void Transport::before_init(fuse_init_out& answer, std::uint64_t offered) {
  if ((offered & fuse_abi::kInitExt) == 0) {
    return;
  }
  std::uint64_t flags = answer.flags | static_cast<std::uint64_t>(answer.flags2) << 32;
  flags |= fuse_abi::kInitExt | (offered & fuse_abi::kDirectIoAllowMmap);
  const std::uint32_t largest = std::max<std::uint32_t>(
      {answer.max_write, answer.max_pages * fuse_abi::kPageBytes, 2 * fuse_abi::kPageBytes});
  if (want_rings_ && (offered & fuse_abi::kOverIoUring) != 0 && largest <= IoRequest::kMaxBytes) {
    const std::string why = rings_->make(fd_, depth_, largest);
    if (why.empty()) {
      flags |= fuse_abi::kOverIoUring;
      readers_->alone();
    } else {
      log_(fmt::format("transport: {}; /dev/fuse instead", why));
    }
  }
  answer.flags = static_cast<std::uint32_t>(flags);
  answer.flags2 = static_cast<std::uint32_t>(flags >> 32);
}

void Transport::after_init() { rings_->go(); }

void Transport::stop() {
  DevReaders* readers = nullptr;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    readers = readers_.get();
  }
  if (readers != nullptr) {
    readers->stop();
  }
}

void Transport::end() {
  if (readers_ != nullptr) {
    readers_->end();
    rings_->end();
  }
}

ssize_t Transport::reply(std::span<const iovec> pieces) { return router_->reply(pieces); }

std::string Transport::name() const {
  return rings_ != nullptr && rings_->serve() ? "io_uring" : "/dev/fuse";
}

}  // namespace mapperfs
