#include "engine/timer_thread.h"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <chrono>

#include "engine/assert.h"
#include "engine/thread.h"

namespace mapperfs {

TimerThread::~TimerThread() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    wake_cv_.notify_one();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

std::uint64_t TimerThread::now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

void TimerThread::arm(Timer& timer, std::uint64_t when_ns) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [at, is_new] = armed_.try_emplace(&timer, when_ns);
  if (!is_new) {
    queue_.erase({at->second, &timer});
    at->second = when_ns;
  }
  queue_.emplace(when_ns, &timer);
  if (!thread_.joinable()) {
    thread_ = start_thread("mfs-timer", [this] { thread_main(); });
    // Without time nothing here keeps its word; this happens at the first timer or never.
    MFS_ASSERT(thread_.joinable());
  } else if (queue_.begin()->second == &timer) {
    wake_cv_.notify_one();
  }
}

void TimerThread::cancel(Timer& timer) {
  std::unique_lock<std::mutex> lock(mutex_);
  const bool from_fire = thread_.get_id() == std::this_thread::get_id();
  while (true) {
    // In the loop: a fire() that is waited for may arm its timer again.
    if (const auto at = armed_.find(&timer); at != armed_.end()) {
      queue_.erase({at->second, &timer});
      armed_.erase(at);
    }
    if (firing_ != &timer || from_fire) {
      return;
    }
    fired_cv_.wait(lock);
  }
}

void TimerThread::thread_main() {
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_) {
    if (queue_.empty()) {
      wake_cv_.wait(lock);
      continue;
    }
    const auto [when_ns, timer] = *queue_.begin();
    const std::uint64_t now = now_ns();
    if (when_ns > now) {
      // steady_clock is CLOCK_MONOTONIC; far times are cut so that no sum overflows.
      const auto wait = std::chrono::nanoseconds(
          static_cast<std::int64_t>(std::min<std::uint64_t>(when_ns - now, 3'600'000'000'000U)));
      wake_cv_.wait_until(lock, std::chrono::steady_clock::now() + wait);
      continue;
    }
    queue_.erase(queue_.begin());
    armed_.erase(timer);
    firing_ = timer;
    lock.unlock();
    timer->fire();
    lock.lock();
    firing_ = nullptr;
    fired_cv_.notify_all();
  }
}

}  // namespace mapperfs
