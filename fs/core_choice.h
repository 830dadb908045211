// Where a ring's thread runs: on its own core, or where the scheduler puts it.
//
// Which of the two serves more requests hangs on who asks. A synchronous caller is served fastest
// from its own core; one that submits a batch is interrupted there at every request of it, while
// the next core is idle (measured: ram, 1x16, 96,000 requests a second at home and 240,000
// elsewhere; one at a time 43,000 and 20,000). The ring cannot tell the two callers: it sees one
// request at a time in both. So it is tried out: now and then a busy ring works for one window in
// the other way, and stays with it where that has served clearly more than the windows before and
// behind. What is tried in vain is tried more rarely.
#pragma once

#include <cstdint>

namespace mapperfs {

// The ring's thread. No clock and no system call of its own.
class CoreChoice {
 public:
  enum class Where : unsigned char { kHome, kAnywhere };

  static constexpr std::uint64_t kWindowNs = 10'000'000;
  // Fewer requests than this in a window, or a window in which the thread slept for as long again,
  // and there is nothing to be gained: home.
  static constexpr unsigned kBusy = 100;
  // Windows from one trial to the next, at first and at most.
  static constexpr unsigned kSoon = 8;
  static constexpr unsigned kLate = 128;

  // `requests` were served since the last call. Where to run from now on.
  Where look(std::uint64_t now_ns, unsigned requests) noexcept;

 private:
  enum class Phase : unsigned char { kSettled, kTrial, kAfter };

  void end_window(double rate) noexcept;
  void settle(Where where, unsigned patience) noexcept;

  Where settled_ = Where::kHome;
  Phase phase_ = Phase::kSettled;
  unsigned patience_ = kSoon;      // windows between trials
  unsigned windows_left_ = kSoon;  // to the next trial
  std::uint64_t began_ns_ = 0;     // of the window
  unsigned requests_ = 0;          // in the window
  // Requests a nanosecond in the window before the trial, and in the trial.
  double before_ = 0;
  double trial_ = 0;
};

}  // namespace mapperfs
