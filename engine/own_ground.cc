#include "engine/own_ground.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <set>
#include <string_view>
#include <vector>

#include "engine/device_lookup.h"
#include "engine/file_probe.h"
#include "engine/unique_dir.h"
#include "engine/unique_fd.h"

namespace mapperfs {
namespace {

// Devices looked at for one word: more than any stack has, and an end where sysfs has none.
constexpr std::size_t kMaxDevices = 256;

// The file's first line; empty where there is none.
std::string first_line(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4097> text{};
  const ssize_t n = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
  const std::string_view line(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
  return std::string(line.substr(0, line.find('\n')));
}

bool exists(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

// The walk down from one device.
class Walk {
 public:
  Walk(const PathResolver& resolver, const std::string& sysfs)
      : resolver_(resolver), sysfs_(sysfs) {}

  // The file of the own mount that `dev` stands on, by the loop device's word; empty: none.
  std::string own_file_below(dev_t dev) {
    below_.push_back(dev);
    while (!below_.empty()) {
      const dev_t next = below_.back();
      below_.pop_back();
      if (major(next) == 0 || seen_.size() >= kMaxDevices || !seen_.insert(next).second) {
        continue;
      }
      const std::string folder = fmt::format("{}/{}", sysfs_, device_numbers(next));
      if (exists(folder + "/partition")) {
        add(first_line(folder + "/../dev"));
      }
      add_slaves(folder + "/slaves");
      const std::string file = first_line(folder + "/loop/backing_file");
      if (!file.empty() && is_own(file)) {
        loop_ = next;
        return file;
      }
    }
    return {};
  }
  [[nodiscard]] dev_t loop() const { return loop_; }

 private:
  void add(const std::string& numbers) {
    if (const auto dev = parse_device_numbers(numbers); dev.has_value()) {
      below_.push_back(*dev);
    }
  }

  void add_slaves(const std::string& folder) {
    const UniqueDir dir(::opendir(folder.c_str()));
    while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
      if (entry->d_name[0] != '.') {
        add(first_line(fmt::format("{}/{}/dev", folder, entry->d_name)));
      }
    }
  }

  // Else goes on with the disk of the file system that the file is in.
  bool is_own(const std::string& file) {
    const auto place = resolver_.resolve(file);
    if (!place.ok()) {
      // Removed, or a name of another mount namespace. A name's end in words is the kernel's.
      constexpr std::string_view kDeleted = " (deleted)";
      return file.ends_with(kDeleted) && is_own(file.substr(0, file.size() - kDeleted.size()));
    }
    if (place->own) {
      return true;
    }
    // Only what is known of the file here: a file server that is gone must not hold up the table.
    struct statx info {};
    if (::statx(AT_FDCWD, place->path.c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, STATX_TYPE,
                &info) == 0) {
      below_.push_back(S_ISBLK(info.stx_mode) ? makedev(info.stx_rdev_major, info.stx_rdev_minor)
                                              : makedev(info.stx_dev_major, info.stx_dev_minor));
    }
    return false;
  }

  const PathResolver& resolver_;
  const std::string& sysfs_;
  std::vector<dev_t> below_;
  std::set<dev_t> seen_;
  dev_t loop_ = 0;
};

}  // namespace

Status refuse_own_ground(const std::string& word, const struct stat& st,
                         const PathResolver& resolver, const std::string& sysfs) {
  Walk walk(resolver, sysfs);
  const dev_t top = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
  const std::string file = walk.own_file_below(top);
  if (file.empty()) {
    return {};
  }
  return {ELOOP, fmt::format("{}: stands on the loop device {} of {}, inside this mount, which "
                             "would wait for itself: name the mapped device instead",
                             word, device_numbers(walk.loop()), file)};
}

}  // namespace mapperfs
