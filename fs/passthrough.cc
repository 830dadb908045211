#include "fs/passthrough.h"

#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace mapperfs {
namespace {

// The kernel's interface (include/uapi/linux/fuse.h of 6.9); the headers of Debian 12 are older.
struct BackingMap {
  std::int32_t fd;
  std::uint32_t flags;    // 0
  std::uint64_t padding;  // 0
};
constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kBackingClose = _IOW(229, 2, std::uint32_t);

// How deep file systems may be stacked below ours: with 1 a file may lie on an overlay, as every
// file of a container does. More is refused, and passthrough with it: the kernel's limit is 2, ours
// included.
[[maybe_unused]] constexpr std::uint32_t kStackDepth = 1;

std::string why_refused(int error) {
  switch (error) {
    case EPERM:
      return "only a daemon with CAP_SYS_ADMIN may have the kernel serve files";
    case ELOOP:
      return "too many file systems are stacked below the file";
    default:
      return fmt::format("the kernel does not take the file: {}", std::strerror(error));
  }
}

}  // namespace

PassthroughFile::~PassthroughFile() {
  auto id = static_cast<std::uint32_t>(id_);
  // Fails where the connection is gone, and the number with it.
  static_cast<void>(::ioctl(fuse_session_fd(&session_), kBackingClose, &id));
  device_->end_bypass();
}

void Passthrough::negotiate(fuse_conn_info& conn) {
#if MAPPERFS_HAVE_FUSE_PASSTHROUGH
  if ((conn.capable_ext & FUSE_CAP_PASSTHROUGH) != 0 &&
      fuse_set_feature_flag(&conn, FUSE_CAP_PASSTHROUGH)) {
    conn.max_backing_stack_depth = kStackDepth;
    agreed_.store(true, std::memory_order_release);
  }
#else
  static_cast<void>(conn);
#endif
}

Result<std::unique_ptr<PassthroughFile>> Passthrough::begin(
    const std::shared_ptr<MappedDevice>& device) {
#if !MAPPERFS_HAVE_FUSE_PASSTHROUGH
  return Status(EOPNOTSUPP, "built with a libfuse that has no passthrough (3.17 brought it)");
#endif
  if (session_ == nullptr || !agreed_.load(std::memory_order_acquire)) {
    return Status(EOPNOTSUPP, "the kernel has no FUSE passthrough (6.9 brought it)");
  }
  Result<int> file = device->begin_bypass();
  if (!file.ok()) {
    return file.status();
  }
  BackingMap map = {*file, 0, 0};
  const int id = ::ioctl(fuse_session_fd(session_), kBackingOpen, &map);
  if (id <= 0) {
    const int error = id < 0 ? errno : EIO;
    device->end_bypass();
    return Status(error, why_refused(error));
  }
  return std::make_unique<PassthroughFile>(*session_, id, device);
}

}  // namespace mapperfs
