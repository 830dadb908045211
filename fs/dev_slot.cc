#include "fs/dev_slot.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/assert.h"
#include "fs/fuse_abi.h"

namespace mapperfs {
namespace {

// A page for the head, then the data.
constexpr std::size_t kMappedBytes = kBufferAlignment + IoRequest::kRoomBytes;

}  // namespace

static_assert(DevSlot::kHeadBytes == fuse_abi::kWriteHeadBytes);

DevSlot::DevSlot(DevSlots& home) : home_(home) {
  void* memory = ::mmap(nullptr, kMappedBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory != MAP_FAILED) {
    memory_ = static_cast<std::byte*>(memory);
    set_data(memory_ + kBufferAlignment);
  }
}

DevSlot::~DevSlot() {
  if (memory_ != nullptr) {
    ::munmap(memory_, kMappedBytes);
  }
}

void DevSlot::accept(int fd, std::uint64_t unique, std::size_t bytes) {
  fd_ = fd;
  unique_ = unique;
  touched_ = std::max(touched_, bytes);
}

void DevSlot::trim(std::size_t keep) {
  MFS_ASSERT(keep % kBufferAlignment == 0 && keep < kRoomBytes);
  ::madvise(data() + keep, kRoomBytes - keep, MADV_DONTNEED);
  touched_ = keep;
}

void DevSlot::send(int error, std::size_t bytes) noexcept {
  fuse_out_header header{};
  header.len = static_cast<std::uint32_t>(sizeof(header) + bytes);
  header.error = -error;
  header.unique = unique_;
  const std::array<iovec, 2> pieces = {{{&header, sizeof(header)}, {data(), bytes}}};
  // An answer that the kernel no longer wants (its process was killed, the mount is gone) is
  // nothing to act on: the I/O itself was done.
  static_cast<void>(::writev(fd_, pieces.data(), bytes == 0 ? 1 : 2));
  home_.give_back(*this);
}

thread_local constinit DevSlots* DevSlots::current_ = nullptr;

DevSlots::~DevSlots() {
  collect();
  MFS_ASSERT(away_ == 0);
  while (free_ != nullptr) {
    const std::unique_ptr<DevSlot> slot(free_);
    free_ = slot->next_handed;
  }
}

DevSlot* DevSlots::take() {
  if (free_ == nullptr) {
    collect();
  }
  if (free_ == nullptr) [[unlikely]] {
    auto slot = std::make_unique<DevSlot>(*this);
    if (!slot->usable()) {
      return nullptr;
    }
    ++away_;
    return slot.release();  // until ~DevSlots()
  }
  DevSlot* slot = free_;
  free_ = slot->next_handed;
  --idle_;
  ++away_;
  return slot;
}

void DevSlots::put_back(DevSlot& slot) {
  if (slot.touched() > kSmallBytes && idle_ >= kLargeKept) [[unlikely]] {
    slot.trim(kSmallBytes);
  }
  slot.next_handed = free_;
  free_ = &slot;
  ++idle_;
  --away_;
}

void DevSlots::give_back(DevSlot& slot) noexcept {
  if (current_ == this) {
    put_back(slot);
  } else {
    returned_.give(slot);
  }
}

void DevSlots::collect() {
  DevSlot* slot = returned_.take_all();
  while (slot != nullptr) {
    DevSlot* next = slot->next_handed;
    put_back(*slot);
    slot = next;
  }
}

}  // namespace mapperfs
