#include "tools/daemon_background.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace mapperfs {
namespace {

// The first process: what comes through the pipe is the sentence; a single NUL byte says ready.
[[noreturn]] void wait_for_outcome(int from_daemon) {
  std::string text;
  std::array<char, 512> bytes{};
  for (;;) {
    const ssize_t got = ::read(from_daemon, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    text.append(bytes.data(), static_cast<std::size_t>(got));
    if (text.front() == '\0') {
      ::_exit(0);
    }
  }
  fmt::print(stderr, "mapperfs: {}\n", text.empty() ? "the daemon ended before it mounted" : text);
  std::fflush(stderr);
  ::_exit(1);
}

void write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t put = ::write(fd, data, size);
    if (put < 0 && errno == EINTR) {
      continue;
    }
    if (put <= 0) {
      return;  // the caller is gone: nobody to tell
    }
    data += put;
    size -= static_cast<std::size_t>(put);
  }
}

}  // namespace

Background::Background(bool foreground) : foreground_(foreground) {
  std::array<int, 2> ends{};
  if (foreground || ::pipe2(ends.data(), O_CLOEXEC) != 0) {
    foreground_ = true;
    return;
  }
  UniqueFd from_daemon(ends[0]);
  to_caller_ = UniqueFd(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) {
    foreground_ = true;  // better a daemon that holds the terminal than none
    return;
  }
  if (child > 0) {
    to_caller_ = UniqueFd();
    wait_for_outcome(from_daemon.get());
  }
  ::setsid();
}

void Background::ready() {
  if (foreground_) {
    return;
  }
  // Nothing of the caller's stays open here: its pipes must see their end.
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (null) {
    ::dup2(null.get(), STDIN_FILENO);
    ::dup2(null.get(), STDOUT_FILENO);
    ::dup2(null.get(), STDERR_FILENO);
  }
  // The mount may lie below the caller's folder, but the daemon must hold none.
  static_cast<void>(::chdir("/") == 0);
  write_all(to_caller_.get(), "", 1);
  UniqueFd gone = std::move(to_caller_);
}

void Background::failed(const std::string& sentence) {
  if (foreground_) {
    fmt::print(stderr, "mapperfs: {}\n", sentence);
    return;
  }
  write_all(to_caller_.get(), sentence.data(), sentence.size());
}

}  // namespace mapperfs
