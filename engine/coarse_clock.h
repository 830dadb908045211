// Where the monotonic clock stands, in ns, as of the scheduler's last tick (1 to 10 ms): costs next
// to nothing, so it can be asked at every I/O.
#pragma once

#include <cstdint>
#include <ctime>

namespace mapperfs {

inline std::uint64_t coarse_now_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace mapperfs
