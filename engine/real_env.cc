// The real world of engine/env.h: the monotonic clock and threads.
#include <sys/random.h>

#include <chrono>
#include <mutex>
#include <random>

#include "engine/blocking_pool.h"
#include "engine/env.h"
#include "engine/thread_worker.h"
#include "engine/timer_thread.h"

namespace mapperfs {
namespace {

class RealEnv final : public Env {
 public:
  explicit RealEnv(std::optional<std::uint64_t> seed) {
    if (seed) {
      chance_.emplace(*seed);
    }
  }

  [[nodiscard]] std::uint64_t now_ns() const override { return TimerThread::now_ns(); }
  void arm(Timer& timer, std::uint64_t when_ns) override { timers_.arm(timer, when_ns); }
  void cancel(Timer& timer) override { timers_.cancel(timer); }
  std::unique_ptr<Worker> make_worker(const std::string& name) override {
    return std::make_unique<ThreadWorker>(name);
  }
  void run_blocking(std::function<void()> work) override { pool_.run(std::move(work)); }
  std::uint64_t random_seed() override {
    if (chance_) {
      const std::lock_guard lock(chance_mutex_);
      return (*chance_)();
    }
    std::uint64_t seed = 0;
    if (::getrandom(&seed, sizeof(seed), 0) != static_cast<ssize_t>(sizeof(seed))) {
      // No getrandom (seccomp): chance is asked for tests' sake, so a clock will do.
      seed = now_ns() * 0x9e3779b97f4a7c15U;
    }
    return seed;
  }

 private:
  std::mutex chance_mutex_;
  std::optional<std::mt19937_64> chance_;  // of the seed that was given; its state: chance_mutex_
  // The pool goes first: its work may still arm timers.
  TimerThread timers_;
  BlockingPool pool_;
};

}  // namespace

std::unique_ptr<Env> make_real_env(std::optional<std::uint64_t> seed) {
  return std::make_unique<RealEnv>(seed);
}

}  // namespace mapperfs
