#include "fs/message_router.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "fs/fuse_abi.h"
#include "fs/inode.h"

namespace mapperfs {
namespace {

bool wants_answer(std::uint32_t opcode) {
  return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_NOTIFY_REPLY;
}

template <typename T>
T read_as(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

ssize_t total_of(std::span<const iovec> pieces) {
  std::size_t bytes = 0;
  for (const iovec& piece : pieces) {
    bytes += piece.iov_len;
  }
  return static_cast<ssize_t>(bytes);
}

// libfuse 3.14.0 has no word for the flag that lets writes of one file go side by side.
ssize_t reply_open(ReplyPlace& place, std::span<const iovec> pieces) {
  if (pieces.size() != 2 || pieces[1].iov_len != sizeof(fuse_open_out)) {
    return place.reply(pieces);  // an error
  }
  auto open = read_as<fuse_open_out>(pieces[1].iov_base);
  if ((open.open_flags & fuse_abi::kOpenDirectIo) != 0) {
    open.open_flags |= fuse_abi::kOpenParallelDirectWrites;
  }
  const std::array<iovec, 2> changed = {pieces[0], {&open, sizeof(open)}};
  return place.reply(changed);
}

}  // namespace

void MessageRouter::set_up(ReplyPlace& notices, BeforeInit before, std::function<void()> after) {
  notices_ = &notices;
  before_init_ = std::move(before);
  after_init_ = std::move(after);
}

MessageRouter::Route MessageRouter::route_for(const fuse_in_header& header,
                                              std::span<std::byte> message) {
  Route route;
  if (header.opcode == FUSE_INIT && message.size() >= sizeof(header) + sizeof(fuse_init_in)) {
    const auto init = read_as<fuse_init_in>(message.data() + sizeof(header));
    offered_ = init.flags;
    if ((offered_ & fuse_abi::kInitExt) != 0) {
      offered_ |= static_cast<std::uint64_t>(init.flags2) << 32;
    }
    route.patch = Patch::kInit;
  } else if (header.opcode == FUSE_OPEN && Inode::of(header.nodeid).kind == FileKind::kDevice) {
    route.patch = Patch::kDeviceOpen;
  }
  return route;
}

bool MessageRouter::hand_on(std::span<std::byte> message, ReplyPlace& place) {
  const auto header = read_as<fuse_in_header>(message.data());
  if (header.opcode == FUSE_INTERRUPT) {
    return hand_on_interrupt(message);
  }
  if (!wants_answer(header.opcode)) {
    return handler_.serve_message(message);
  }
  Route route = route_for(header, message);
  route.place = &place;
  {
    const std::lock_guard lock(mutex_);
    route.interrupted = take_early(header.unique);
    routes_[header.unique] = route;
  }
  // From here on the answer may have been given, by any thread: message and place may be another
  // request's when this returns.
  const bool goes_on = handler_.serve_message(message);
  bool interrupted = false;
  {
    const std::lock_guard lock(mutex_);
    if (const auto at = routes_.find(header.unique); at != routes_.end()) {
      at->second.known = true;
      interrupted = at->second.interrupted;
    }
  }
  return goes_on && (!interrupted || interrupt(header.unique));
}

bool MessageRouter::hand_on_interrupt(std::span<std::byte> message) {
  if (message.size() < sizeof(fuse_in_header) + sizeof(fuse_interrupt_in)) {
    return true;  // not from the kernel
  }
  const std::uint64_t unique =
      read_as<fuse_interrupt_in>(message.data() + sizeof(fuse_in_header)).unique;
  {
    const std::lock_guard lock(mutex_);
    const auto at = routes_.find(unique);
    if (at == routes_.end()) {
      early_[next_early_] = unique;
      next_early_ = (next_early_ + 1) % kEarly;
      return true;
    }
    if (!at->second.known) {
      at->second.interrupted = true;  // for the thread that hands it on
      return true;
    }
  }
  return handler_.serve_message(message);
}

// Hands on an INTERRUPT as the kernel makes them.
bool MessageRouter::interrupt(std::uint64_t unique) {
  struct {
    fuse_in_header header;
    fuse_interrupt_in argument;
  } message{};
  message.header.len = sizeof(message);
  message.header.opcode = FUSE_INTERRUPT;
  message.header.unique = unique | fuse_abi::kInterruptBit;
  message.argument.unique = unique;
  return handler_.serve_message(std::as_writable_bytes(std::span(&message, 1)));
}

bool MessageRouter::take_early(std::uint64_t unique) {
  const auto at = std::find(early_.begin(), early_.end(), unique);
  if (at == early_.end()) {
    return false;
  }
  *at = 0;
  return true;
}

MessageRouter::Route MessageRouter::take(std::uint64_t unique) {
  const std::lock_guard lock(mutex_);
  const auto at = routes_.find(unique);
  if (at == routes_.end()) {
    return {};
  }
  const Route route = at->second;
  routes_.erase(at);
  return route;
}

ssize_t MessageRouter::reply(std::span<const iovec> pieces) {
  const std::uint64_t unique = read_as<fuse_out_header>(pieces[0].iov_base).unique;
  if (unique == 0) {
    return notices_->reply(pieces);
  }
  if ((unique & fuse_abi::kInterruptBit) != 0) {
    // EAGAIN: the request was answered while its INTERRUPT was handed on.
    return total_of(pieces);
  }
  const Route route = take(unique);
  if (route.place == nullptr) {
    return total_of(pieces);  // answered before
  }
  switch (route.patch) {
    case Patch::kInit:
      return reply_init(route, pieces);
    case Patch::kDeviceOpen:
      return reply_open(*route.place, pieces);
    case Patch::kNone:
      break;
  }
  return route.place->reply(pieces);
}

ssize_t MessageRouter::reply_init(const Route& route, std::span<const iovec> pieces) {
  if (pieces.size() != 2 || pieces[1].iov_len != sizeof(fuse_init_out)) {
    return route.place->reply(pieces);  // an error, or a kernel of long ago
  }
  auto init = read_as<fuse_init_out>(pieces[1].iov_base);
  before_init_(init, offered_);
  const std::array<iovec, 2> changed = {pieces[0], {&init, sizeof(init)}};
  const ssize_t sent = route.place->reply(changed);
  if (sent >= 0) {
    after_init_();
  }
  return sent;
}

}  // namespace mapperfs
