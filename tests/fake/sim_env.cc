#include "tests/fake/sim_env.h"

#include <algorithm>
#include <limits>

namespace mapperfs::fake {

void SimEnv::WorkQueue::post(std::function<void()> piece) {
  const std::lock_guard<std::mutex> lock(mutex);
  work.push_back(std::move(piece));
}

std::size_t SimEnv::WorkQueue::run() {
  std::unique_lock<std::mutex> lock(mutex);
  if (running) {
    return 0;
  }
  running = true;
  std::size_t ran = 0;
  for (; !work.empty(); ++ran) {
    const std::function<void()> piece = std::move(work.front());
    work.pop_front();
    lock.unlock();
    piece();
    lock.lock();
  }
  running = false;
  idle_cv.notify_all();
  return ran;
}

void SimEnv::WorkQueue::drain() {
  run();
  std::unique_lock<std::mutex> lock(mutex);
  idle_cv.wait(lock, [this] { return !running && work.empty(); });
}

class SimEnv::SimWorker final : public Worker {
 public:
  explicit SimWorker(std::shared_ptr<WorkQueue> queue) : queue_(std::move(queue)) {}
  ~SimWorker() override { queue_->drain(); }
  void post(std::function<void()> work) override { queue_->post(std::move(work)); }
  void drain() override { queue_->drain(); }

 private:
  const std::shared_ptr<WorkQueue> queue_;
};

std::uint64_t SimEnv::now_ns() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return now_ns_;
}

void SimEnv::arm(Timer& timer, std::uint64_t when_ns) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(timers_, [&](const auto& armed) { return armed.second == &timer; });
  timers_.emplace(when_ns, &timer);
}

void SimEnv::cancel(Timer& timer) {
  std::unique_lock<std::mutex> lock(mutex_);
  std::erase_if(timers_, [&](const auto& armed) { return armed.second == &timer; });
  if (firing_thread_ != std::this_thread::get_id()) {
    fired_cv_.wait(lock, [&] { return firing_ != &timer; });
  }
}

std::unique_ptr<Worker> SimEnv::make_worker(const std::string& name) {
  static_cast<void>(name);
  auto queue = std::make_shared<WorkQueue>();
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(workers_, [](const auto& worker) { return worker.expired(); });
  workers_.push_back(queue);
  return std::make_unique<SimWorker>(std::move(queue));
}

void SimEnv::run_blocking(std::function<void()> work) { blocking_->post(std::move(work)); }

std::uint64_t SimEnv::random_seed() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return next_seed_++;
}

std::size_t SimEnv::fire_due() {
  std::size_t fired = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  fired_cv_.wait(lock, [this] { return firing_ == nullptr; });
  while (!timers_.empty() && timers_.begin()->first <= now_ns_) {
    firing_ = timers_.begin()->second;
    firing_thread_ = std::this_thread::get_id();
    timers_.erase(timers_.begin());
    Timer& timer = *firing_;
    lock.unlock();
    timer.fire();
    lock.lock();
    firing_ = nullptr;
    firing_thread_ = std::thread::id();
    fired_cv_.notify_all();
    ++fired;
  }
  return fired;
}

std::size_t SimEnv::run() {
  std::size_t total = 0;
  while (true) {
    std::vector<std::weak_ptr<WorkQueue>> workers;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      workers = workers_;
    }
    std::size_t ran = fire_due() + blocking_->run();
    for (const auto& worker : workers) {
      if (const auto queue = worker.lock()) {
        ran += queue->run();
      }
    }
    if (ran == 0) {
      return total;
    }
    total += ran;
  }
}

void SimEnv::advance(std::uint64_t ns) {
  const std::uint64_t end_ns = now_ns() + ns;
  while (true) {
    run();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (now_ns_ == end_ns) {
      return;
    }
    const std::uint64_t next_ns = timers_.empty() ? end_ns : timers_.begin()->first;
    now_ns_ = std::clamp(next_ns, now_ns_, end_ns);
  }
}

bool SimEnv::advance_to_next_timer() {
  std::uint64_t ns = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (timers_.empty()) {
      return false;
    }
    const std::uint64_t next_ns = timers_.begin()->first;
    ns = next_ns > now_ns_ ? next_ns - now_ns_ : 0;
  }
  advance(ns);
  return true;
}

std::size_t SimEnv::armed_timers() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return timers_.size();
}

}  // namespace mapperfs::fake
