// FileSystem: open files. The way of a read or a write begins here.

#include <fcntl.h>
#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>

#include "engine/assert.h"
#include "fs/edge_writer.h"
#include "fs/file_system.h"
#include "fs/range_ops.h"

namespace mapperfs {
namespace {

OpenDevice& device_handle(const fuse_file_info& fi) {
  return *reinterpret_cast<OpenDevice*>(fi.fh);
}
TextFile& text_handle(const fuse_file_info& fi) { return *reinterpret_cast<TextFile*>(fi.fh); }

// Any other open than this would be an open of a file that looks different: the kernel forbids.
void set_device_flags(fuse_file_info& fi, const OpenDevice& open, bool cache) {
#if MAPPERFS_HAVE_FUSE_PASSTHROUGH
  if (open.passthrough_id != 0) {
    fi.backing_id = open.passthrough_id;  // direct_io would bring reads and writes here
    return;
  }
#else
  static_cast<void>(open);
#endif
  fi.direct_io = cache ? 0 : 1;
#if MAPPERFS_HAVE_FUSE_PARALLEL_DIRECT_WRITES
  fi.parallel_direct_writes = 1;
#endif
}

}  // namespace

void FileSystem::open(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi) {
  const Inode inode = Inode::of(ino);
  if (inode.kind != FileKind::kDevice) {
    open_text(req, inode, fi);
    return;
  }
  std::shared_ptr<MappedDevice> device = device_of(inode);
  if (device == nullptr) {
    static_cast<void>(fuse_reply_err(req, ENXIO));
    return;
  }
  control_.post([this, req, device, fi] { open_device(req, device, fi); });
}

void FileSystem::open_device(fuse_req* req, const std::shared_ptr<MappedDevice>& device,
                             const fuse_file_info& fi) {
  Result<std::unique_ptr<OpenDevice>> open = open_devices_.open(device);
  if (!open.ok()) {
    reply_status(req, open.status(), "open");
    return;
  }
  std::unique_ptr<OpenDevice> handle = open.take();
  fuse_file_info answer = fi;
  set_device_flags(answer, *handle, options_.cache);
  answer.fh = reinterpret_cast<std::uint64_t>(handle.get());
  OpenDevice& opened = *handle.release();  // until release
  if (fuse_reply_open(req, &answer) != 0) {
    // Whoever opened was killed meanwhile: there will be no release.
    const std::unique_ptr<OpenDevice> unwanted(&opened);
    open_devices_.begin_close(*unwanted);
    open_devices_.end_close(*unwanted);
  }
}

void FileSystem::open_text(fuse_req* req, Inode inode, const fuse_file_info& fi) {
  std::shared_ptr<MappedDevice> device = inode.serial == 0 ? nullptr : device_of(inode);
  if (!is_text(inode.kind) || (inode.serial != 0 && device == nullptr)) {
    static_cast<void>(fuse_reply_err(req, ENXIO));
    return;
  }
  TextFile::Access access;
  access.read = (fi.flags & O_ACCMODE) != O_WRONLY;
  access.write = (fi.flags & O_ACCMODE) != O_RDONLY;
  if (access.write && !require_owner(req)) {
    return;
  }
  if (access.write && !is_writable_text(inode.kind)) {
    static_cast<void>(fuse_reply_err(req, EACCES));  // root passes by the mode, not by us
    return;
  }
  auto file = std::make_unique<TextFile>(executor_, notes_, inode.kind, std::move(device), access);
  fuse_file_info answer = fi;
  // Texts have no size that the kernel knows; direct reads go on until nothing comes.
  answer.direct_io = 1;
  answer.fh = reinterpret_cast<std::uint64_t>(file.get());
  TextFile& opened = *file.release();  // until release
  if (fuse_reply_open(req, &answer) != 0) {
    std::unique_ptr<TextFile>(&opened).reset();
  }
}

void FileSystem::read(fuse_req* req, std::uint64_t ino, std::size_t size, off_t offset,
                      const fuse_file_info& fi) {
  MFS_ASSERT(Inode::of(ino).kind != FileKind::kDevice);
  const auto from = static_cast<std::uint64_t>(offset);
  TextFile& file = text_handle(fi);
  const auto make = [this, req, &file, size, from](Room room) -> Reply {
    Result<std::string> text =
        room == Room::kAll ? file.read(from, size) : Result<std::string>(crowded_status("status"));
    return [this, req, answer = std::move(text)] {
      if (answer.ok()) {
        static_cast<void>(fuse_reply_buf(req, answer->data(), answer->size()));
      } else {
        reply_status(req, answer.status(), "read");
      }
    };
  };
  if (file.kind() == FileKind::kStatus) {
    run_command(make);  // a target may commit before it says how it is
  } else {
    control_.post([make] { make(Room::kAll)(); });
  }
}

void FileSystem::serve_io(IoRequest& io, const IoCall& call) noexcept {
  OpenDevice& open = *reinterpret_cast<OpenDevice*>(call.handle);
  switch (call.kind) {
    case IoCall::Kind::kRead:
      read_device(io, open, call.bytes, call.offset);
      return;
    case IoCall::Kind::kWrite:
      write_device(io, open, call.bytes, call.offset, call.stable);
      return;
    case IoCall::Kind::kSync:
      io.flush(*open.shared->device);
      return;
  }
}

void FileSystem::read_device(IoRequest& io, OpenDevice& open, std::size_t size,
                             std::uint64_t offset) {
  MappedDevice& device = *open.shared->device;
  const std::uint64_t end_of_device = device.size_sectors() << kSectorShift;
  if (open.flushed.load(std::memory_order_relaxed)) [[unlikely]] {
    open_devices_.set_flushed(open, false);
  }
  if (offset >= end_of_device || size == 0) {
    io.answer_nothing_read();
    return;
  }
  const std::size_t len =
      std::min<std::uint64_t>({size, end_of_device - offset, std::uint64_t{IoRequest::kMaxBytes}});
  // Whole blocks are read; the answer is cut out of them.
  const std::uint64_t mask = open.shared->block_bytes.load(std::memory_order_relaxed) - 1;
  const std::uint64_t from = offset & ~mask;
  const std::uint64_t to = std::min((offset + len + mask) & ~mask, end_of_device);
  io.read(device, from >> kSectorShift, (to - from) >> kSectorShift,
          static_cast<std::size_t>(offset - from), len);
}

void FileSystem::write_device(IoRequest& io, OpenDevice& open, std::size_t size,
                              std::uint64_t offset, bool sync) {
  MappedDevice& device = *open.shared->device;
  const std::uint64_t end_of_device = device.size_sectors() << kSectorShift;
  if (open.flushed.load(std::memory_order_relaxed)) [[unlikely]] {
    open_devices_.set_flushed(open, false);
  }
  if (device.read_only() || offset >= end_of_device) {
    io.answer_error(device.read_only() ? EPERM : ENOSPC);
    return;
  }
  const std::size_t len =
      std::min<std::uint64_t>({size, end_of_device - offset, std::uint64_t{IoRequest::kMaxBytes}});
  if (len == 0) {
    io.answer_written(0);
    return;
  }
  const auto flags = static_cast<std::uint8_t>(sync ? kBioFua : 0);
  const std::uint64_t mask = open.shared->block_bytes.load(std::memory_order_relaxed) - 1;
  if (((offset | len) & mask) != 0) [[unlikely]] {
    write_edges(io, open, len, offset, flags);
    return;
  }
  io.write(device, offset >> kSectorShift, len >> kSectorShift, len, flags);
}

void FileSystem::write_edges(IoRequest& io, OpenDevice& open, std::size_t size,
                             std::uint64_t offset, std::uint8_t flags) {
  // The request holds the file open until it is answered, and so its device.
  run_in_order(slow_, open.shared, [&io, shared = open.shared, size, offset, flags] {
    const BlkStatus status =
        write_unaligned(*shared->device, shared->block_bytes.load(std::memory_order_relaxed),
                        offset, std::span<const std::byte>(io.data(), size), flags);
    if (status == BlkStatus::kOk) {
      io.answer_written(size);
    } else {
      io.answer_error(errno_of(status));
    }
  });
}

void FileSystem::write(fuse_req* req, std::uint64_t ino, const char* data, std::size_t size,
                       off_t offset, const fuse_file_info& fi) {
  MFS_ASSERT(Inode::of(ino).kind != FileKind::kDevice);
  write_text(req, text_handle(fi), data, size, static_cast<std::uint64_t>(offset));
}

void FileSystem::run_command(std::function<Reply(Room)> command) {
  unsigned core = 0;
  std::size_t places = 0;
  if (transport_.name() == "io_uring") {
    // A ring's thread stays on the core whose requests it takes. Half its places are for
    // asynchronous I/O, half of what is left for commands.
    core = static_cast<unsigned>(std::max(0, ::sched_getcpu()));
    places = std::max<std::size_t>(1, transport_.max_background() / 2);
  }
  const Room room = crowd_.enter(core, places);
  if (room != Room::kNone) {
    if (commands_.try_post([this, core, room, command] {
          const Reply reply = command(room);
          crowd_.leave(core);  // first: who has the answer may come again at once
          reply();
        })) {
      return;
    }
    crowd_.leave(core);  // the system has no thread for it
  }
  control_.post([command = std::move(command)] { command(Room::kNone)(); });
}

RunOptions FileSystem::run_options(fuse_req* req, Room room) const {
  RunOptions options;
  options.crowded = room != Room::kAll;
  options.interrupted = [this, req] {
    return stopping_.load(std::memory_order_acquire) || fuse_req_interrupted(req) != 0;
  };
  return options;
}

void FileSystem::write_text(fuse_req* req, TextFile& file, const char* data, std::size_t size,
                            std::uint64_t offset) {
  const bool cut = size > whole_write_.load(std::memory_order_relaxed);
  run_command([this, req, &file, text = std::string(data, size), offset, cut](Room room) -> Reply {
    const Status status = room == Room::kNone
                              ? file.refuse(crowded_status("control"), offset)
                              : file.write(text, offset, cut, run_options(req, room));
    return [req, error = status.error(), size = text.size()] {
      static_cast<void>(error == 0 ? fuse_reply_write(req, size) : fuse_reply_err(req, error));
    };
  });
}

void FileSystem::flush(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi) {
  if (Inode::of(ino).kind == FileKind::kDevice) {
    open_devices_.set_flushed(device_handle(fi), true);
  } else if (TextFile& file = text_handle(fi); file.holds()) {
    run_command([this, req, &file](Room room) -> Reply {
      RunOptions options = run_options(req, room);
      options.may_reply = false;
      const Status status =
          room == Room::kNone ? file.refuse(crowded_status("control"), 0) : file.finish(options);
      return [req, error = status.error()] { static_cast<void>(fuse_reply_err(req, error)); };
    });
    return;
  }
  static_cast<void>(fuse_reply_err(req, 0));
}

void FileSystem::fsync(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi) {
  MFS_ASSERT(Inode::of(ino).kind != FileKind::kDevice);
  static_cast<void>(fi);
  static_cast<void>(fuse_reply_err(req, 0));
}

void FileSystem::fallocate(fuse_req* req, std::uint64_t ino, int mode, off_t offset, off_t length,
                           const fuse_file_info& fi) {
  if (Inode::of(ino).kind != FileKind::kDevice) {
    static_cast<void>(fuse_reply_err(req, EOPNOTSUPP));
    return;
  }
  const std::shared_ptr<SharedDevice>& open = device_handle(fi).shared;
  run_in_order(slow_, open, [this, req, shared = open, mode, offset, length] {
    const int error =
        allocate_range(*shared->device, shared->block_bytes.load(std::memory_order_relaxed), mode,
                       static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length));
    device_resized(*shared->device);  // what takes space may have changed
    static_cast<void>(fuse_reply_err(req, error));
  });
}

void FileSystem::lseek(fuse_req* req, std::uint64_t ino, off_t offset, int whence,
                       const fuse_file_info& fi) {
  if (Inode::of(ino).kind != FileKind::kDevice || (whence != SEEK_DATA && whence != SEEK_HOLE)) {
    static_cast<void>(fuse_reply_err(req, EINVAL));
    return;
  }
  control_.post([req, shared = device_handle(fi).shared, offset, whence] {
    std::uint64_t found = 0;
    const int error =
        seek_extent(*shared->device, whence == SEEK_HOLE, static_cast<std::uint64_t>(offset), found,
                    [req] { return fuse_req_interrupted(req) != 0; });
    if (error == 0) {
      static_cast<void>(fuse_reply_lseek(req, static_cast<off_t>(found)));
    } else {
      static_cast<void>(fuse_reply_err(req, error));
    }
  });
}

void FileSystem::poll(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi,
                      fuse_pollhandle* handle) {
  PollHandle owned(handle);
  if (Inode::of(ino).kind != FileKind::kEvent) {
    static_cast<void>(fuse_reply_poll(req, POLLIN | POLLOUT));
    return;
  }
  const TextFile& file = text_handle(fi);
  const MappedDevice& device = *file.device();
  // Remembered before it is looked at: an event between the two is seen by either.
  if (owned != nullptr) {
    pollers_.remember(device.serial(), &file, std::move(owned));
  }
  unsigned events = 0;
  if (device.removed()) {
    events = POLLIN | POLLERR;
  } else if (file.event_came()) {
    events = POLLIN;
  }
  static_cast<void>(fuse_reply_poll(req, events));
}

}  // namespace mapperfs
