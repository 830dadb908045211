// mapperfs: mounts the file system and serves it until it is unmounted or told to end.
//
// Order of things: signals are blocked and the process forked before any thread exists; tables are
// brought up before the mount is visible; the caller is let go when the mount serves.

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <syslog.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/backing.h"
#include "engine/engine.h"
#include "engine/env.h"
#include "fs/control_session.h"
#include "fs/mount.h"
#include "targets/targets.h"
#include "targets/thin/pool_table.h"
#include "tools/daemon_background.h"
#include "tools/daemon_options.h"
#include "tools/daemon_signals.h"
#include "tools/read_all.h"

namespace mapperfs {
namespace {

// Memory that serves a block device must not be reclaimed by writing to that very device: the
// kernel's name for a process on that path is "IO flusher". Needs CAP_SYS_RESOURCE; without it the
// mount works, and file systems on loop devices over it are at the usual risk under memory
// pressure.
void become_io_flusher() {
#ifdef PR_SET_IO_FLUSHER
  static_cast<void>(::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0);
#endif
}

// A device on a file takes two descriptors, and a shell's soft limit is often a thousand.
void allow_many_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
  }
}

Status execute_file(ControlExecutor& executor, const std::string& path) {
  const ReadText file = read_path(path);
  if (file.error != 0) {
    return {file.error, fmt::format("tables {}: {}", path, std::strerror(file.error))};
  }
  ControlSession session(executor, ControlSession::Kind::kControl, nullptr);
  Outcome outcome = session.write(file.text, ControlSession::Rest::kNone, {});
  if (outcome.status.ok() && session.collecting()) {
    // Half a backup. A mount without what it lacks would look like a success.
    outcome.status = Status(EINVAL, "a \"begin\" without its \"commit\": the file is not complete");
  } else {
    session.close();
  }
  return outcome.status.with_context(fmt::format("tables {}", path));
}

void log_sentence(const std::string& sentence) { spdlog::info("{}", sentence); }

// What the engine says while tables are brought up, until it is known what became of them. Threads:
// any; the engine's log may call it a moment after it was replaced.
class HeldSentences {
 public:
  void add(const std::string& sentence) {
    const std::lock_guard lock(mutex_);
    held_ ? sentences_.push_back(sentence) : log_sentence(sentence);
  }
  // Logs them, those left out that `last_word` says anyway.
  void release(const std::string& last_word) {
    const std::lock_guard lock(mutex_);
    for (const std::string& sentence : sentences_) {
      if (last_word.find(sentence) == std::string::npos) {
        log_sentence(sentence);
      }
    }
    sentences_.clear();
    held_ = false;
  }

 private:
  std::mutex mutex_;
  bool held_ = true;
  std::vector<std::string> sentences_;
};

// Executes the file of --tables. The sentence of a failure is in the Status, which is printed as
// the daemon's last word: the log does not say it a second time.
Status bring_up(Engine& engine, ControlExecutor& executor, const std::string& path) {
  const auto held = std::make_shared<HeldSentences>();
  engine.log().set_sink([held](const std::string& sentence) { held->add(sentence); });
  Status status = execute_file(executor, path);
  engine.log().set_sink(log_sentence);
  held->release(status.ok() ? std::string() : status.message());
  return status;
}

Status run(const DaemonOptions& options, Background& background) {
  const std::unique_ptr<Env> env = make_real_env(options.seed);
  const std::unique_ptr<BackingOpener> backing =
      make_backing_opener(*env, {.mount_point = options.mount_point});
  TargetRegistry registry;
  register_targets(registry);
  thinp::PoolTuning thin;
  thin.no_space_timeout_ns = options.thin_no_space_timeout_s * 1'000'000'000;
  thin.cache_bytes = options.thin_cache_bytes;
  thinp::set_pool_tuning(thin);
  Engine engine(*env, registry, *backing);
  engine.log().set_sink(log_sentence);

  Result<TransportKind> transport = parse_transport(options.transport);
  if (!transport.ok()) {
    return transport.status();
  }
  MountOptions mount_options;
  mount_options.mount_point = options.mount_point;
  mount_options.fs_name = options.fs_name;
  mount_options.fuse_options = options.fuse_options;
  mount_options.transport = *transport;
  mount_options.ring_depth = options.ring_depth;
  mount_options.max_write = options.max_write;
  mount_options.cache = options.cache;
  mount_options.passthrough = options.passthrough;
  mount_options.serving = [&background] { background.ready(); };
  Result<std::unique_ptr<Mount>> mount = Mount::make(engine, std::move(mount_options));
  if (!mount.ok()) {
    return mount.status();
  }
  Status status;
  if (!options.tables.empty()) {
    status = bring_up(engine, (*mount)->executor(), options.tables);
  }
  if (status.ok()) {
    const Signals signals([&mount] { (*mount)->stop(); });
    status = (*mount)->serve();
  }
  if ((*mount)->abandoned() || !engine.shut_down().empty()) {
    // Threads are with I/O that never ends, and nothing that they use may go.
    const std::string why = status.ok() ? std::string("I/O does not end") : status.message();
    background.failed(why);
    if (!options.foreground) {
      log_sentence(why);  // who started the daemon has gone long ago
    }
    spdlog::default_logger()->flush();
    ::_exit(1);
  }
  return status;
}

// To the terminal while there is one; a daemon in the background has only the system's log.
void start_log(const DaemonOptions& options) {
  auto logger = std::make_shared<spdlog::logger>("mapperfs",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("mapperfs: %v");
  if (!options.foreground) {
    logger->sinks().push_back(
        std::make_shared<spdlog::sinks::syslog_sink_mt>("mapperfs", LOG_PID, LOG_DAEMON, false));
  }
  logger->set_level(spdlog::level::from_str(options.log_level));
  spdlog::set_default_logger(std::move(logger));
}

int main_checked(int argc, char** argv) {
  int exit_code = 0;
  const std::optional<DaemonOptions> options = parse_daemon_options(argc, argv, exit_code);
  if (!options) {
    return exit_code;
  }
  Signals::block();
  become_io_flusher();
  allow_many_files();
  Background background(options->foreground);
  start_log(*options);
  const Status status = run(*options, background);
  if (!status.ok()) {
    background.failed(status.message());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace mapperfs

int main(int argc, char** argv) { return mapperfs::main_checked(argc, argv); }
