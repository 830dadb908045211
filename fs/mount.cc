#include "fs/mount.h"

#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <utility>

#include "fs/file_system.h"

namespace mapperfs {
namespace {

// What libfuse complains about goes into the sentence of the failure that follows, and into the log
// otherwise. libfuse's log function has no context of its own, so this is the process's.
class LibraryLog {
 public:
  void attach(EngineLog* log) {
    const std::lock_guard lock(mutex_);
    log_ = log;
    last_.clear();
  }
  void add(std::string line) {
    while (!line.empty() && line.back() == '\n') {
      line.pop_back();
    }
    const std::lock_guard lock(mutex_);
    if (log_ != nullptr) {
      log_->add(line);
    }
    last_ = std::move(line);
  }
  std::string take_last() {
    const std::lock_guard lock(mutex_);
    return std::exchange(last_, {});
  }

 private:
  std::mutex mutex_;
  EngineLog* log_ = nullptr;
  std::string last_;
};

LibraryLog& library_log() {
  static LibraryLog log;
  return log;
}

__attribute__((format(printf, 2, 0))) void take_library_log(fuse_log_level level,
                                                            const char* format, va_list args) {
  if (level > FUSE_LOG_WARNING) {
    return;
  }
  std::array<char, 1024> line{};
  std::vsnprintf(line.data(), line.size(), format, args);
  library_log().add(line.data());
}

// Wakes a thread that waits in a system call.
constexpr int kWakeSignal = SIGUSR2;
constexpr std::chrono::milliseconds kWakeAgain{20};

void allow_wake_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(kWakeSignal, &action, nullptr);
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, kWakeSignal);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace

// The thread that is inside Transport::serve(), so that it can be woken.
class Mount::Serving {
 public:
  void begin() {
    allow_wake_signal();
    const std::lock_guard lock(mutex_);
    thread_ = ::pthread_self();
    running_ = true;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    running_ = false;
    stopped_.notify_all();
  }
  // The exit flag is set; the thread may be just about to wait, so one signal is not enough.
  void wake_until_end() {
    std::unique_lock lock(mutex_);
    while (running_) {
      ::pthread_kill(thread_, kWakeSignal);
      stopped_.wait_for(lock, kWakeAgain);
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable stopped_;
  pthread_t thread_{};
  bool running_ = false;
};

std::string libfuse_version() { return fuse_pkgversion(); }

Mount::Mount(Engine& engine, MountOptions options)
    : engine_(engine),
      options_(std::move(options)),
      choice_(make_transport(options_.transport)),
      serving_(std::make_unique<Serving>()) {
  FileSystem::Options fs_options;
  fs_options.max_write = options_.max_write;
  fs_options.cache = options_.cache;
  fs_options.passthrough = options_.passthrough;
  fs_options.serving = options_.serving;
  fs_ = std::make_unique<FileSystem>(engine, *choice_.transport, std::move(fs_options));
}

Mount::~Mount() {
  fs_->begin_stop();
  fs_->finish();
  if (session_ != nullptr) {
    fuse_session_destroy(session_);
  }
  library_log().attach(nullptr);
}

Result<std::unique_ptr<Mount>> Mount::make(Engine& engine, MountOptions options) {
  std::unique_ptr<Mount> mount(
      new Mount(engine, std::move(options)));  // the constructor is private
  Status status = mount->make_session();
  if (!status.ok()) {
    return status;
  }
  return mount;
}

Status Mount::make_session() {
  fuse_set_log_func(take_library_log);
  library_log().attach(&engine_.log());
  if (!choice_.note.empty()) {
    engine_.log().add(fmt::format("transport: {}; /dev/fuse instead", choice_.note));
  }
  std::string list =
      fmt::format("fsname={},subtype=mapperfs,default_permissions", options_.fs_name);
  for (const std::string& option : choice_.transport->session_options(options_.max_write)) {
    list += "," + option;
  }
  for (const std::string& option : options_.fuse_options) {
    list += "," + option;
  }
  std::array<char*, 3> argv = {const_cast<char*>("mapperfs"), const_cast<char*>("-o"), list.data()};
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
  session_ =
      fuse_session_new(&args, &FileSystem::operations(), sizeof(fuse_lowlevel_ops), fs_.get());
  fuse_opt_free_args(&args);
  if (session_ == nullptr) {
    const std::string why = library_log().take_last();
    return {EINVAL, fmt::format("no FUSE session with the options \"{}\"{}{}", list,
                                why.empty() ? "" : ": ", why)};
  }
  fs_->set_session(session_);
  return {};
}

ControlExecutor& Mount::executor() { return fs_->executor(); }

Status Mount::serve() {
  if (fuse_session_mount(session_, options_.mount_point.c_str()) != 0) {
    const std::string why = library_log().take_last();
    return {EIO, fmt::format("cannot mount on {}{}{}", options_.mount_point,
                             why.empty() ? "" : ": ", why)};
  }
  serving_->begin();
  const int error = choice_.transport->serve(*session_);
  serving_->end();
  fs_->begin_stop();
  // Devices first: what is under way completes, what waits for a suspended device fails. Then
  // nothing is left to answer, and the kernel can be told.
  engine_.shut_down();
  fs_->finish();
  choice_.transport->end(*session_);
  fuse_session_unmount(session_);
  if (error != 0) {
    return {error,
            fmt::format("the session on {} ended: {}", options_.mount_point, std::strerror(error))};
  }
  return {};
}

void Mount::stop() {
  fuse_session_exit(session_);
  serving_->wake_until_end();
}

}  // namespace mapperfs
