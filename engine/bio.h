// A bio: one request on its way through the mapped devices down to a backing device and back.
//
// Life of a bio. Its owner fills it in, names a Completion and calls submit_bio(). On its way down
// it passes mapped devices; each pushes a Frame that remembers where the bio came in. On its way up
// end_io() pops these frames, and when none is left it calls the Completion.
//
// Rules (who ends the bio):
//  1. Whoever holds a bio ends it exactly once: on a failed submit too.
//  2. end_io() is the last thing done to a bio: after it the memory may be gone.
//  3. A device may complete a bio inside submit_bio(); a fan-out therefore counts from 1 and drops
//     that one after its last submit.
//  4. A bio is held by one thread at a time. It may end on another thread than the one that
//     submitted it (a timer's, a worker's, the one that reaps its aio context).
#pragma once

#include <new>
#include <type_traits>
#include <utility>

#include "engine/status.h"
#include "engine/types.h"

namespace mapperfs {

class BlockDevice;
class Bio;
class MappedDevice;
class Queue;
class Target;

enum class Op : std::uint8_t {
  kRead,
  kWrite,
  kFlush,  // empty: everything acknowledged before must be on stable storage
  kDiscard,
  kSecureErase,
  kWriteZeroes,
};

// Flags that travel with a bio; REQ_* of include/linux/blk_types.h in meaning.
enum BioFlags : std::uint8_t {
  kBioFua = 1 << 0,        // this write itself must be stable when it completes
  kBioPreflush = 1 << 1,   // flush the device before this write's data
  kBioNowait = 1 << 2,     // fail with kAgain rather than wait
  kBioMeta = 1 << 3,       // file system metadata
  kBioReadahead = 1 << 4,  // may be dropped
  kBioInternal = 1 << 5,   // of MappedDevice::run_exclusive(): passes while others are held back
};

// What is called when a bio has come all the way back. Lives at least as long as the bio.
class Completion {
 public:
  // Called once, on whatever thread the bio ended; must not block. bio.status() is the outcome. The
  // bio is the callee's again: it may free it or submit it anew.
  virtual void complete(Bio& bio) noexcept = 0;

 protected:
  Completion() = default;
  ~Completion() = default;  // never deleted through this base; keeps steps trivially destructible
  Completion(const Completion&) = default;
  Completion& operator=(const Completion&) = default;
};

// The bytes that a target may use in each bio it has mapped (per-I/O data of the kernel).
inline constexpr std::size_t kPerIoBytes = 192;

// Where a bio entered a mapped device. From the pool of the queue that pushed it.
struct Frame {
  Frame* outer;               // of the mapped device above; null for the first
  MappedDevice* md;           // outlives the frame: its in-flight count holds it
  Target* target;             // whose end_io() is to be called, or null
  sector_t sector;            // on md, as the bio came in
  sector_t sectors;           //
  std::uint64_t start_ns;     // coarse monotonic clock, for the device's statistics
  Queue* home;                // whose pool it goes back to
  std::uint16_t bio_nr;       // which of a target's num_*_bios copies this is
  bool piece : 1;             // part of a split: the whole bio's frame is the one that is counted
  bool mapped : 1;            // a target has sent it on: not so for the whole bio of a split
  std::uint8_t epoch;         // of md's counters: the one that it is counted in
  std::uint32_t stats_epoch;  // of engine/stats.h, which leaves it 0 when the bio has gone
  std::uint64_t stats_start_ns;  // of engine/stats.h: precise start
  alignas(16) std::byte per_io[kPerIoBytes];
};

class Bio {
 public:
  Bio() = default;
  Bio(const Bio&) = delete;
  Bio& operator=(const Bio&) = delete;

  // Fields that the submitter fills in and that a target may change in map().
  BlockDevice* dev = nullptr;  // where it goes next
  sector_t sector = 0;         // on dev
  sector_t sectors = 0;        // length; 0 for kFlush
  std::byte* data = nullptr;   // sectors * 512 bytes for kRead and kWrite, else null; one piece
  Completion* completion = nullptr;
  Op op = Op::kRead;
  std::uint8_t flags = 0;  // BioFlags

  // For whoever holds the bio: a list link (deferred lists, workers, pools).
  Bio* next = nullptr;
  // Owner's word; never touched by the engine.
  void* user = nullptr;

  [[nodiscard]] BlkStatus status() const { return status_; }
  [[nodiscard]] std::size_t len_bytes() const { return sectors << kSectorShift; }
  [[nodiscard]] bool is_write() const { return op != Op::kRead; }
  [[nodiscard]] bool has_data() const { return op == Op::kRead || op == Op::kWrite; }
  [[nodiscard]] sector_t end_sector() const { return sector + sectors; }

  // In map(): send the bio on. The engine goes on with it when map() returns kRemapped.
  void remap(BlockDevice& to, sector_t at) {
    dev = &to;
    sector = at;
  }

  // Ends the bio at the layer that holds it. The last statement of the holder.
  void end_io(BlkStatus status) noexcept;

  // A T in the target's per-I/O bytes of this bio, made anew. It is gone at end_io() without its
  // destructor being run. Only between map() and end_io() of the target that makes it.
  template <typename T, typename... Args>
  T& make_per_io(Args&&... args) {
    static_assert(sizeof(T) <= kPerIoBytes && alignof(T) <= 16);
    static_assert(std::is_trivially_destructible_v<T>);
    return *new (frame_->per_io) T(std::forward<Args>(args)...);
  }
  template <typename T>
  T& per_io() {
    return *std::launder(reinterpret_cast<T*>(frame_->per_io));
  }
  // Which of the target's num_*_bios copies of a flush or an abnormal operation this is.
  [[nodiscard]] unsigned bio_nr() const { return frame_->bio_nr; }

 private:
  friend class MappedDevice;
  friend class PieceJoin;
  friend class Queue;
  Frame* frame_ = nullptr;  // innermost mapped device that the bio is inside of
  Queue* home_ = nullptr;   // pool it came from; null for a bio that its owner keeps
  BlkStatus status_ = BlkStatus::kOk;
};

// Sends a bio to bio.dev. The bio is no longer the caller's; it may have ended when this returns.
// Never blocks on I/O; may be called on any thread.
void submit_bio(Bio& bio) noexcept;

// A bio from (and back to) the pool of the calling thread's queue, for targets that need more I/O.
// Never fails: the pool grows to the number in flight at once.
Bio& alloc_bio(Completion& completion) noexcept;
void free_bio(Bio& bio) noexcept;

// Submits and waits on the calling thread. For control threads and workers, never for queue
// threads.
BlkStatus submit_bio_and_wait(Bio& bio) noexcept;
// Whether the calling thread is inside it: a device below may send other bios from there, for which
// nobody may take, or try, a lock that a caller of submit_bio_and_wait() could hold.
bool inside_submit_and_wait() noexcept;

// A list of bios in order, linked through Bio::next. Holds no lock.
class BioList {
 public:
  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  void push_back(Bio& bio) {
    bio.next = nullptr;
    (head_ == nullptr ? head_ : tail_->next) = &bio;
    tail_ = &bio;
  }
  // The first bio, or null.
  Bio* pop_front() {
    Bio* bio = head_;
    if (bio != nullptr) {
      head_ = bio->next;
      bio->next = nullptr;
    }
    return bio;
  }
  void push_front(Bio& bio) {
    bio.next = head_;
    if (head_ == nullptr) {
      tail_ = &bio;
    }
    head_ = &bio;
  }
  void swap(BioList& other) noexcept {
    std::swap(head_, other.head_);
    std::swap(tail_, other.tail_);
  }

 private:
  Bio* head_ = nullptr;
  Bio* tail_ = nullptr;
};

}  // namespace mapperfs
