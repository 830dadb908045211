// Bios for tests, in one call each, and patterns to put into them.
#pragma once

#include <condition_variable>
#include <mutex>
#include <vector>

#include "engine/bio.h"
#include "engine/block_device.h"

namespace mapperfs::fake {

using Bytes = std::vector<std::byte>;

// Sectors that differ from one another and by `seed`: each is filled with its own pattern.
Bytes pattern(sector_t sectors, std::uint64_t seed);

// Each waits for its bio.
BlkStatus read(BlockDevice& dev, sector_t sector, sector_t sectors, Bytes& data);
BlkStatus write(BlockDevice& dev, sector_t sector, const Bytes& data, std::uint8_t flags = 0);
BlkStatus flush(BlockDevice& dev);
// An operation without data over a range.
BlkStatus do_op(BlockDevice& dev, Op op, sector_t sector, sector_t sectors);
// What a read gives, or an empty vector where it fails.
Bytes read_back(BlockDevice& dev, sector_t sector, sector_t sectors);

// A bio that the test does not wait for at once. Lives until done().
class AsyncBio final : public Completion {
 public:
  AsyncBio(BlockDevice& dev, Op op, sector_t sector, sector_t sectors, std::uint8_t flags = 0);
  AsyncBio(BlockDevice& dev, sector_t sector, Bytes data, std::uint8_t flags = 0);  // a write

  AsyncBio& submit();
  void complete(Bio& bio) noexcept override;
  [[nodiscard]] bool done() const;
  // Waits for the end.
  BlkStatus wait();
  // Of a read that is done.
  [[nodiscard]] const Bytes& data() const { return data_; }
  [[nodiscard]] BlkStatus status() const { return bio_.status(); }

 private:
  Bytes data_;
  Bio bio_;
  mutable std::mutex mutex_;
  std::condition_variable done_cv_;
  bool done_ = false;  // mutex_
};

}  // namespace mapperfs::fake
