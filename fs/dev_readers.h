// Requests that are read from /dev/fuse: threads, their descriptors and their buffers.
//
// One thread leads: it alone waits for requests. When it has found several in a row, of more than
// one caller or with another waiting already, there is a backlog, and it wakes helpers, which read
// until nothing is left and then sleep. So a single caller's requests are read, done and answered
// by one thread that is warm, and an idle mount sleeps.
//
// Each thread has descriptors of its own (FUSE_DEV_IOC_CLONE: the queue of requests is shared, what
// is under way is not), and an answer goes to the descriptor that its request came from. The lead
// has two: one to wait in read(2) on, and one that never waits, for when there may be more to do
// than reading. A thread whose libaio context has I/O in flight waits for that as well, in poll(2),
// and ends and answers it itself.
//
// A request is read so that the data of a write lies page-aligned. Its buffer is the request's
// until the answer; the thread goes on with another. Buffers stay and are used again, last one
// first; what large requests touched is given back where more than a few of them are idle.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/unique_fd.h"
#include "fs/request_handler.h"

namespace mapperfs {

class MessageRouter;

class DevReaders {
 public:
  struct Options {
    int fd = -1;         // of the session, borrowed
    bool routed = true;  // libfuse's answers come through the router: any descriptor will do
    unsigned helpers = 0;
  };
  // All outlive this.
  DevReaders(RequestHandler& handler, MessageRouter& router);
  ~DevReaders();
  DevReaders(const DevReaders&) = delete;
  DevReaders& operator=(const DevReaders&) = delete;

  // Hands requests on until the file system is unmounted, the session is over or stop() is called.
  // After that none is; I/O that is under way is still ended and answered. 0 or an errno.
  int serve(const Options& options);
  // Whether a read of /dev/fuse that fails so says that the file system is unmounted: ENODEV, or
  // ECONNABORTED where that came while a last request was being read (fs/fuse/dev.c).
  static bool connection_gone(int error);
  // Any thread; returns when no thread waits for a request any more.
  void stop();
  // After serve(): waits until every read, write and fsync was answered, ends the threads.
  void end();
  // No helper is woken any more: requests come another way. Any thread.
  void alone() noexcept { alone_.store(true, std::memory_order_relaxed); }

 private:
  class Reader;
  friend class Reader;
  // How far the end has come; threads are told by their wake descriptor.
  enum class Stage : unsigned char { kServing, kClosing, kEnding };

  [[nodiscard]] Stage stage() const { return stage_.load(std::memory_order_acquire); }
  void advance(Stage stage);
  [[nodiscard]] bool can_wake_helper() const;
  void wake_helper();
  Reader* start_reader(bool lead);
  void finish(int error);

  RequestHandler& handler_;
  MessageRouter& router_;
  Options options_;
  std::atomic<bool> alone_{false};
  std::atomic<Stage> stage_{Stage::kServing};
  std::atomic<bool> stop_{false};
  // -1 while the lead reads; then 0 or an errno.
  std::atomic<int> outcome_{-1};
  std::mutex lead_mutex_;         // guards that lead_ comes and goes, against stop()
  std::unique_ptr<Reader> lead_;  // set and reset by the thread of serve() and end()
  std::vector<std::unique_ptr<Reader>> helpers_;  // the lead's alone until it has closed
};

}  // namespace mapperfs
