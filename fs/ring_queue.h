// Submissions of a ring, of which there is always room for one more.
//
// A request may become very many bios, more than the ring has entries. Then what is there goes to
// the kernel at once; and where that takes nothing (it is short of memory, or wants completions
// taken first), submissions wait here until the ring's thread comes round again.
#pragma once

#include <array>
#include <cstddef>
#include <deque>

struct io_uring;
struct io_uring_sqe;

namespace mapperfs {

// The ring's thread, all of it. Made for rings with entries of 128 bytes.
class RingQueue {
 public:
  explicit RingQueue(::io_uring& ring) : ring_(ring) {}
  RingQueue(const RingQueue&) = delete;
  RingQueue& operator=(const RingQueue&) = delete;

  // One to fill, zeroed, before the next call.
  ::io_uring_sqe& next() noexcept;
  // To be called before the ring's own submission: what waits here takes the room that there is.
  void flush() noexcept;
  // How many wait here.
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }

 private:
  static constexpr std::size_t kSqeBytes = 128;
  struct alignas(64) Waiting {
    std::array<std::byte, kSqeBytes> bytes;
  };

  ::io_uring& ring_;
  std::deque<Waiting> waiting_;
};

}  // namespace mapperfs
