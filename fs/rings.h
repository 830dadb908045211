// FUSE over io_uring: a ring for every core that the machine may ever have, which is what the
// kernel wants before it uses any.
//
// Memory: cores x depth x (1 MiB + 132 KiB) of address space. Only what requests touched is memory,
// and the kernel takes the place used last first; an idle ring costs about 250 KiB.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "fs/ring.h"

namespace mapperfs {

class Rings {
 public:
  static constexpr unsigned kMinDepth = 4;
  static constexpr unsigned kMaxDepth = 1024;
  // Each has a thread, a queue of the engine and a context of the kernel's, whether its core ever
  // comes or not.
  static constexpr unsigned kMaxRings = 512;

  Rings(RequestHandler& handler, MessageRouter& router) : handler_(handler), router_(router) {}
  Rings(const Rings&) = delete;
  Rings& operator=(const Rings&) = delete;

  // Places for one core's requests of up to `request_bytes` bytes where nobody says otherwise: what
  // 1 GiB for all cores that run now gives, with what unaligned reads touch more, but 16 to 256. So
  // above 56 cores with requests of 1 MiB it is 18 MiB a core, were all of them in use.
  static unsigned default_depth(std::uint32_t request_bytes, unsigned cores);
  // How many cores a list of the kernel's names: "0-3" or "0-1,4-5".
  static unsigned count_cores(std::istream& list);
  // Why so many cores cannot have a ring each, or an empty sentence.
  static std::string too_many(unsigned cores);
  // Why FUSE over io_uring cannot be had from this kernel, or an empty sentence.
  static std::string why_not();

  // Makes the rings and their threads. Empty, or why not, with nothing left.
  std::string make(int fd, unsigned depth, std::uint32_t request_bytes);
  void go();
  void close();
  void end();
  // Agreed upon, and not refused by the kernel. Any thread.
  [[nodiscard]] bool serve() const;

 private:
  RequestHandler& handler_;
  MessageRouter& router_;
  std::vector<std::unique_ptr<Ring>> rings_;
  std::atomic<bool> agreed_{false};
};

}  // namespace mapperfs
