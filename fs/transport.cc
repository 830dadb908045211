// The transports of libfuse's own loop: descriptors of /dev/fuse, one a thread, and with libfuse
// 3.18 rings of io_uring beside them. FUSE threads never wait for I/O or for a control operation,
// so a few more than there are cores are enough.

#include "fs/transport.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "engine/unique_fd.h"

namespace mapperfs {
namespace {

constexpr unsigned kSpareThreads = 2;

int run_loop(fuse_session& session, unsigned threads) {
  fuse_loop_config* config = fuse_loop_cfg_create();
  if (config == nullptr) {
    return ENOMEM;
  }
  fuse_loop_cfg_set_clone_fd(config, 1);
  fuse_loop_cfg_set_max_threads(config, threads);
  // Idle threads stay: making them anew costs more than they do.
  fuse_loop_cfg_set_idle_threads(config, threads);
  const int result = fuse_session_loop_mt(&session, config);
  fuse_loop_cfg_destroy(config);
  return result < 0 ? -result : 0;
}

unsigned cores() { return std::max(1U, std::thread::hardware_concurrency()); }

class DevTransport final : public Transport {
 public:
  [[nodiscard]] std::vector<std::string> session_options(std::uint32_t) override { return {}; }
  void negotiate(fuse_conn_info& conn) override { static_cast<void>(conn); }
  int serve(fuse_session& session) override { return run_loop(session, cores() + kSpareThreads); }
  [[nodiscard]] std::string name() const override { return "/dev/fuse"; }
};

#if MAPPERFS_HAVE_FUSE_URING
// libfuse allocates the memory at the first receive.
struct ReceiveBuffer {
  ReceiveBuffer() = default;
  ~ReceiveBuffer() { std::free(buf.mem); }
  ReceiveBuffer(const ReceiveBuffer&) = delete;
  ReceiveBuffer& operator=(const ReceiveBuffer&) = delete;
  fuse_buf buf{};
};

// A request holds its place on a ring until it is answered, and the kernel has no other way for the
// next. I/O that a suspended device holds must not take them all: the `resume` needs one. So rings
// are deep, and asynchronous I/O (fio and loop devices at any depth) gets half the places of one.
// What is left holds as many threads that wait for synchronous I/O; docs/design.md names the limit.
class UringTransport final : public Transport {
 public:
  [[nodiscard]] std::vector<std::string> session_options(std::uint32_t max_write) override {
    depth_ = static_cast<unsigned>(std::clamp<std::uint64_t>(
        kRingBytes / (std::uint64_t{cores()} * max_write), kMinDepth, kMaxDepth));
    return {"io_uring", "io_uring_q_depth=" + std::to_string(depth_)};
  }
  void negotiate(fuse_conn_info& conn) override {
    conn.max_background = static_cast<std::uint16_t>(depth_ / 2);
    conn.congestion_threshold = static_cast<std::uint16_t>(depth_ * 3 / 8);
    agreed_.store((conn.capable_ext & FUSE_CAP_OVER_IO_URING) != 0, std::memory_order_release);
  }
  // libfuse's own loops free the rings, and with them the requests not yet answered, when they end.
  // So this is a loop of ours, and the rings go in end(). The queues' threads are libfuse's; only
  // what does not travel on rings comes here, and one thread is enough for it.
  int serve(fuse_session& session) override {
    ReceiveBuffer buffer;
    while (fuse_session_exited(&session) == 0) {
      const int got = fuse_session_receive_buf(&session, &buffer.buf);
      if (got == -EINTR || got == -EAGAIN) {
        continue;
      }
      if (got <= 0) {
        return -got;  // 0: unmounted
      }
      fuse_session_process_buf(&session, &buffer.buf);
    }
    return 0;
  }
  // A loop that is told to exit before it begins only takes the rings down.
  void end(fuse_session& session) override {
    fuse_session_exit(&session);
    static_cast<void>(fuse_session_loop(&session));
  }
  [[nodiscard]] std::string name() const override {
    return agreed_.load(std::memory_order_acquire) ? "io_uring" : "/dev/fuse";
  }

 private:
  // Address space of all rings' buffers together; only what was touched is memory.
  static constexpr std::uint64_t kRingBytes = std::uint64_t{1} << 30;
  static constexpr std::uint64_t kMinDepth = 16;
  static constexpr std::uint64_t kMaxDepth = 256;
  unsigned depth_ = kMinDepth;
  std::atomic<bool> agreed_{false};
};

bool reads_yes(const char* path) {
  const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
  char answer = 'N';
  return fd.get() >= 0 && ::read(fd.get(), &answer, 1) == 1 && (answer == 'Y' || answer == '1');
}

// Why FUSE over io_uring cannot be had from this kernel, or an empty sentence.
std::string why_no_uring() {
  constexpr const char* kSwitch = "/sys/module/fuse/parameters/enable_uring";
  if (::access(kSwitch, F_OK) != 0) {
    return "the kernel has no FUSE over io_uring (6.14 brought it)";
  }
  if (!reads_yes(kSwitch)) {
    return std::string("FUSE over io_uring is switched off: echo 1 > ") + kSwitch;
  }
  // Seccomp filters and kernel.io_uring_disabled forbid io_uring itself.
  io_uring_params params{};
  params.flags = IORING_SETUP_SQE128;
  const UniqueFd ring(static_cast<int>(::syscall(__NR_io_uring_setup, 4, &params)));
  return ring.get() >= 0 ? std::string()
                         : std::string("io_uring is not allowed here: ") + std::strerror(errno);
}
#endif

}  // namespace

Result<TransportKind> parse_transport(const std::string& word) {
  if (word == "auto") {
    return TransportKind::kAuto;
  }
  if (word == "dev") {
    return TransportKind::kDev;
  }
  if (word == "uring") {
    return TransportKind::kUring;
  }
  return Status(EINVAL, "transport \"" + word + "\" is none of auto, dev, uring");
}

// kAuto never takes rings: with libfuse 3.18.3 an answer given on another thread than the ring's
// own (a reaper's, a control operation's) uses the ring while its thread submits to it without a
// lock. Under load the ring's queue was seen to break, and the mount hung. docs/design.md,
// section 8.
TransportChoice make_transport(TransportKind kind) {
  TransportChoice choice;
  if (kind == TransportKind::kUring) {
#if MAPPERFS_HAVE_FUSE_URING
    choice.note = why_no_uring();
    if (choice.note.empty()) {
      choice.transport = std::make_unique<UringTransport>();
      choice.note =
          "transport uring is for measuring: libfuse 3.18.3 may hang when answers come from other "
          "threads than the ring's";
      return choice;
    }
#else
    choice.note = "built with a libfuse that has no FUSE over io_uring (3.18 brought it)";
#endif
  }
  choice.transport = std::make_unique<DevTransport>();
  return choice;
}

}  // namespace mapperfs
