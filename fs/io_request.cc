#include "fs/io_request.h"

#include <cstring>

#include "engine/assert.h"
#include "engine/mapped_device.h"
#include "engine/status.h"
#include "fs/fuse_abi.h"

namespace mapperfs {

AlignedBuffer make_aligned_buffer(std::size_t bytes) {
  return AlignedBuffer(new (std::align_val_t(kBufferAlignment)) std::byte[bytes]);
}

void IoRequest::submit(MappedDevice& device, Op op, sector_t sector, sector_t sectors) noexcept {
  bio_.dev = &device;
  bio_.sector = sector;
  bio_.sectors = sectors;
  bio_.data = op == Op::kFlush ? nullptr : data_;
  bio_.completion = this;
  bio_.op = op;
  submit_bio(bio_);
}

void IoRequest::read(MappedDevice& device, sector_t sector, sector_t sectors, std::size_t skip,
                     std::size_t len) noexcept {
  MFS_ASSERT(skip + len <= sectors << kSectorShift);
  MFS_ASSERT(sectors << kSectorShift <= kRoomBytes);
  skip_ = skip;
  len_ = len;
  bio_.flags = 0;
  submit(device, Op::kRead, sector, sectors);
}

void IoRequest::write(MappedDevice& device, sector_t sector, sector_t sectors, std::size_t len,
                      std::uint8_t flags) noexcept {
  MFS_ASSERT(sectors << kSectorShift <= kRoomBytes);
  len_ = len;
  bio_.flags = flags;
  submit(device, Op::kWrite, sector, sectors);
}

void IoRequest::flush(MappedDevice& device) noexcept {
  bio_.flags = 0;
  submit(device, Op::kFlush, 0, 0);
}

void IoRequest::complete(Bio& bio) noexcept {
  MFS_ASSERT(&bio == &bio_);
  const BlkStatus status = bio.status();
  if (status != BlkStatus::kOk) {
    send(errno_of(status), 0);
  } else if (bio.op == Op::kRead) {
    if (skip_ != 0) [[unlikely]] {
      std::memmove(data_, data_ + skip_, len_);
    }
    send(0, len_);
  } else if (bio.op == Op::kWrite) {
    answer_written(len_);
  } else {
    send(0, 0);
  }
}

// The data of a write is of no use any more once it is answered: the answer lies there.
void IoRequest::answer_written(std::size_t bytes) noexcept {
  fuse_write_out out{};
  out.size = static_cast<std::uint32_t>(bytes);
  std::memcpy(data_, &out, sizeof(out));
  send(0, sizeof(out));
}

}  // namespace mapperfs
