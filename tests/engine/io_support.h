// What the tests of files and disks share: a temporary folder, data with a pattern, a bio to wait
// for.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/bio.h"
#include "engine/block_device.h"
#include "engine/unique_fd.h"

namespace mapperfs::io_test {

// A folder that goes with what is in it.
class TempDir {
 public:
  explicit TempDir(const std::string& parent = std::filesystem::temp_directory_path()) {
    path_ = parent + "/mapperfs-test-XXXXXX";
    EXPECT_NE(::mkdtemp(path_.data()), nullptr) << path_;
    path_ = std::filesystem::canonical(path_);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // A new file of `bytes` zeroes (a hole).
  [[nodiscard]] std::string make_file(const std::string& name, std::uint64_t bytes) const {
    const UniqueFd fd(::open((*this / name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
    return *this / name;
  }

 private:
  std::string path_;
};

// Memory that direct I/O takes.
class Buffer {
 public:
  explicit Buffer(sector_t sectors, std::size_t misalign = 0)
      : bytes_(sectors << kSectorShift), memory_(bytes_ + 8192) {
    void* place = memory_.data();
    std::size_t space = memory_.size();
    data_ = static_cast<std::byte*>(std::align(4096, bytes_, place, space)) + misalign;
  }
  std::byte* data() { return data_; }
  [[nodiscard]] std::size_t size() const { return bytes_; }
  // Bytes that differ from place to place and from seed to seed.
  Buffer& fill(std::uint64_t seed) {
    for (std::size_t i = 0; i < bytes_; ++i) {
      data_[i] = pattern(seed, i);
    }
    return *this;
  }
  [[nodiscard]] bool has_pattern(std::uint64_t seed) const {
    for (std::size_t i = 0; i < bytes_; ++i) {
      if (data_[i] != pattern(seed, i)) {
        return false;
      }
    }
    return true;
  }
  [[nodiscard]] bool is_zero() const {
    return std::all_of(data_, data_ + bytes_, [](std::byte b) { return b == std::byte{0}; });
  }

 private:
  static std::byte pattern(std::uint64_t seed, std::size_t at) {
    return static_cast<std::byte>((at * 31 + (at >> 9) * 7 + seed * 101 + 1) & 0xff);
  }
  std::size_t bytes_;
  std::vector<std::byte> memory_;
  std::byte* data_ = nullptr;
};

// A bio that can be waited for.
class WaitBio final : public Completion {
 public:
  WaitBio(BlockDevice& dev, Op op, sector_t sector, sector_t sectors, std::byte* data = nullptr,
          int flags = 0) {
    bio_.dev = &dev;
    bio_.op = op;
    bio_.sector = sector;
    bio_.sectors = sectors;
    bio_.data = data;
    bio_.flags = static_cast<std::uint8_t>(flags);
    bio_.completion = this;
  }
  Bio& bio() { return bio_; }
  WaitBio& submit() {
    bio_.dev->submit(bio_);
    return *this;
  }
  BlkStatus wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    cv_.wait(lock, [this] { return ended_ > 0; });
    EXPECT_EQ(ended_, 1);
    return bio_.status();
  }
  [[nodiscard]] bool ended() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return ended_ > 0;
  }
  void complete(Bio& /*bio*/) noexcept override {
    if (on_end) {
      on_end();
    }
    // Under the lock to the end: the waiter may be gone right after.
    const std::lock_guard<std::mutex> lock(mutex_);
    ++ended_;
    cv_.notify_all();
  }
  std::function<void()> on_end;

 private:
  Bio bio_;
  std::mutex mutex_;
  std::condition_variable cv_;
  int ended_ = 0;
};

inline BlkStatus run(BlockDevice& dev, Op op, sector_t sector, sector_t sectors,
                     std::byte* data = nullptr, int flags = 0) {
  return WaitBio(dev, op, sector, sectors, data, flags).submit().wait();
}

}  // namespace mapperfs::io_test
