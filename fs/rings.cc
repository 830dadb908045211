#include "fs/rings.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace mapperfs {
namespace {

constexpr const char* kSwitch = "/sys/module/fuse/parameters/enable_uring";
constexpr std::uint64_t kDefaultBytes = std::uint64_t{1} << 30;
constexpr std::uint64_t kLeastDefaultDepth = 16;
constexpr std::uint64_t kMostDefaultDepth = 256;

// Cores that may ever be.
unsigned possible_cores() {
  std::ifstream list("/sys/devices/system/cpu/possible");
  const unsigned count = Rings::count_cores(list);
  return count > 0 ? count : static_cast<unsigned>(std::max(1, ::get_nprocs_conf()));
}

bool reads_yes(const char* path) {
  char answer = 'N';
  return std::ifstream(path).get(answer) && (answer == 'Y' || answer == '1');
}

}  // namespace

unsigned Rings::default_depth(std::uint32_t request_bytes, unsigned cores) {
  constexpr std::uint64_t kMore = IoRequest::kRoomBytes - IoRequest::kMaxBytes + kBufferAlignment;
  const std::uint64_t bytes = std::uint64_t{std::max(1U, cores)} * (request_bytes + kMore);
  return static_cast<unsigned>(
      std::clamp(kDefaultBytes / bytes, kLeastDefaultDepth, kMostDefaultDepth));
}

unsigned Rings::count_cores(std::istream& list) {
  unsigned count = 0;
  unsigned first = 0;
  while (list >> first) {
    unsigned last = first;
    if (list.peek() == '-') {
      list.ignore();
      list >> last;
    }
    count += last >= first ? last - first + 1 : 0;
    if (list.peek() == ',') {
      list.ignore();
    }
  }
  return count;
}

std::string Rings::too_many(unsigned cores) {
  return cores <= kMaxRings
             ? std::string()
             : fmt::format("{} possible cores are more than {} rings", cores, kMaxRings);
}

std::string Rings::why_not() {
  if (::access(kSwitch, F_OK) != 0) {
    return "the kernel has no FUSE over io_uring (Linux 6.14 brought it)";
  }
  if (!reads_yes(kSwitch)) {
    return std::string("FUSE over io_uring is switched off; as root: echo 1 > ") + kSwitch;
  }
  // Seccomp filters and kernel.io_uring_disabled forbid io_uring itself.
  ::io_uring_params params{};
  params.flags = IORING_SETUP_SQE128;
  const UniqueFd ring(static_cast<int>(::syscall(__NR_io_uring_setup, 4, &params)));
  return ring.get() >= 0 ? std::string()
                         : std::string("io_uring is not allowed here: ") + std::strerror(errno);
}

std::string Rings::make(int fd, unsigned depth, std::uint32_t request_bytes) {
  const unsigned cores = possible_cores();
  if (std::string why = too_many(cores); !why.empty()) {
    return why;
  }
  for (unsigned queue = 0; queue < cores; ++queue) {
    rings_.push_back(
        std::make_unique<Ring>(handler_, router_, Ring::Options{fd, queue, depth, request_bytes}));
    const int error = rings_.back()->start();
    if (error != 0) {
      rings_.clear();
      return fmt::format("ring {} of {} with {} places of {} bytes: {}", queue, cores, depth,
                         request_bytes, std::strerror(error));
    }
  }
  return {};
}

void Rings::go() {
  agreed_.store(!rings_.empty(), std::memory_order_release);
  for (const std::unique_ptr<Ring>& ring : rings_) {
    ring->go();
  }
}

void Rings::close() {
  for (const std::unique_ptr<Ring>& ring : rings_) {
    ring->close();
  }
  for (const std::unique_ptr<Ring>& ring : rings_) {
    ring->await_closed();
  }
}

// They stay as objects: who asks for the transport's name may be a moment late.
void Rings::end() {
  for (const std::unique_ptr<Ring>& ring : rings_) {
    ring->end();
  }
}

bool Rings::serve() const {
  return agreed_.load(std::memory_order_acquire) &&
         std::none_of(rings_.begin(), rings_.end(),
                      [](const auto& ring) { return ring->refused(); });
}

}  // namespace mapperfs
