#include "fs/sever.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstring>
#include <string_view>

#include "engine/unique_dir.h"
#include "engine/unique_fd.h"

namespace mapperfs {
namespace {

// The file of fusectl belongs to who mounted. The connection's number is the mount's device number,
// which is known without a request: attributes as they are, and none at all.
void abort_by_fusectl(const std::string& mount_point) {
  struct statx known {};
  if (::statx(AT_FDCWD, mount_point.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &known) !=
          0 ||
      known.stx_dev_major != 0) {
    return;
  }
  const std::string path = fmt::format("/sys/fs/fuse/connections/{}/abort", known.stx_dev_minor);
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (file.get() >= 0) {
    static_cast<void>(::write(file.get(), "1", 1) == 1);
  }
}

// Answers that still come go where nobody reads them, rather than to a number that is closed, or
// another file's by then.
void give_descriptors_up() {
  const UniqueFd nowhere(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const UniqueDir all(::opendir("/proc/self/fd"));
  if (nowhere.get() < 0 || all == nullptr) {
    return;
  }
  while (const dirent* entry = ::readdir(all.get())) {
    const std::string_view name = entry->d_name;
    int fd = -1;
    std::array<char, 32> target{};
    const ssize_t bytes =
        ::readlinkat(::dirfd(all.get()), entry->d_name, target.data(), target.size());
    if (std::from_chars(name.data(), name.data() + name.size(), fd).ec == std::errc() &&
        bytes > 0 &&
        std::string_view(target.data(), static_cast<std::size_t>(bytes)) == "/dev/fuse") {
      static_cast<void>(::dup3(nowhere.get(), fd, O_CLOEXEC));
    }
  }
}

}  // namespace

bool sever_connection(const std::string& mount_point) {
  const bool unmounted =
      ::umount2(mount_point.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
  if (!unmounted) {
    abort_by_fusectl(mount_point);
  }
  give_descriptors_up();
  return unmounted;
}

}  // namespace mapperfs
