#include "tools/mapperctl_transport.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <utility>

#include "engine/unique_fd.h"

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

// The mount point of one line of mountinfo when it is a mapperfs.
std::optional<std::string> mapperfs_mount_point(std::string_view line) {
  const size_t dash = line.find(" - ");
  if (dash == std::string_view::npos) return std::nullopt;
  const std::string_view type = line.substr(dash + 3);
  if (type.substr(0, type.find(' ')) != "fuse.mapperfs") return std::nullopt;
  for (int field = 0; field < 4; ++field) line.remove_prefix(line.find(' ') + 1);
  return unescape_octal(line.substr(0, line.find(' ')));
}

class MountTransport final : public Transport {
 public:
  explicit MountTransport(std::string path) : path_(std::move(path)) {}

  Reply connect() override {
    if (!control_) {
      control_ = UniqueFd(::open(path_of("control").c_str(), O_RDWR | O_CLOEXEC));
    }
    return {control_ ? 0 : errno, {}};
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
  UniqueFd control_;
};

}  // namespace

FoundMount choose_mount(std::string_view option, const char* environment,
                        std::string_view mountinfo) {
  if (!option.empty()) return {std::string(option), {}};
  if (environment != nullptr && *environment != '\0') return {environment, {}};
  std::vector<std::string> mounts;
  while (!mountinfo.empty()) {
    const size_t end = mountinfo.find('\n');
    if (auto point = mapperfs_mount_point(mountinfo.substr(0, end))) {
      if (std::find(mounts.begin(), mounts.end(), *point) == mounts.end()) {
        mounts.push_back(std::move(*point));
      }
    }
    mountinfo.remove_prefix(end == std::string_view::npos ? mountinfo.size() : end + 1);
  }
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

std::unique_ptr<Transport> open_mount(std::string path) {
  return std::make_unique<MountTransport>(std::move(path));
}

Reply read_whole_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return {errno, {}};
  return read_all(fd.get());
}

}  // namespace mapperctl
