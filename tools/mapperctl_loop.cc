// attach and detach: a loop device over a device's file, for what insists on a block device. The
// work of losetup, done with the flags that fit a mapped device.
#include <fcntl.h>
#include <fmt/ostream.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

constexpr char kLoopControl[] = "/dev/loop-control";
constexpr int kAttachTries = 16;  // another program may take the free device first

class UniqueFd {
 public:
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

bool fail_errno(Session& session, std::string_view what) {
  const int err = errno;
  return session.fail(fmt::format("mapperctl: {}: {}", what, std::strerror(err)));
}

bool no_loop_devices(Session& session) {
  if (errno == ENOENT || errno == ENODEV || errno == ENXIO) {
    return session.fail(
        "mapperctl: there are no loop devices here (no /dev/loop-control): the kernel or the "
        "container has none. Programs that take files can use the device's file as it is.");
  }
  return fail_errno(session, fmt::format("cannot open {}", kLoopControl));
}

loop_config make_config(const AttachOptions& options, int fd, const std::string& path,
                        bool read_only) {
  loop_config config{};
  config.fd = static_cast<__u32>(fd);
  config.block_size = options.sector_size;
  if (options.direct_io) config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
  if (options.partitions) config.info.lo_flags |= LO_FLAGS_PARTSCAN;
  if (read_only) config.info.lo_flags |= LO_FLAGS_READ_ONLY;
  // What losetup shows of it; the kernel keeps the file itself.
  const size_t length = std::min<size_t>(path.size(), LO_NAME_SIZE - 1);
  std::memcpy(config.info.lo_file_name, path.data(), length);
  return config;
}

// Path of the loop device, empty after an error that was printed.
std::string attach_file(Session& session, const AttachOptions& options, const std::string& path) {
  struct stat info {};
  bool read_only = options.read_only;
  if (::stat(path.c_str(), &info) == 0) read_only = read_only || (info.st_mode & 0222) == 0;
  const UniqueFd file(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (!file.valid()) return fail_errno(session, fmt::format("cannot open {}", path)), "";
  const UniqueFd control(::open(kLoopControl, O_RDWR | O_CLOEXEC));
  if (!control.valid()) return no_loop_devices(session), "";
  for (int tries = 0; tries < kAttachTries; ++tries) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return fail_errno(session, "no free loop device"), "";
    const std::string loop = fmt::format("/dev/loop{}", number);
    const UniqueFd device(::open(loop.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!device.valid()) return fail_errno(session, fmt::format("cannot open {}", loop)), "";
    const loop_config config = make_config(options, file.get(), path, read_only);
    if (::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) return loop;
    if (errno != EBUSY) {
      fail_errno(session, fmt::format("cannot attach {} to {}", path, loop));
      return {};
    }
  }
  session.fail(
      fmt::format("mapperctl: {} free loop devices were taken by others in a row", kAttachTries));
  return {};
}

// The loop devices over `path`, from what the kernel says about each.
std::vector<std::string> loops_over(const std::string& path) {
  std::vector<std::string> loops;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/block", ignored)) {
    const std::string name = entry.path().filename();
    if (name.rfind("loop", 0) != 0) continue;
    Reply backing = read_whole_file(entry.path() / "loop" / "backing_file");
    if (!backing.ok()) continue;
    if (!backing.text.empty() && backing.text.back() == '\n') backing.text.pop_back();
    if (backing.text == path) loops.push_back("/dev/" + name);
  }
  std::sort(loops.begin(), loops.end());
  return loops;
}

std::string real_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::weakly_canonical(path, error);
  return error ? path : real.string();
}

// The path of a device's file, checked to exist. Nothing after an error.
std::optional<std::string> device_path(Session& session, const std::string& word,
                                       std::string_view verb) {
  const auto selected = session.select(&word, verb);
  if (!selected) return std::nullopt;
  const auto device = session.client()->device(selected->name);
  if (!device.ok()) {
    session.fail("Device does not exist.");
    return std::nullopt;
  }
  return real_path(session.client()->transport().path_of(selected->name));
}

}  // namespace

bool verb_attach(Session& session, const AttachOptions& options) {
  const auto path = device_path(session, options.name, "attach");
  if (!path) return false;
  const std::string loop = attach_file(session, options, *path);
  if (loop.empty()) return false;
  fmt::print(session.out(), "{}\n", loop);
  return true;
}

bool verb_detach(Session& session, const std::string& name) {
  const auto path = device_path(session, name, "detach");
  if (!path) return false;
  const auto loops = loops_over(*path);
  if (loops.empty()) {
    return session.fail(fmt::format("mapperctl: no loop device is attached to {}", *path));
  }
  for (const std::string& loop : loops) {
    {
      const UniqueFd device(::open(loop.c_str(), O_RDONLY | O_CLOEXEC));
      if (!device.valid()) return fail_errno(session, fmt::format("cannot open {}", loop));
      if (::ioctl(device.get(), LOOP_CLR_FD) != 0) {
        return fail_errno(session, fmt::format("cannot detach {}", loop));
      }
    }
    fmt::print(session.out(), "{}\n", loop);
  }
  // While others have it open (a mount above all) the kernel says yes, and only marks it. Its own
  // opener, just now, does not count any more.
  for (const std::string& loop : loops_over(*path)) {
    fmt::print(session.err(),
               "mapperctl: {} is still in use, mounted perhaps: it goes with its last user, and {} "
               "is busy until then\n",
               loop, name);
  }
  return true;
}

}  // namespace mapperctl
