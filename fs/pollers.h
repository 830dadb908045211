// Who waits for events: open `event` files that the kernel polls, and the wake-ups they get.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine/env.h"

struct fuse_pollhandle;

namespace mapperfs {

struct PollHandleDelete {
  void operator()(fuse_pollhandle* handle) const;
};
using PollHandle = std::unique_ptr<fuse_pollhandle, PollHandleDelete>;

// Any thread.
class Pollers {
 public:
  // Wakes from a worker of its own: waking is a write to the kernel, and events come on threads
  // that must not wait.
  explicit Pollers(Env& env) : worker_(env.make_worker("mfs-notify")) {}

  // `key` names the open file and is given back with forget(). A later handle of the same file
  // takes the earlier one's place.
  void remember(std::uint64_t serial, const void* key, PollHandle handle);
  void forget(std::uint64_t serial, const void* key);
  // Wakes everyone who waits for that device.
  void wake(std::uint64_t serial);
  Worker& worker() { return *worker_; }

 private:
  struct Entry {
    const void* key;
    std::shared_ptr<fuse_pollhandle> handle;
  };
  void wake_now(std::uint64_t serial);

  std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::vector<Entry>> waiting_;  // mutex_
  std::unique_ptr<Worker> worker_;                                 // last: its work uses the rest
};

}  // namespace mapperfs
