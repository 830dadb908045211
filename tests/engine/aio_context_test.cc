#include "engine/aio_context.h"

#include <fcntl.h>
#include <libaio.h>
#include <linux/fs.h>
#include <poll.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <vector>

#include "tests/engine/aio_probe.h"
#include "tests/engine/fake_kernel.h"
#include "tests/engine/io_support.h"

namespace mapperfs {
namespace {

using io_test::AioProbe;
using io_test::Buffer;
using io_test::FakeKernel;
using io_test::TempDir;
using io_test::WaitBio;

// A polled context over the script, and bios for it.
class AioContextScript : public ::testing::Test {
 protected:
  explicit AioContextScript(std::size_t depth = 8) : context_(depth, FakeKernel::syscalls()) {
    context_.set_polled(true);
    device_.context = &context_;
  }
  WaitBio& read(sector_t sectors = 8, Op op = Op::kRead, int flags = 0) {
    return bio_of(device_, sectors, op, flags);
  }
  WaitBio& bio_of(AioProbe& device, sector_t sectors = 8, Op op = Op::kRead, int flags = 0) {
    bios_.push_back(std::make_unique<WaitBio>(device, op, 100, sectors,
                                              op == Op::kFlush ? nullptr : data_.data(), flags));
    return *bios_.back();
  }
  void reap_all() {
    while (context_.in_flight() > 0) {
      context_.reap(true);
    }
  }

  FakeKernel kernel_;
  AioProbe device_;
  AioContext context_;
  Buffer data_{64};
  std::vector<std::unique_ptr<WaitBio>> bios_;
};

TEST_F(AioContextScript, SendsTheBiosOwnRange) {
  WaitBio& bio = read(8).submit();
  reap_all();
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
  ASSERT_EQ(kernel_.taken.size(), 1U);
  EXPECT_EQ(kernel_.taken[0].aio_lio_opcode, IO_CMD_PREAD);
  EXPECT_EQ(kernel_.taken[0].aio_fildes, 77);
  EXPECT_EQ(kernel_.taken[0].u.c.offset, 100 * 512);
  EXPECT_EQ(kernel_.taken[0].u.c.nbytes, 8U * 512);
  EXPECT_EQ(kernel_.taken[0].u.c.buf, data_.data());
}

TEST_F(AioContextScript, WritesFuaWithDsyncAndFlushesWithFdsync) {
  WaitBio& plain = read(8, Op::kWrite).submit();
  WaitBio& fua = read(8, Op::kWrite, kBioFua).submit();
  WaitBio& flush = read(0, Op::kFlush).submit();
  reap_all();
  EXPECT_EQ(plain.wait(), BlkStatus::kOk);
  EXPECT_EQ(fua.wait(), BlkStatus::kOk);
  EXPECT_EQ(flush.wait(), BlkStatus::kOk);
  ASSERT_EQ(kernel_.taken.size(), 3U);
  EXPECT_EQ(kernel_.taken[0].aio_rw_flags, unsigned{RWF_NOWAIT});
  EXPECT_EQ(kernel_.taken[1].aio_rw_flags, unsigned{RWF_DSYNC | RWF_NOWAIT});
  EXPECT_EQ(kernel_.taken[2].aio_lio_opcode, IO_CMD_FDSYNC);
  EXPECT_EQ(kernel_.taken[2].aio_rw_flags, 0U);
}

TEST_F(AioContextScript, PlugSendsOneBatch) {
  context_.plug();
  for (int i = 0; i < 5; ++i) {
    read().submit();
  }
  EXPECT_EQ(kernel_.submit_calls, 0);
  context_.unplug();
  EXPECT_EQ(kernel_.submit_calls, 1);
  EXPECT_EQ(kernel_.taken.size(), 5U);
  reap_all();
  for (auto& bio : bios_) {
    EXPECT_EQ(bio->wait(), BlkStatus::kOk);
  }
}

TEST_F(AioContextScript, ShortSubmitGoesOnWithTheRest) {
  kernel_.submits = {2, 1};
  context_.plug();
  for (int i = 0; i < 5; ++i) {
    read().submit();
  }
  context_.unplug();
  EXPECT_EQ(kernel_.submit_calls, 3);
  EXPECT_EQ(kernel_.taken.size(), 5U);
  reap_all();
  EXPECT_EQ(device_.refused, 0);
}

TEST_F(AioContextScript, ErrorOfSubmitIsTheFirstBiosAlone) {
  kernel_.submits = {1, -EBADF};
  context_.plug();
  for (int i = 0; i < 4; ++i) {
    read().submit();
  }
  context_.unplug();
  reap_all();
  EXPECT_EQ(bios_[0]->wait(), BlkStatus::kOk);
  EXPECT_EQ(bios_[1]->wait(), BlkStatus::kIoError);
  EXPECT_EQ(bios_[2]->wait(), BlkStatus::kOk);
  EXPECT_EQ(bios_[3]->wait(), BlkStatus::kOk);
  EXPECT_EQ(kernel_.taken.size(), 3U);
}

TEST_F(AioContextScript, InterruptedSubmitIsMadeAgain) {
  kernel_.submits = {-EINTR, -EINTR};
  WaitBio& bio = read().submit();
  EXPECT_EQ(kernel_.submit_calls, 3);
  reap_all();
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
}

TEST_F(AioContextScript, FullRingIsTriedAgainWhenSomethingCompletes) {
  kernel_.submits = {1, -EAGAIN, -EAGAIN};
  read().submit();
  read().submit();
  read().submit();
  EXPECT_EQ(kernel_.taken.size(), 1U);
  EXPECT_EQ(context_.in_flight(), 3U);
  reap_all();
  EXPECT_EQ(kernel_.taken.size(), 3U);
  EXPECT_EQ(device_.refused, 0);
  for (auto& bio : bios_) {
    EXPECT_EQ(bio->wait(), BlkStatus::kOk);
  }
}

TEST_F(AioContextScript, FullRingWithNothingInFlightRefuses) {
  kernel_.submits = {-EAGAIN};
  WaitBio& bio = read().submit();
  EXPECT_EQ(bio.wait(), BlkStatus::kAgain);
  EXPECT_EQ(device_.refused, 1);
  EXPECT_EQ(context_.in_flight(), 0U);
}

TEST_F(AioContextScript, KeptBiosAreRefusedWhenTheLastCompletionDoesNotHelp) {
  kernel_.submits = {1, -EAGAIN, -EAGAIN, -EAGAIN, -EAGAIN};
  for (int i = 0; i < 3; ++i) {
    read().submit();
  }
  EXPECT_EQ(context_.reap(true), 1);
  EXPECT_EQ(context_.in_flight(), 0U);
  EXPECT_EQ(bios_[0]->wait(), BlkStatus::kOk);
  EXPECT_EQ(device_.refused, 2);
}

TEST_F(AioContextScript, UnknownOperationIsRefused) {
  kernel_.submits = {-EINVAL};
  WaitBio& flush = read(0, Op::kFlush).submit();
  EXPECT_EQ(flush.wait(), BlkStatus::kAgain);
  kernel_.results = {-EINVAL};
  WaitBio& late = read().submit();
  reap_all();
  EXPECT_EQ(late.wait(), BlkStatus::kAgain);
  EXPECT_EQ(device_.refused, 2);
}

TEST_F(AioContextScript, MoreThanTheDepthWaits) {
  kernel_.holds = true;
  for (int i = 0; i < 20; ++i) {
    read().submit();
  }
  EXPECT_EQ(kernel_.taken.size(), 8U);
  EXPECT_EQ(context_.in_flight(), 20U);
  kernel_.holds = false;
  reap_all();
  EXPECT_EQ(kernel_.taken.size(), 20U);
  for (auto& bio : bios_) {
    EXPECT_EQ(bio->wait(), BlkStatus::kOk);
  }
}

TEST_F(AioContextScript, ShortTransferGoesOnWhereItStopped) {
  kernel_.results = {3 * 512, 512};
  WaitBio& bio = read(8).submit();
  reap_all();
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
  ASSERT_EQ(kernel_.taken.size(), 3U);
  EXPECT_EQ(kernel_.taken[1].u.c.offset, 103 * 512);
  EXPECT_EQ(kernel_.taken[1].u.c.nbytes, 5U * 512);
  EXPECT_EQ(kernel_.taken[2].u.c.offset, 104 * 512);
  EXPECT_EQ(kernel_.taken[2].u.c.buf, data_.data() + std::size_t{4} * 512);
}

TEST_F(AioContextScript, ShortReadAtTheEndIsAnError) {
  kernel_.results = {512, 0};
  WaitBio& bio = read(8).submit();
  reap_all();
  EXPECT_EQ(bio.wait(), BlkStatus::kIoError);
}

TEST_F(AioContextScript, WriteWithoutProgressIsOutOfSpace) {
  kernel_.results = {0};
  WaitBio& bio = read(8, Op::kWrite).submit();
  reap_all();
  EXPECT_EQ(bio.wait(), BlkStatus::kNoSpace);
}

TEST_F(AioContextScript, HalfASectorIsRefused) {
  kernel_.results = {700};
  WaitBio& bio = read(8).submit();
  reap_all();
  EXPECT_EQ(bio.wait(), BlkStatus::kAgain);
  EXPECT_EQ(device_.refused, 1);
}

TEST_F(AioContextScript, ErrorsKeepTheirClass) {
  kernel_.results = {-EIO, -ENOSPC, -EREMOTEIO, -ENODATA};
  for (int i = 0; i < 4; ++i) {
    read(8, Op::kWrite).submit();
  }
  reap_all();
  EXPECT_EQ(bios_[0]->wait(), BlkStatus::kIoError);
  EXPECT_EQ(bios_[1]->wait(), BlkStatus::kNoSpace);
  EXPECT_EQ(bios_[2]->wait(), BlkStatus::kTargetError);
  EXPECT_EQ(bios_[3]->wait(), BlkStatus::kMedium);
}

TEST_F(AioContextScript, CompletionMaySubmitAgain) {
  WaitBio& second = read();
  WaitBio& first = read();
  first.on_end = [&] { second.submit(); };
  first.submit();
  reap_all();
  EXPECT_EQ(second.wait(), BlkStatus::kOk);
}

TEST_F(AioContextScript, WhatWouldWaitIsKeptUntilOneOfItsDeviceIsDone) {
  AioProbe other(88);
  other.context = &context_;
  kernel_.at_once = 1;
  kernel_.results = {-EAGAIN};
  WaitBio& kept = read().submit();
  WaitBio& others = bio_of(other).submit();
  WaitBio& own = read().submit();
  EXPECT_EQ(context_.reap(true), 1);
  EXPECT_TRUE(others.ended());
  EXPECT_EQ(kernel_.taken.size(), 3U) << "another device's end makes no room";
  EXPECT_EQ(context_.reap(true), 1);
  EXPECT_TRUE(own.ended());
  EXPECT_EQ(kernel_.taken.size(), 4U) << "tried again";
  EXPECT_EQ(context_.in_flight(), 1U);
  reap_all();
  EXPECT_EQ(kept.wait(), BlkStatus::kOk);
  EXPECT_EQ(device_.refused, 0);
  EXPECT_EQ(device_.would_wait, 1);
}

TEST_F(AioContextScript, WhatWouldWaitWithNothingUnderWayIsRefused) {
  kernel_.results = {-EAGAIN, -EAGAIN, -EAGAIN};
  for (int i = 0; i < 3; ++i) {
    read().submit();
  }
  reap_all();
  EXPECT_EQ(kernel_.taken.size(), 3U) << "the first two were kept for nothing";
  EXPECT_EQ(device_.refused, 3);
  EXPECT_EQ(context_.in_flight(), 0U);
}

TEST_F(AioContextScript, ADeviceMayHaveWhatWouldWaitAtOnce) {
  device_.refuse_at_once = true;
  kernel_.results = {-EAGAIN};
  WaitBio& refused = read(8, Op::kWrite).submit();
  WaitBio& other = read(8, Op::kWrite).submit();
  reap_all();
  EXPECT_EQ(refused.wait(), BlkStatus::kAgain);
  EXPECT_EQ(other.wait(), BlkStatus::kOk);
  EXPECT_EQ(kernel_.taken.size(), 2U);
}

TEST_F(AioContextScript, WhatIsRefusedAgainAndAgainIsNotKeptForEver) {
  kernel_.at_once = 1;
  kernel_.results = {-EAGAIN, 4096, -EAGAIN, 4096, -EAGAIN};
  WaitBio& unlucky = read().submit();
  read().submit();
  EXPECT_EQ(context_.reap(true), 1);
  read().submit();
  EXPECT_EQ(context_.reap(true), 1);
  read().submit();
  EXPECT_FALSE(unlucky.ended());
  EXPECT_EQ(context_.reap(true), 1);
  EXPECT_EQ(unlucky.wait(), BlkStatus::kAgain);
  EXPECT_EQ(device_.refused, 1);
  EXPECT_EQ(context_.in_flight(), 1U);
  reap_all();
}

TEST_F(AioContextScript, KeptBiosLeaveTheSlotsToOthers) {
  AioProbe other(88);
  other.context = &context_;
  kernel_.at_once = 1;
  kernel_.results = {-EAGAIN, -EAGAIN, -EAGAIN, -EAGAIN, -EAGAIN, -EAGAIN, 4096};
  for (int i = 0; i < 8; ++i) {
    read().submit();
  }
  EXPECT_EQ(context_.reap(true), 1);
  kernel_.holds = true;
  for (int i = 0; i < 4; ++i) {
    bio_of(other).submit();
  }
  EXPECT_EQ(other.refused, 0);
  EXPECT_EQ(kernel_.taken.size(), 8U + 2 + 4) << "all, two tries, the other device's";
  kernel_.holds = false;
  reap_all();
  EXPECT_EQ(device_.refused, 0);
}

TEST_F(AioContextScript, WhoIsKeptFromAllSlotsIsRefused) {
  AioProbe other(88);
  other.context = &context_;
  kernel_.holds = true;
  for (int i = 0; i < 20; ++i) {
    read().submit();
  }
  EXPECT_EQ(bio_of(other).submit().wait(), BlkStatus::kAgain);
  EXPECT_EQ(other.refused, 1);
  EXPECT_EQ(device_.refused, 0) << "who has the slots waits for them";
  kernel_.holds = false;
  reap_all();
}

TEST_F(AioContextScript, AFileWithoutNowaitGoesWithoutIt) {
  kernel_.submits = {-EOPNOTSUPP};
  WaitBio& at_once = read(8, Op::kWrite, kBioFua).submit();
  EXPECT_EQ(kernel_.submit_calls, 2);
  ASSERT_EQ(kernel_.taken.size(), 1U);
  EXPECT_EQ(kernel_.taken[0].aio_rw_flags, unsigned{RWF_DSYNC});
  AioProbe below(88);
  below.context = &context_;
  kernel_.results = {8 * 512, 512, -EOPNOTSUPP};
  reap_all();
  WaitBio& late = bio_of(below).submit();
  reap_all();
  EXPECT_EQ(at_once.wait(), BlkStatus::kOk);
  EXPECT_EQ(late.wait(), BlkStatus::kOk);
  ASSERT_EQ(kernel_.taken.size(), 4U);
  EXPECT_EQ(kernel_.taken[2].aio_rw_flags, unsigned{RWF_NOWAIT});
  EXPECT_EQ(kernel_.taken[3].aio_rw_flags, 0U);
  EXPECT_EQ(kernel_.taken[3].u.c.offset, 101 * 512) << "the rest alone";
  EXPECT_FALSE(below.takes_nowait());
  EXPECT_EQ(device_.refused + below.refused, 0);
}

TEST_F(AioContextScript, TheRestOfAShortTransferMayBeRefused) {
  kernel_.results = {512, -EAGAIN};
  WaitBio& bio = read().submit();
  reap_all();
  EXPECT_EQ(bio.wait(), BlkStatus::kAgain);
  EXPECT_EQ(device_.refused, 1);
}

TEST(AioContext, SendsFewAtOnceThatMightWait) {
  FakeKernel kernel;
  AioContext context(64, FakeKernel::syscalls());
  context.set_polled(true);
  AioProbe device;
  device.context = &context;
  device.forget_nowait();
  kernel.holds = true;
  Buffer data(8);
  std::vector<std::unique_ptr<WaitBio>> bios;
  for (int i = 0; i < 50; ++i) {
    bios.push_back(std::make_unique<WaitBio>(device, Op::kRead, 0, 8, data.data()));
    bios.back()->submit();
  }
  EXPECT_EQ(kernel.taken.size(), AioContext::kBlindDepth);
  EXPECT_EQ(context.in_flight(), 50U);
  kernel.holds = false;
  while (context.in_flight() > 0) {
    context.reap(true);
  }
  EXPECT_EQ(kernel.taken.size(), 50U);
  for (auto& bio : bios) {
    EXPECT_EQ(bio->wait(), BlkStatus::kOk);
  }
}

TEST(AioContext, AsksAgainForAContextNowAndThen) {
  FakeKernel kernel;
  kernel.setup_result = -EAGAIN;
  AioContext context(8, FakeKernel::syscalls());
  context.set_polled(true);
  EXPECT_FALSE(context.available());
  kernel.setup_result = 0;
  for (unsigned i = 1; i < AioContext::kSetupRetry; ++i) {
    ASSERT_FALSE(context.available()) << i;
  }
  AioProbe device;
  device.context = &context;
  Buffer data(8);
  WaitBio bio(device, Op::kRead, 0, 8, data.data());
  bio.submit();
  context.reap(true);
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
  EXPECT_EQ(device.refused, 0);
}

TEST(AioContext, RefusesWhereThereIsNoContext) {
  FakeKernel kernel;
  for (const int error : {-EAGAIN, -ENOSYS, -EPERM}) {
    kernel.setup_result = error;
    AioContext context(8, FakeKernel::syscalls());
    AioProbe device;
    device.context = &context;
    Buffer data(8);
    EXPECT_FALSE(context.available());
    EXPECT_EQ(io_test::run(device, Op::kRead, 0, 8, data.data()), BlkStatus::kAgain);
    EXPECT_EQ(device.refused, 1);
    EXPECT_EQ(context.in_flight(), 0U);
  }
}

// --- with the real kernel ---

std::atomic<int> getevents_calls{0};
int counting_getevents(::io_context* context, long min, long max, ::io_event* events,
                       ::timespec* timeout) {
  ++getevents_calls;
  return ::io_getevents(context, min, max, events, timeout);
}

class AioContextFile : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = dir_.make_file("data", 1 << 20);
    fd_ = UniqueFd(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
    if (!fd_) {
      GTEST_SKIP() << dir_.path() << ": the file system has no O_DIRECT";
    }
    // Blocks that are still to be allocated, and pages in the cache, would be refused.
    const UniqueFd buffered(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    Buffer zeroes(2048);
    ASSERT_EQ(::pwrite(buffered.get(), zeroes.data(), zeroes.size(), 0), 1 << 20);
    ASSERT_EQ(::fdatasync(buffered.get()), 0);
    ASSERT_EQ(::posix_fadvise(buffered.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    device_ = std::make_unique<AioProbe>(fd_.get());
    if (!AioContext(4).available()) {
      GTEST_SKIP() << "the system gives no aio context";
    }
  }
  // Writes and reads back `count` blocks, all at once.
  void write_and_read(sector_t count) {
    std::vector<std::unique_ptr<Buffer>> buffers;
    for (const Op op : {Op::kWrite, Op::kRead}) {
      std::vector<std::unique_ptr<WaitBio>> bios;
      for (sector_t i = 0; i < count; ++i) {
        if (op == Op::kWrite) {
          buffers.push_back(std::make_unique<Buffer>(8));
          buffers.back()->fill(i);
        } else {
          std::fill_n(buffers[i]->data(), buffers[i]->size(), std::byte{0});
        }
        bios.push_back(std::make_unique<WaitBio>(*device_, op, i * 8, 8, buffers[i]->data()));
        bios.back()->submit();
      }
      if (reap != nullptr) {
        while (reap->in_flight() > 0) {
          reap->reap(true);
        }
      }
      for (auto& bio : bios) {
        ASSERT_EQ(bio->wait(), BlkStatus::kOk);
      }
    }
    for (sector_t i = 0; i < count; ++i) {
      EXPECT_TRUE(buffers[i]->has_pattern(i)) << "block " << i;
    }
  }

  TempDir dir_;
  UniqueFd fd_;
  std::unique_ptr<AioProbe> device_;
  AioContext* reap = nullptr;
};

TEST_F(AioContextFile, DrivesItself) {
  AioContext context(4);
  device_->context = &context;
  write_and_read(200);
  EXPECT_EQ(io_test::run(*device_, Op::kFlush, 0, 0), BlkStatus::kOk);
}

TEST_F(AioContextFile, IsDrivenByItsOwner) {
  AioContext context(16);
  context.set_polled(true);
  device_->context = reap = &context;
  write_and_read(200);
  EXPECT_EQ(context.reap(true), 0) << "nothing to wait for";
}

TEST_F(AioContextFile, ChangesWhoDrives) {
  AioContext context(16);
  device_->context = &context;
  write_and_read(50);
  context.set_polled(true);
  reap = &context;
  write_and_read(50);
  context.set_polled(false);
  reap = nullptr;
  write_and_read(50);
}

TEST_F(AioContextFile, ReadsTheRingWithoutASystemCall) {
  AioSyscalls syscalls = real_aio_syscalls();
  syscalls.getevents = counting_getevents;
  AioContext context(64, syscalls);
  context.set_polled(true);
  device_->context = &context;
  Buffer data(8);
  WaitBio bio(*device_, Op::kRead, 0, 8, data.data());
  const int notify = context.notify_fd();
  ASSERT_GE(notify, 0);
  bio.submit();
  pollfd ready{notify, POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
  context.clear_notify();
  EXPECT_EQ(::poll(&ready, 1, 0), 0);
  getevents_calls = 0;
  EXPECT_EQ(context.reap(false), 1);
  EXPECT_EQ(getevents_calls, 0);
  EXPECT_EQ(bio.wait(), BlkStatus::kOk);
}

TEST_F(AioContextFile, CompletionsOfTheReaperStayInItsContext) {
  AioContext context(4);
  device_->context = &context;
  Buffer data(8);
  WaitBio second(*device_, Op::kRead, 8, 8, data.data());
  WaitBio first(*device_, Op::kRead, 0, 8, data.data());
  AioContext* seen = nullptr;
  first.on_end = [&] {
    seen = &AioContext::current();
    device_->context = nullptr;  // finds its way by current()
    second.submit();
  };
  first.submit();
  EXPECT_EQ(first.wait(), BlkStatus::kOk);
  EXPECT_EQ(second.wait(), BlkStatus::kOk);
  EXPECT_EQ(seen, &context);
}

TEST_F(AioContextFile, DestructionWaitsForAll) {
  Buffer data(8);
  std::vector<std::unique_ptr<WaitBio>> bios;
  {
    AioContext context(4);
    device_->context = &context;
    for (int i = 0; i < 50; ++i) {
      bios.push_back(std::make_unique<WaitBio>(*device_, Op::kRead, 0, 8, data.data()));
      bios.back()->submit();
    }
  }
  for (auto& bio : bios) {
    EXPECT_TRUE(bio->ended());
  }
}

// The real kernel, but that the disk's queue is often full.
int moody_getevents(::io_context* context, long min, long max, ::io_event* events,
                    ::timespec* timeout) {
  static std::atomic<unsigned> calls{0};
  const int count = ::io_getevents(context, min, max, events, timeout);
  for (int i = 0; i < count; ++i) {
    if (events[i].data != nullptr && calls++ % 3 == 0) {
      events[i].res = static_cast<unsigned long>(-EAGAIN);
    }
  }
  return count;
}

// The real kernel, but that it is often short of room.
int moody_submit(::io_context* context, long count, ::iocb** list) {
  static std::atomic<unsigned> calls{0};
  switch (calls++ % 5) {
    case 1:
      return -EAGAIN;
    case 2:
      return -EINTR;
    case 3:
      return ::io_submit(context, 1, list);
    default:
      return ::io_submit(context, count, list);
  }
}

TEST_F(AioContextFile, NothingIsLostInAMoodyKernel) {
  AioSyscalls syscalls = real_aio_syscalls();
  syscalls.submit = moody_submit;
  syscalls.getevents = moody_getevents;
  syscalls.read_ring = false;
  AioContext context(16, syscalls);
  device_->context = &context;
  constexpr int kChains = 40;
  constexpr int kLinks = 20;
  // Chains of reads: each completion, on the reaper's thread, submits the next, while this thread
  // submits as well.
  std::vector<std::unique_ptr<Buffer>> data;
  std::vector<std::unique_ptr<WaitBio>> bios;
  for (int i = 0; i < kChains * kLinks; ++i) {
    data.push_back(std::make_unique<Buffer>(1));
    bios.push_back(std::make_unique<WaitBio>(*device_, Op::kRead, static_cast<sector_t>(i), 1,
                                             data.back()->data()));
  }
  for (std::size_t i = 0; i + kChains < bios.size(); ++i) {
    bios[i]->on_end = [next = bios[i + kChains].get()] { next->submit(); };
  }
  context.plug();
  for (std::size_t i = 0; i < kChains; ++i) {
    bios[i]->submit();
    if (i % 7 == 0) {
      context.unplug();
      context.plug();
    }
  }
  context.unplug();
  for (auto& bio : bios) {
    const BlkStatus status = bio->wait();
    // Refused where nothing was in flight that could have made room.
    ASSERT_TRUE(status == BlkStatus::kOk || status == BlkStatus::kAgain);
  }
  EXPECT_LT(device_->refused, kChains * kLinks);
}

TEST_F(AioContextFile, ReadPastTheEndIsAnError) {
  Buffer data(8);
  ASSERT_EQ(::ftruncate(fd_.get(), 4096), 0);
  EXPECT_EQ(io_test::run(*device_, Op::kRead, 8, 8, data.data()), BlkStatus::kIoError);
}

}  // namespace
}  // namespace mapperfs
