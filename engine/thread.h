// Threads of the engine: named, and deaf to signals, which belong to the daemon's own threads.
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace mapperfs {

// Starts a thread that runs `body`. `name` is cut to 15 bytes, the kernel's limit. An empty
// (not joinable) thread where the system has none left. It may run on every core of the process,
// where its parent is pinned to one as well.
std::thread start_thread(const std::string& name, std::function<void()> body);

// Lets the calling thread run on every core that the main thread may run on, and on those that the
// process is given later.
void run_where_the_process_may();

}  // namespace mapperfs
