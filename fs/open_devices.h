// Open device files: what each open remembers, and what the opens of one device share.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "engine/engine.h"
#include "engine/mapped_device.h"
#include "fs/device_notes.h"
#include "fs/passthrough.h"

namespace mapperfs {

// Shared by all opens of a device; exists while there are any.
struct SharedDevice {
  std::shared_ptr<MappedDevice> device;
  // What reads and writes must be multiples of, in bytes. Follows the live table.
  std::atomic<std::uint32_t> block_bytes{512};

  // Who serves it is settled by the first open, for all that come while any is open.
  std::mutex served_mutex;
  bool served_settled = false;                   // served_mutex
  std::unique_ptr<PassthroughFile> passthrough;  // served_mutex; null: the engine serves

  // Unaligned writes, in order; fs/edge_writer.cc.
  std::mutex edge_mutex;
  std::deque<std::function<void()>> edge_jobs;  // edge_mutex
  bool edge_running = false;                    // edge_mutex

  // Under the registry's mutex.
  int opens = 0;    // not yet closed in the engine
  int closing = 0;  // of these: released by the kernel
  int flushed = 0;  // of these: close(2) was called, and nothing came after it
};

// One open(2).
struct OpenDevice {
  std::shared_ptr<SharedDevice> shared;
  // close(2) was called on a descriptor of it; cleared by the next I/O. The I/O path reads it and
  // writes only where it is set.
  std::atomic<bool> flushed{false};
  // The kernel's number where it serves the file itself, else 0. Constant once opened.
  int passthrough_id = 0;
};

class OpenDevices {
 public:
  // All outlive this.
  OpenDevices(Engine& engine, DeviceNotes& notes, Passthrough& passthrough)
      : engine_(engine), notes_(notes), passthrough_(passthrough) {}

  // Control threads: asks the device for its limits, and settles who serves it.
  Result<std::unique_ptr<OpenDevice>> open(const std::shared_ptr<MappedDevice>& device);
  // The two halves of a release. The first on the thread that the kernel's request came to, the
  // second where closing may block (it may remove the device).
  void begin_close(OpenDevice& open);
  void end_close(const OpenDevice& open);

  // close(2) was called, or I/O came after it.
  void set_flushed(OpenDevice& open, bool flushed);

  // The kernel sends a release some time after close(2) returned. Waits until the device's files
  // are closed if that seems to be on its way, and for a blink in any case. True: none is open.
  bool await_closes(const MappedDevice& device);

  // The mount ends: the kernel's numbers go before the connection does. No more opens come.
  void end_passthrough();

  // The device's live table changed: asks for its limits again. Control threads.
  void refresh(const MappedDevice& device);

 private:
  // All files of the device saw close(2): their releases are due.
  static constexpr std::chrono::milliseconds kAwaitFlushed{250};
  // A loop device lets go of its file without a close(2).
  static constexpr std::chrono::milliseconds kAwaitOthers{30};

  void settle_who_serves(OpenDevice& open);

  Engine& engine_;
  DeviceNotes& notes_;
  Passthrough& passthrough_;
  std::mutex mutex_;
  std::condition_variable closed_cv_;
  std::unordered_map<std::uint64_t, std::shared_ptr<SharedDevice>> shared_;  // by serial; mutex_
};

}  // namespace mapperfs
