// A device for tests of what carries bios to files.
#pragma once

#include <atomic>
#include <string>

#include "engine/aio_context.h"

namespace mapperfs::io_test {

// A device whose bios go to `context`, or to the calling thread's. Ends them as they come back and
// counts those that were refused, which end as kAgain.
class AioProbe final : public AioDevice {
 public:
  explicit AioProbe(int fd = 77) : fd_(fd) {}
  void submit(Bio& bio) noexcept override {
    (context != nullptr ? *context : AioContext::current()).submit(bio);
  }
  [[nodiscard]] sector_t size_sectors() const override { return 1 << 20; }
  [[nodiscard]] QueueLimits limits() const override { return {}; }
  [[nodiscard]] std::string table_name() const override { return "device"; }
  [[nodiscard]] int aio_fd(const Bio& /*bio*/) const noexcept override { return fd_; }
  void aio_end(Bio& bio, BlkStatus status) noexcept override { bio.end_io(status); }
  void aio_refused(Bio& bio) noexcept override {
    ++refused;
    bio.end_io(BlkStatus::kAgain);
  }
  bool aio_would_wait(const Bio& /*bio*/) noexcept override {
    ++would_wait;
    return refuse_at_once;
  }
  bool refuse_at_once = false;
  AioContext* context = nullptr;
  std::atomic<int> refused{0};
  std::atomic<int> would_wait{0};

 private:
  const int fd_;
};

}  // namespace mapperfs::io_test
