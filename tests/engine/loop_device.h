// A loop device over a file, for tests of block devices. Needs root and the kernel's loop driver.
#pragma once

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>

#include "engine/unique_fd.h"

namespace mapperfs::io_test {

class LoopDevice {
 public:
  explicit LoopDevice(const std::string& file, unsigned block_bytes = 512) {
    const UniqueFd backing(::open(file.c_str(), O_RDWR | O_CLOEXEC));
    const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    // Someone else may take the free one first.
    for (int tries = 0; control && tries < 20; ++tries) {
      const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
      path_ = "/dev/loop" + std::to_string(number);
      UniqueFd device(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
      if (number < 0 || !device) {
        return;
      }
      if (::ioctl(device.get(), LOOP_SET_FD, backing.get()) == 0) {
        device_ = std::move(device);
        has_block_size_ = ::ioctl(device_.get(), LOOP_SET_BLOCK_SIZE, block_bytes) == 0;
        return;
      }
      if (errno != EBUSY) {
        return;
      }
    }
  }
  ~LoopDevice() {
    if (device_) {
      ::ioctl(device_.get(), LOOP_CLR_FD);
    }
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  // False where loop devices are not to be had.
  [[nodiscard]] bool ok() const { return device_ && has_block_size_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] dev_t rdev() const {
    struct stat st {};
    return ::stat(path_.c_str(), &st) == 0 ? st.st_rdev : 0;
  }

 private:
  std::string path_;
  UniqueFd device_;
  bool has_block_size_ = false;
};

}  // namespace mapperfs::io_test
