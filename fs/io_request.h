// A read, write or fsync of a device file on its way: the bio, its data and the answer.
//
// It is a part of the transport's own place for the request (a place on a ring, a receive buffer),
// and its data is the transport's own memory: what a write brought goes from there to the device,
// what a read brings comes to where the answer takes it. Nothing is allocated and nothing copied,
// but for reads that begin inside a block.
//
// The answer is given where the bio completes, on whatever thread that is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "engine/bio.h"

namespace mapperfs {

class MappedDevice;

inline constexpr std::size_t kBufferAlignment = 4096;

struct BufferDelete {
  void operator()(std::byte* buffer) const {
    ::operator delete[](buffer, std::align_val_t(kBufferAlignment));
  }
};
using AlignedBuffer = std::unique_ptr<std::byte[], BufferDelete>;
AlignedBuffer make_aligned_buffer(std::size_t bytes);

class IoRequest : public Completion {
 public:
  // The largest request: what FUSE moves at once.
  static constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
  // Room at data(): a block at either end for what is not aligned.
  static constexpr std::size_t kRoomBytes = kMaxBytes + (std::size_t{128} << 10);

  IoRequest(const IoRequest&) = delete;
  IoRequest& operator=(const IoRequest&) = delete;

  // Page-aligned; holds what a write brought.
  [[nodiscard]] std::byte* data() const { return data_; }

  // Each of these answers, now or later: the request is the transport's again when they return.
  // Sectors [sector, sector + sectors) of `device`; the answer is `len` bytes from `skip` on.
  void read(MappedDevice& device, sector_t sector, sector_t sectors, std::size_t skip,
            std::size_t len) noexcept;
  // The first `sectors` sectors of the data; the answer says that `len` bytes were written.
  void write(MappedDevice& device, sector_t sector, sector_t sectors, std::size_t len,
             std::uint8_t flags) noexcept;
  void flush(MappedDevice& device) noexcept;
  // Answers without I/O: an errno (0: done), nothing read, so many bytes written.
  void answer_error(int error) noexcept { send(error, 0); }
  void answer_nothing_read() noexcept { send(0, 0); }
  void answer_written(std::size_t bytes) noexcept;

  // Completion
  void complete(Bio& bio) noexcept final;

 protected:
  IoRequest() = default;
  ~IoRequest() = default;
  void set_data(std::byte* data) { data_ = data; }

 private:
  // Answers with an errno, or with the first `bytes` bytes at data(). Any thread; the object may
  // serve the next request, or be gone, when this returns.
  virtual void send(int error, std::size_t bytes) noexcept = 0;
  void submit(MappedDevice& device, Op op, sector_t sector, sector_t sectors) noexcept;

  Bio bio_;
  std::byte* data_ = nullptr;
  std::size_t skip_ = 0;
  std::size_t len_ = 0;
};

}  // namespace mapperfs
