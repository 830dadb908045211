// The kernel's side of FUSE: <linux/fuse.h>, and what came after the oldest headers that this code
// is built with (those of Linux 6.1). Names of ours, so that newer headers do not collide; numbers
// and layouts are the kernel's and never change.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

namespace mapperfs::fuse_abi {

// In which INIT counts max_pages, and by which the kernel cuts a write(2).
inline constexpr std::uint32_t kPageBytes = 4096;

// Bits of the 64 flags of INIT; the upper half is flags2, which needs FUSE_INIT_EXT.
inline constexpr std::uint64_t kInitExt = 1ULL << 30;
inline constexpr std::uint64_t kDirectIoAllowMmap = 1ULL << 36;  // Linux 6.6
inline constexpr std::uint64_t kOverIoUring = 1ULL << 41;        // Linux 6.14

// Flags of an answered OPEN.
inline constexpr std::uint32_t kOpenDirectIo = 1U << 0;
inline constexpr std::uint32_t kOpenParallelDirectWrites = 1U << 6;

// An INTERRUPT's own number is that of the request it interrupts with this bit.
inline constexpr std::uint64_t kInterruptBit = 1;

// Header and argument of a WRITE, the longest that come before data.
inline constexpr std::size_t kWriteHeadBytes = sizeof(fuse_in_header) + sizeof(fuse_write_in);
static_assert(kWriteHeadBytes == 80);

// FUSE over io_uring (Documentation/filesystems/fuse/fuse-io-uring.rst). A place on a ring has a
// head and a payload, given to the kernel as two iovecs with its registration.
struct UringEntInOut {
  std::uint64_t flags;
  std::uint64_t commit_id;      // names the request in its COMMIT_AND_FETCH
  std::uint32_t payload_bytes;  // of the request, then of the answer
  std::uint32_t padding;
  std::uint64_t reserved;
};
struct UringHead {
  std::byte in_out[128];  // fuse_in_header, then fuse_out_header
  std::byte op_in[128];   // the request's first argument
  UringEntInOut ent_in_out;
};
static_assert(sizeof(UringHead) == 288);
// In the command area of a 128 byte submission.
struct UringCommand {
  std::uint64_t flags;
  std::uint64_t commit_id;
  std::uint16_t queue;
  std::uint8_t padding[6];
};
static_assert(sizeof(UringCommand) == 24);
inline constexpr std::uint32_t kUringRegister = 1;
inline constexpr std::uint32_t kUringCommitAndFetch = 2;

}  // namespace mapperfs::fuse_abi
