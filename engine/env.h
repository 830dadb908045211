// The world that the engine runs in, as far as it is not I/O: time, timers, workers, chance. The
// real one is made by make_real_env() (engine/real_env.cc); the simulator brings its own with
// virtual time and one seed (tests/fake/sim_env.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace mapperfs {

// Something that happens later. Owned by whoever arms it; must be cancelled before it goes away.
class Timer {
 public:
  // On the timer thread, which may submit and end bios but must not block.
  virtual void fire() noexcept = 0;
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 protected:
  Timer() = default;
  ~Timer() = default;
};

// An ordered queue of plain code that may block: one thread, first in first out. Its destructor
// runs what was posted and then stops.
class Worker {
 public:
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  virtual ~Worker() = default;
  // Any thread; never blocks. Posting from the worker itself is fine.
  virtual void post(std::function<void()> work) = 0;
  // Waits until everything posted before has run. Not from the worker itself.
  virtual void drain() = 0;

 protected:
  Worker() = default;
};

class Env {
 public:
  Env(const Env&) = delete;
  Env& operator=(const Env&) = delete;
  virtual ~Env() = default;

  // Nanoseconds of a clock that never goes back; its zero means nothing. Any thread.
  [[nodiscard]] virtual std::uint64_t now_ns() const = 0;
  // Calls timer.fire() once at or after `when_ns`. Arming an armed timer moves it. Any thread.
  virtual void arm(Timer& timer, std::uint64_t when_ns) = 0;
  // After this returns the timer is not armed and fire() is not running (unless called from fire()
  // itself).
  virtual void cancel(Timer& timer) = 0;
  // A worker with a thread of its own, named in debuggers. Control threads.
  virtual std::unique_ptr<Worker> make_worker(const std::string& name) = 0;
  // Runs `work`, which may block on I/O, on a thread of a bounded pool; in no order. Any thread;
  // never blocks. For what has no asynchronous form: fallocate, buffered files.
  virtual void run_blocking(std::function<void()> work) = 0;
  // A seed for a target that needs chance: different at each call. In each run of a simulation, and
  // of a daemon that was given a seed, the first call gives the same one, the second, and so on.
  virtual std::uint64_t random_seed() = 0;

 protected:
  Env() = default;
};

// With `seed` all chance comes from it, else from the kernel's.
std::unique_ptr<Env> make_real_env(std::optional<std::uint64_t> seed = std::nullopt);

}  // namespace mapperfs
