// A libaio context: carries bios of one queue to files and disks and ends them when the kernel is
// done.
//
// The way of a bio: submit() takes a slot (an iocb and what belongs to it) and hands it to the
// kernel, at once or, between plug() and unplug(), with others in one system call. A bio that finds
// no slot waits in a list and takes the first that comes free; nothing fails for want of room.
// Completions are read from the ring that the kernel shares with us; a system call is made only to
// wait.
//
// What the kernel does not take asynchronously (no context to be had, EINVAL for an operation that
// it does not know, EAGAIN with nothing in flight that could make room) goes back to the device as
// a whole, AioDevice::aio_refused(), to be done on a thread that may block.
//
// Nothing waits inside io_submit(). Data goes with RWF_NOWAIT: where the disk's queue is full the
// kernel answers EAGAIN, and the bio is kept, outside the slots, until a transfer of the same
// device is over (engine/kept_bios.h). A file that does not know the flag gets its transfers
// without it, but no more than kBlindDepth at once, which no disk's queue is too short for. A
// device that finds all slots taken by others is refused rather than made to wait for them.
//
// Who reaps. By default the context drives itself: a thread of its own, started with the first bio,
// waits for completions and ends the bios there; what these completions submit goes through the
// same context (AioContext::current()). A thread that wants to wait itself calls set_polled(true)
// and then reap(). One that has a better way to the kernel takes the bios away: set_carrier().
//
// Limits: kDepth bios in the kernel at once, kReapBatch completions and kSubmitBatch bios to a
// system call. Blocking: only for a file that does not know RWF_NOWAIT, where io_submit() may wait
// while its file system allocates blocks, or behind other programs' I/O.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/bio.h"
#include "engine/block_device.h"
#include "engine/kept_bios.h"
#include "engine/status.h"
#include "engine/unique_fd.h"

struct iocb;
struct io_event;
struct io_context;
struct timespec;

namespace mapperfs {

// A device whose bios an AioContext carries. bio.dev is it while the context has the bio.
class AioDevice : public BlockDevice {
 public:
  // The file for this bio: open with O_DIRECT for data. Any thread.
  [[nodiscard]] virtual int aio_fd(const Bio& bio) const noexcept = 0;
  // The transfer (or flush) is over; the device ends the bio. Any thread.
  virtual void aio_end(Bio& bio, BlkStatus status) noexcept = 0;
  // The kernel would not do it asynchronously: do all of it again, another way. Any thread.
  virtual void aio_refused(Bio& bio) noexcept = 0;
  // A transfer would have had to wait in the kernel. True: aio_refused() is to have it at once,
  // rather than that it is kept. Any thread.
  virtual bool aio_would_wait(const Bio& bio) noexcept = 0;

  // Whether the device's file knows RWF_NOWAIT: yes, until it says no. Any thread.
  [[nodiscard]] bool takes_nowait() const noexcept {
    return takes_nowait_.load(std::memory_order_relaxed);
  }
  void forget_nowait() noexcept { takes_nowait_.store(false, std::memory_order_relaxed); }

 protected:
  AioDevice() = default;

 private:
  std::atomic<bool> takes_nowait_{true};
};

// Of a bio that such a device has submitted.
inline AioDevice& aio_device_of(const Bio& bio) { return static_cast<AioDevice&>(*bio.dev); }

// What becomes of a bio of which a transfer has ended.
struct AioOutcome {
  enum class Next : unsigned char {
    kEnd,       // aio_end() with `status`
    kRefuse,    // aio_refused()
    kContinue,  // `moved_bytes` more are done, the rest is to go to the kernel again
  };
  Next next = Next::kEnd;
  BlkStatus status = BlkStatus::kOk;
  std::size_t moved_bytes = 0;
};
// `result`: bytes or -errno, of a transfer of what was left of the bio after `done_bytes`.
AioOutcome aio_outcome(const Bio& bio, std::size_t done_bytes, long result) noexcept;

// Another way for a thread's bios to files and disks than libaio.
class BioCarrier {
 public:
  BioCarrier(const BioCarrier&) = delete;
  BioCarrier& operator=(const BioCarrier&) = delete;
  virtual ~BioCarrier() = default;
  // As AioContext::submit(). The thread that the carrier was set on.
  virtual void carry(Bio& bio) noexcept = 0;

 protected:
  BioCarrier() = default;
};

// The system calls of a context, so that tests can put others in their place. As libaio's: they
// answer -errno.
struct AioSyscalls {
  int (*setup)(int depth, ::io_context** context);
  int (*destroy)(::io_context* context);
  int (*submit)(::io_context* context, long count, ::iocb** list);
  int (*getevents)(::io_context* context, long min, long max, ::io_event* events,
                   ::timespec* timeout);
  bool read_ring;  // the context is a ring of the kernel's that may be read
};
// Those of libaio.
const AioSyscalls& real_aio_syscalls();

// Threads: all methods but in_flight() belong to the thread that owns the context (its queue's),
// submit() also to the reaper.
class AioContext {
 public:
  static constexpr std::size_t kDepth = 256;
  static constexpr std::size_t kSubmitBatch = 32;
  static constexpr std::size_t kReapBatch = 64;
  // Transfers of a device whose file does not know RWF_NOWAIT: below nr_requests of any disk.
  static constexpr std::size_t kBlindDepth = 32;
  // A device with fewer slots than one in kStarved is refused where none is free.
  static constexpr std::size_t kStarved = 8;
  // io_setup() is tried again after so many bios: what the system was short of comes back.
  static constexpr unsigned kSetupRetry = 1024;

  explicit AioContext(std::size_t depth = kDepth,
                      const AioSyscalls& syscalls = real_aio_syscalls());
  // Waits for every bio in it (reaps itself where it is polled).
  ~AioContext();
  AioContext(const AioContext&) = delete;
  AioContext& operator=(const AioContext&) = delete;

  // The context that the calling thread submits to: its queue's, or on a reaper that reaper's.
  static AioContext& current() noexcept;
  // Lets the calling thread submit to another context instead, while it lives: for tests.
  class Override {
   public:
    explicit Override(AioContext& context) noexcept;
    ~Override();
    Override(const Override&) = delete;
    Override& operator=(const Override&) = delete;
  };

  // Takes over a bio (kRead, kWrite with or without kBioFua, kFlush) whose dev is an AioDevice.
  void submit(Bio& bio) noexcept;

  // From now on `carrier` gets what is submitted; null: the context does it itself again. Only
  // while nothing is in flight.
  void set_carrier(BioCarrier* carrier) noexcept;

  // Between the two, bios are collected and go to the kernel in batches. They nest. The thread must
  // not wait for a bio in between.
  void plug() noexcept;
  void unplug() noexcept;

  // Who reaps: the owner by reap() (true) or a thread of the context's own. Waits for what is in
  // flight first.
  void set_polled(bool polled);
  // Ends what has completed and returns how many; with `wait`, at least one if any is in flight.
  // Only of a polled context.
  int reap(bool wait) noexcept;
  // An eventfd that becomes readable when something completed. For an event loop of the owner; the
  // first call makes it (-1: no descriptor left), later submissions use it. A loop that found it
  // readable reads it, or calls clear_notify(), before it reaps: what completes after that makes it
  // readable again. Either waits where it is not readable.
  int notify_fd();
  void clear_notify() noexcept;

  // Bios inside, those that are kept or wait for a slot as well. Any thread.
  [[nodiscard]] std::size_t in_flight() const;
  // False where the system gives no context: bios are refused, and one in kSetupRetry of them, or
  // of these calls, asks again. Made by the first call.
  bool available();

 private:
  struct Slot;
  // Slots on their way to the kernel, of one thread.
  struct Batch {
    std::vector<Slot*> slots;
    unsigned plugs = 0;
  };
  enum class State : unsigned char { kNew, kReady, kMissing };

  bool start();
  bool start_reaper();
  void stop_reaper();
  void reaper_main();
  [[nodiscard]] Batch& my_batch() noexcept;

  void prepare(Slot& slot, Bio& bio) noexcept;
  void aim(Slot& slot) noexcept;
  void flush(Batch& batch) noexcept;
  bool keep_for_later(Slot** slots, std::size_t count) noexcept;
  void send_chunk(Slot** slots, std::size_t count, Batch& batch) noexcept;
  void give_up(Slot& slot, int error, Batch& batch) noexcept;

  std::size_t collect(::io_event* events, bool wait) noexcept;
  std::size_t read_ring(::io_event* events) noexcept;
  int end_events(const ::io_event* events, std::size_t count) noexcept;
  bool complete(Slot& slot, long result, Batch& batch) noexcept;
  [[nodiscard]] BioList release(Slot& slot, bool was_in_kernel, bool refused,
                                Batch& batch) noexcept;
  bool keep(Slot& slot, Batch& batch) noexcept;
  void resend(Slot& slot, Batch& batch) noexcept;
  static void drop_nowait(Slot& slot) noexcept;
  static void refuse_all(BioList bios) noexcept;
  // mutex_ held, these four.
  [[nodiscard]] std::size_t slots_of(const AioDevice& device) const noexcept;
  Slot& take_slot(const Bio& bio) noexcept;
  void vacate(Slot& slot, Batch& batch) noexcept;
  void bring_on(const AioDevice& device, Batch& batch) noexcept;
  bool rescue_pending(Batch& batch) noexcept;
  void drain();

  const std::size_t depth_;
  const AioSyscalls& syscalls_;
  State state_ = State::kNew;
  std::atomic<unsigned> missed_{0};  // bios and calls since io_setup() failed
  bool polled_ = false;
  BioCarrier* carrier_ = nullptr;
  ::io_context* context_ = nullptr;
  UniqueFd notify_;
  UniqueFd wake_;  // an empty file: a read of it completes at once and wakes the reaper
  std::unique_ptr<Slot[]> slots_;
  Batch owner_batch_;
  Batch reaper_batch_;
  std::thread reaper_;

  mutable std::mutex mutex_;
  std::condition_variable idle_cv_;  // with mutex_: nothing is inside any more
  // Below: under mutex_.
  std::vector<Slot*> free_;
  // Invariant: empty while free_ is not.
  BioList waiting_;
  // The context had no room for these; they go again when something completes.
  std::vector<Slot*> pending_;
  // The disk had none. Invariant: while a bio of a device is kept, a slot holds another of it, or
  // it waits in waiting_.
  KeptBios kept_;
  // Accepted by io_submit() less completed. Below zero for the moment in which a completion
  // overtakes the return of its io_submit().
  long in_kernel_ = 0;
  std::size_t inside_ = 0;  // bios: in slots and waiting
  bool stop_ = false;
};

}  // namespace mapperfs
