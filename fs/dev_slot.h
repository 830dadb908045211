// A receive buffer of /dev/fuse and the read, write or fsync that came in it.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "fs/hand_back.h"
#include "fs/io_request.h"

namespace mapperfs {

class DevSlots;

class DevSlot final : public IoRequest {
 public:
  // Room in front of data() for what comes before the data of a write.
  static constexpr std::size_t kHeadBytes = 80;
  static constexpr std::size_t kMessageBytes = kHeadBytes + kRoomBytes;

  explicit DevSlot(DevSlots& home);
  ~DevSlot();

  [[nodiscard]] bool usable() const { return memory_ != nullptr; }
  // Where a message is read to: kMessageBytes.
  [[nodiscard]] std::byte* message() const { return data() - kHeadBytes; }
  // The request is number `unique` and answered on `fd`; it touches `bytes` bytes of data.
  void accept(int fd, std::uint64_t unique, std::size_t bytes);
  [[nodiscard]] std::size_t touched() const { return touched_; }
  // Gives the memory behind the first `keep` bytes of data back.
  void trim(std::size_t keep);

  DevSlot* next_handed = nullptr;  // of HandBack, and of the owner's free list

 private:
  void send(int error, std::size_t bytes) noexcept override;

  DevSlots& home_;
  std::byte* memory_ = nullptr;
  int fd_ = -1;
  std::uint64_t unique_ = 0;
  std::size_t touched_ = 0;
};

// The slots of one thread. All but give_back() belong to it.
class DevSlots {
 public:
  DevSlots() = default;
  ~DevSlots();
  DevSlots(const DevSlots&) = delete;
  DevSlots& operator=(const DevSlots&) = delete;

  // On the thread that they belong to, before anything else.
  void adopt() { current_ = this; }
  // A free slot, or null where there is no memory for another.
  DevSlot* take();
  void put_back(DevSlot& slot);
  // Any thread: what was taken was answered.
  void give_back(DevSlot& slot) noexcept;
  // Takes in what other threads gave back.
  void collect();
  // How many are out.
  [[nodiscard]] std::size_t away() const { return away_; }

 private:
  // Free slots that may keep what large requests touched, and how much the others keep each.
  static constexpr std::size_t kLargeKept = 8;
  static constexpr std::size_t kSmallBytes = std::size_t{64} << 10;

  static thread_local constinit DevSlots* current_;

  DevSlot* free_ = nullptr;
  std::size_t idle_ = 0;
  std::size_t away_ = 0;
  HandBack<DevSlot> returned_;
};

}  // namespace mapperfs
