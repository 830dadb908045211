#include "engine/backing.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "engine/device_lookup.h"
#include "engine/file_device.h"
#include "engine/own_ground.h"
#include "engine/path_resolver.h"

namespace mapperfs {
namespace {

// What a device is, whatever it is called: st_rdev of a block device, else st_dev and st_ino.
struct Identity {
  bool block_device = false;
  dev_t dev = 0;
  ino_t ino = 0;
  bool operator<(const Identity& other) const {
    return std::tie(block_device, dev, ino) < std::tie(other.block_device, other.dev, other.ino);
  }
  bool operator==(const Identity& other) const = default;

  static Identity of(const struct stat& st) {
    return S_ISBLK(st.st_mode) ? Identity{true, st.st_rdev, 0}
                               : Identity{false, st.st_dev, st.st_ino};
  }
};

const char* kind_of(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a directory";
    case S_IFCHR:
      return "a character device";
    case S_IFIFO:
      return "a fifo";
    case S_IFSOCK:
      return "a socket";
    default:
      return "something else";
  }
}

// Another program holds the lock that a table takes on a file.
Status locked_error(const std::string& path) {
  return {EBUSY, fmt::format("{}: is locked by another program (flock), which may be another mount "
                             "that uses the file",
                             path)};
}

Status open_error(const std::string& path, DeviceMode mode, int error) {
  const char* what = mode == DeviceMode::kReadWrite ? "reading and writing" : "reading";
  switch (error) {
    case EBUSY:
      return {EBUSY, fmt::format("{}: claimed by another program (mounted, or part of another "
                                 "mapping)",
                                 path)};
    case EACCES:
    case EPERM:
      return {error, fmt::format("{}: not allowed to open it for {}", path, what)};
    case EROFS:
      return {EROFS, fmt::format("{}: is on a read-only file system, and is to be opened for {}",
                                 path, what)};
    case ENOENT:
      return {ENOENT, fmt::format("{}: there is no such file or block device", path)};
    default:
      return {error,
              fmt::format("{}: cannot be opened for {} ({})", path, what, errno_name(error))};
  }
}

// Takes or changes the lock of a file. EBUSY where another program has it. A file system without
// locks is no reason to refuse.
bool lock_file(int fd, DeviceMode mode) {
  const int kind = mode == DeviceMode::kReadWrite ? LOCK_EX : LOCK_SH;
  int result = -1;
  do {
    result = ::flock(fd, kind | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  return result == 0 || errno != EWOULDBLOCK;
}

// All devices that are open. Shared by the opener and every reference: the last one to go ends it.
class OpenDevices : public std::enable_shared_from_this<OpenDevices> {
 public:
  explicit OpenDevices(Env& env) : env_(env) {}

  struct Request {
    std::string path;   // canonical
    std::string shown;  // what tables print for a file
    DeviceMode mode = DeviceMode::kReadWrite;
  };

  // A reference to the device if it is open as `mode` needs it. Else an empty one.
  DevRef find(const Identity& identity, DeviceMode mode) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto at = devices_.find(identity);
    if (at == devices_.end() || !serves(*at->second.device, mode)) {
      return {};
    }
    at->second.device->refresh_size();
    return refer(identity, at->second);
  }

  Result<DevRef> open(const Identity& identity, const Request& request) {
    // Held while the file is opened: two tables that load at once must not claim it against each
    // other.
    const std::lock_guard<std::mutex> lock(mutex_);
    if (const auto at = devices_.find(identity); at != devices_.end()) {
      if (!serves(*at->second.device, request.mode)) {
        if (Status status = upgrade(identity, at->second, request); !status.ok()) {
          return status;
        }
      }
      at->second.device->refresh_size();
      return refer(identity, at->second);
    }
    auto fd = open_file(identity, request, true);
    if (!fd.ok()) {
      return fd.status();
    }
    if (!identity.block_device && !lock_file(fd->get(), request.mode)) {
      return locked_error(request.path);
    }
    Open& opened = devices_[identity];
    opened.claim_fd = fd->get();
    opened.device =
        std::make_unique<FileDevice>(env_, FileDevice::Names{request.path, request.shown},
                                     fd.take(), request.mode == DeviceMode::kReadWrite);
    return refer(identity, opened);
  }

 private:
  struct Open {
    std::unique_ptr<FileDevice> device;
    // The first descriptor, which the device keeps open: it carries O_EXCL or the lock.
    int claim_fd = -1;
    std::size_t users = 0;
  };

  class Holder final : public DevRef::Holder {
   public:
    Holder(std::shared_ptr<OpenDevices> owner, const Identity& identity, BlockDevice& device)
        : owner_(std::move(owner)), identity_(identity), device_(device) {}
    ~Holder() override { owner_->drop(identity_); }
    [[nodiscard]] BlockDevice& device() const override { return device_; }

   private:
    const std::shared_ptr<OpenDevices> owner_;
    const Identity identity_;
    BlockDevice& device_;
  };

  static bool serves(const FileDevice& device, DeviceMode mode) {
    return mode == DeviceMode::kReadOnly || device.writable();
  }

  // mutex_ held, as for all below.
  DevRef refer(const Identity& identity, Open& opened) {
    ++opened.users;
    return DevRef(std::make_shared<Holder>(shared_from_this(), identity, *opened.device));
  }

  // Takes the lock itself. Closes under it, so that who opens next does not meet our own claim.
  void drop(const Identity& identity) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto at = devices_.find(identity);
    MFS_ASSERT(at != devices_.end() && at->second.users > 0);
    if (--at->second.users == 0) {
      devices_.erase(at);
    }
  }

  static Result<UniqueFd> open_file(const Identity& identity, const Request& request, bool claim) {
    const int access = request.mode == DeviceMode::kReadWrite ? O_RDWR : O_RDONLY;
    const int exclusive = identity.block_device && claim ? O_EXCL : 0;
    UniqueFd fd(::open(request.path.c_str(), access | exclusive | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) {
      return open_error(request.path, request.mode, errno);
    }
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0 || !(Identity::of(st) == identity)) {
      return Status(ENOENT, fmt::format("{}: was replaced while it was opened", request.path));
    }
    return fd;
  }

  static Status upgrade(const Identity& identity, Open& opened, const Request& request) {
    auto fd = open_file(identity, request, false);
    if (!fd.ok()) {
      return fd.status();
    }
    if (!identity.block_device && !lock_file(opened.claim_fd, DeviceMode::kReadWrite)) {
      // The failed attempt may have cost the shared lock.
      static_cast<void>(lock_file(opened.claim_fd, DeviceMode::kReadOnly));
      return locked_error(request.path);
    }
    opened.device->make_writable(fd.take());
    return {};
  }

  Env& env_;
  std::mutex mutex_;
  std::map<Identity, Open> devices_;  // mutex_
};

class RealBacking final : public BackingOpener {
 public:
  RealBacking(Env& env, BackingOptions options)
      : resolver_(std::move(options.mount_point)), devices_(std::make_shared<OpenDevices>(env)) {}

  Result<DevRef> open(const std::string& word, DeviceMode mode) override {
    OpenDevices::Request request{word, word, mode};
    if (const auto rdev = parse_device_numbers(word); rdev.has_value()) {
      if (DevRef known = devices_->find({true, *rdev, 0}, mode); known) {
        return known;
      }
      auto path = find_block_device(*rdev, resolver_);
      if (!path.ok()) {
        return path.status();
      }
      request.path = path.take();
    } else {
      auto place = resolver_.resolve(word);
      if (!place.ok()) {
        return place.status();
      }
      if (place->own) {
        return own_mount_error(word, place->path);
      }
      request.path = place->path;
      request.shown = word.front() == '/' ? word : place->path;
    }
    return open_path(word, request);
  }

  [[nodiscard]] std::string own_mount_name(const std::string& path) const override {
    auto place = resolver_.resolve(path);
    const bool is_name = place.ok() && place->own && place->path.find('/') == std::string::npos;
    return is_name ? place->path : std::string();
  }

  [[nodiscard]] Status outside_mount(const std::string& path) const override {
    auto place = resolver_.resolve(path);
    if (!place.ok() && place.status().error() == ENOENT) {
      // What is to be made lies where its folder does.
      const std::size_t name = path.find_last_not_of('/');
      const std::size_t slash = name == std::string::npos ? name : path.rfind('/', name);
      place = resolver_.resolve(slash == std::string::npos ? "." : path.substr(0, slash + 1));
    }
    // Other errors are for whoever opens it to meet.
    return place.ok() && place->own
               ? Status(
                     EINVAL,
                     fmt::format("{}: lies inside this mount, which would wait for itself", path))
               : Status();
  }

 private:
  Result<DevRef> open_path(const std::string& word, const OpenDevices::Request& request) {
    struct stat st {};
    if (::lstat(request.path.c_str(), &st) != 0) {
      return open_error(word, request.mode, errno);
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
      return Status(ENOTBLK, fmt::format("{}: is {}, neither a regular file nor a block device",
                                         word, kind_of(st.st_mode)));
    }
    if (word.back() == '/') {
      return Status(ENOTDIR, fmt::format("{}: is no directory", word));
    }
    if (Status status = refuse_own_ground(word, st, resolver_); !status.ok()) {
      return status;
    }
    return devices_->open(Identity::of(st), request);
  }

  static Status own_mount_error(const std::string& word, const std::string& inside) {
    if (!inside.empty() && inside.find('/') == std::string::npos) {
      return {ENXIO, fmt::format("{}: there is no mapped device '{}'", word, inside)};
    }
    return {ENOTBLK, fmt::format("{}: is inside this mount and not a mapped device", word)};
  }

  const PathResolver resolver_;
  const std::shared_ptr<OpenDevices> devices_;
};

}  // namespace

std::unique_ptr<BackingOpener> make_backing_opener(Env& env, BackingOptions options) {
  return std::make_unique<RealBacking>(env, std::move(options));
}

}  // namespace mapperfs
