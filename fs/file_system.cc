#include "fs/file_system.h"

#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <future>
#include <utility>

#include "fs/device_text.h"
#include "fs/fuse_abi.h"

namespace mapperfs {
namespace {

constexpr std::size_t kControlThreads = 96;
// Each may wait for a suspended device: so many of those, and the next one's unaligned writes and
// fallocates wait with them.
constexpr std::size_t kSlowThreads = 512;
// How long a swap waits until the kernel has dropped the pages of the table before.
constexpr std::chrono::seconds kPagesPatience{1};
// The protocol of `control` promises 128 KiB for a transaction.
constexpr std::uint32_t kMinMaxWrite = (128U << 10) + fuse_abi::kPageBytes;

timespec now() {
  timespec ts{};
  ::clock_gettime(CLOCK_REALTIME, &ts);
  return ts;
}

FileSystem& self(fuse_req_t req) { return *static_cast<FileSystem*>(fuse_req_userdata(req)); }

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
bool offered(const fuse_conn_info& conn, std::uint64_t cap) {
  return (conn.capable_ext & cap) != 0;
}
void want(fuse_conn_info& conn, std::uint64_t cap) {
  static_cast<void>(fuse_set_feature_flag(&conn, cap));
}
void refuse(fuse_conn_info& conn, std::uint64_t cap) { fuse_unset_feature_flag(&conn, cap); }
#else
bool offered(const fuse_conn_info& conn, unsigned long cap) { return (conn.capable & cap) != 0; }
void want(fuse_conn_info& conn, unsigned long cap) { conn.want |= static_cast<unsigned>(cap); }
void refuse(fuse_conn_info& conn, unsigned long cap) { conn.want &= ~static_cast<unsigned>(cap); }
#endif

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops ops{};
  ops.init = [](void* userdata, fuse_conn_info* conn) {
    static_cast<FileSystem*>(userdata)->init(*conn);
  };
  ops.lookup = [](fuse_req_t req, fuse_ino_t parent, const char* name) {
    self(req).lookup(req, parent, name);
  };
  ops.getattr = [](fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
    self(req).getattr(req, ino);
  };
  ops.setattr = [](fuse_req_t req, fuse_ino_t ino, struct stat* attr, int to_set, fuse_file_info*) {
    self(req).setattr(req, ino, *attr, to_set);
  };
  ops.mkdir = [](fuse_req_t req, fuse_ino_t parent, const char* name, mode_t) {
    self(req).mkdir(req, parent, name);
  };
  ops.unlink = [](fuse_req_t req, fuse_ino_t parent, const char* name) {
    self(req).remove(req, parent, name, false);
  };
  ops.rmdir = [](fuse_req_t req, fuse_ino_t parent, const char* name) {
    self(req).remove(req, parent, name, true);
  };
  ops.rename = [](fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
                  const char* new_name, unsigned flags) {
    self(req).rename(req, parent, name, new_parent, new_name, flags);
  };
  ops.mknod = [](fuse_req_t req, fuse_ino_t, const char*, mode_t, dev_t) {
    self(req).refuse_new_file(req);
  };
  ops.create = [](fuse_req_t req, fuse_ino_t, const char*, mode_t, fuse_file_info*) {
    self(req).refuse_new_file(req);
  };
  ops.symlink = [](fuse_req_t req, const char*, fuse_ino_t, const char*) {
    self(req).refuse_new_file(req);
  };
  ops.link = [](fuse_req_t req, fuse_ino_t, fuse_ino_t, const char*) {
    self(req).refuse_new_file(req);
  };
  ops.opendir = [](fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
    self(req).opendir(req, ino, *fi);
  };
  ops.readdir = [](fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* fi) {
    self(req).readdir(req, size, offset, *fi, false);
  };
  ops.readdirplus = [](fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* fi) {
    self(req).readdir(req, size, offset, *fi, true);
  };
  ops.releasedir = [](fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
    self(req).release(req, ino, *fi);
  };
  ops.statfs = [](fuse_req_t req, fuse_ino_t) { self(req).statfs(req); };
  return ops;
}

void add_file_operations(fuse_lowlevel_ops& ops) {
  ops.open = [](fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
    self(req).open(req, ino, *fi);
  };
  ops.release = [](fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
    self(req).release(req, ino, *fi);
  };
  ops.read = [](fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info* fi) {
    self(req).read(req, ino, size, offset, *fi);
  };
  ops.write = [](fuse_req_t req, fuse_ino_t ino, const char* data, size_t size, off_t offset,
                 fuse_file_info* fi) { self(req).write(req, ino, data, size, offset, *fi); };
  ops.flush = [](fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
    self(req).flush(req, ino, *fi);
  };
  ops.fsync = [](fuse_req_t req, fuse_ino_t ino, int, fuse_file_info* fi) {
    self(req).fsync(req, ino, *fi);
  };
  ops.fsyncdir = [](fuse_req_t req, fuse_ino_t, int, fuse_file_info*) {
    static_cast<void>(fuse_reply_err(req, 0));
  };
  ops.fallocate = [](fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                     fuse_file_info* fi) {
    self(req).fallocate(req, ino, mode, offset, length, *fi);
  };
  ops.lseek = [](fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info* fi) {
    self(req).lseek(req, ino, offset, whence, *fi);
  };
  ops.poll = [](fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi, fuse_pollhandle* handle) {
    self(req).poll(req, ino, *fi, handle);
  };
  // A device file is no block device to ioctl(2): what asks finds out the way it does for files.
  ops.ioctl = [](fuse_req_t req, fuse_ino_t, unsigned, void*, fuse_file_info*, unsigned,
                 const void*, size_t, size_t) { static_cast<void>(fuse_reply_err(req, ENOTTY)); };
}

}  // namespace

const fuse_lowlevel_ops& FileSystem::operations() {
  static const fuse_lowlevel_ops ops = [] {
    fuse_lowlevel_ops all = make_operations();
    add_file_operations(all);
    return all;
  }();
  return ops;
}

FileSystem::FileSystem(Engine& engine, Transport& transport, Options options)
    : engine_(engine),
      transport_(transport),
      options_(std::move(options)),
      owner_(::getuid()),
      group_(::getgid()),
      made_(now()),
      open_devices_(engine, notes_, passthrough_),
      pollers_(engine.env()),
      executor_(engine, notes_,
                {[this] { return version_text(); },
                 [this](MappedDevice& device) { return open_devices_.await_closes(device); },
                 [this](MappedDevice& device) { table_changed(device); }}),
      control_("mfs-control", kControlThreads),
      commands_("mfs-command", Crowd::kMost),
      slow_("mfs-slow", kSlowThreads) {
  notes_.set_default_passthrough(options_.passthrough);
  engine_.set_observer(this);
}

FileSystem::~FileSystem() { engine_.set_observer(nullptr); }

void FileSystem::finish() {
  control_.stop();
  commands_.stop();
  slow_.stop();
  open_devices_.end_passthrough();
  pollers_.worker().drain();
}

void FileSystem::init(fuse_conn_info& conn) {
  conn.max_write = std::clamp(std::min(options_.max_write, conn.max_write), kMinMaxWrite,
                              static_cast<std::uint32_t>(IoRequest::kMaxBytes));
  conn.max_background = transport_.max_background();
  conn.congestion_threshold = conn.max_background * 3 / 4;
  // Splicing through pipes costs more than it saves on requests of our sizes.
  refuse(conn, FUSE_CAP_SPLICE_READ);
  refuse(conn, FUSE_CAP_SPLICE_WRITE);
  refuse(conn, FUSE_CAP_SPLICE_MOVE);
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
  if (offered(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP)) {
    want(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
  }
#endif
  // open(O_TRUNC) must not arrive as a truncate to nothing, which a device refuses.
  if (offered(conn, FUSE_CAP_ATOMIC_O_TRUNC)) {
    want(conn, FUSE_CAP_ATOMIC_O_TRUNC);
  }
  passthrough_.negotiate(conn);
  // The kernel cuts a write(2) by pages: one that begins inside a page moves that much less at
  // once.
  whole_write_.store(conn.max_write - fuse_abi::kPageBytes, std::memory_order_release);
  kernel_protocol_.store(conn.proto_major << 16 | conn.proto_minor, std::memory_order_release);
  if (options_.serving) {
    options_.serving();
  }
}

bool FileSystem::serve_message(std::span<std::byte> message) {
  fuse_buf buf{};
  buf.mem = message.data();
  buf.size = message.size();
  fuse_session_process_buf(session_, &buf);
  return fuse_session_exited(session_) == 0;
}

std::string FileSystem::version_text() const {
  const std::uint32_t protocol = kernel_protocol_.load(std::memory_order_acquire);
  return fmt::format("version: {}\ntransport: {}\nmax_write: {}\nlibfuse: {}\nkernel: FUSE {}.{}\n",
                     MAPPERFS_VERSION, transport_.name(),
                     whole_write_.load(std::memory_order_acquire), fuse_pkgversion(),
                     protocol >> 16, protocol & 0xffff);
}

bool FileSystem::require_owner(fuse_req* req) const {
  const uid_t uid = fuse_req_ctx(req)->uid;
  if (uid == 0 || uid == owner_) {
    return true;
  }
  static_cast<void>(fuse_reply_err(req, EPERM));
  return false;
}

void FileSystem::reply_status(fuse_req* req, const Status& status, const std::string& what) {
  if (!status.ok()) {
    engine_.log().add(fmt::format("{}: {}", what, status.message()));
  }
  static_cast<void>(fuse_reply_err(req, status.error()));
}

void FileSystem::device_event(MappedDevice& device) { pollers_.wake(device.serial()); }

void FileSystem::device_resized(MappedDevice& device) {
  const std::lock_guard lock(blocks_mutex_);
  blocks_.erase(device.serial());
}

void FileSystem::device_removed(MappedDevice& device, const std::string& name) {
  static_cast<void>(name);
  notes_.forget(device.serial());
  device_resized(device);
  pollers_.wake(device.serial());
}

void FileSystem::table_changed(MappedDevice& device) {
  open_devices_.refresh(device);
  notes_.forget_not_passed(device.serial());
  device_resized(device);
  forget_pages(device);
}

// Pages that the kernel keeps belong to the old table. Attributes are never kept (their timeout is
// zero), so without pages there is nothing to forget.
//
// Whoever has the answer to a swap reads the new table, so the command waits. Not for ever: the
// kernel waits for a page that is being read before it drops it, and that read may wait for a
// device below which is suspended, and its resume for the end of this command. Whom the kernel
// keeps waiting is a thread for what waits for I/O; one device's pages keep no other's.
void FileSystem::forget_pages(MappedDevice& device) {
  if (!options_.cache || session_ == nullptr) {
    return;
  }
  const std::uint64_t ino = Inode{device.serial(), FileKind::kDevice}.number();
  const auto promise = std::make_shared<std::promise<void>>();
  const std::future<void> forgotten = promise->get_future();
  slow_.post([this, ino, promise] {
    static_cast<void>(fuse_lowlevel_notify_inval_inode(session_, ino, 0, 0));
    promise->set_value();
  });
  if (forgotten.wait_for(kPagesPatience) != std::future_status::ready) {
    device.log(
        "the page cache still has pages of the table before: it drops them when the reads and "
        "writes that are under way have ended");
  }
}

}  // namespace mapperfs
