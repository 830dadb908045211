// The engine's world on virtual time: nothing happens until the test says so.
//
// Time stands still until advance() moves it; timers fire, workers and blocking work run inside
// advance(), run() and Worker::drain(), on the thread that calls them. One seed gives every seed
// that targets ask for. With one thread, a run is the same each time.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/env.h"

namespace mapperfs::fake {

class SimEnv final : public Env {
 public:
  explicit SimEnv(std::uint64_t seed = 1) : next_seed_(seed) {}

  [[nodiscard]] std::uint64_t now_ns() const override;
  void arm(Timer& timer, std::uint64_t when_ns) override;
  void cancel(Timer& timer) override;
  std::unique_ptr<Worker> make_worker(const std::string& name) override;
  void run_blocking(std::function<void()> work) override;
  std::uint64_t random_seed() override;

  // Runs what is due now, and what that makes due. Returns how many pieces of work ran.
  std::size_t run();
  // Moves time on by `ns`, stopping at each timer on the way to run what it makes due.
  void advance(std::uint64_t ns);
  // Moves time to the next timer and runs it. False: no timer is armed.
  bool advance_to_next_timer();
  [[nodiscard]] std::size_t armed_timers() const;

 private:
  // An ordered queue of work: a worker's, or the one of all blocking work. Shared, so that it may
  // go away while run() looks at it.
  struct WorkQueue {
    std::mutex mutex;
    std::condition_variable idle_cv;
    std::deque<std::function<void()>> work;  // mutex
    bool running = false;                    // mutex: a thread is at it

    void post(std::function<void()> piece);
    // Runs what there is, unless another thread is at it. Returns how many pieces ran.
    std::size_t run();
    void drain();
  };
  class SimWorker;

  // Fires the timers that are due now. Returns how many.
  std::size_t fire_due();

  mutable std::mutex mutex_;
  std::condition_variable fired_cv_;
  std::uint64_t now_ns_ = 1'000'000'000;         // mutex_, as all below
  std::multimap<std::uint64_t, Timer*> timers_;  // by time, then in order of arming
  Timer* firing_ = nullptr;                      // its fire() runs on firing_thread_
  std::thread::id firing_thread_;                //
  std::vector<std::weak_ptr<WorkQueue>> workers_;
  std::uint64_t next_seed_;
  const std::shared_ptr<WorkQueue> blocking_ = std::make_shared<WorkQueue>();
};

}  // namespace mapperfs::fake
