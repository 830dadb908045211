#include "tests/fake/io.h"

#include <cstring>
#include <utility>

namespace mapperfs::fake {

Bytes pattern(sector_t sectors, std::uint64_t seed) {
  Bytes bytes(sectors << kSectorShift);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(state)) {
    // Xorshift: all that is asked of it is that no two sectors look alike.
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(bytes.data() + at, &state, sizeof(state));
  }
  return bytes;
}

AsyncBio::AsyncBio(BlockDevice& dev, Op op, sector_t sector, sector_t sectors, std::uint8_t flags)
    : data_(op == Op::kRead || op == Op::kWrite ? sectors << kSectorShift : 0) {
  bio_.dev = &dev;
  bio_.op = op;
  bio_.flags = flags;
  bio_.sector = sector;
  bio_.sectors = sectors;
  bio_.data = data_.empty() ? nullptr : data_.data();
  bio_.completion = this;
}

AsyncBio::AsyncBio(BlockDevice& dev, sector_t sector, Bytes data, std::uint8_t flags)
    : AsyncBio(dev, Op::kWrite, sector, data.size() >> kSectorShift, flags) {
  data_ = std::move(data);
  bio_.data = data_.data();
}

AsyncBio& AsyncBio::submit() {
  submit_bio(bio_);
  return *this;
}

void AsyncBio::complete(Bio& bio) noexcept {
  static_cast<void>(bio);
  const std::lock_guard<std::mutex> lock(mutex_);
  done_ = true;
  done_cv_.notify_all();
}

bool AsyncBio::done() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return done_;
}

BlkStatus AsyncBio::wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  done_cv_.wait(lock, [this] { return done_; });
  return bio_.status();
}

BlkStatus read(BlockDevice& dev, sector_t sector, sector_t sectors, Bytes& data) {
  AsyncBio bio(dev, Op::kRead, sector, sectors);
  const BlkStatus status = bio.submit().wait();
  data = bio.data();
  return status;
}

BlkStatus write(BlockDevice& dev, sector_t sector, const Bytes& data, std::uint8_t flags) {
  Bytes copy = data;
  Bio bio;
  bio.dev = &dev;
  bio.op = Op::kWrite;
  bio.flags = flags;
  bio.sector = sector;
  bio.sectors = copy.size() >> kSectorShift;
  bio.data = copy.data();
  return submit_bio_and_wait(bio);
}

BlkStatus flush(BlockDevice& dev) { return do_op(dev, Op::kFlush, 0, 0); }

BlkStatus do_op(BlockDevice& dev, Op op, sector_t sector, sector_t sectors) {
  return AsyncBio(dev, op, sector, sectors).submit().wait();
}

Bytes read_back(BlockDevice& dev, sector_t sector, sector_t sectors) {
  Bytes data;
  return read(dev, sector, sectors, data) == BlkStatus::kOk ? data : Bytes();
}

}  // namespace mapperfs::fake
