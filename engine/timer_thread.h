// The timers of an Env: one thread, started with the first timer, that sleeps until the earliest.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>

#include "engine/env.h"

namespace mapperfs {

// Times are of CLOCK_MONOTONIC, in ns. Precise to the scheduler: the thread asks for a timer slack
// of 1 ns. No lock is held while a timer fires.
class TimerThread {
 public:
  TimerThread() = default;
  // Nothing may be armed any more, but for what nobody will miss: it does not fire.
  ~TimerThread();
  TimerThread(const TimerThread&) = delete;
  TimerThread& operator=(const TimerThread&) = delete;

  // As in Env.
  void arm(Timer& timer, std::uint64_t when_ns);
  void cancel(Timer& timer);

  static std::uint64_t now_ns();

 private:
  void thread_main();

  std::mutex mutex_;
  std::condition_variable wake_cv_;   // with mutex_: an earlier timer than the thread waits for
  std::condition_variable fired_cv_;  // with mutex_: firing_ changed
  // Below: under mutex_.
  std::set<std::pair<std::uint64_t, Timer*>> queue_;  // by time
  std::unordered_map<Timer*, std::uint64_t> armed_;   // what is in queue_
  Timer* firing_ = nullptr;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace mapperfs
