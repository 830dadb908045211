// Lets a few bios at once through to something that many share, and has the others wait in order.
#pragma once

#include <cstddef>
#include <mutex>

#include "engine/bio.h"

namespace mapperfs {

// Threads: any.
class BioGate {
 public:
  explicit BioGate(std::size_t limit) : limit_(limit) {}
  BioGate(const BioGate&) = delete;
  BioGate& operator=(const BioGate&) = delete;

  // True: the bio goes through now, and leave() follows. False: a leave() will give it out.
  bool enter(Bio& bio) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (inside_ == limit_) {
      waiting_.push_back(bio);
      return false;
    }
    ++inside_;
    return true;
  }
  // Whether enter() would have let one through at this moment.
  [[nodiscard]] bool has_room() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    return inside_ < limit_;
  }
  // One that went through is done. Gives the bio that goes through in its place, or null.
  Bio* leave() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    Bio* const next = waiting_.pop_front();
    inside_ -= next == nullptr ? 1 : 0;
    return next;
  }

 private:
  const std::size_t limit_;
  std::mutex mutex_;
  std::size_t inside_ = 0;  // mutex_
  BioList waiting_;         // mutex_; empty while inside_ < limit_
};

}  // namespace mapperfs
