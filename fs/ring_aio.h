// File and disk I/O on a ring that serves FUSE requests: what the ring's thread submits to files
// goes to the kernel in the same system call as its answers, and completes in the same queue.
//
// Where a transfer would wait inside the kernel, io_uring moves it to a thread of its own. Of these
// it has few, and a slow disk would soon have them all, while the flushes of all other devices need
// one each. So data goes with RWF_NOWAIT, and who is told EAGAIN is kept until a transfer of its
// device is over (engine/kept_bios.h). Only for files that do not know the flag the kernel's
// threads are used.
//
// The way of a bio is that of AioContext: a slot for each of kDepth, a list for those that find
// none (a device that others keep from any is refused), refusals to AioDevice::aio_refused().
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
    AioDevice* device = nullptr;  // null: the slot is free
    bool nowait = false;
    unsigned refusals = 0;  // EAGAINs that the bio has had so far
  };

  void start(Bio& bio, unsigned refusals) noexcept;
  void send(Slot& slot) noexcept;
  [[nodiscard]] std::size_t slots_of(const AioDevice& device) const noexcept;
  bool keep(Slot& slot) noexcept;
  void vacate(Slot& slot) noexcept;
  void bring_on(const AioDevice& device) noexcept;

  SqeSource& source_;
  std::array<Slot, kDepth> slots_;
  std::vector<Slot*> free_;
  // Invariant: empty while free_ is not.
  BioList waiting_;
  // Invariant: while a bio of a device is kept, a slot holds another of it, or it waits in
  // waiting_.
  KeptBios kept_;
  std::size_t in_flight_ = 0;
};

}  // namespace mapperfs
