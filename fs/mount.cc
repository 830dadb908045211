#include "fs/mount.h"

#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <future>
#include <mutex>
#include <span>
#include <string_view>
#include <thread>
#include <utility>

#include "engine/thread.h"
#include "fs/file_system.h"
#include "fs/sever.h"

namespace mapperfs {
namespace {

// What libfuse complains about goes into the sentence of the failure that follows, and into the log
// otherwise. libfuse's log function has no context of its own, so this is the process's.
class LibraryLog {
 public:
  // Null: lines are only kept for take_last().
  void attach(EngineLog* log) {
    const std::lock_guard lock(mutex_);
    log_ = log;
    line_.clear();
    last_.clear();
  }
  // A line may come in pieces; its end completes it.
  void add(std::string_view piece) {
    const std::lock_guard lock(mutex_);
    line_ += piece;
    if (line_.empty() || line_.back() != '\n') {
      return;
    }
    while (!line_.empty() && line_.back() == '\n') {
      line_.pop_back();
    }
    if (log_ != nullptr) {
      log_->add(line_);
    }
    last_ = std::exchange(line_, {});
  }
  std::string take_last() {
    const std::lock_guard lock(mutex_);
    return std::exchange(last_.empty() ? line_ : last_, {});
  }

 private:
  std::mutex mutex_;
  EngineLog* log_ = nullptr;
  std::string line_;  // what is not ended yet
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

// libfuse writes its answers through this.
ssize_t write_answer(int, iovec* pieces, int count, void* userdata) {
  return static_cast<FileSystem*>(userdata)->transport().reply(
      std::span<const iovec>(pieces, static_cast<std::size_t>(count)));
}

// libfuse wants one; nothing of ours makes libfuse read.
ssize_t read_request(int fd, void* buffer, std::size_t bytes, void*) {
  return ::read(fd, buffer, bytes);
}

// False where libfuse was built without it: 3.18 leaves it out unless asked.
bool take_answers(fuse_session& session) {
  fuse_custom_io io{};
  io.writev = write_answer;
  io.read = read_request;
#if FUSE_USE_VERSION >= 317
  const int result = fuse_session_custom_io(&session, &io, sizeof(io), fuse_session_fd(&session));
#else
  const int result = fuse_session_custom_io(&session, &io, fuse_session_fd(&session));
#endif
  return result == 0;
}

// Why libfuse made no session, in words that do without its quotes.
std::string session_refused(const std::string& options, const std::string& why) {
  constexpr std::string_view kUnknown = "fuse: unknown option(s): `-o ";
  if (why.starts_with(kUnknown) && why.ends_with('\'')) {
    return fmt::format("unknown mount option: {}",
                       why.substr(kUnknown.size(), why.size() - kUnknown.size() - 1));
  }
  return fmt::format("no FUSE session with the options \"{}\"{}{}", options,
                     why.empty() ? "" : ": ", why);
}

// A word as libfuse wants it in a list: a comma of its own ends no option.
std::string escaped_option(std::string_view word) {
  std::string escaped;
  for (const char c : word) {
    escaped += c == ',' || c == '\\' ? "\\" : "";
    escaped += c;
  }
  return escaped;
}

// For a flush, with what comes before it. Less than systemd's 90 s, with what comes after it.
constexpr std::chrono::seconds kFlushPatience{60};
// For what fails now that the connection is cut, and for the devices' I/O within that.
constexpr std::chrono::seconds kSeveredPatience{10};
constexpr std::uint64_t kSeveredPatienceNs = 2'000'000'000;

Transport::Options transport_options(const MountOptions& options) {
  return {options.transport, options.ring_depth, options.max_write};
}

}  // namespace

std::string libfuse_version() { return fuse_pkgversion(); }

Mount::Mount(Engine& engine, MountOptions options)
    : engine_(engine),
      options_(std::move(options)),
      transport_(transport_options(options_),
                 [this](const std::string& sentence) { engine_.log().add(sentence); }) {
  FileSystem::Options fs_options;
  fs_options.max_write = options_.max_write;
  fs_options.cache = options_.cache;
  fs_options.passthrough = options_.passthrough;
  fs_options.serving = options_.serving;
  fs_ = std::make_unique<FileSystem>(engine, transport_, std::move(fs_options));
}

Mount::~Mount() {
  fs_->begin_stop();
  fs_->finish();
  transport_.end();
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
  library_log().attach(nullptr);  // a complaint now is a part of the sentence below
  std::string list = fmt::format("fsname={},subtype=mapperfs,default_permissions",
                                 escaped_option(options_.fs_name));
  for (const std::string& option : options_.fuse_options) {
    list += "," + option;
  }
  std::array<char*, 3> argv = {const_cast<char*>("mapperfs"), const_cast<char*>("-o"), list.data()};
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
  session_ =
      fuse_session_new(&args, &FileSystem::operations(), sizeof(fuse_lowlevel_ops), fs_.get());
  fuse_opt_free_args(&args);
  const std::string why = library_log().take_last();
  if (session_ == nullptr) {
    return {EINVAL, session_refused(list, why)};
  }
  if (!why.empty()) {
    engine_.log().add(why);
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
  library_log().attach(&engine_.log());
  const bool routed = take_answers(*session_);
  const int error = transport_.serve(fuse_session_fd(session_), routed, *fs_);
  fs_->begin_stop();
  Status ended = end();
  if (ended.ok() && error != 0) {
    return {error,
            fmt::format("the session on {} ended: {}", options_.mount_point, std::strerror(error))};
  }
  return ended;
}

// Devices first: what is under way completes, what waits for a suspended device fails. Then nothing
// is left to answer, and the kernel can be told.
std::string Mount::wind_down() {
  std::vector<std::string> left = engine_.shut_down();
  if (!left.empty()) {
    engine_.log().add(fmt::format(
        "I/O of {} does not end: the connection of {} is cut, in case that it waits for this mount",
        fmt::join(left, ", "), options_.mount_point));
    sever();
    left = engine_.shut_down(kSeveredPatienceNs);
  }
  if (!left.empty()) {
    return fmt::format("I/O of {} does not end", fmt::join(left, ", "));
  }
  fs_->finish();
  transport_.end();
  return {};
}

void Mount::sever() {
  const std::lock_guard lock(sever_mutex_);
  if (!std::exchange(severed_, true)) {
    unmounted_ = sever_connection(options_.mount_point);
  }
}

// On a thread of its own, since a flush may wait for a disk that never answers.
Status Mount::end() {
  auto outcome = std::make_shared<std::promise<std::string>>();
  std::future<std::string> ended = outcome->get_future();
  std::thread thread =
      start_thread("mfs-end", [this, outcome] { outcome->set_value(wind_down()); });
  if (!thread.joinable()) {
    outcome->set_value(wind_down());
  }
  if (ended.wait_for(kFlushPatience) != std::future_status::ready) {
    engine_.log().add(
        fmt::format("a flush does not end: the connection of {} is cut", options_.mount_point));
    sever();
  }
  std::string why = "a flush does not end";
  if (ended.wait_for(kSeveredPatience) == std::future_status::ready) {
    why = ended.get();
  }
  abandoned_ = !why.empty();
  if (abandoned_) {
    sever();
    thread.detach();
  } else if (thread.joinable()) {
    thread.join();
  }
  bool unmounted = false;
  {
    const std::lock_guard lock(sever_mutex_);
    unmounted = unmounted_;
  }
  if (!unmounted) {
    fuse_session_unmount(session_);
  }
  return abandoned_ ? Status(ETIMEDOUT, why + ": ended without it") : Status();
}

void Mount::stop() {
  fuse_session_exit(session_);
  transport_.stop();
}

}  // namespace mapperfs
