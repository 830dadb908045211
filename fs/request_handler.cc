#include "fs/request_handler.h"

#include <fcntl.h>

#include <cstring>

#include "fs/fuse_abi.h"
#include "fs/inode.h"

namespace mapperfs {
namespace {

template <typename T>
bool get(std::span<const std::byte> argument, T& value) {
  if (argument.size() < sizeof(T)) {
    return false;
  }
  std::memcpy(&value, argument.data(), sizeof(T));
  return true;
}

}  // namespace

bool decode_io(const fuse_in_header& header, std::span<const std::byte> argument,
               std::size_t data_bytes, IoCall& call) noexcept {
  if (Inode::of(header.nodeid).kind != FileKind::kDevice) {
    return false;
  }
  fuse_read_in read{};
  fuse_write_in write{};
  fuse_fsync_in sync{};
  switch (header.opcode) {
    case FUSE_READ:
      if (!get(argument, read)) {
        return false;
      }
      call = {IoCall::Kind::kRead, false, read.size, read.fh, read.offset};
      return true;
    case FUSE_WRITE:
      if (!get(argument, write) || write.size > data_bytes) {
        return false;
      }
      call = {IoCall::Kind::kWrite, (write.flags & (O_SYNC | O_DSYNC)) != 0, write.size, write.fh,
              write.offset};
      return true;
    case FUSE_FSYNC:
      if (!get(argument, sync)) {
        return false;
      }
      call = {IoCall::Kind::kSync, false, 0, sync.fh, 0};
      return true;
    default:
      return false;
  }
}

}  // namespace mapperfs
