// Threads of the engine: named, and deaf to signals, which belong to the daemon's own threads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

namespace mapperfs {

// kPassing: may end while the process goes on, as a target's worker does. What the kernel ties to a
// thread (a request on an io_uring ring) must not be left behind by one.
enum class ThreadLife : std::uint8_t { kLasting, kPassing };

// Starts a thread that runs `body`. `name` is cut to 15 bytes, the kernel's limit. An empty
// (not joinable) thread where the system has none left.
std::thread start_thread(const std::string& name, ThreadLife life, std::function<void()> body);

// True on a thread that was started as kPassing.
bool on_passing_thread() noexcept;

}  // namespace mapperfs
