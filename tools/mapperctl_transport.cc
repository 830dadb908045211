#include "tools/mapperctl_transport.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/unique_fd.h"
#include "tools/read_all.h"

namespace mapperctl {
namespace {

using mapperfs::UniqueFd;

// Smaller than the smallest max_write the protocol allows, so that no query for it is needed.
constexpr size_t kMaxSingleWriteBytes = 64 * 1024;

// Everything from offset 0 on, as the protocol wants replies read.
Reply read_all(int fd) {
  Reply reply;
  std::array<char, 64 * 1024> buffer{};
  for (;;) {
    const auto offset = static_cast<off_t>(reply.text.size());
    const ssize_t got = ::pread(fd, buffer.data(), buffer.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {errno, {}};
    if (got == 0) return reply;
    reply.text.append(buffer.data(), static_cast<size_t>(got));
  }
}

int write_once(int fd, std::string_view text) {
  const ssize_t written = ::write(fd, text.data(), text.size());
  if (written < 0) return errno;
  // A transaction is one write: a short one means that the rest was not looked at.
  return static_cast<size_t>(written) == text.size() ? 0 : EIO;
}

// The octal escapes of mountinfo: \040 is a blank.
std::string unescape_octal(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    int value = 0;
    const bool escape = text[i] == '\\' && text.size() - i >= 4;
    if (escape &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, value, 8).ec == std::errc()) {
      plain.push_back(static_cast<char>(value));
      i += 3;
    } else {
      plain.push_back(text[i]);
    }
  }
  return plain;
}

struct MountLine {
  std::string_view device;  // MAJOR:MINOR
  std::string point;
};

// One line of mountinfo when it is a mapperfs.
std::optional<MountLine> mapperfs_mount(std::string_view line) {
  const size_t dash = line.find(" - ");
  if (dash == std::string_view::npos) return std::nullopt;
  const std::string_view type = line.substr(dash + 3);
  if (type.substr(0, type.find(' ')) != "fuse.mapperfs") return std::nullopt;
  const auto next = [&line] {
    const std::string_view word = line.substr(0, line.find(' '));
    line.remove_prefix(std::min(word.size() + 1, line.size()));
    return word;
  };
  next();
  next();
  MountLine mount;
  mount.device = next();
  next();
  mount.point = unescape_octal(next());
  return mount;
}

// Calls `take` with every mapperfs of `mountinfo`.
template <class Take>
void for_each_mapperfs(std::string_view mountinfo, const Take& take) {
  while (!mountinfo.empty()) {
    const size_t end = mountinfo.find('\n');
    if (auto mount = mapperfs_mount(mountinfo.substr(0, end))) take(std::move(*mount));
    mountinfo.remove_prefix(end == std::string_view::npos ? mountinfo.size() : end + 1);
  }
}

class MountTransport final : public Transport {
 public:
  MountTransport(std::string path, MountCheck check)
      : path_(std::move(path)), check_(std::move(check)) {}

  // Commands written to somebody's plain file would be lost, and look as if they were obeyed.
  Reply connect() override {
    if (control_) return {};
    UniqueFd control(::open(path_of("control").c_str(), O_RDWR | O_CLOEXEC));
    if (!control) return {errno, {}};
    if (Reply reply = check_(control.get()); !reply.ok()) {
      reply.text = fmt::format("{} is no mapperfs mount: {}", path_, reply.text);
      return reply;
    }
    control_ = std::move(control);
    return {};
  }

  Reply command(std::string_view lines) override {
    if (Reply opened = connect(); !opened.ok()) return opened;
    const int err = write_lines(lines);
    Reply reply = read_all(control_.get());
    if (err != 0) reply.err = err;
    return reply;
  }

  Reply read_file(const std::string& path) override { return read_whole_file(path_of(path)); }

  Reply wait_event(const std::string& name, unsigned long event_nr) override {
    const std::string path = path_of("sys/" + name + "/event");
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return {errno == ENOENT ? ENXIO : errno, {}};
    for (bool first = true;; first = false) {
      const Reply current = read_all(fd.get());
      if (!current.ok() && !first) return {};
      if (!current.ok()) return current;
      if (std::strtoul(current.text.c_str(), nullptr, 10) != event_nr) return current;
      pollfd waited{fd.get(), POLLIN, 0};
      if (::poll(&waited, 1, -1) < 0 && errno != EINTR) return {errno, {}};
    }
  }

  std::string path_of(std::string_view name) const override {
    return name.empty() ? path_ : fmt::format("{}/{}", path_, name);
  }

 private:
  // One write where it fits, else the pieces of a collected transaction. The last line must be
  // ended, or `commit` would become a part of it.
  int write_lines(std::string_view lines) {
    if (lines.size() <= kMaxSingleWriteBytes) return write_once(control_.get(), lines);
    if (const int err = write_once(control_.get(), "begin\n"); err != 0) return err;
    while (!lines.empty()) {
      const std::string_view piece = lines.substr(0, kMaxSingleWriteBytes);
      if (const int err = write_once(control_.get(), piece); err != 0) return err;
      lines.remove_prefix(piece.size());
    }
    return write_once(control_.get(), "\ncommit\n");
  }

  std::string path_;
  MountCheck check_;
  UniqueFd control_;
};

}  // namespace

FoundMount choose_mount(std::string_view option, const char* environment,
                        std::string_view mountinfo) {
  if (!option.empty()) return {std::string(option), {}};
  if (environment != nullptr && *environment != '\0') return {environment, {}};
  std::vector<std::string> mounts;
  for_each_mapperfs(mountinfo, [&mounts](MountLine mount) {
    if (std::find(mounts.begin(), mounts.end(), mount.point) == mounts.end()) {
      mounts.push_back(std::move(mount.point));
    }
  });
  if (mounts.size() == 1) return {std::move(mounts.front()), {}};
  if (mounts.empty()) {
    return {{},
            "no mapperfs is mounted: start one with 'mapperfs DIR', or say where it is with "
            "--mount DIR or MAPPERFS_MOUNT"};
  }
  return {{},
          fmt::format("{} mapperfs are mounted ({}): choose one with --mount DIR or MAPPERFS_MOUNT",
                      mounts.size(), fmt::join(mounts, ", "))};
}

bool is_mapperfs_device(dev_t device, std::string_view mountinfo) {
  const std::string number = fmt::format("{}:{}", major(device), minor(device));
  bool found = false;
  for_each_mapperfs(mountinfo, [&](const MountLine& mount) { found |= mount.device == number; });
  return found;
}

Reply check_mapperfs(int fd) {
  struct statfs system {};
  struct stat file {};
  if (::fstatfs(fd, &system) != 0 || ::fstat(fd, &file) != 0) {
    return {errno, std::strerror(errno)};
  }
  if (system.f_type != FUSE_SUPER_MAGIC) {
    return {ENODEV, "a plain file `control` lies there"};
  }
  const Reply mountinfo = read_whole_file("/proc/self/mountinfo");
  if (mountinfo.ok() && !is_mapperfs_device(file.st_dev, mountinfo.text)) {
    return {ENODEV, "its file `control` lies in another FUSE file system"};
  }
  return {};
}

std::unique_ptr<Transport> open_mount(std::string path, MountCheck check) {
  return std::make_unique<MountTransport>(std::move(path), std::move(check));
}

Reply read_whole_file(const std::string& path) {
  mapperfs::ReadText all = mapperfs::read_path(path);
  if (all.error != 0) return {all.error, {}};
  return {0, std::move(all.text)};
}

}  // namespace mapperctl
