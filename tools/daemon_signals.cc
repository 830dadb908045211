#include "tools/daemon_signals.h"

#include <pthread.h>
#include <signal.h>

#include <utility>

namespace mapperfs {
namespace {

// Wakes the thread when the daemon ends without a signal.
constexpr int kEndSignal = SIGUSR1;

sigset_t ending_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, kEndSignal}) {
    ::sigaddset(&set, number);
  }
  return set;
}

}  // namespace

void Signals::block() {
  const sigset_t set = ending_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // A reader of ours that went away, or a file that reached the limit of file sizes, is an error of
  // that write, no reason to end.
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, nullptr);
  ::sigaction(SIGXFSZ, &ignore, nullptr);
}

Signals::Signals(std::function<void()> stop)
    : thread_([stop = std::move(stop)] {
        const sigset_t set = ending_signals();
        int number = 0;
        if (::sigwait(&set, &number) == 0 && number != kEndSignal) {
          stop();
        }
      }) {}

Signals::~Signals() {
  ::pthread_kill(thread_.native_handle(), kEndSignal);
  thread_.join();
}

}  // namespace mapperfs
