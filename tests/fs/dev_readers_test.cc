#include "fs/dev_readers.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "engine/mapped_device.h"
#include "fs/io_request.h"
#include "fs/message_router.h"
#include "tests/fake/sanitizer.h"
#include "tests/fs/fuse_messages.h"
#include "tests/fs/world.h"

namespace mapperfs {
namespace {

using fuse_test::Answer;
using fuse_test::FakeKernel;
using fuse_test::Message;

// Answers at once from a ram disk, or keeps requests for the test to answer.
class Handler final : public RequestHandler {
 public:
  explicit Handler(MappedDevice& device) : device_(device) {}
  void serve_io(IoRequest& io, const IoCall& call) noexcept override {
    {
      const std::lock_guard lock(mutex_);
      ++served_by[std::this_thread::get_id()];
      came_.notify_all();
      if (hold) {
        held_.push_back(&io);
        return;
      }
    }
    await_gate();
    if (before_answer) {
      before_answer();
    }
    if (alone_until_helped) {
      await_another();
    }
    const sector_t sector = call.offset >> kSectorShift;
    const sector_t sectors = (call.bytes + 511) >> kSectorShift;
    switch (call.kind) {
      case IoCall::Kind::kRead:
        io.read(device_, sector, sectors, call.offset % 512, call.bytes);
        return;
      case IoCall::Kind::kWrite:
        io.write(device_, sector, sectors, call.bytes, 0);
        return;
      case IoCall::Kind::kSync:
        io.flush(device_);
        return;
    }
  }
  bool serve_message(std::span<std::byte> message) override {
    const std::lock_guard lock(mutex_);
    messages.emplace_back(message.begin(), message.end());
    came_.notify_all();
    return !over;
  }
  std::vector<IoRequest*> await_held(std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        came_.wait_for(lock, std::chrono::seconds(10), [&] { return held_.size() >= count; }));
    return held_;
  }
  // While it is shut, whoever serves a request stays there with it.
  void set_gate(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    came_.notify_all();
  }
  void await_gate() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(came_.wait_for(lock, std::chrono::seconds(10), [&] { return open_; }));
  }
  void await_served(std::size_t threads) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(came_.wait_for(lock, std::chrono::seconds(10),
                               [&] { return served_by.size() >= threads; }));
  }
  // A thread that has served as much as it may by itself goes on when another is there.
  void await_another() {
    std::unique_lock lock(mutex_);
    if (served_by[std::this_thread::get_id()] > kAlone) {
      EXPECT_TRUE(came_.wait_for(lock, std::chrono::seconds(10), [&] {
        return served_by.size() > 1;
      })) << "nobody helps";
    }
  }
  void forget_who_served() {
    const std::lock_guard lock(mutex_);
    served_by.clear();
  }
  void await_message() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(came_.wait_for(lock, std::chrono::seconds(10), [&] { return !messages.empty(); }));
  }

  // More than is read at one time: a reader has to have found out that there is a backlog.
  static constexpr unsigned kAlone = 60;
  bool hold = false;                    // before serve()
  bool alone_until_helped = false;      // before serve()
  std::function<void()> before_answer;  // before serve()
  bool over = false;
  std::vector<Message> messages;
  std::map<std::thread::id, unsigned> served_by;  // after finish()

 private:
  MappedDevice& device_;
  bool open_ = true;
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<IoRequest*> held_;
};

class DevReadersTest : public testing::Test {
 protected:
  ~DevReadersTest() override { finish(); }
  void serve(unsigned helpers = 0) {
    thread_ = std::thread([this, helpers] {
      outcome_ = readers_.serve({kernel_.daemon_fd(), true, helpers});
    });
  }
  void finish() {
    if (thread_.joinable()) {
      readers_.stop();
      thread_.join();
      readers_.end();
    }
  }

  // One request after the other, each sent when the one before was answered.
  void ask_one_by_one(std::uint64_t count) {
    for (std::uint64_t nr = 1; nr <= count; ++nr) {
      kernel_.send(fuse_test::read_message(2 * nr, 0, 512));
      EXPECT_EQ(kernel_.receive().header.unique, 2 * nr);
    }
  }
  // Each is sent while the one before is served: one waits whenever a reader looks for more, none
  // when it has just read one. `callers` take turns.
  void ask_one_behind_the_other(std::uint32_t callers) {
    constexpr std::uint64_t kCount = 100;  // whose answers fit into the socket
    const auto send = [this, callers](std::uint64_t nr) {
      const auto caller = 100 + static_cast<std::uint32_t>(nr % callers);
      kernel_.send(fuse_test::read_message(2 * nr, 0, 512, caller));
    };
    handler_.before_answer = [this, send] {
      if (const std::uint64_t nr = ++sent_; nr <= kCount) {
        send(nr);
      }
    };
    send(sent_);
    serve(1);
    take_answers(kCount);
  }
  void ask_at_once(std::uint64_t count) {
    for (std::uint64_t nr = 1; nr <= count; ++nr) {
      kernel_.send(fuse_test::read_message(2 * nr, 0, 512));
    }
  }
  void take_answers(std::uint64_t count, std::set<std::uint64_t> open = {}) {
    for (std::uint64_t nr = 1; nr <= count; ++nr) {
      open.insert(2 * nr);
    }
    while (!open.empty()) {
      ASSERT_EQ(open.erase(kernel_.receive().header.unique), 1U);
    }
  }
  // As /proc has it: "S" is asleep.
  static std::size_t helpers_there(const std::string& state = "") {
    std::size_t count = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::string stat;
      std::getline(std::ifstream(task.path() / "stat"), stat);
      count += stat.find("(mfs-fuse-more) " + state) != std::string::npos ? 1 : 0;
    }
    return count;
  }
  static void await_helper(const std::string& state = "") {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (helpers_there(state) == 0) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "no helper " << state;
      std::this_thread::yield();
    }
  }

  std::shared_ptr<MappedDevice> make_disk() {
    world_.control_ok("disk: 0 8192 ram");
    return *world_.engine.find("disk");
  }

  World world_;
  std::shared_ptr<MappedDevice> disk_ = make_disk();
  Handler handler_{*disk_};
  MessageRouter router_{handler_};
  FakeKernel kernel_;
  DevReaders readers_{handler_, router_};
  std::thread thread_;
  std::atomic<std::uint64_t> sent_{1};
  int outcome_ = -1;
};

TEST_F(DevReadersTest, WritesAndReadsBack) {
  serve();
  const std::string data(4096, 'x');
  kernel_.send(fuse_test::write_message(2, 8192, data));
  const Answer written = kernel_.receive();
  EXPECT_EQ(written.header.unique, 2U);
  EXPECT_EQ(written.header.error, 0);
  ASSERT_EQ(written.body.size(), sizeof(fuse_write_out));
  EXPECT_EQ(static_cast<unsigned char>(written.body[1]), 4096 >> 8);
  kernel_.send(fuse_test::read_message(4, 8192, 4096));
  const Answer read = kernel_.receive();
  EXPECT_EQ(read.header.unique, 4U);
  EXPECT_EQ(read.body, data);
}

TEST_F(DevReadersTest, CutsAReadThatBeginsInsideABlock) {
  serve();
  std::string data(1024, 'a');
  data[100] = 'b';
  kernel_.send(fuse_test::write_message(2, 0, data));
  EXPECT_EQ(kernel_.receive().header.error, 0);
  kernel_.send(fuse_test::read_message(4, 100, 300));
  EXPECT_EQ(kernel_.receive().body, "b" + std::string(299, 'a'));
}

TEST_F(DevReadersTest, DataLiesPageAlignedAndStaysUntilTheAnswer) {
  handler_.hold = true;
  serve();
  for (std::uint64_t nr = 1; nr <= 20; ++nr) {
    kernel_.send(fuse_test::write_message(2 * nr, 0, std::string(600, static_cast<char>(nr))));
  }
  const std::vector<IoRequest*> held = handler_.await_held(20);
  for (std::size_t i = 0; i < held.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(held[i]->data()) % 4096, 0U);
    EXPECT_EQ(held[i]->data()[599], static_cast<std::byte>(i + 1));
  }
  EXPECT_TRUE(kernel_.silent());
  for (IoRequest* io : held) {
    io->answer_error(EIO);  // from another thread than it came on
  }
  for (std::uint64_t nr = 1; nr <= 20; ++nr) {
    const Answer answer = kernel_.receive();
    EXPECT_EQ(answer.header.unique, 2 * nr);
    EXPECT_EQ(answer.header.error, -EIO);
  }
}

TEST_F(DevReadersTest, AllElseGoesToLibfuseAndItsAnswersComeBack) {
  serve();
  kernel_.send(fuse_test::make_message(FUSE_GETATTR, 6, 1, fuse_getattr_in{}));
  handler_.await_message();
  fuse_out_header header{};
  header.len = sizeof(header);
  header.unique = 6;
  const iovec piece{&header, sizeof(header)};
  EXPECT_GT(router_.reply({&piece, 1}), 0);
  EXPECT_EQ(kernel_.receive().header.unique, 6U);
}

TEST_F(DevReadersTest, ABacklogIsAnsweredWhole) {
  serve(2);
  std::set<std::uint64_t> open;
  for (std::uint64_t nr = 1; nr <= 2000; ++nr) {
    kernel_.send(fuse_test::read_message(2 * nr, 0, 512));
    open.insert(2 * nr);
    if (open.size() == 50) {
      while (!open.empty()) {
        EXPECT_EQ(open.erase(kernel_.receive().header.unique), 1U);
      }
    }
  }
}

TEST_F(DevReadersTest, WhatComesOneByOneIsServedByOneThread) {
  serve(2);
  ask_one_by_one(500);
  EXPECT_EQ(helpers_there(), 0U);
  finish();
  EXPECT_EQ(handler_.served_by.size(), 1U);
}

TEST_F(DevReadersTest, OneCallerWhoseNextIsThereAtOnceIsServedByOneThread) {
  ask_one_behind_the_other(1);
  finish();
  EXPECT_EQ(handler_.served_by.size(), 1U);
}

TEST_F(DevReadersTest, CallersOfWhomOneAlwaysWaitsAreABacklog) {
  ask_one_behind_the_other(2);
  await_helper();
  EXPECT_EQ(helpers_there(), 1U);
}

TEST_F(DevReadersTest, ABacklogWakesMoreThreads) {
  handler_.alone_until_helped = true;
  ask_at_once(100);
  serve(2);
  take_answers(100);
  EXPECT_GE(helpers_there(), 1U);
  finish();
  EXPECT_GE(handler_.served_by.size(), 2U);
}

TEST_F(DevReadersTest, AHelperThatSleptIsWokenByTheNextBacklog) {
  handler_.alone_until_helped = true;
  ask_at_once(100);
  serve(1);
  take_answers(100);
  await_helper("S");
  handler_.forget_who_served();
  handler_.set_gate(false);
  kernel_.send(fuse_test::read_message(2000, 0, 512));
  handler_.await_served(1);
  ask_at_once(100);  // behind one that is being served
  handler_.set_gate(true);
  take_answers(100, {2000});
  finish();
  EXPECT_EQ(handler_.served_by.size(), 2U);
}

TEST_F(DevReadersTest, NobodyHelpsWhoIsToBeAlone) {
  readers_.alone();
  ask_at_once(100);
  serve(2);
  take_answers(100);
  EXPECT_EQ(helpers_there(), 0U);
  finish();
  EXPECT_EQ(handler_.served_by.size(), 1U);
}

TEST_F(DevReadersTest, UnmountingEndsIt) {
  serve();
  kernel_.unmount();
  thread_.join();
  EXPECT_EQ(outcome_, 0);
  readers_.end();
}

TEST_F(DevReadersTest, AnUnmountThatOvertakesARequestIsAnEndAsWell) {
  EXPECT_TRUE(DevReaders::connection_gone(ENODEV));
  EXPECT_TRUE(DevReaders::connection_gone(ECONNABORTED));
  EXPECT_FALSE(DevReaders::connection_gone(EIO));
  EXPECT_FALSE(DevReaders::connection_gone(EPERM));
}

TEST_F(DevReadersTest, TheEndOfTheSessionEndsIt) {
  handler_.over = true;
  serve();
  kernel_.send(fuse_test::make_message(FUSE_GETATTR, 6, 1, fuse_getattr_in{}));
  thread_.join();
  EXPECT_EQ(outcome_, 0);
  readers_.end();
}

TEST_F(DevReadersTest, StoppedBeforeItBegins) {
  readers_.stop();
  serve();
  thread_.join();
  EXPECT_EQ(outcome_, 0);
  readers_.end();
}

// The process may map no more than it has and a little: not another buffer.
class NoMoreMemory {
 public:
  NoMoreMemory() {
    std::ifstream statm("/proc/self/statm");
    rlim_t pages = 0;
    statm >> pages;
    EXPECT_EQ(::getrlimit(RLIMIT_AS, &before_), 0);
    rlimit limit = before_;
    limit.rlim_cur = pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + (512U << 10);
    EXPECT_EQ(::setrlimit(RLIMIT_AS, &limit), 0);
  }
  ~NoMoreMemory() { EXPECT_EQ(::setrlimit(RLIMIT_AS, &before_), 0); }
  NoMoreMemory(const NoMoreMemory&) = delete;
  NoMoreMemory& operator=(const NoMoreMemory&) = delete;

 private:
  rlimit before_{};
};

TEST_F(DevReadersTest, WithoutMemoryRequestsWaitForTheBuffersThatAreAway) {
  if (fake::kSanitized) {
    GTEST_SKIP() << "a sanitizer needs address space of its own";
  }
  handler_.hold = true;
  serve();
  kernel_.send(fuse_test::read_message(2, 0, 512));
  IoRequest* io = handler_.await_held(1).front();
  const NoMoreMemory limit;
  for (std::uint64_t nr = 2; nr <= 6; ++nr) {
    kernel_.send(fuse_test::read_message(2 * nr, 0, 512));
  }
  // Each buffer that comes back takes one more request.
  for (std::uint64_t nr = 1; nr <= 6; ++nr) {
    io = handler_.await_held(nr).at(nr - 1);
    io->answer_nothing_read();
    EXPECT_EQ(kernel_.receive().header.unique, 2 * nr);
  }
  EXPECT_EQ(outcome_, -1) << "still serving";
}

// A descriptor that fails every read, but says nothing of the session.
TEST_F(DevReadersTest, AReadThatFailsIsNotTheEnd) {
  const UniqueFd unreadable(::open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
  ASSERT_GE(unreadable.get(), 0);
  char byte = 0;
  ASSERT_EQ(::read(unreadable.get(), &byte, 1), -1);
  ASSERT_EQ(errno, EIO);
  thread_ = std::thread([&] { outcome_ = readers_.serve({unreadable.get(), false, 0}); });
  readers_.stop();
  thread_.join();
  EXPECT_EQ(outcome_, 0);
  readers_.end();
}

TEST_F(DevReadersTest, TheEndWaitsForTheLastAnswer) {
  handler_.hold = true;
  serve();
  kernel_.send(fuse_test::read_message(2, 0, 512));
  IoRequest* io = handler_.await_held(1).front();
  readers_.stop();
  thread_.join();
  kernel_.send(fuse_test::read_message(4, 0, 512));  // read by nobody any more
  std::thread later([io] { io->answer_nothing_read(); });
  readers_.end();
  EXPECT_EQ(kernel_.receive().header.unique, 2U);
  later.join();
  EXPECT_TRUE(kernel_.silent());
}

}  // namespace
}  // namespace mapperfs
