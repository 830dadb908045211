#include "engine/path_resolver.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

namespace mapperfs {
namespace {

// /proc writes blanks and backslashes of paths as \ooo.
std::string unescape_octal(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t n) { return i + n < text.size() ? text[i + n] - '0' : -1; };
    if (text[i] == '\\' && digit(1) >= 0 && digit(2) >= 0 && digit(3) >= 0) {
      out.push_back(static_cast<char>(digit(1) * 64 + digit(2) * 8 + digit(3)));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::string read_all(int fd) {
  std::string text;
  std::array<char, 16384> part{};
  ssize_t n = ::lseek(fd, 0, SEEK_SET);
  while (n >= 0 && (n = ::read(fd, part.data(), part.size())) > 0) {
    text.append(part.data(), static_cast<std::size_t>(n));
  }
  return text;
}

// The next word of a line and what follows it.
std::string_view take_word(std::string_view& line) {
  const std::size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

struct MountLine {
  std::string device;  // "0:52"
  std::string root;
  std::string at;
};

// "36 35 98:0 /root /mount/point options... - type source options"
std::vector<MountLine> parse_mountinfo(std::string_view text) {
  std::vector<MountLine> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    take_word(line);
    take_word(line);
    MountLine mount;
    mount.device = take_word(line);
    mount.root = unescape_octal(take_word(line));
    mount.at = unescape_octal(take_word(line));
    lines.push_back(std::move(mount));
  }
  return lines;
}

}  // namespace

PathResolver::PathResolver(std::string mount_point)
    : mount_point_(std::move(mount_point)),
      mountinfo_(mount_point_.empty() ? -1 : ::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) {
}

void PathResolver::read_mounts() const {
  // Without /proc only the mount itself is known; nothing mounted yet: its future place.
  mounts_ = {{mount_point_, ""}};
  if (!mountinfo_) {
    return;
  }
  const std::vector<MountLine> lines = parse_mountinfo(read_all(mountinfo_.get()));
  // The last one at a place is the one that is seen there.
  const auto own = std::find_if(lines.rbegin(), lines.rend(), [this](const MountLine& line) {
    return line.at == mount_point_ && line.root == "/";
  });
  if (own == lines.rend()) {
    return;
  }
  for (const MountLine& line : lines) {
    if (line.device == own->device && line.at != mount_point_) {
      mounts_.push_back({line.at, line.root == "/" ? "" : line.root});
    }
  }
}

std::vector<PathResolver::OwnMount> PathResolver::own_mounts() const {
  if (mount_point_.empty()) {
    return {};
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  pollfd changed{mountinfo_.get(), POLLPRI, 0};
  if (!mounts_read_ || (mountinfo_ && ::poll(&changed, 1, 0) > 0)) {
    read_mounts();
    mounts_read_ = true;
  }
  return mounts_;
}

// One walk: what is behind us is canonical, what is before us is still text.
class PathResolver::Walk {
 public:
  Walk(std::vector<OwnMount> mounts, std::string rest)
      : mounts_(std::move(mounts)), rest_(std::move(rest)) {}

  Result<Place> run(std::string_view asked) {
    while (true) {
      const std::size_t begin = rest_.find_first_not_of('/');
      if (begin == std::string::npos) {
        // A slash at the end asks for a directory; what is no directory is refused when opened.
        return Place{false, done_.empty() ? "/" : done_};
      }
      const std::size_t end = std::min(rest_.find('/', begin), rest_.size());
      const std::string name = rest_.substr(begin, end - begin);
      rest_.erase(0, end);
      if (int error = step(name); error != 0) {
        return Status(error, sentence(asked, error));
      }
      if (own_) {
        if (std::optional<std::string> inside = own_path(); inside.has_value()) {
          return Place{true, std::move(*inside)};
        }
      }
    }
  }

 private:
  int step(const std::string& name) {
    if (name == ".") {
      return 0;
    }
    if (name == "..") {
      // Safe on text: nothing behind us is a symlink.
      done_.erase(std::min(done_.rfind('/'), done_.size()));
      return 0;
    }
    if (name.size() > kMaxNameBytes) {
      return ENAMETOOLONG;
    }
    done_ += '/';
    done_ += name;
    for (const OwnMount& mount : mounts_) {
      if (done_ == mount.at) {
        own_ = mount.root;
        return 0;
      }
    }
    std::array<char, kMaxPathBytes + 1> target{};
    const ssize_t length = ::readlink(done_.c_str(), target.data(), target.size());
    if (length < 0) {
      // EINVAL: no symlink, the usual case.
      return errno == EINVAL ? 0 : errno;
    }
    if (++links_ > kMaxLinks) {
      return ELOOP;
    }
    rest_.insert(0, target.data(), static_cast<std::size_t>(length));
    done_.erase(target[0] == '/' ? 0 : done_.rfind('/'));
    return rest_.size() > 16 * kMaxPathBytes ? ENAMETOOLONG : 0;
  }

  // Inside the own mount there are no symlinks: the rest is text. Nothing where it leads out again
  // by "..": the walk goes on beside the mount.
  std::optional<std::string> own_path() {
    std::vector<std::string> names;
    std::size_t at = 0;
    while ((at = rest_.find_first_not_of('/', at)) != std::string::npos) {
      const std::size_t end = std::min(rest_.find('/', at), rest_.size());
      std::string name = rest_.substr(at, end - at);
      at = end;
      if (name == ".." && names.empty()) {
        rest_.erase(0, end);
        done_.erase(done_.rfind('/'));
        own_.reset();
        return std::nullopt;
      }
      if (name == "..") {
        names.pop_back();
      } else if (name != ".") {
        names.push_back(std::move(name));
      }
    }
    if (!own_->empty()) {
      names.insert(names.begin(), own_->substr(1));
    }
    return fmt::format("{}", fmt::join(names, "/"));
  }

  // Whoever wrote a relative path stood in another folder than the daemon does, or meant a mapped
  // device: those were looked for before.
  static std::string no_such(std::string_view asked) {
    std::array<char, kMaxPathBytes + 1> cwd{};
    const bool absolute = asked.front() == '/';
    if (absolute || ::getcwd(cwd.data(), cwd.size()) == nullptr) {
      return fmt::format("{}: there is no such file or block device", asked);
    }
    return fmt::format(
        "{}: there is no {}such file or block device; relative paths are looked up from the "
        "daemon's folder, {}",
        asked,
        asked.find('/') == std::string_view::npos ? "mapped device of that name, and no " : "",
        cwd.data());
  }

  static std::string sentence(std::string_view asked, int error) {
    switch (error) {
      case ENOENT:
        return no_such(asked);
      case ENOTDIR:
        return fmt::format("{}: a part of the path is no directory", asked);
      case ELOOP:
        return fmt::format("{}: more than {} symbolic links on the way", asked, kMaxLinks);
      case ENAMETOOLONG:
        return fmt::format("a path is too long: names have up to {} bytes, a path {}",
                           kMaxNameBytes, kMaxPathBytes);
      case EACCES:
        return fmt::format("{}: not allowed to look there", asked);
      default:
        return fmt::format("{}: cannot be looked up ({})", asked, errno_name(error));
    }
  }

  const std::vector<OwnMount> mounts_;
  std::string rest_;
  std::string done_;  // "" for the root
  std::optional<std::string> own_;
  unsigned links_ = 0;
};

Result<PathResolver::Place> PathResolver::resolve(std::string_view path) const {
  if (path.size() > kMaxPathBytes) {
    return Status(ENAMETOOLONG, fmt::format("a path of {} bytes is too long: {} are possible",
                                            path.size(), kMaxPathBytes));
  }
  if (path.empty()) {
    return Status(ENOENT, "an empty path names nothing");
  }
  std::string rest(path);
  if (path.front() != '/') {
    // The kernel knows the working directory by heart: getcwd touches no file system.
    std::array<char, kMaxPathBytes + 1> cwd{};
    if (::getcwd(cwd.data(), cwd.size()) == nullptr || cwd[0] != '/') {
      return Status(ENOENT, fmt::format("{}: the working directory is gone", path));
    }
    rest = std::string(cwd.data()) + "/" + rest;
  }
  return Walk(own_mounts(), std::move(rest)).run(path);
}

}  // namespace mapperfs
