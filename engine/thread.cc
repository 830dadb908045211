#include "engine/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <system_error>

namespace mapperfs {

// The kernel keeps to what a thread asked for, also when the process is given more cores later: so
// all cores, unless somebody has limited the main thread, which nobody of us pins, to some of those
// that the process has.
void run_where_the_process_may() {
  cpu_set_t cores;
  if (::sched_getaffinity(::getpid(), sizeof(cores), &cores) != 0) {
    return;  // no mask that fits: as it is
  }
  cpu_set_t own;
  std::memset(&own, 0xff, sizeof(own));
  static_cast<void>(::sched_setaffinity(0, sizeof(own), &own));
  if (::sched_getaffinity(0, sizeof(own), &own) == 0 && !CPU_EQUAL(&own, &cores)) {
    static_cast<void>(::sched_setaffinity(0, sizeof(cores), &cores));
  }
}

std::thread start_thread(const std::string& name, std::function<void()> body) {
  // The mask is inherited, so that there is no moment in which the new thread takes a signal.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  try {
    thread = std::thread([short_name = name.substr(0, 15), run = std::move(body)] {
      ::pthread_setname_np(::pthread_self(), short_name.c_str());
      run_where_the_process_may();
      run();
    });
  } catch (const std::system_error&) {
    // EAGAIN: a limit on threads or memory. The caller knows what to do without one.
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace mapperfs
