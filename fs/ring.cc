#include "fs/ring.h"

#include <liburing.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "engine/assert.h"
#include "engine/coarse_clock.h"
#include "engine/queue.h"
#include "engine/thread.h"
#include "fs/fuse_abi.h"

namespace mapperfs {
namespace {

// A page for the head; then the payload, with room for what unaligned reads read more.
constexpr std::size_t kPlaceBytes = kBufferAlignment + IoRequest::kRoomBytes;
// Submissions of one turn besides the places': the wait for the wake-up, file I/O. More go out in a
// system call of their own.
constexpr unsigned kOtherSubmissions = 64;
constexpr unsigned kBatch = 64;
// With fewer transfers than this under way, the next goes to the kernel at once. What a turn
// submits together also ends together, and the disk would be idle while all of it is answered and
// asked again (1x16 on a disk: 61 k instead of 48 k IOPS, of 85 k; with 16 for 8: 56 k).
constexpr std::size_t kFewTransfers = 8;
// Before the kernel is asked again to take what it had no memory for.
constexpr long kShortNs = 1'000'000;

// User data of the wait for the wake-up and of the clock; a place's is its address, file I/O's has
// RingAio::kTag.
constexpr std::uint64_t kWakeTag = 1;
constexpr std::uint64_t kClockTag = 9;
static_assert((kWakeTag & RingAio::kTagMask) != RingAio::kTag);
static_assert((kClockTag & RingAio::kTagMask) != RingAio::kTag);

// Between two looks at places that large requests touched.
constexpr long kLookSeconds = 1;

// From the best to what every kernel has that has FUSE over io_uring at all. Task work runs when
// the thread waits, in one go, and never interrupts it.
constexpr std::array<unsigned, 3> kRingFlags = {
    IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
    IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
    IORING_SETUP_SQE128};

// Not allowed, or not there now: the ring is served from elsewhere, and that is all.
void run_on(unsigned core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  static_cast<void>(::sched_setaffinity(0, sizeof(set), &set));
}

}  // namespace

// --- a place ---

RingPlace::RingPlace(Ring& ring, std::byte* memory)
    : ring_(ring),
      head_(*reinterpret_cast<fuse_abi::UringHead*>(memory)),
      memory_{{&head_, sizeof(head_)}, {memory + kBufferAlignment, ring.options_.payload_bytes}} {
  set_data(memory + kBufferAlignment);
}

void RingPlace::accept() noexcept {
  fuse_in_header header{};
  std::memcpy(&header, head_.in_out, sizeof(header));
  unique_ = header.unique;
  commit_id_ = head_.ent_in_out.commit_id;
  bytes_ = head_.ent_in_out.payload_bytes;
  here_ = true;
}

void RingPlace::trim() noexcept {
  ::madvise(data() + kSmallBytes, kRoomBytes - kSmallBytes, MADV_DONTNEED);
  large_ = lately_ = false;
}

void RingPlace::set_answer(int error, std::size_t bytes) noexcept {
  fuse_out_header header{};
  header.len = static_cast<std::uint32_t>(sizeof(header) + bytes);
  header.error = -error;
  header.unique = unique_;
  std::memcpy(head_.in_out, &header, sizeof(header));
  head_.ent_in_out.payload_bytes = static_cast<std::uint32_t>(bytes);
  bytes_ = std::max(bytes_, bytes);
}

void RingPlace::send(int error, std::size_t bytes) noexcept {
  set_answer(error, bytes);
  ring_.answered(*this);
}

ssize_t RingPlace::reply(std::span<const iovec> pieces) noexcept {
  fuse_out_header header{};
  std::memcpy(&header, pieces[0].iov_base, sizeof(header));
  std::size_t bytes = 0;
  if (header.unique != unique_) {
    for (const iovec& piece : pieces) {
      bytes += piece.iov_len;
    }
    return static_cast<ssize_t>(bytes);
  }
  for (const iovec& piece : pieces.subspan(1)) {
    if (piece.iov_len > memory_[1].iov_len - bytes) {
      bytes = 0;
      header.error = -EIO;  // larger than the kernel asked for
      break;
    }
    std::memcpy(data() + bytes, piece.iov_base, piece.iov_len);
    bytes += piece.iov_len;
  }
  set_answer(-header.error, bytes);
  ring_.answered(*this);
  return static_cast<ssize_t>(sizeof(header) + bytes);
}

// --- any thread ---

thread_local constinit Ring* Ring::current_ = nullptr;

void Ring::RingDelete::operator()(::io_uring* ring) const {
  ::io_uring_queue_exit(ring);
  const std::unique_ptr<::io_uring> gone(ring);
}

Ring::Ring(RequestHandler& handler, MessageRouter& router, const Options& options)
    : handler_(handler), router_(router), options_(options) {
  MFS_ASSERT(options_.payload_bytes <= IoRequest::kMaxBytes && options_.depth > 0);
}

Ring::~Ring() {
  end();
  if (memory_ != nullptr) {
    ::munmap(memory_, memory_bytes_);
  }
}

int Ring::start() {
  // Not EFD_NONBLOCK: a read of it on the ring is to wait.
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (wake_.get() < 0) {
    return errno;
  }
  thread_ = start_thread("mfs-ring-" + std::to_string(options_.queue), [this] { thread_main(); });
  if (!thread_.joinable()) {
    return EAGAIN;
  }
  started_.wait(-1);
  return started_.load();
}

void Ring::advance(Stage stage) {
  stage_.store(stage, std::memory_order_release);
  static_cast<void>(::eventfd_write(wake_.get(), 1));
}

void Ring::go() { advance(Stage::kServing); }

void Ring::close() { advance(Stage::kClosing); }

void Ring::await_closed() { closed_.wait(false); }

void Ring::end() {
  if (thread_.joinable()) {
    advance(Stage::kEnding);
    thread_.join();
    while (wakers_.load(std::memory_order_acquire) != 0) {
      std::this_thread::yield();
    }
  }
}

void Ring::answered(RingPlace& place) noexcept {
  if (current_ == this) {
    offer(place, fuse_abi::kUringCommitAndFetch);
    return;
  }
  // Counted, so that the descriptor is not closed, and its number another's, before the wake-up.
  wakers_.fetch_add(1, std::memory_order_relaxed);
  if (answers_.give(place)) {
    static_cast<void>(::eventfd_write(wake_.get(), 1));
  }
  wakers_.fetch_sub(1, std::memory_order_release);
}

// --- the ring's thread ---

void Ring::thread_main() {
  current_ = this;
  run_on(options_.queue);
  Queue::current().aio().set_carrier(&file_io_);
  const int error = set_up();
  started_.store(error);
  started_.notify_all();
  if (error == 0) {
    run();
  }
  Queue::current().aio().set_carrier(nullptr);
  sqes_.reset();
  ring_.reset();
}

// Mapped, not allocated: on most machines there are more possible cores than cores, and no request
// ever touches the memory of those.
bool Ring::map_memory() {
  const std::size_t places_bytes = options_.depth * kPlaceBytes;
  memory_bytes_ = places_bytes + sizeof(fuse_in_header) + sizeof(fuse_abi::UringHead::op_in) +
                  options_.payload_bytes;
  void* memory = ::mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return false;
  }
  memory_ = static_cast<std::byte*>(memory);
  for (unsigned i = 0; i < options_.depth; ++i) {
    places_.push_back(std::make_unique<RingPlace>(*this, memory_ + i * kPlaceBytes));
  }
  message_ = memory_ + places_bytes;
  return true;
}

int Ring::set_up() {
  if (!map_memory()) {
    return ENOMEM;
  }
  const unsigned entries = std::bit_ceil(options_.depth + kOtherSubmissions);
  int error = EINVAL;
  for (const unsigned flags : kRingFlags) {
    auto ring = std::make_unique<::io_uring>();
    ::io_uring_params params{};
    params.flags = flags | IORING_SETUP_CQSIZE;
    // Room for all that can be under way at once: nothing has to be kept aside by the kernel.
    params.cq_entries = std::bit_ceil(options_.depth + RingAio::kDepth + 1);
    error = -::io_uring_queue_init_params(entries, ring.get(), &params);
    if (error == 0) {
      ring_.reset(ring.release());
      sqes_.emplace(*ring_);
      may_trim_ = (flags & IORING_SETUP_DEFER_TASKRUN) != 0;
      break;
    }
  }
  if (error != 0) {
    return error;
  }
  // Both spare the kernel from looking descriptors up, which counts in shared words.
  static_cast<void>(::io_uring_register_ring_fd(ring_.get()));
  error = -::io_uring_register_files(ring_.get(), &options_.fd, 1);
  await_wake();
  return error;
}

// All that is to be submitted goes to the kernel; `wait` for something to complete.
void Ring::submit(bool wait) {
  sqes_->flush();
  const int rc = ::io_uring_submit_and_wait(ring_.get(), wait ? 1 : 0);
  MFS_ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
  if (rc == -EAGAIN || rc == -EBUSY) [[unlikely]] {
    // The kernel took nothing: what completes makes room, or time does.
    ::io_uring_cqe* cqe = nullptr;
    ::__kernel_timespec rest{0, kShortNs};
    static_cast<void>(::io_uring_wait_cqe_timeout(ring_.get(), &cqe, &rest));
  }
}

void Ring::offer(RingPlace& place, std::uint32_t command) noexcept {
  if (place.io_) {
    place.io_ = false;
    --io_away_;
  }
  place.here_ = false;
  if (place.bytes_ > RingPlace::kSmallBytes) [[unlikely]] {
    place.large_ = place.lately_ = true;
    look_again_later();
  }
  ::io_uring_sqe& sqe = next_sqe();
  sqe.opcode = IORING_OP_URING_CMD;
  sqe.flags = IOSQE_FIXED_FILE;
  sqe.cmd_op = command;
  if (command == fuse_abi::kUringRegister) {
    sqe.addr = reinterpret_cast<std::uint64_t>(place.memory_);
    sqe.len = 2;
  }
  sqe.user_data = reinterpret_cast<std::uint64_t>(&place);
  fuse_abi::UringCommand request{};
  request.commit_id = place.commit_id_;
  request.queue = static_cast<std::uint16_t>(options_.queue);
  std::memcpy(sqe.cmd, &request, sizeof(request));
}

void Ring::await_wake() noexcept {
  ::io_uring_sqe& sqe = next_sqe();
  ::io_uring_prep_read(&sqe, wake_.get(), &wake_value_, sizeof(wake_value_), 0);
  sqe.user_data = kWakeTag;
}

void Ring::look_again_later() {
  if (look_coming_ || !may_trim_) {
    return;
  }
  look_coming_ = true;
  static ::__kernel_timespec after{kLookSeconds, 0};  // copied by the kernel as it is submitted
  ::io_uring_sqe& sqe = next_sqe();
  ::io_uring_prep_timeout(&sqe, &after, 0, 0);
  sqe.user_data = kClockTag;
}

// Only for a ring whose kernel puts requests into places while this thread is in a submission of
// its own, and then has told it by a completion: so it is known here which places are empty.
void Ring::trim_places() {
  look_due_ = false;
  submit(false);  // answers lie in their places until the kernel has them
  const bool quiet = sqes_->waiting() == 0 && ::io_uring_sq_ready(ring_.get()) == 0 &&
                     ::io_uring_cq_ready(ring_.get()) == 0;
  bool left = false;
  for (const std::unique_ptr<RingPlace>& place : places_) {
    if (!place->large_) {
      continue;
    }
    if (quiet && !place->lately_ && !place->here_) {
      place->trim();
    } else {
      left = true;
      place->lately_ = false;
    }
  }
  if (left) {
    look_again_later();
  }
}

void Ring::run() {
  for (;;) {
    submit(sqes_->waiting() == 0);
    unsigned taken = 0;
    unsigned count = 0;
    do {
      count = turn();
      taken += count;
    } while (count == kBatch);
    choose_core(taken);
    RingPlace* place = answers_.take_all();
    while (place != nullptr) {
      RingPlace* next = place->next_handed;
      offer(*place, fuse_abi::kUringCommitAndFetch);
      place = next;
    }
    look_at_stage();
    if (look_due_) [[unlikely]] {
      trim_places();
    }
    if (stage_.load(std::memory_order_acquire) == Stage::kEnding && io_away_ == 0 &&
        file_io_.in_flight() == 0 && sqes_->waiting() == 0) {
      submit(false);
      return;
    }
  }
}

// Takes what has completed, a batch at most; how many it was.
unsigned Ring::turn() {
  struct Event {
    std::uint64_t user_data;
    int result;
  };
  std::array<::io_uring_cqe*, kBatch> cqes{};
  std::array<Event, kBatch> events;
  const unsigned count = ::io_uring_peek_batch_cqe(ring_.get(), cqes.data(), kBatch);
  for (unsigned i = 0; i < count; ++i) {
    events[i] = {cqes[i]->user_data, cqes[i]->res};
  }
  ::io_uring_cq_advance(ring_.get(), count);
  for (unsigned i = 0; i < count; ++i) {
    const std::size_t under_way = file_io_.in_flight();
    completed(events[i].user_data, events[i].result);
    // A disk with little to do does not wait until the rest of the turn is looked at.
    if (file_io_.in_flight() > under_way && under_way < kFewTransfers && i + 1 < count) {
      submit(false);
    }
  }
  return count;
}

void Ring::choose_core(unsigned taken) {
  const CoreChoice::Where where = choice_.look(coarse_now_ns(), taken);
  if (where != where_) [[unlikely]] {
    where_ = where;
    if (where == CoreChoice::Where::kHome) {
      run_on(options_.queue);
    } else {
      run_where_the_process_may();
    }
  }
}

void Ring::completed(std::uint64_t user_data, int result) {
  if (user_data == kWakeTag) {
    MFS_ASSERT(result > 0 || result == -EINTR);
    await_wake();
  } else if (user_data == kClockTag) {
    look_coming_ = false;
    look_due_ = true;
  } else if ((user_data & RingAio::kTagMask) == RingAio::kTag) {
    file_io_.completed(user_data, result);
  } else if (result == 0) {
    take(*reinterpret_cast<RingPlace*>(user_data));
  } else if (result != -ENOTCONN && result != -ECONNABORTED && result != -ECANCELED) {
    // Not the end of the mount: the kernel does not want this place.
    refused_.store(true, std::memory_order_release);
  }
}

void Ring::take(RingPlace& place) {
  fuse_in_header header{};
  std::memcpy(&header, place.head_.in_out, sizeof(header));
  place.accept();
  if (stage_.load(std::memory_order_relaxed) >= Stage::kClosing && closed_.load()) {
    place.send(ENOTCONN, 0);
    return;
  }
  const std::size_t payload = place.head_.ent_in_out.payload_bytes;
  IoCall call;
  if (decode_io(header, place.head_.op_in, payload, call)) [[likely]] {
    place.io_ = true;
    ++io_away_;
    handler_.serve_io(place, call);
    return;
  }
  hand_on(place, payload);
}

// What libfuse reads must not be where its answer goes: another thread may give that at any time.
void Ring::hand_on(RingPlace& place, std::size_t payload_bytes) {
  fuse_in_header header{};
  std::memcpy(&header, place.head_.in_out, sizeof(header));
  const std::size_t before = sizeof(header) + payload_bytes;
  const std::size_t argument = header.len >= before ? header.len - before : SIZE_MAX;
  if (argument > sizeof(place.head_.op_in) || payload_bytes > options_.payload_bytes) {
    place.send(EIO, 0);
    return;
  }
  std::byte* at = message_;
  std::memcpy(at, &header, sizeof(header));
  std::memcpy(at + sizeof(header), place.head_.op_in, argument);
  std::memcpy(at + sizeof(header) + argument, place.data(), payload_bytes);
  static_cast<void>(router_.hand_on(std::span(at, header.len), place));
}

void Ring::look_at_stage() {
  const Stage stage = stage_.load(std::memory_order_acquire);
  if (stage == Stage::kServing && !offered_) {
    offered_ = true;
    for (const std::unique_ptr<RingPlace>& place : places_) {
      offer(*place, fuse_abi::kUringRegister);
    }
  }
  if (stage >= Stage::kClosing && !closed_.load(std::memory_order_relaxed)) {
    closed_.store(true);
    closed_.notify_all();
  }
}

}  // namespace mapperfs
