// File and disk I/O on a ring that serves FUSE requests: what the ring's thread submits to files
// goes to the kernel in the same system call as its answers, and completes in the same queue.
//
// Where a transfer would wait inside the kernel (a file system has to allocate, the disk's queue is
// full), io_uring moves it to a thread of its own: the ring goes on. libaio would stall it.
//
// The way of a bio is that of AioContext: a slot for each of kDepth, a list for those that find
// none, refusals to AioDevice::aio_refused().
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/aio_context.h"
#include "engine/bio.h"

struct io_uring_sqe;

namespace mapperfs {

// Where submissions go.
class SqeSource {
 public:
  SqeSource(const SqeSource&) = delete;
  SqeSource& operator=(const SqeSource&) = delete;
  // A submission to fill, zeroed; it goes out with the next system call of the ring.
  virtual ::io_uring_sqe& next_sqe() noexcept = 0;

 protected:
  SqeSource() = default;
  ~SqeSource() = default;
};

// The ring's thread, all of it.
class RingAio final : public BioCarrier {
 public:
  static constexpr unsigned kDepth = 256;
  // In the low bits of the user data of its submissions, whose rest is an address.
  static constexpr std::uint64_t kTag = 2;
  static constexpr std::uint64_t kTagMask = 7;

  explicit RingAio(SqeSource& source);

  void carry(Bio& bio) noexcept override;
  // A submission with kTag is done: bytes or -errno.
  void completed(std::uint64_t user_data, int result) noexcept;
  // Bios inside.
  [[nodiscard]] std::size_t in_flight() const { return in_flight_; }

 private:
  struct alignas(kTagMask + 1) Slot {
    Bio* bio = nullptr;
    std::size_t done_bytes = 0;
  };

  void start(Slot& slot, Bio& bio) noexcept;
  void send(Slot& slot) noexcept;

  SqeSource& source_;
  std::array<Slot, kDepth> slots_;
  std::vector<Slot*> free_;
  // Invariant: empty while free_ is not.
  BioList waiting_;
  std::size_t in_flight_ = 0;
};

}  // namespace mapperfs
