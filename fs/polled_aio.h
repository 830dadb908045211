// A thread's libaio context that the thread itself reaps, so that file and disk I/O is ended and
// answered where it was asked for.
#pragma once

namespace mapperfs {

class AioContext;

// One thread: all of it.
class PolledAio {
 public:
  PolledAio() = default;
  ~PolledAio();
  PolledAio(const PolledAio&) = delete;
  PolledAio& operator=(const PolledAio&) = delete;

  // Makes the calling thread's context polled. Done once; again is free.
  void start() noexcept {
    if (context_ == nullptr) [[unlikely]] {
      take_over();
    }
  }
  [[nodiscard]] bool started() const { return context_ != nullptr; }
  // Gives the context back as it was. Waits for what the kernel still has of it.
  void stop() noexcept;

  // Readable when something completed; -1 before start() and where there is no descriptor left.
  [[nodiscard]] int notify_fd() const { return notify_fd_; }
  // To be called before reap() where the descriptor was found readable by poll(2).
  void clear_notify() noexcept;
  // Ends all that has completed. No system call.
  void reap() noexcept;
  [[nodiscard]] bool busy() const noexcept;
  // What is submitted between the two goes to the kernel together.
  void plug() noexcept;
  void unplug() noexcept;

 private:
  void take_over() noexcept;

  AioContext* context_ = nullptr;
  int notify_fd_ = -1;
};

}  // namespace mapperfs
