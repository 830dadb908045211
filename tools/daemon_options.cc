#include "tools/daemon_options.h"

#include <fmt/format.h>
#include <mntent.h>
#include <sys/vfs.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <system_error>

#include "fs/mount.h"

namespace mapperfs {
namespace {

constexpr std::uint32_t kMinMaxWrite = 132U << 10;
constexpr std::uint32_t kMaxMaxWrite = 1U << 20;

// What /etc/fstab and systemd write for themselves.
constexpr std::array<std::string_view, 10> kNotForUs = {
    "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail", "defaults"};

Status parse_max_write(const std::string& value, std::uint32_t& bytes) {
  std::uint32_t number = 0;
  const char* end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, number);
  const std::string_view unit(at, static_cast<std::size_t>(end - at));
  const std::uint32_t factor = unit.empty()  ? 1
                               : unit == "K" ? 1U << 10
                               : unit == "M" ? 1U << 20
                                             : 0;
  if (error != std::errc() || factor == 0 || number > kMaxMaxWrite / factor ||
      number * factor < kMinMaxWrite) {
    return {EINVAL, fmt::format("max_write \"{}\" is not between {}K and {}K", value,
                                kMinMaxWrite >> 10, kMaxMaxWrite >> 10)};
  }
  bytes = number * factor;
  return {};
}

// The kernel's module parameter no_space_timeout of dm_thin_pool.
Status parse_seconds(const std::string& value, std::uint64_t& seconds) {
  constexpr std::uint64_t kMost = 3600 * 24 * 365;
  const char* end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, seconds);
  if (error != std::errc() || at != end || seconds > kMost) {
    return {EINVAL, fmt::format("thin_no_space_timeout \"{}\" is not a number of seconds up to {}",
                                value, kMost)};
  }
  return {};
}

Status parse_seed(const std::string& value, std::optional<std::uint64_t>& seed) {
  std::uint64_t number = 0;
  const char* end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc() || at != end) {
    return {EINVAL, fmt::format("seed \"{}\" is not a number between 0 and {}", value,
                                std::numeric_limits<std::uint64_t>::max())};
  }
  seed = number;
  return {};
}

Status parse_ring_depth(const std::string& value, unsigned& places) {
  constexpr unsigned kLeast = 4;
  constexpr unsigned kMost = 1024;
  const char* end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, places);
  if (error != std::errc() || at != end || places < kLeast || places > kMost) {
    return {EINVAL, fmt::format("io_uring_q_depth \"{}\" is not a number between {} and {}", value,
                                kLeast, kMost)};
  }
  return {};
}

Status parse_thin_cache(const std::string& value, std::uint64_t& bytes) {
  constexpr std::uint64_t kLeastMib = 4;
  constexpr std::uint64_t kMostMib = 1U << 20;
  std::uint64_t number = 0;
  const char* end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, number);
  const std::string_view unit(at, static_cast<std::size_t>(end - at));
  const std::uint64_t mib = unit == "M" ? 1 : unit == "G" ? 1024 : 0;
  if (error != std::errc() || mib == 0 || number > kMostMib / mib || number * mib < kLeastMib) {
    return {EINVAL, fmt::format("thin_cache \"{}\" is not between {}M and {}G", value, kLeastMib,
                                kMostMib / 1024)};
  }
  bytes = number * mib << 20;
  return {};
}

std::string version_text() {
  return fmt::format("mapperfs {}\nlibfuse {}", MAPPERFS_VERSION, libfuse_version());
}

constexpr std::array<std::string_view, 5> kLogLevels = {"debug", "info", "warn", "error", "off"};

Status check_log_level(const std::string& level) {
  if (std::find(kLogLevels.begin(), kLogLevels.end(), level) != kLogLevels.end()) {
    return {};
  }
  return {EINVAL,
          fmt::format("log level \"{}\" is none of {}", level, fmt::join(kLogLevels, ", "))};
}

struct CloseMounts {
  void operator()(FILE* mounts) const { ::endmntent(mounts); }
};

// True where the mount that is seen at `place` (canonical), the last one there, is a mapperfs.
bool is_mapperfs(const std::string& place) {
  const std::unique_ptr<FILE, CloseMounts> mounts(::setmntent("/proc/self/mounts", "r"));
  bool found = false;
  while (const mntent* mount = mounts ? ::getmntent(mounts.get()) : nullptr) {
    if (place == mount->mnt_dir) {
      found = std::string_view(mount->mnt_type) == "fuse.mapperfs";
    }
  }
  return found;
}

// What a FUSE mount answers whose daemon died: at any time, to what was asked at that moment, and
// over io_uring to what was asked while the ring of the dead task was still being taken down.
bool is_dead(int error) { return error == ENOTCONN || error == ECONNABORTED || error == ECANCELED; }

// The errno of a call that is never answered from memory, as stat() is for a while.
int ask_file_system(const std::string& path) {
  struct statfs system {};
  return ::statfs(path.c_str(), &system) == 0 ? 0 : errno;
}

// The mount point as the kernel will name it.
Status find_mount_point(const std::string& path, bool over_another, std::string& canonical) {
  std::error_code error;
  const std::filesystem::path found = std::filesystem::canonical(path, error);
  const bool directory = !error && std::filesystem::is_directory(found, error);
  if (is_dead(error.value()) || is_dead(ask_file_system(path))) {
    return {ENOTCONN, fmt::format("mount point {}: the daemon that was mounted there is gone; "
                                  "\"fusermount3 -u {}\" takes its mount away",
                                  path, path)};
  }
  if (error) {
    return {error.value(), fmt::format("mount point {}: {}", path, error.message())};
  }
  if (!directory) {
    return {ENOTDIR, fmt::format("mount point {} is no directory", path)};
  }
  canonical = found.string();
  if (!over_another && is_mapperfs(canonical)) {
    return {EBUSY, fmt::format("mount point {}: a mapperfs is mounted there already; end it with "
                               "\"fusermount3 -u {}\", or hide it with -o nonempty",
                               path, path)};
  }
  return {};
}

// CLI11 would have as the usage that there is one place or more.
class Help final : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* /*app*/, std::string /*name*/) const override {
    return "Usage: mapperfs [OPTIONS] [NAME] MOUNT_POINT\n";
  }
};

// What CLI11 ends with: what was asked for, or a sentence about what was not understood.
int end_of_parsing(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {
    return app.exit(error);
  }
  fmt::print(stderr, "mapperfs: {}; mapperfs --help tells more\n",
             dynamic_cast<const CLI::RequiredError*>(&error) != nullptr ? "no mount point was given"
                                                                        : error.what());
  return 1;
}

// NAME and MOUNT_POINT, or MOUNT_POINT alone.
Status take_places(const std::vector<std::string>& places, DaemonOptions& options) {
  if (places.size() > 2) {
    return {EINVAL,
            fmt::format("{} names were given, a NAME and a MOUNT_POINT at most", places.size())};
  }
  if (places.size() == 2) {
    options.fs_name = places.front();
  }
  if (options.fs_name.empty()) {
    return {EINVAL, "the NAME before the MOUNT_POINT is empty"};
  }
  return {};
}

}  // namespace

Status take_mount_option(const std::string& option, DaemonOptions& options) {
  const std::size_t equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  if (option.empty() || key.starts_with("x-") || key == "comment" ||
      std::find(kNotForUs.begin(), kNotForUs.end(), key) != kNotForUs.end()) {
    return {};
  }
  if (key == "max_write") {
    return parse_max_write(value, options.max_write);
  }
  if (key == "transport") {
    options.transport = value;
    return parse_transport(value).status();
  }
  if (key == "thin_no_space_timeout") {
    return parse_seconds(value, options.thin_no_space_timeout_s);
  }
  if (key == "thin_cache") {
    return parse_thin_cache(value, options.thin_cache_bytes);
  }
  if (key == "seed") {
    return parse_seed(value, options.seed);
  }
  if (key == "io_uring_q_depth") {
    return parse_ring_depth(value, options.ring_depth);
  }
  if (option == "io_uring") {
    options.transport = "uring";  // libfuse's word for it: its own rings stay off
    return {};
  }
  if (option == "cache") {
    options.cache = true;
  } else if (option == "passthrough") {
    options.passthrough = true;
  } else if (key == "tables") {
    options.tables = value;
  } else if (key == "log_level") {
    options.log_level = value;
    return check_log_level(value);
  } else if (option == "nonempty") {
    options.over_another = true;
  } else if (key == "fsname") {
    options.fs_name = value;
    if (value.empty()) {
      return {EINVAL, "fsname is empty"};
    }
  } else if (key != "subtype") {
    options.fuse_options.push_back(option);
  }
  return {};
}

std::optional<DaemonOptions> parse_daemon_options(int argc, char** argv, int& exit_code) {
  DaemonOptions options;
  std::vector<std::string> places;
  std::vector<std::string> lists;
  std::string max_write;
  CLI::App app{
      "The Linux device mapper as a file system: every mapped device is a file of the mount, "
      "and the file `control` takes device-mapper tables.",
      "mapperfs"};
  app.formatter(std::make_shared<Help>());
  app.add_option("place", places,
                 "[NAME] MOUNT_POINT; NAME stands in the mount table's first column")
      ->expected(1, 1 << 20)  // too many are refused in our words
      ->required()            // without this, -o LIST would take it for a second list
      ->option_text("[NAME] MOUNT_POINT");
  app.add_flag("-f,--foreground", options.foreground, "stay in the foreground");
  app.add_option(
         "-o", lists,
         "mount options, separated by commas: transport=auto|dev|uring, max_write=BYTES, "
         "io_uring_q_depth=N, cache, passthrough, tables=FILE, log_level=LEVEL, thin_cache=SIZE, "
         "thin_no_space_timeout=SECONDS, seed=N, nonempty, and those of mount(8) and libfuse "
         "(allow_other, allow_root, ro, ...)")
      ->option_text("LIST");
  app.add_option("--tables", options.tables,
                 "bring these devices up before mounting: what `cat MOUNT_POINT/control` gave")
      ->option_text("FILE");
  app.add_option("--transport", options.transport, "auto, dev or uring")->option_text("NAME");
  app.add_option("--max-write", max_write,
                 "largest request in bytes, 132K to 1M; the largest "
                 "write to control is 4K less")
      ->option_text("BYTES");
  app.add_option("--log-level", options.log_level, "debug, info, warn, error or off")
      ->option_text("LEVEL");
  app.set_version_flag("-V,--version", version_text());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit_code = end_of_parsing(app, error);
    return std::nullopt;
  }
  Status status = take_places(places, options);
  if (status.ok() && !max_write.empty()) {
    status = parse_max_write(max_write, options.max_write);
  }
  if (status.ok()) {
    status = parse_transport(options.transport).status();
  }
  if (status.ok()) {
    status = check_log_level(options.log_level);
  }
  for (const std::string& list : lists) {
    std::string_view rest = list;
    while (!rest.empty() && status.ok()) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      status = take_mount_option(std::string(rest.substr(0, comma)), options);
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  if (status.ok()) {
    status = find_mount_point(places.back(), options.over_another, options.mount_point);
  }
  if (!status.ok()) {
    fmt::print(stderr, "mapperfs: {}\n", status.message());
    exit_code = 1;
    return std::nullopt;
  }
  return options;
}

}  // namespace mapperfs
