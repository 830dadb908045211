// FileSystem: names and attributes.

#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "fs/file_system.h"
#include "fs/range_ops.h"

namespace mapperfs {
namespace {

// Devices come, go and change size by other ways than through the kernel: it asks each time. What
// is always there it may remember.
constexpr double kAskAgain = 0.0;
constexpr double kLongSeconds = 3600.0;
// How long a count of allocated sectors is good enough for st_blocks.
constexpr std::uint64_t kBlocksKnownNs = 1000000000;
constexpr blksize_t kPreferredIo = 4096;
// How long `rm` waits for what is left to do when the name is gone.
constexpr std::chrono::seconds kRemovePatience{1};

double entry_timeout(Inode inode) {
  return inode.serial == 0 && !has_node_per_visit(inode.kind) ? kLongSeconds : kAskAgain;
}
double attr_timeout(Inode inode) {
  return inode.kind == FileKind::kDevice ? kAskAgain : kLongSeconds;
}

mode_t mode_of(FileKind kind) {
  if (kind == FileKind::kRoot) {
    return S_IFDIR | 0755;
  }
  if (kind == FileKind::kDir) {
    return S_IFDIR | 0500;
  }
  if (kind == FileKind::kSys) {
    return S_IFDIR | 0700;
  }
  return S_IFREG | (is_writable_text(kind) ? 0600 : 0400);
}

std::uint64_t handle_of(void* object) { return reinterpret_cast<std::uint64_t>(object); }

}  // namespace

struct FileSystem::Entry {
  std::string name;
  Inode inode;
};
struct FileSystem::Directory {
  std::vector<Entry> entries;
};

bool FileSystem::fill_attr(Inode inode, struct stat& attr) const {
  attr = {};
  attr.st_ino = inode.number();
  attr.st_uid = owner_;
  attr.st_gid = group_;
  attr.st_nlink = is_directory(inode.kind) ? 2 : 1;
  attr.st_blksize = kPreferredIo;
  attr.st_atim = attr.st_mtim = attr.st_ctim = made_;
  attr.st_mode = mode_of(inode.kind);
  if (inode.serial == 0) {
    return inode.kind >= FileKind::kRoot && inode.kind <= FileKind::kLog;
  }
  const std::shared_ptr<MappedDevice> device = device_of(inode);
  if (device == nullptr) {
    return false;
  }
  if (inode.kind == FileKind::kDevice) {
    const DeviceNote note = notes_.get(inode.serial);
    attr.st_mode = S_IFREG | note.mode.value_or(device->read_only() ? 0400 : 0600);
    attr.st_uid = note.uid.value_or(owner_);
    attr.st_gid = note.gid.value_or(group_);
    const sector_t sectors = device->size_sectors();
    attr.st_size = static_cast<off_t>(sectors << kSectorShift);
    const std::lock_guard lock(blocks_mutex_);
    const auto known = blocks_.find(inode.serial);
    attr.st_blocks =
        static_cast<blkcnt_t>(known == blocks_.end() ? sectors : known->second.allocated);
  }
  return true;
}

bool FileSystem::find_entry(Inode parent, const std::string& name, Inode& found) const {
  if (parent.kind == FileKind::kDir) {
    for (const NamedFile& file : kDeviceFiles) {
      if (file.name == name && device_of(parent) != nullptr) {
        found = {parent.serial, file.kind};
        return true;
      }
    }
    return false;
  }
  if (parent.kind == FileKind::kRoot && (name == "control" || name == "sys")) {
    found = {0, name == "sys" ? FileKind::kSys : FileKind::kControl};
    return true;
  }
  if (parent.kind == FileKind::kSys) {
    for (const NamedFile& file : kSysFiles) {
      if (file.name == name) {
        found = {0, file.kind};
        return true;
      }
    }
  }
  Result<std::shared_ptr<MappedDevice>> device = engine_.find(name);
  if (!device.ok()) {
    return false;
  }
  found = {(*device)->serial(),
           parent.kind == FileKind::kRoot ? FileKind::kDevice : FileKind::kDir};
  return parent.kind == FileKind::kRoot || parent.kind == FileKind::kSys;
}

void FileSystem::reply_entry(fuse_req* req, Inode inode) {
  fuse_entry_param entry{};
  if (!fill_attr(inode, entry.attr)) {
    static_cast<void>(fuse_reply_err(req, ENOENT));
    return;
  }
  entry.ino = has_node_per_visit(inode.kind)
                  ? inode.node(visits_.fetch_add(1, std::memory_order_relaxed))
                  : inode.number();
  entry.attr_timeout = attr_timeout(inode);
  entry.entry_timeout = entry_timeout(inode);
  static_cast<void>(fuse_reply_entry(req, &entry));
}

void FileSystem::lookup(fuse_req* req, std::uint64_t parent, const char* name) {
  Inode inode;
  if (find_entry(Inode::of(parent), name, inode)) {
    reply_entry(req, inode);
  } else {
    static_cast<void>(fuse_reply_err(req, ENOENT));
  }
}

void FileSystem::getattr(fuse_req* req, std::uint64_t ino) {
  const Inode inode = Inode::of(ino);
  const auto answer = [this, req, inode] {
    struct stat attr {};
    if (fill_attr(inode, attr)) {
      static_cast<void>(fuse_reply_attr(req, &attr, attr_timeout(inode)));
    } else {
      static_cast<void>(fuse_reply_err(req, ENOENT));
    }
  };
  if (inode.kind == FileKind::kDevice) {
    const std::uint64_t now_ns = engine_.env().now_ns();
    bool fresh = false;
    {
      const std::lock_guard lock(blocks_mutex_);
      const auto known = blocks_.find(inode.serial);
      fresh = known != blocks_.end() && now_ns - known->second.when_ns < kBlocksKnownNs;
    }
    const std::shared_ptr<MappedDevice> device = fresh ? nullptr : device_of(inode);
    if (device != nullptr) {
      control_.post([this, device, answer] {
        refresh_blocks(*device);
        answer();
      });
      return;
    }
  }
  answer();
}

void FileSystem::refresh_blocks(const MappedDevice& device) {
  const BlocksKnown known = {allocated_sectors(device), engine_.env().now_ns()};
  if (device.removed()) {
    return;
  }
  const std::lock_guard lock(blocks_mutex_);
  blocks_[device.serial()] = known;
}

void FileSystem::setattr(fuse_req* req, std::uint64_t ino, const struct stat& attr, int to_set) {
  const Inode inode = Inode::of(ino);
  struct stat now {};
  if (!fill_attr(inode, now)) {
    static_cast<void>(fuse_reply_err(req, ENOENT));
    return;
  }
  const bool ownership =
      (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0;
  if (ownership && inode.kind != FileKind::kDevice) {
    static_cast<void>(fuse_reply_err(req, EPERM));
    return;
  }
  // Texts have no size; a device has the one that its table gives it.
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0 && inode.kind == FileKind::kDevice &&
      attr.st_size != now.st_size) {
    engine_.log().add(
        fmt::format("truncate to {} bytes refused: a device's size of {} bytes is "
                    "its table's",
                    attr.st_size, now.st_size));
    static_cast<void>(fuse_reply_err(req, EINVAL));
    return;
  }
  if (ownership) {
    set_owner(req, inode, attr, to_set);
    return;
  }
  static_cast<void>(fuse_reply_attr(req, &now, attr_timeout(inode)));
}

// The kernel has checked who may (default_permissions).
void FileSystem::set_owner(fuse_req* req, Inode inode, const struct stat& attr, int to_set) {
  notes_.update(inode.serial, [&](DeviceNote& note) {
    if ((to_set & FUSE_SET_ATTR_MODE) != 0) {
      note.mode = attr.st_mode & 07777;
    }
    if ((to_set & FUSE_SET_ATTR_UID) != 0) {
      note.uid = attr.st_uid;
    }
    if ((to_set & FUSE_SET_ATTR_GID) != 0) {
      note.gid = attr.st_gid;
    }
  });
  struct stat now {};
  if (fill_attr(inode, now)) {
    static_cast<void>(fuse_reply_attr(req, &now, attr_timeout(inode)));
  } else {
    notes_.forget(inode.serial);
    static_cast<void>(fuse_reply_err(req, ENOENT));
  }
}

void FileSystem::mkdir(fuse_req* req, std::uint64_t parent, const char* name) {
  if (!require_owner(req)) {
    return;
  }
  if (Inode::of(parent).kind != FileKind::kSys) {
    reply_status(req, {EPERM, "devices are made by mkdir in sys, or through control"}, name);
    return;
  }
  control_.post([this, req, device_name = std::string(name)] {
    Result<std::shared_ptr<MappedDevice>> device = engine_.create(device_name, {});
    if (!device.ok()) {
      reply_status(req, device.status(), "mkdir");
      return;
    }
    reply_entry(req, {(*device)->serial(), FileKind::kDir});
  });
}

void FileSystem::remove(fuse_req* req, std::uint64_t parent, const char* name, bool directory) {
  if (!require_owner(req)) {
    return;
  }
  const Inode where = Inode::of(parent);
  Inode inode;
  if (!find_entry(where, name, inode)) {
    static_cast<void>(fuse_reply_err(req, ENOENT));
    return;
  }
  if (inode.kind != (directory ? FileKind::kDir : FileKind::kDevice)) {
    static_cast<void>(fuse_reply_err(req, EPERM));
    return;
  }
  control_.post([this, req, device_name = std::string(name), serial = inode.serial, directory] {
    remove_device(req, device_name, serial, directory ? "rmdir" : "rm");
  });
}

// The kernel keeps the folder to itself until it has the answer: no name in it can be looked up,
// `control` least of all. So once the device's name is gone, what is left to do (a target that
// commits for the last time) holds the answer up for a moment only.
void FileSystem::remove_device(fuse_req* req, const std::string& name, std::uint64_t serial,
                               const char* what) {
  const auto promise = std::make_shared<std::promise<Status>>();
  std::future<Status> end = promise->get_future();
  if (!commands_.try_post(
          [this, promise, name] { promise->set_value(executor_.remove(name, false)); })) {
    reply_status(req, crowded_status(name), what);
    return;
  }
  while (end.wait_for(kRemovePatience) != std::future_status::ready) {
    if (engine_.find_serial(serial) == nullptr) {
      engine_.log().add(fmt::format("{}: {} is gone, but its end waits for I/O", what, name));
      static_cast<void>(fuse_reply_err(req, 0));
      return;
    }
  }
  reply_status(req, end.get(), what);
}

void FileSystem::rename(fuse_req* req, std::uint64_t parent, const char* name,
                        std::uint64_t new_parent, const char* new_name, unsigned flags) {
  if (!require_owner(req)) {
    return;
  }
  constexpr unsigned kNoReplace = 1;  // what rename does here in any case
  Inode inode;
  if (parent != new_parent || (flags & ~kNoReplace) != 0) {
    reply_status(req, {EINVAL, fmt::format("{} cannot be moved there", name)}, "mv");
  } else if (!find_entry(Inode::of(parent), name, inode)) {
    static_cast<void>(fuse_reply_err(req, ENOENT));
  } else if (inode.kind != FileKind::kDevice && inode.kind != FileKind::kDir) {
    static_cast<void>(fuse_reply_err(req, EPERM));
  } else {
    control_.post([this, req, from = std::string(name), to = std::string(new_name)] {
      reply_status(req, engine_.rename(from, to), "mv");
    });
  }
}

void FileSystem::refuse_new_file(fuse_req* req) {
  reply_status(req, {EPERM, "no file can be made here: devices are made through control"}, "mount");
}

void FileSystem::opendir(fuse_req* req, std::uint64_t ino, fuse_file_info& fi) {
  const Inode inode = Inode::of(ino);
  auto directory = std::make_unique<Directory>();
  std::vector<Entry>& entries = directory->entries;
  const Inode up = {0, inode.kind == FileKind::kDir ? FileKind::kSys : FileKind::kRoot};
  entries.push_back({".", inode});
  entries.push_back({"..", up});
  if (inode.kind == FileKind::kDir) {
    for (const NamedFile& file : kDeviceFiles) {
      entries.push_back({std::string(file.name), {inode.serial, file.kind}});
    }
  } else {
    if (inode.kind == FileKind::kRoot) {
      entries.push_back({"control", {0, FileKind::kControl}});
      entries.push_back({"sys", {0, FileKind::kSys}});
    } else {
      for (const NamedFile& file : kSysFiles) {
        entries.push_back({std::string(file.name), {0, file.kind}});
      }
    }
    const FileKind kind = inode.kind == FileKind::kRoot ? FileKind::kDevice : FileKind::kDir;
    for (const auto& device : engine_.list()) {
      entries.push_back({device->name(), {device->serial(), kind}});
    }
  }
  fi.fh = handle_of(directory.get());
  if (fuse_reply_open(req, &fi) == 0) {
    static_cast<void>(directory.release());  // until releasedir
  }
}

void FileSystem::readdir(fuse_req* req, std::size_t size, off_t offset, const fuse_file_info& fi,
                         bool plus) {
  const auto& directory = *reinterpret_cast<const Directory*>(fi.fh);
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (auto i = static_cast<std::size_t>(offset); i < directory.entries.size(); ++i) {
    const Entry& item = directory.entries[i];
    const bool dots = item.name == "." || item.name == "..";
    fuse_entry_param entry{};
    if (!fill_attr(item.inode, entry.attr)) {
      continue;  // removed since the directory was opened
    }
    // What is not looked up has node number 0: the dots, and what each look-up makes a node for.
    entry.ino = dots || has_node_per_visit(item.inode.kind) ? 0 : item.inode.number();
    entry.attr_timeout = attr_timeout(item.inode);
    entry.entry_timeout = entry_timeout(item.inode);
    const auto next = static_cast<off_t>(i + 1);
    const std::size_t bytes = plus ? fuse_add_direntry_plus(req, buffer.data() + used, size - used,
                                                            item.name.c_str(), &entry, next)
                                   : fuse_add_direntry(req, buffer.data() + used, size - used,
                                                       item.name.c_str(), &entry.attr, next);
    if (bytes > size - used) {
      break;
    }
    used += bytes;
  }
  static_cast<void>(fuse_reply_buf(req, buffer.data(), used));
}

void FileSystem::statfs(fuse_req* req) {
  struct statvfs answer {};
  answer.f_bsize = kPreferredIo;
  answer.f_frsize = kSectorBytes;
  answer.f_namemax = kMaxNameBytes;
  static_cast<void>(fuse_reply_statfs(req, &answer));
}

// Of a directory or a file: what open or opendir made goes.
void FileSystem::release(fuse_req* req, std::uint64_t ino, const fuse_file_info& fi) {
  const FileKind kind = Inode::of(ino).kind;
  if (is_directory(kind)) {
    std::unique_ptr<Directory>(reinterpret_cast<Directory*>(fi.fh)).reset();
  } else if (kind == FileKind::kDevice) {
    std::shared_ptr<OpenDevice> open(reinterpret_cast<OpenDevice*>(fi.fh));
    open_devices_.begin_close(*open);
    control_.post([this, open] { open_devices_.end_close(*open); });
  } else {
    const std::shared_ptr<TextFile> file(reinterpret_cast<TextFile*>(fi.fh));
    if (file->device() != nullptr) {
      pollers_.forget(file->device()->serial(), file.get());
    }
    // On a pool: the last reference to a device may go with it.
    control_.post([file] { static_cast<void>(file->kind()); });
  }
  static_cast<void>(fuse_reply_err(req, 0));
}

}  // namespace mapperfs
