// The mount as FUSE sees it: one method per request of the low-level interface.
//
// Threads. Requests come on the transport's threads, which must never wait: for I/O, for a lock
// that is held across I/O, for a control operation. What is done at once: look-ups, attributes,
// reads, aligned writes, flushes. Everything else goes to one of three pools:
//   commands_  what is written to control and sys/, and whatever may wait as such a command may
//   control_   opens, closes, texts, mkdir, rm, mv, seeks: what does not wait for long
//   slow_      what waits for a device's I/O: unaligned writes, fallocate, dropping its pages
// They are three, so that work which waits for a suspended device never keeps the `resume` out, nor
// commands that wait the opening of a file. A command never queues: it has a thread or is refused
// (crowd.h).
//
// Reads, writes and fsyncs of device files come through serve_io(), past libfuse; the operations of
// the same name are those of texts.
//
// A request is answered exactly once, by the last statement that touches it.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>

#include "engine/engine.h"
#include "fs/control_executor.h"
#include "fs/crowd.h"
#include "fs/device_notes.h"
#include "fs/inode.h"
#include "fs/io_request.h"
#include "fs/open_devices.h"
#include "fs/passthrough.h"
#include "fs/pollers.h"
#include "fs/request_handler.h"
#include "fs/text_file.h"
#include "fs/thread_pool.h"
#include "fs/transport.h"

struct fuse_conn_info;
struct fuse_file_info;
struct fuse_lowlevel_ops;
struct fuse_pollhandle;
struct fuse_req;
struct fuse_session;

namespace mapperfs {

class FileSystem final : public EngineObserver, public RequestHandler {
 public:
  struct Options {
    std::uint32_t max_write = 1U << 20;  // bytes
    bool cache = false;                  // let the kernel keep pages
    bool passthrough = false;            // devices that do not say otherwise want it
    // Called once, when the kernel and we agreed: the mount serves.
    std::function<void()> serving;
  };
  // `engine` and `transport` outlive this.
  FileSystem(Engine& engine, Transport& transport, Options options);
  ~FileSystem();
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;

  static const fuse_lowlevel_ops& operations();
  void set_session(fuse_session* session) {
    session_ = session;
    passthrough_.set_session(session);
  }
  // No more requests come. Control operations that wait give up.
  void begin_stop() { stopping_.store(true, std::memory_order_release); }
  // Ends the pools; what was posted to them is answered. The devices must be shut down.
  void finish();
  ControlExecutor& executor() { return executor_; }
  Transport& transport() { return transport_; }

  // RequestHandler
  void serve_io(IoRequest& io, const IoCall& call) noexcept override;
  bool serve_message(std::span<std::byte> message) override;

  // EngineObserver
  void device_event(MappedDevice& device) override;
  void device_resized(MappedDevice& device) override;
  void device_removed(MappedDevice& device, const std::string& name) override;

  // Requests, as fuse_lowlevel_ops has them. name_ops.cc:
  void lookup(fuse_req* req, std::uint64_t parent, const char* name);
  void getattr(fuse_req* req, std::uint64_t ino);
  void setattr(fuse_req* req, std::uint64_t ino, const struct stat& attr, int to_set);
  void mkdir(fuse_req* req, std::uint64_t parent, const char* name);
  void remove(fuse_req* req, std::uint64_t parent, const char* name, bool directory);
  void rename(fuse_req* req, std::uint64_t parent, const char* name, std::uint64_t new_parent,
              const char* new_name, unsigned flags);
  void refuse_new_file(fuse_req* req);
  void opendir(fuse_req* req, std::uint64_t ino, fuse_file_info& fi);
  void readdir(fuse_req* req, std::size_t size, off_t offset, const fuse_file_info& fi, bool plus);
  void statfs(fuse_req* req);
  // file_system.cc:
  void init(fuse_conn_info& conn);
  // file_ops.cc:
  void open(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi);
  void release(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi);
  void read(fuse_req* req, std::uint64_t ino, std::size_t size, off_t offset,
            const fuse_file_info& fi);
  void write(fuse_req* req, std::uint64_t ino, const char* data, std::size_t size, off_t offset,
             const fuse_file_info& fi);
  void flush(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi);
  void fsync(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi);
  void fallocate(fuse_req* req, std::uint64_t ino, int mode, off_t offset, off_t length,
                 const fuse_file_info& fi);
  void lseek(fuse_req* req, std::uint64_t ino, off_t offset, int whence, const fuse_file_info& fi);
  void poll(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi, fuse_pollhandle* handle);

 private:
  struct Directory;  // an open one: its names at the moment it was opened
  struct Entry;
  struct BlocksKnown {
    sector_t allocated = 0;
    std::uint64_t when_ns = 0;
  };

  // The attributes of a file that exists, or false. st_blocks as last known.
  bool fill_attr(Inode inode, struct stat& attr) const;
  bool find_entry(Inode parent, const std::string& name, Inode& found) const;
  void reply_entry(fuse_req* req, Inode inode);
  void set_owner(fuse_req* req, Inode inode, const struct stat& attr, int to_set);
  void refresh_blocks(const MappedDevice& device);
  // The device of an inode, or null.
  [[nodiscard]] std::shared_ptr<MappedDevice> device_of(Inode inode) const {
    return engine_.find_serial(inode.serial);
  }
  // True for the mount's owner and for root; else the request is answered with EPERM.
  bool require_owner(fuse_req* req) const;
  // Answers with the status' errno, and puts its sentence into the log.
  void reply_status(fuse_req* req, const Status& status, const std::string& what);

  void open_device(fuse_req* req, const std::shared_ptr<MappedDevice>& device,
                   const fuse_file_info& fi);
  void open_text(fuse_req* req, Inode inode, const fuse_file_info& fi);
  void read_device(IoRequest& io, OpenDevice& open, std::size_t size, std::uint64_t offset);
  void write_device(IoRequest& io, OpenDevice& open, std::size_t size, std::uint64_t offset,
                    bool sync);
  void write_edges(IoRequest& io, OpenDevice& open, std::size_t size, std::uint64_t offset,
                   std::uint8_t flags);
  // Runs a command, or what may wait as one does, on a thread of its own, then what it returns,
  // which answers. Where there is no room for it the command refuses itself without waiting.
  using Reply = std::function<void()>;
  void run_command(std::function<Reply(Room)> command);
  [[nodiscard]] RunOptions run_options(fuse_req* req, Room room) const;
  // The end of `rm` and `rmdir`; a thread of control_.
  void remove_device(fuse_req* req, const std::string& name, std::uint64_t serial,
                     const char* what);
  void write_text(fuse_req* req, TextFile& file, const char* data, std::size_t size,
                  std::uint64_t offset);
  [[nodiscard]] std::string version_text() const;
  void table_changed(MappedDevice& device);
  void forget_pages(MappedDevice& device);

  Engine& engine_;
  Transport& transport_;
  const Options options_;
  const uid_t owner_;
  const gid_t group_;
  const timespec made_;
  fuse_session* session_ = nullptr;
  // Up to here a write(2) comes in one piece, wherever in memory it lies. Bytes.
  std::atomic<std::uint32_t> whole_write_{0};
  std::atomic<std::uint32_t> kernel_protocol_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> visits_{1};  // look-ups of files with a node per visit

  mutable std::mutex blocks_mutex_;
  std::unordered_map<std::uint64_t, BlocksKnown> blocks_;  // by serial; blocks_mutex_

  DeviceNotes notes_;
  Passthrough passthrough_;
  OpenDevices open_devices_;
  Pollers pollers_;
  ControlExecutor executor_;
  Crowd crowd_;
  ThreadPool control_;
  ThreadPool commands_;
  ThreadPool slow_;
};

}  // namespace mapperfs
