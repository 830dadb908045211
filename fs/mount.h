// A mounted file system, from the daemon's side. The only header of fs/ that tools/ needs besides
// the control executor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "fs/control_executor.h"
#include "fs/transport.h"

struct fuse_session;

namespace mapperfs {

class FileSystem;

struct MountOptions {
  std::string mount_point;  // absolute
  std::string fs_name = "mapperfs";
  // As after -o, without those that mapperfs itself takes.
  std::vector<std::string> fuse_options;
  TransportKind transport = TransportKind::kAuto;
  unsigned ring_depth = 0;             // places on each ring of io_uring; 0: by memory
  std::uint32_t max_write = 1U << 20;  // bytes
  bool cache = false;                  // let the kernel keep pages of device files
  bool passthrough = false;            // have the kernel serve device files itself where it can
  // Called once, on a FUSE thread, when the mount serves.
  std::function<void()> serving;
};

class Mount {
 public:
  // Everything but mounting: the executor works, nobody sees it. `engine` outlives the result.
  static Result<std::unique_ptr<Mount>> make(Engine& engine, MountOptions options);
  ~Mount();
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  ControlExecutor& executor();
  // Mounts and serves until unmounted or stopped; then shuts the engine's devices down (suspended
  // with a flush, removed), answers what is left and unmounts. Returns with nothing of the mount
  // left, in a bounded time: what has not ended by kEndPatienceNs or kFlushPatience is what only
  // this mount could answer, or nobody can. So the connection is cut, and then there is a second
  // time of grace. ETIMEDOUT: something is still under way, see abandoned().
  Status serve();
  // I/O or a flush never ended, and threads are still with it. The mount is gone, but neither this
  // nor the engine may be destroyed: the process is to end as it is.
  [[nodiscard]] bool abandoned() const { return abandoned_; }
  // Makes serve() return. Any thread, not a signal handler. Waits until it has stopped serving.
  void stop();

 private:
  Mount(Engine& engine, MountOptions options);
  Status make_session();
  // Returns what keeps the end from being reached, or an empty text.
  std::string wind_down();
  // Once, whoever comes first.
  void sever();
  Status end();

  Engine& engine_;
  MountOptions options_;
  Transport transport_;
  std::unique_ptr<FileSystem> fs_;
  fuse_session* session_ = nullptr;
  std::mutex sever_mutex_;
  bool severed_ = false;    // sever_mutex_
  bool unmounted_ = false;  // sever_mutex_
  bool abandoned_ = false;
};

// libfuse's version, as `mapperfs --version` prints it.
std::string libfuse_version();

}  // namespace mapperfs
