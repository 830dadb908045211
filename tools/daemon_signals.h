// SIGTERM, SIGINT and SIGHUP end the daemon cleanly, on a thread of their own: nothing that has to
// be done then may be done in a signal handler.
#pragma once

#include <functional>
#include <thread>

namespace mapperfs {

class Signals {
 public:
  // Blocks the signals in the calling thread and in all that it starts later. First thing in main.
  static void block();
  // Calls `stop` at the first signal. block() came before.
  explicit Signals(std::function<void()> stop);
  // Ends the thread, signal or not.
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  std::thread thread_;
};

}  // namespace mapperfs
