// FUSE passthrough: the kernel reads and writes a device's file itself, and no request comes here.
//
// For a device whose live table is one whole file from its first byte to its last (a loop or linear
// over a file, a ram). The kernel is given the file's descriptor and answers with a number, which
// every open of the device is then answered with: it refuses two ways of serving one file at once.
// Reads, writes and mappings of memory go to the file from then on; fsync, fallocate, seeks and
// attributes still come to us. While such a file is open the device's table stays
// (MappedDevice::begin_bypass).
//
// The kernel wants CAP_SYS_ADMIN of the daemon (6.9 and newer). The two requests are made here and
// not through libfuse's calls for them, which want a FUSE request at hand and swallow the errno.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "engine/mapped_device.h"
#include "engine/status.h"

struct fuse_conn_info;
struct fuse_session;

namespace mapperfs {

// A device that the kernel serves: for as long as this lives. Destroyed on any thread; does not
// wait.
class PassthroughFile {
 public:
  // `session` outlives this; `id` is what the kernel answered.
  PassthroughFile(fuse_session& session, int id, std::shared_ptr<MappedDevice> device)
      : session_(session), id_(id), device_(std::move(device)) {}
  ~PassthroughFile();
  PassthroughFile(const PassthroughFile&) = delete;
  PassthroughFile& operator=(const PassthroughFile&) = delete;

  // What opens are answered with; above 0.
  [[nodiscard]] int id() const { return id_; }

 private:
  fuse_session& session_;
  const int id_;
  const std::shared_ptr<MappedDevice> device_;
};

class Passthrough {
 public:
  Passthrough() = default;
  Passthrough(const Passthrough&) = delete;
  Passthrough& operator=(const Passthrough&) = delete;

  // Before the first request; `session` outlives this.
  void set_session(fuse_session* session) { session_ = session; }
  // Asks the kernel for it, where it offers it. On the thread that agrees upon the connection.
  void negotiate(fuse_conn_info& conn);
  // Has the kernel serve `device`, or says why not: of the kernel, of our rights, of the table.
  // Control threads.
  Result<std::unique_ptr<PassthroughFile>> begin(const std::shared_ptr<MappedDevice>& device);

 private:
  fuse_session* session_ = nullptr;
  std::atomic<bool> agreed_{false};
};

}  // namespace mapperfs
