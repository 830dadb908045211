// The yardstick: what FUSE itself costs. One file in memory behind a bare libfuse, nothing else: no
// table, no bio, no statistics. `yardstick BYTES BACKGROUND MNT [-o io_uring ...]` serves MNT/mem
// in the foreground until unmounted; BACKGROUND is how many asynchronous requests the kernel may
// have under way, which libfuse leaves at 12.
//
// It does what the fastest honest server can do with the same transport: direct I/O, parallel
// writes, one copy between the request's buffer and memory, the reply from the thread that took the
// request.
#include <fuse_lowlevel.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr fuse_ino_t kFileInode = 2;
char* g_memory = nullptr;
std::size_t g_size = 0;
unsigned g_background = 0;

void fill_stat(fuse_ino_t ino, struct stat& st) {
  st = {};
  st.st_ino = ino;
  st.st_mode = ino == kFileInode ? (S_IFREG | 0600) : (S_IFDIR | 0700);
  st.st_nlink = 1;
  st.st_uid = ::getuid();
  st.st_gid = ::getgid();
  st.st_size = ino == kFileInode ? static_cast<off_t>(g_size) : 0;
}

void on_init(void*, fuse_conn_info* conn) {
  conn->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  conn->max_write = 1U << 20;
  conn->max_background = g_background;
  conn->congestion_threshold = g_background * 3 / 4;
}

void on_lookup(fuse_req_t req, fuse_ino_t, const char* name) {
  if (std::strcmp(name, "mem") != 0) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  fuse_entry_param entry = {};
  entry.ino = kFileInode;
  entry.attr_timeout = entry.entry_timeout = 3600;
  fill_stat(kFileInode, entry.attr);
  fuse_reply_entry(req, &entry);
}

void on_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  struct stat st {};
  fill_stat(ino, st);
  fuse_reply_attr(req, &st, 3600);
}

void on_open(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  fi->direct_io = 1;
#if MAPPERFS_HAVE_FUSE_PARALLEL_DIRECT_WRITES
  fi->parallel_direct_writes = 1;
#endif
  fuse_reply_open(req, fi);
}

void on_read(fuse_req_t req, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info*) {
  const auto at = static_cast<std::size_t>(offset);
  const std::size_t left = at < g_size ? g_size - at : 0;
  fuse_reply_buf(req, g_memory + at, size < left ? size : left);
}

void on_write(fuse_req_t req, fuse_ino_t, const char* data, std::size_t size, off_t offset,
              fuse_file_info*) {
  const auto at = static_cast<std::size_t>(offset);
  if (at > g_size || size > g_size - at) {
    fuse_reply_err(req, ENOSPC);
    return;
  }
  std::memcpy(g_memory + at, data, size);
  fuse_reply_write(req, size);
}

void on_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) { fuse_reply_err(req, 0); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: yardstick BYTES BACKGROUND MNT [libfuse options]\n");
    return 2;
  }
  g_size = std::strtoull(argv[1], nullptr, 10);
  g_background = static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10));
  void* memory = ::mmap(nullptr, g_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("yardstick: mmap");
    return 1;
  }
  g_memory = static_cast<char*>(memory);
  std::vector<char*> args = {argv[0]};
  args.insert(args.end(), argv + 4, argv + argc);
  fuse_args fuse = FUSE_ARGS_INIT(static_cast<int>(args.size()), args.data());
  fuse_lowlevel_ops ops = {};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.getattr = on_getattr;
  ops.open = on_open;
  ops.read = on_read;
  ops.write = on_write;
  ops.fsync = on_fsync;
  fuse_session* session = fuse_session_new(&fuse, &ops, sizeof ops, nullptr);
  if (session == nullptr || fuse_set_signal_handlers(session) != 0 ||
      fuse_session_mount(session, argv[3]) != 0) {
    return 1;
  }
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 1);
  const int rc = fuse_session_loop_mt(session, config);
  fuse_loop_cfg_destroy(config);
  fuse_session_unmount(session);
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  return rc < 0 ? 1 : 0;
}
