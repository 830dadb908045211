// A FUSE read, write or fsync on its way: the bio, the buffer and the request that it answers.
//
// The answer is given where the bio completes, on whatever thread that is, unless the thread is one
// that may end (on_passing_thread()): then a thread that lasts gives it. Requests come from pools
// of the queue of the thread that received them and go back there: nothing is allocated once the
// pools have grown to what is in flight at once. Buffers are page-aligned, so that they serve
// direct I/O below.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "engine/bio.h"
#include "engine/pool.h"
#include "engine/queue.h"

struct fuse_req;

namespace mapperfs {

class MappedDevice;
class ThreadPool;
class IoPools;
class IoPool;

inline constexpr std::size_t kBufferAlignment = 4096;

struct BufferDelete {
  void operator()(std::byte* buffer) const {
    ::operator delete[](buffer, std::align_val_t(kBufferAlignment));
  }
};
using AlignedBuffer = std::unique_ptr<std::byte[], BufferDelete>;
AlignedBuffer make_aligned_buffer(std::size_t bytes);

class IoRequest final : public Completion {
 public:
  IoRequest() = default;
  IoRequest(const IoRequest&) = delete;
  IoRequest& operator=(const IoRequest&) = delete;

  // At least as large as asked for at take().
  [[nodiscard]] std::byte* buffer() { return buffer_.get(); }

  // Each of these submits the bio and answers `req`; the IoRequest is gone when they return.
  // Sectors [sector, sector + sectors) into the buffer; answers with `len` bytes from `skip` on.
  void read(fuse_req& req, MappedDevice& device, sector_t sector, sector_t sectors,
            std::size_t skip, std::size_t len) noexcept;
  // The buffer's first `sectors` sectors; answers that `len` bytes were written.
  void write(fuse_req& req, MappedDevice& device, sector_t sector, sector_t sectors,
             std::size_t len, std::uint8_t flags) noexcept;
  void flush(fuse_req& req, MappedDevice& device) noexcept;

  void complete(Bio& bio) noexcept override;

 private:
  friend class IoPool;
  friend class IoPools;
  void submit(fuse_req& req, MappedDevice& device, Op op, sector_t sector,
              sector_t sectors) noexcept;
  void answer() noexcept;

  Bio bio_;
  fuse_req* req_ = nullptr;
  std::size_t skip_ = 0;
  std::size_t len_ = 0;
  AlignedBuffer buffer_;
  IoPool* home_ = nullptr;
  IoPools* pools_ = nullptr;
  std::size_t size_class_ = 0;
};

// All queues' pools. Outlived by no request: wait_idle() before it goes.
class IoPools {
 public:
  // The largest request, and with it the largest buffer: what FUSE moves at once, and a block at
  // either end for what is not aligned.
  static constexpr std::size_t kMaxRequestBytes = std::size_t{1} << 20;
  static constexpr std::size_t kLargestBuffer = kMaxRequestBytes + (std::size_t{128} << 10);
  // What idle buffers of the large classes may hold together, in bytes.
  static constexpr std::size_t kMaxIdleLarge = std::size_t{32} << 20;

  // `answers`: lasting threads, for what completes on others; outlives this.
  explicit IoPools(ThreadPool& answers) : answers_(answers) {}
  ~IoPools();
  IoPools(const IoPools&) = delete;
  IoPools& operator=(const IoPools&) = delete;

  // A request with a buffer of `bytes` (0: none), at most kLargestBuffer. For the calling thread.
  IoRequest& take(std::size_t bytes) noexcept;
  // Waits until every request was answered. No more may be started.
  void wait_idle() const;

 private:
  friend class IoRequest;
  void give_back(IoRequest& request) noexcept;
  IoPool& current() noexcept;

  ThreadPool& answers_;
  std::array<std::atomic<IoPool*>, kMaxQueues> pools_{};
  std::atomic<std::size_t> idle_large_bytes_{0};
};

}  // namespace mapperfs
