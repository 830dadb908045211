#include "fs/core_choice.h"

#include <algorithm>

namespace mapperfs {

namespace {

// How much more a trial must have served: windows of one way differ by a tenth or so.
constexpr double kClearly = 1.25;

CoreChoice::Where other(CoreChoice::Where where) {
  return where == CoreChoice::Where::kHome ? CoreChoice::Where::kAnywhere
                                           : CoreChoice::Where::kHome;
}

}  // namespace

CoreChoice::Where CoreChoice::look(std::uint64_t now_ns, unsigned requests) noexcept {
  requests_ += requests;
  const std::uint64_t length_ns = now_ns - began_ns_;
  if (length_ns >= kWindowNs) [[unlikely]] {
    if (length_ns >= 2 * kWindowNs || requests_ < kBusy) {
      settle(Where::kHome, kSoon);
    } else {
      end_window(static_cast<double>(requests_) / static_cast<double>(length_ns));
    }
    began_ns_ = now_ns;
    requests_ = 0;
  }
  return phase_ == Phase::kTrial ? other(settled_) : settled_;
}

void CoreChoice::end_window(double rate) noexcept {
  switch (phase_) {
    case Phase::kSettled:
      if (--windows_left_ == 0) {
        before_ = rate;
        phase_ = Phase::kTrial;
      }
      break;
    case Phase::kTrial:
      trial_ = rate;
      phase_ = Phase::kAfter;
      break;
    case Phase::kAfter:
      // Both neighbours: who asks may have changed meanwhile.
      if (trial_ > kClearly * std::max(before_, rate)) {
        settle(other(settled_), kSoon);
      } else {
        settle(settled_, std::min(2 * patience_, kLate));
      }
      break;
  }
}

void CoreChoice::settle(Where where, unsigned patience) noexcept {
  settled_ = where;
  phase_ = Phase::kSettled;
  patience_ = windows_left_ = patience;
}

}  // namespace mapperfs
