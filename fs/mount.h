// A mounted file system, from the daemon's side. The only header of fs/ that tools/ needs besides
// the control executor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
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
  // left.
  Status serve();
  // Makes serve() return. Any thread, not a signal handler. Waits until it has stopped serving.
  void stop();

 private:
  Mount(Engine& engine, MountOptions options);
  Status make_session();

  Engine& engine_;
  MountOptions options_;
  Transport transport_;
  std::unique_ptr<FileSystem> fs_;
  fuse_session* session_ = nullptr;
};

// libfuse's version, as `mapperfs --version` prints it.
std::string libfuse_version();

}  // namespace mapperfs
