#include "fs/dev_readers.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <thread>

#include "engine/thread.h"
#include "fs/dev_slot.h"
#include "fs/fuse_abi.h"
#include "fs/message_router.h"
#include "fs/polled_aio.h"

namespace mapperfs {
namespace {

// Wakes the lead where it waits in read(2). The flag it looks at is set before; it may be just
// about to wait, so the signal is sent again until it has seen the flag.
constexpr int kWakeSignal = SIGUSR2;
constexpr std::chrono::milliseconds kWakeAgain{20};
// Requests between two looks at libaio: what they submit goes to the kernel together.
constexpr int kInATurn = 8;
// So many in a turn are a backlog where more than one caller sent them: each waits while another is
// served. One caller alone can have its next request here as soon as it has its answer, and however
// many so a turn: it has a backlog where one more waits while the last of them is not done yet.
constexpr int kBacklog = 3;
// A lead that finds nothing waiting tries again after 1, 3, 7, at most this many requests.
constexpr unsigned kMostSkips = 15;
// While the last answers are awaited from other threads.
constexpr int kLingerMs = 1;
// A helper that sleeps looks for places that come back to it, which may be large. The lead needs
// not: each request wakes it.
constexpr int kLookMs = 1000;
// Before memory that was short is asked for again.
constexpr int kShortMs = 10;

// What is wrong with one read, not with the session: the kernel fails the request that it could not
// copy, and others follow. A daemon that took it for the end would take every device with it.
bool passes(int error) { return error == ENOMEM || error == EFAULT || error == EIO; }

void allow_wake_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(kWakeSignal, &action, nullptr);
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, kWakeSignal);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

// Another descriptor of the same connection; empty where the device cannot be opened here (a
// sandbox that was given only the descriptor) or is none (tests).
UniqueFd clone_of(int session_fd, int flags) {
  UniqueFd fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC | flags));
  auto source = static_cast<std::uint32_t>(session_fd);
  if (fd.get() >= 0 && ::ioctl(fd.get(), FUSE_DEV_IOC_CLONE, &source) == 0) {
    return fd;
  }
  return {};
}

}  // namespace

// One thread.
class DevReaders::Reader {
 public:
  Reader(DevReaders& all, bool lead) : all_(all), lead_(lead) {}
  ~Reader() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // False where the system has no descriptor or thread left.
  bool start();
  void wake() { static_cast<void>(::eventfd_write(wake_.get(), 1)); }
  [[nodiscard]] bool parked() const { return parked_.load(std::memory_order_relaxed); }
  // Wakes a helper that sleeps; false where it does not.
  bool wake_if_parked() {
    if (!parked() || !parked_.exchange(false)) {
      return false;
    }
    wake();
    return true;
  }
  void interrupt() { ::pthread_kill(thread_.native_handle(), kWakeSignal); }
  void await_closed() { closed_.wait(false); }
  void await_end() { thread_.join(); }

 private:
  // A descriptor to read from: of this thread, or the session's.
  struct Source {
    int fd = -1;
    DescriptorPlace place;
  };
  enum class Got : unsigned char { kRequest, kNothing, kOver };

  void open_sources();
  void thread_main();
  int lead();
  void help();
  void linger();
  Got receive(Source& source, int& error);
  void count(const DevSlot& slot);
  [[nodiscard]] bool another_waits() const;
  static Got take_a_breath();
  bool handle(DevSlot& slot, std::size_t bytes, Source& source);
  int read_waiting(Got& got, int& error);
  void wait(bool for_requests, int timeout_ms);

  DevReaders& all_;
  const bool lead_;
  UniqueFd blocking_fd_;
  UniqueFd polled_fd_;
  Source blocking_;  // fd -1: there is none, and the thread waits in poll(2)
  Source polled_;    // never waits
  UniqueFd wake_;
  DevSlots slots_;
  PolledAio aio_;
  // Of the turn that was last: requests so far, and whether they were a backlog.
  int in_turn_ = 0;
  std::uint32_t caller_ = 0;  // the thread that sent the first of them
  bool one_caller_ = true;
  bool backlog_ = false;
  std::atomic<bool> parked_{false};
  std::atomic<bool> closed_{false};
  std::thread thread_;
};

bool DevReaders::Reader::start() {
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake_.get() < 0) {
    return false;
  }
  open_sources();
  thread_ = start_thread(lead_ ? "mfs-fuse" : "mfs-fuse-more", [this] { thread_main(); });
  return thread_.joinable();
}

void DevReaders::Reader::open_sources() {
  const int session = all_.options_.fd;
  if (all_.options_.routed) {
    polled_fd_ = clone_of(session, O_NONBLOCK);
    if (lead_ && polled_fd_.get() >= 0) {
      blocking_fd_ = clone_of(session, 0);
    }
  }
  if (polled_fd_.get() < 0) {
    // One descriptor for all, which then must not wait.
    ::fcntl(session, F_SETFL, ::fcntl(session, F_GETFL) | O_NONBLOCK);
  }
  polled_.fd = polled_fd_.get() >= 0 ? polled_fd_.get() : session;
  polled_.place.set(polled_.fd);
  blocking_.fd = blocking_fd_.get();
  blocking_.place.set(blocking_.fd);
}

void DevReaders::Reader::thread_main() {
  slots_.adopt();
  allow_wake_signal();
  if (lead_) {
    all_.finish(lead());
  } else {
    help();
  }
  closed_.store(true);
  closed_.notify_all();
  linger();
}

bool DevReaders::connection_gone(int error) { return error == ENODEV || error == ECONNABORTED; }

// Reads one message and hands it on.
DevReaders::Reader::Got DevReaders::Reader::receive(Source& source, int& error) {
  DevSlot* slot = slots_.take();
  if (slot == nullptr) {
    return take_a_breath();  // those that are away come back
  }
  const ssize_t n = ::read(source.fd, slot->message(), DevSlot::kMessageBytes);
  if (n > 0) {
    if (&source == &polled_) {
      count(*slot);
    }
    return handle(*slot, static_cast<std::size_t>(n), source) ? Got::kRequest : Got::kOver;
  }
  const int why = n == 0 ? ENODEV : errno;
  slots_.put_back(*slot);
  if (why == EAGAIN || why == EINTR || why == ENOENT) {
    return Got::kNothing;  // ENOENT: the request was taken back
  }
  if (passes(why)) {
    return take_a_breath();
  }
  error = connection_gone(why) ? 0 : why;
  return Got::kOver;
}

// One more of this turn, not yet handed on.
void DevReaders::Reader::count(const DevSlot& slot) {
  fuse_in_header header{};  // an older one's of this buffer where the message is too short for one
  std::memcpy(&header, slot.message(), sizeof(header));
  caller_ = in_turn_ == 0 ? header.pid : caller_;
  one_caller_ = one_caller_ && header.pid == caller_;
  ++in_turn_;
  backlog_ = backlog_ || (in_turn_ >= kBacklog && !one_caller_) ||
             (in_turn_ == kBacklog && another_waits());
}

// Asks the kernel only where the answer would wake somebody.
bool DevReaders::Reader::another_waits() const {
  if (!lead_ || !all_.can_wake_helper()) {
    return false;
  }
  pollfd next{polled_.fd, POLLIN, 0};
  return ::poll(&next, 1, 0) == 1 && (next.revents & POLLIN) != 0;
}

// Not to ask for what cannot be had without a rest. Looks at no descriptor: a wake-up that came
// meanwhile is for the wait that follows.
DevReaders::Reader::Got DevReaders::Reader::take_a_breath() {
  static_cast<void>(::poll(nullptr, 0, kShortMs));
  return Got::kNothing;
}

bool DevReaders::Reader::handle(DevSlot& slot, std::size_t bytes, Source& source) {
  fuse_in_header header{};
  if (bytes < sizeof(header)) {
    slots_.put_back(slot);
    return true;  // not from the kernel
  }
  std::memcpy(&header, slot.message(), sizeof(header));
  aio_.start();
  const std::span<std::byte> message(slot.message(), bytes);
  const std::size_t data_bytes = bytes - std::min(bytes, DevSlot::kHeadBytes);
  IoCall call;
  if (decode_io(header, message.subspan(sizeof(header)), data_bytes, call)) [[likely]] {
    slot.accept(source.fd, header.unique, std::max<std::size_t>(call.bytes, data_bytes));
    all_.handler_.serve_io(slot, call);
    return true;
  }
  slot.accept(source.fd, header.unique, data_bytes);
  const bool goes_on = all_.options_.routed ? all_.router_.hand_on(message, source.place)
                                            : all_.handler_.serve_message(message);
  slots_.put_back(slot);
  return goes_on;
}

// Hands on what waits, a turn at most. How many it was; `got` tells why it ended.
int DevReaders::Reader::read_waiting(Got& got, int& error) {
  in_turn_ = 0;
  one_caller_ = true;
  backlog_ = false;
  aio_.start();
  aio_.plug();
  do {
    got = receive(polled_, error);
  } while (got == Got::kRequest && in_turn_ < kInATurn);
  aio_.unplug();
  aio_.reap();
  return in_turn_;
}

void DevReaders::Reader::wait(bool for_requests, int timeout_ms) {
  std::array<pollfd, 3> fds = {{{wake_.get(), POLLIN, 0},
                                {aio_.notify_fd(), POLLIN, 0},
                                {for_requests ? polled_.fd : -1, POLLIN, 0}}};
  if (::poll(fds.data(), fds.size(), timeout_ms) <= 0) {
    return;
  }
  if (fds[0].revents != 0) {
    eventfd_t ignored = 0;
    static_cast<void>(::eventfd_read(wake_.get(), &ignored));
  }
  if (fds[1].revents != 0) {
    aio_.clear_notify();
    aio_.reap();
  }
}

// 0 or the errno that ended it.
int DevReaders::Reader::lead() {
  unsigned skips = 0;  // of the next looks whether something waits already
  unsigned last_skips = 0;
  Got got = Got::kNothing;
  int error = 0;
  while (got != Got::kOver && !all_.stop_.load(std::memory_order_acquire)) {
    slots_.collect();
    const bool must_poll = blocking_.fd < 0 || aio_.busy();
    if (must_poll || skips == 0) {
      const int count = read_waiting(got, error);
      if (backlog_) {
        all_.wake_helper();
      }
      if (count > 0) {
        skips = last_skips = 0;
        continue;
      }
      skips = last_skips = std::min(2 * last_skips + 1, kMostSkips);
    } else {
      --skips;
    }
    if (got == Got::kOver) {
      break;
    }
    if (blocking_.fd < 0 || aio_.busy()) {
      wait(true, -1);
    } else {
      got = receive(blocking_, error);
    }
  }
  return error;
}

void DevReaders::Reader::help() {
  while (all_.stage() == Stage::kServing) {
    slots_.collect();
    Got got = Got::kNothing;
    int error = 0;
    if (read_waiting(got, error) > 0) {
      continue;
    }
    // Set before the wait: whoever clears it also writes to the descriptor.
    parked_.store(true);
    wait(false, slots_.away() > 0 ? kLookMs : -1);
    parked_.store(false);
  }
}

// No more requests; those under way end here.
void DevReaders::Reader::linger() {
  for (;;) {
    // Before the look at what is away: the last may come back in between.
    const bool ending = all_.stage() == Stage::kEnding;
    slots_.collect();
    aio_.reap();
    slots_.collect();
    if (ending && slots_.away() == 0) {
      break;
    }
    wait(false, ending ? kLingerMs : -1);
  }
  aio_.stop();
}

DevReaders::DevReaders(RequestHandler& handler, MessageRouter& router)
    : handler_(handler), router_(router) {}

DevReaders::~DevReaders() { end(); }

DevReaders::Reader* DevReaders::start_reader(bool lead) {
  auto reader = std::make_unique<Reader>(*this, lead);
  if (!reader->start()) {
    return nullptr;
  }
  Reader* started = reader.get();
  if (lead) {
    const std::lock_guard lock(lead_mutex_);
    lead_ = std::move(reader);
  } else {
    helpers_.push_back(std::move(reader));
  }
  return started;
}

// On the lead, as the next.
bool DevReaders::can_wake_helper() const {
  return !alone_.load(std::memory_order_relaxed) &&
         (helpers_.size() < options_.helpers ||
          std::any_of(helpers_.begin(), helpers_.end(),
                      [](const auto& helper) { return helper->parked(); }));
}

void DevReaders::wake_helper() {
  if (alone_.load(std::memory_order_relaxed)) {
    return;
  }
  for (const std::unique_ptr<Reader>& helper : helpers_) {
    if (helper->wake_if_parked()) {
      return;
    }
  }
  if (helpers_.size() < options_.helpers) {
    static_cast<void>(start_reader(false));  // begins awake
  }
}

// The lead, when it reads no more.
void DevReaders::finish(int error) {
  outcome_.store(error);
  outcome_.notify_all();
}

void DevReaders::advance(Stage stage) {
  stage_.store(stage, std::memory_order_release);
  if (lead_ != nullptr) {
    lead_->wake();
  }
  for (const std::unique_ptr<Reader>& helper : helpers_) {
    helper->wake();
  }
}

int DevReaders::serve(const Options& options) {
  options_ = options;
  if (start_reader(true) == nullptr) {
    finish(EAGAIN);
    return EAGAIN;
  }
  if (stop_.load(std::memory_order_acquire)) {
    stop();  // that stop() may have found no lead to wake yet
  }
  outcome_.wait(-1);
  // The lead has closed, so the list of helpers is nobody else's any more.
  lead_->await_closed();
  advance(Stage::kClosing);
  for (const std::unique_ptr<Reader>& helper : helpers_) {
    helper->await_closed();
  }
  return outcome_.load();
}

void DevReaders::stop() {
  stop_.store(true, std::memory_order_release);
  std::condition_variable never;
  std::unique_lock lock(lead_mutex_);
  while (lead_ != nullptr && outcome_.load() == -1) {
    lead_->wake();
    lead_->interrupt();
    never.wait_for(lock, kWakeAgain, [this] { return outcome_.load() != -1; });
  }
}

void DevReaders::end() {
  if (lead_ == nullptr) {
    return;
  }
  advance(Stage::kEnding);
  helpers_.clear();
  lead_->await_end();
  const std::lock_guard lock(lead_mutex_);
  lead_.reset();
}

}  // namespace mapperfs
