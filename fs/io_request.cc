#include "fs/io_request.h"

#include <fuse_lowlevel.h>

#include <algorithm>
#include <thread>

#include "engine/assert.h"
#include "engine/mapped_device.h"
#include "engine/status.h"
#include "engine/thread.h"
#include "fs/thread_pool.h"

namespace mapperfs {
namespace {

// Buffer sizes; the first class has none. Larger steps would waste memory, smaller ones would keep
// more pools half used.
constexpr std::array<std::size_t, 6> kClassBytes = {0,
                                                    std::size_t{4} << 10,
                                                    std::size_t{16} << 10,
                                                    std::size_t{64} << 10,
                                                    std::size_t{256} << 10,
                                                    IoPools::kLargestBuffer};
// Classes from here on count as large: their idle buffers are limited.
constexpr std::size_t kFirstLarge = 4;
constexpr std::size_t kChunk = 16;

}  // namespace

// One queue's pools, one a size class. `started` is written by the owning thread; `finished` by the
// thread that owns this pool while it answers requests of any pool.
class IoPool {
 public:
  std::array<Pool<IoRequest>, kClassBytes.size()> classes{
      Pool<IoRequest>(kChunk), Pool<IoRequest>(kChunk), Pool<IoRequest>(kChunk),
      Pool<IoRequest>(4),      Pool<IoRequest>(4),      Pool<IoRequest>(4)};
  alignas(kCacheLineBytes) std::atomic<std::uint64_t> started{0};
  std::atomic<std::uint64_t> finished{0};
};

AlignedBuffer make_aligned_buffer(std::size_t bytes) {
  return AlignedBuffer(new (std::align_val_t(kBufferAlignment)) std::byte[bytes]);
}

void IoRequest::submit(fuse_req& req, MappedDevice& device, Op op, sector_t sector,
                       sector_t sectors) noexcept {
  req_ = &req;
  bio_.dev = &device;
  bio_.sector = sector;
  bio_.sectors = sectors;
  bio_.data = op == Op::kFlush ? nullptr : buffer_.get();
  bio_.completion = this;
  bio_.op = op;
  submit_bio(bio_);
}

void IoRequest::read(fuse_req& req, MappedDevice& device, sector_t sector, sector_t sectors,
                     std::size_t skip, std::size_t len) noexcept {
  MFS_ASSERT(skip + len <= sectors << kSectorShift);
  skip_ = skip;
  len_ = len;
  bio_.flags = 0;
  submit(req, device, Op::kRead, sector, sectors);
}

void IoRequest::write(fuse_req& req, MappedDevice& device, sector_t sector, sector_t sectors,
                      std::size_t len, std::uint8_t flags) noexcept {
  len_ = len;
  bio_.flags = flags;
  submit(req, device, Op::kWrite, sector, sectors);
}

void IoRequest::flush(fuse_req& req, MappedDevice& device) noexcept {
  bio_.flags = 0;
  submit(req, device, Op::kFlush, 0, 0);
}

void IoRequest::complete(Bio& bio) noexcept {
  MFS_ASSERT(&bio == &bio_);
  if (on_passing_thread()) {
    pools_->answers_.post([this] { answer(); });
    return;
  }
  answer();
}

void IoRequest::answer() noexcept {
  const Bio& bio = bio_;
  const BlkStatus status = bio.status();
  fuse_req_t req = req_;
  // An answer that the kernel no longer wants (its process was killed, the mount is gone) is
  // nothing to act on: the I/O itself was done.
  if (status != BlkStatus::kOk) {
    static_cast<void>(fuse_reply_err(req, errno_of(status)));
  } else if (bio.op == Op::kRead) {
    static_cast<void>(
        fuse_reply_buf(req, reinterpret_cast<const char*>(buffer_.get()) + skip_, len_));
  } else if (bio.op == Op::kWrite) {
    static_cast<void>(fuse_reply_write(req, len_));
  } else {
    static_cast<void>(fuse_reply_err(req, 0));
  }
  pools_->give_back(*this);
}

IoPools::~IoPools() {
  for (std::atomic<IoPool*>& pool : pools_) {
    std::unique_ptr<IoPool>(pool.load(std::memory_order_acquire)).reset();
  }
}

IoPool& IoPools::current() noexcept {
  std::atomic<IoPool*>& slot = pools_[Queue::current().index()];
  IoPool* pool = slot.load(std::memory_order_acquire);
  if (pool == nullptr) [[unlikely]] {
    pool = std::make_unique<IoPool>().release();
    slot.store(pool, std::memory_order_release);
  }
  return *pool;
}

IoRequest& IoPools::take(std::size_t bytes) noexcept {
  MFS_ASSERT(bytes <= kLargestBuffer);
  const std::size_t size_class = static_cast<std::size_t>(
      std::lower_bound(kClassBytes.begin(), kClassBytes.end(), bytes) - kClassBytes.begin());
  IoPool& pool = current();
  IoRequest& request = pool.classes[size_class].take();
  if (request.home_ == nullptr) [[unlikely]] {
    request.home_ = &pool;
    request.pools_ = this;
    request.size_class_ = size_class;
  }
  if (request.buffer_ == nullptr) {
    if (size_class != 0) {
      request.buffer_ = make_aligned_buffer(kClassBytes[size_class]);
    }
  } else if (size_class >= kFirstLarge) {
    idle_large_bytes_.fetch_sub(kClassBytes[size_class], std::memory_order_relaxed);
  }
  pool.started.store(pool.started.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  return request;
}

void IoPools::give_back(IoRequest& request) noexcept {
  const std::size_t size_class = request.size_class_;
  if (size_class >= kFirstLarge) {
    const std::size_t bytes = kClassBytes[size_class];
    if (idle_large_bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes > kMaxIdleLarge) {
      idle_large_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
      request.buffer_.reset();
    }
  }
  IoPool& mine = current();
  if (request.home_ == &mine) {
    mine.classes[size_class].give_back(request);
  } else {
    request.home_->classes[size_class].give_back_remote(request);
  }
  // The last thing: after it the pools may go.
  mine.finished.store(mine.finished.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void IoPools::wait_idle() const {
  for (;;) {
    std::uint64_t finished = 0;
    std::uint64_t started = 0;
    // Finished first: what finishes meanwhile only makes us look again.
    for (const std::atomic<IoPool*>& slot : pools_) {
      const IoPool* pool = slot.load(std::memory_order_acquire);
      finished += pool != nullptr ? pool->finished.load(std::memory_order_acquire) : 0;
    }
    for (const std::atomic<IoPool*>& slot : pools_) {
      const IoPool* pool = slot.load(std::memory_order_acquire);
      started += pool != nullptr ? pool->started.load(std::memory_order_acquire) : 0;
    }
    if (finished == started) {
      return;
    }
    std::this_thread::yield();
  }
}

}  // namespace mapperfs
