// Preloaded into a daemon: counts what it asks the C library's heap for, whoever asks (operator new
// does as well), in the first eight bytes of the file that COUNT_ALLOCATIONS names, which a test
// reads meanwhile. Threads count together: the test is not about speed.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

// glibc's own names for its heap: what is defined here would hide the others.
extern "C" {
void* __libc_malloc(std::size_t bytes);                           // NOLINT
void* __libc_calloc(std::size_t count, std::size_t bytes);        // NOLINT
void* __libc_realloc(void* at, std::size_t bytes);                // NOLINT
void* __libc_memalign(std::size_t alignment, std::size_t bytes);  // NOLINT
}

namespace {

using Counter = std::atomic<std::uint64_t>;
static_assert(Counter::is_always_lock_free && sizeof(Counter) == 8);

constinit Counter* g_counter = nullptr;

[[gnu::constructor]] void begin() {
  const char* path = std::getenv("COUNT_ALLOCATIONS");
  const int fd = path == nullptr ? -1 : ::open(path, O_RDWR | O_CLOEXEC);
  void* shared = fd < 0
                     ? MAP_FAILED
                     : ::mmap(nullptr, sizeof(Counter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared != MAP_FAILED) {
    g_counter = static_cast<Counter*>(shared);
    g_counter->fetch_add(1);  // so a test sees that it is counted at all
  }
  if (fd >= 0) {
    ::close(fd);
  }
}

void count() noexcept {
  if (g_counter != nullptr) {
    g_counter->fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace

extern "C" {

void* malloc(std::size_t bytes) noexcept {  // NOLINT: the heap itself
  count();
  return __libc_malloc(bytes);
}

void* calloc(std::size_t amount, std::size_t bytes) noexcept {  // NOLINT: the heap itself
  count();
  return __libc_calloc(amount, bytes);
}

void* realloc(void* at, std::size_t bytes) noexcept {  // NOLINT: the heap itself
  count();
  return __libc_realloc(at, bytes);
}

void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  count();
  return __libc_memalign(alignment, bytes);
}

int posix_memalign(void** at, std::size_t alignment, std::size_t bytes) noexcept {
  count();
  *at = __libc_memalign(alignment, bytes);
  return *at != nullptr ? 0 : ENOMEM;
}

}  // extern "C"
