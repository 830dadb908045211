// A kernel for AioContext that does what a test says.
#pragma once

#include <libaio.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "engine/aio_context.h"

namespace mapperfs::io_test {

// One at a time. What a test does not say goes well.
class FakeKernel {
 public:
  FakeKernel() { current = this; }
  ~FakeKernel() { current = nullptr; }
  FakeKernel(const FakeKernel&) = delete;
  FakeKernel& operator=(const FakeKernel&) = delete;

  static const AioSyscalls& syscalls() {
    static const AioSyscalls kFake = {setup, destroy, submit, getevents, false};
    return kFake;
  }

  int setup_result = 0;
  std::deque<int> submits;   // results of the next io_submit() calls: >0 a most, <=0 as it is
  std::deque<long> results;  // of the next completions; else the whole length
  bool holds = false;        // nothing completes
  long at_once = 64;         // completions of a call at most
  int submit_calls = 0;
  std::vector<::iocb> taken;  // copies, in order

 private:
  static int setup(int /*depth*/, ::io_context** context) {
    *context = reinterpret_cast<::io_context*>(current);
    return current->setup_result;
  }
  static int destroy(::io_context* /*context*/) { return 0; }
  static int submit(::io_context* /*context*/, long count, ::iocb** list) {
    ++current->submit_calls;
    int take = static_cast<int>(count);
    if (!current->submits.empty()) {
      take = std::min(take, current->submits.front());
      current->submits.pop_front();
    }
    for (int i = 0; i < take; ++i) {
      current->taken.push_back(*list[i]);
      current->queued_.push_back(list[i]);
    }
    return take;
  }
  static int getevents(::io_context* /*context*/, long /*min*/, long max, ::io_event* events,
                       ::timespec* /*timeout*/) {
    int count = 0;
    while (!current->holds && count < std::min(max, current->at_once) &&
           !current->queued_.empty()) {
      ::iocb* cb = current->queued_.front();
      current->queued_.pop_front();
      auto result = cb->aio_lio_opcode == IO_CMD_FDSYNC ? 0L : static_cast<long>(cb->u.c.nbytes);
      if (!current->results.empty()) {
        result = current->results.front();
        current->results.pop_front();
      }
      events[count] = {};
      events[count].data = cb->data;
      events[count++].res = static_cast<unsigned long>(result);
    }
    return count;
  }

  inline static FakeKernel* current = nullptr;
  std::deque<::iocb*> queued_;
};

}  // namespace mapperfs::io_test
