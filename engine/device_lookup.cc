#include "engine/device_lookup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "engine/file_probe.h"
#include "engine/target_args.h"
#include "engine/unique_dir.h"

namespace mapperfs {
namespace {

constexpr unsigned kMaxSearchDepth = 4;

bool is_block_device(const std::string& path, dev_t rdev) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == rdev;
}

// DEVNAME of the device's uevent file, or an empty string.
std::string name_in_sysfs(dev_t rdev) {
  const std::string path = fmt::format("/sys/dev/block/{}/uevent", device_numbers(rdev));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text{};
  const ssize_t n = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
  if (n <= 0) {
    return {};
  }
  std::string_view rest(text.data(), static_cast<std::size_t>(n));
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.starts_with("DEVNAME=")) {
      return std::string(line.substr(std::string_view("DEVNAME=").size()));
    }
  }
  return {};
}

// Depth first; an empty string where it is not below `folder`.
std::string search(const std::string& folder, dev_t rdev, const PathResolver& resolver,
                   unsigned depth) {
  const auto place = resolver.resolve(folder);
  if (!place.ok() || place->own) {
    return {};
  }
  const UniqueDir dir(::opendir(folder.c_str()));
  while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") {
      continue;
    }
    const std::string path = fmt::format("{}/{}", folder, name);
    if (entry->d_type == DT_BLK && is_block_device(path, rdev)) {
      return path;
    }
    if (entry->d_type == DT_DIR && depth < kMaxSearchDepth) {
      if (std::string found = search(path, rdev, resolver, depth + 1); !found.empty()) {
        return found;
      }
    }
  }
  return {};
}

}  // namespace

std::optional<dev_t> parse_device_numbers(const std::string& word) {
  const std::size_t colon = word.find(':');
  std::uint64_t major_number = 0;
  std::uint64_t minor_number = 0;
  if (colon == std::string::npos || !parse_decimal(word.substr(0, colon), major_number) ||
      !parse_decimal(word.substr(colon + 1), minor_number) || major_number >= 1U << 12 ||
      minor_number >= 1U << 20) {
    return std::nullopt;
  }
  return makedev(static_cast<unsigned>(major_number), static_cast<unsigned>(minor_number));
}

Result<std::string> find_block_device(dev_t rdev, const PathResolver& resolver) {
  if (const std::string name = name_in_sysfs(rdev); !name.empty()) {
    std::string path = "/dev/" + name;
    const auto place = resolver.resolve(path);
    if (place.ok() && !place->own && is_block_device(path, rdev)) {
      return path;
    }
  }
  // No sysfs, no udev, or a node by another name.
  if (std::string path = search("/dev", rdev, resolver, 0); !path.empty()) {
    return path;
  }
  return Status(ENXIO, fmt::format("{}: there is no block device with these numbers in /dev",
                                   device_numbers(rdev)));
}

}  // namespace mapperfs
