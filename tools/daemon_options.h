// What mapperfs was asked for on its command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/status.h"

namespace mapperfs {

struct DaemonOptions {
  std::string mount_point;  // absolute, canonical
  std::string fs_name = "mapperfs";
  std::vector<std::string> fuse_options;  // for libfuse and the kernel
  std::string transport = "auto";
  std::uint32_t max_write = 1U << 20;
  unsigned ring_depth = 0;  // places on each ring of io_uring; 0: by memory
  bool cache = false;
  bool passthrough = false;
  bool foreground = false;
  std::string tables;  // a file, or empty
  std::string log_level = "info";
  std::optional<std::uint64_t> seed;  // of all chance; none: the kernel's
  bool over_another = false;          // -o nonempty: mounts even where a mapperfs is mounted
  std::uint64_t thin_no_space_timeout_s = 60;                 // 0: never
  std::uint64_t thin_cache_bytes = std::uint64_t{128} << 20;  // of each thin pool's metadata
};

// Reads argv. Nothing: the program is to end with `exit_code`, everything having been said (--help,
// --version, wrong usage).
std::optional<DaemonOptions> parse_daemon_options(int argc, char** argv, int& exit_code);

// Takes one option of a -o list: ours into `options`, the mount table's own noise nowhere, all
// others for libfuse. EINVAL for a bad value.
Status take_mount_option(const std::string& option, DaemonOptions& options);

}  // namespace mapperfs
