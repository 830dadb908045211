#include "fs/ring_queue.h"

#include <liburing.h>

#include <cstring>

namespace mapperfs {

static_assert(sizeof(::io_uring_sqe) == 64);

::io_uring_sqe& RingQueue::next() noexcept {
  ::io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
  if (sqe == nullptr) [[unlikely]] {
    // Does not wait. An error is the next submission's as well, which looks at it.
    static_cast<void>(::io_uring_submit(&ring_));
    flush();
    sqe = ::io_uring_get_sqe(&ring_);
  }
  if (sqe == nullptr) [[unlikely]] {
    return *reinterpret_cast<::io_uring_sqe*>(waiting_.emplace_back().bytes.data());
  }
  std::memset(sqe, 0, kSqeBytes);
  return *sqe;
}

void RingQueue::flush() noexcept {
  while (!waiting_.empty()) {
    ::io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      return;
    }
    std::memcpy(sqe, waiting_.front().bytes.data(), kSqeBytes);
    waiting_.pop_front();
  }
}

}  // namespace mapperfs
