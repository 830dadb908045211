// Which I/O may still go to a data block that a mapping named a moment ago.
//
// A bio looks up its mapping and then goes to the data device under no lock. Before a block that
// lost its mapping is discarded or given to someone else, everybody who may have seen the old
// mapping has to be done with it: look-up and I/O are a section, and synchronize() waits for the
// end of every section that was open when it was called (sleepable RCU, as the kernel has it).
//
// Cost of a section: one plain store to the thread's own counter at its begin and one at its end.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "engine/io_counters.h"

namespace mapperfs::thinp {

// Any thread.
class InFlight {
 public:
  using Section = std::uint8_t;
  static constexpr Section kNone = 0xff;

  // Before the look-up. What is found in it stays usable until leave().
  Section enter() noexcept {
    const Section section = current_.load(std::memory_order_acquire);
    IoCounters::add(counters_.slot(Queue::current()).started[section], 1,
                    std::memory_order_release);
    light_barrier();
    return section;
  }
  // Perhaps on another thread than enter().
  void leave(Section section) noexcept {
    IoCounters::add(counters_.slot(Queue::current()).finished[section], 1,
                    std::memory_order_release);
  }
  // Waits until all sections open now are closed. Not from inside one. May block as long as the
  // data device takes to answer.
  void synchronize();

 private:
  void drain(Section section) const;

  std::mutex mutex_;  // one synchronize() at a time
  std::atomic<Section> current_{0};
  IoCounters counters_;  // a section is one of its epochs
};

}  // namespace mapperfs::thinp
