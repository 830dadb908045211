// FUSE over io_uring: one core's queue of requests, and the thread that serves it.
//
// The kernel hands a request that was made on a core to that core's ring. Its places (`depth` of
// them) are memory of ours that the kernel copies requests to and answers from. A place is the
// request's until it is answered; the answer and the wait for the next request are one submission.
//
// What large requests touched is given back when none came for a second or two.
//
// Only the ring's own thread touches the ring. What it ends itself (memory-speed targets, file and
// disk I/O, which goes through the same ring: RingAio) is answered in the next submission, with
// everything else of that turn: one system call a turn, and one more for each transfer of a disk
// that has little to do. An answer from any other thread (a timer, a worker, a control operation)
// goes to a lock-free list; who gives the first of several wakes the thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/unique_fd.h"
#include "fs/core_choice.h"
#include "fs/hand_back.h"
#include "fs/io_request.h"
#include "fs/message_router.h"
#include "fs/request_handler.h"
#include "fs/ring_aio.h"
#include "fs/ring_queue.h"

struct io_uring;
struct io_uring_sqe;
struct iovec;

namespace mapperfs {

class Ring;

namespace fuse_abi {
struct UringHead;
}

// A place on a ring, with the request that holds it.
class RingPlace final : public IoRequest, public ReplyPlace {
 public:
  RingPlace(Ring& ring, std::byte* memory);

  // The ring's thread: the kernel has put a request into the memory.
  void accept() noexcept;
  // ReplyPlace: libfuse's answer. One to another request than the one that is here is nobody's.
  ssize_t reply(std::span<const iovec> pieces) noexcept override;
  // The ring's thread, while neither a request nor an answer lies here: gives back what large ones
  // touched.
  void trim() noexcept;
  // What a place keeps.
  static constexpr std::size_t kSmallBytes = std::size_t{64} << 10;

  RingPlace* next_handed = nullptr;  // of HandBack

 private:
  friend class Ring;
  void send(int error, std::size_t bytes) noexcept override;
  void set_answer(int error, std::size_t bytes) noexcept;

  Ring& ring_;
  fuse_abi::UringHead& head_;
  iovec memory_[2];  // as the kernel is told: head and payload
  std::uint64_t unique_ = 0;
  std::uint64_t commit_id_ = 0;
  std::size_t bytes_ = 0;  // of data that the request brought, then the more that its answer has
  bool here_ = false;      // a request is
  bool io_ = false;        // a read, write or fsync: its answer is waited for at the end
  // More than kSmallBytes were touched since the last trim(), and since the ring last looked.
  bool large_ = false;
  bool lately_ = false;
};

class Ring final : private SqeSource {
 public:
  struct Options {
    int fd = -1;  // of the session, borrowed
    unsigned queue = 0;
    unsigned depth = 0;
    std::size_t payload_bytes = 0;  // the kernel's largest request: at most IoRequest::kMaxBytes
  };
  // All outlive this.
  Ring(RequestHandler& handler, MessageRouter& router, const Options& options);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Makes the ring and its thread. 0 or an errno.
  int start();
  // The kernel agreed to rings: offers the places.
  void go();
  // Two steps, so that all rings close at once: no request is handed on when await_closed() is back
  // (they fail with ENOTCONN); those under way still end and are answered.
  void close();
  void await_closed();
  // Waits until every read, write and fsync was answered, ends the thread.
  void end();
  // The kernel refused the places: nothing will come here. Any thread.
  [[nodiscard]] bool refused() const { return refused_.load(std::memory_order_acquire); }

 private:
  friend class RingPlace;
  enum class Stage : unsigned char { kStarting, kServing, kClosing, kEnding };
  struct RingDelete {
    void operator()(::io_uring* ring) const;
  };

  // Any thread: the place's answer is written, the kernel can have it.
  void answered(RingPlace& place) noexcept;
  void advance(Stage stage);

  // The ring's thread, all of these.
  void thread_main();
  int set_up();
  bool map_memory();
  void run();
  unsigned turn();
  void choose_core(unsigned taken);
  void completed(std::uint64_t user_data, int result);
  void take(RingPlace& place);
  void hand_on(RingPlace& place, std::size_t payload_bytes);
  void look_at_stage();
  void look_again_later();
  void trim_places();
  ::io_uring_sqe& next_sqe() noexcept override { return sqes_->next(); }
  void submit(bool wait);
  void offer(RingPlace& place, std::uint32_t command) noexcept;
  void await_wake() noexcept;

  static thread_local constinit Ring* current_;

  RequestHandler& handler_;
  MessageRouter& router_;
  const Options options_;
  UniqueFd wake_;
  std::atomic<Stage> stage_{Stage::kStarting};
  std::atomic<bool> refused_{false};
  std::atomic<bool> closed_{false};
  std::atomic<int> started_{-1};  // then 0 or an errno
  HandBack<RingPlace> answers_;
  // Threads between giving an answer and waking this one.
  std::atomic<unsigned> wakers_{0};
  std::thread thread_;

  // The ring's thread.
  std::unique_ptr<::io_uring, RingDelete> ring_;
  std::optional<RingQueue> sqes_;  // with ring_
  std::byte* memory_ = nullptr;    // of the places, then of message_
  std::size_t memory_bytes_ = 0;
  std::byte* message_ = nullptr;  // for libfuse, which wants requests in one piece
  std::vector<std::unique_ptr<RingPlace>> places_;
  RingAio file_io_{*this};
  bool offered_ = false;
  bool may_trim_ = false;     // see trim_places()
  bool look_coming_ = false;  // at the places that large requests touched
  bool look_due_ = false;
  CoreChoice choice_;
  CoreChoice::Where where_ = CoreChoice::Where::kHome;
  std::size_t io_away_ = 0;  // reads, writes and fsyncs not yet answered
  std::uint64_t wake_value_ = 0;
};

}  // namespace mapperfs
