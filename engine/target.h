// The contract between the engine and a target (include/linux/device-mapper.h).
//
// A target maps a run of sectors of a mapped device. One file a target; docs/writing-a-target.md is
// the guide. The engine has checked every bio before map() sees it: it lies inside the target, does
// not cross max_io_len, its operation is one that the target offers.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/bio.h"
#include "engine/block_device.h"
#include "engine/env.h"
#include "engine/limits.h"
#include "engine/status.h"

namespace mapperfs {

class TargetArgs;

enum class MapIo : std::uint8_t {
  kSubmitted,  // the target keeps the bio, or has ended it
  kRemapped,   // dev and sector are changed; the engine sends it on
  kRequeue,  // back to the mapped device: goes in again after the noflush suspend that is under way
  kKill,     // the engine ends it with kIoError
};

enum class EndIo : std::uint8_t {
  kDone,        // goes on up with `status`
  kIncomplete,  // the target keeps the bio and will end it again
  kRequeue,     // as MapIo::kRequeue
};

enum TargetFlags : std::uint32_t {
  kTargetSingleton = 1 << 0,        // the only target of its table
  kTargetAlwaysWriteable = 1 << 1,  // not in a read-only table
  kTargetImmutable = 1 << 2,        // may only be replaced by its own type
  kTargetWildcard = 1 << 3,         // may replace even an immutable one
  kTargetMayLackDevices = 1 << 4,   // of a kind with devices, though not in every table
};

struct TargetVersion {
  unsigned major, minor, patch;
};

struct TargetInfo;
class Target;

struct TargetType {
  std::string_view name;
  TargetVersion version;
  std::uint32_t flags;  // TargetFlags
  // Makes a target from its table line's arguments, or says which of them is wrong and why. Control
  // thread; may block.
  Result<std::unique_ptr<Target>> (*ctr)(const TargetInfo& ti, TargetArgs& args);
};

// What a target may ask of the mapped device that it belongs to. Outlives the target.
class TargetHost {
 public:
  // Raises the device's event number and wakes who waits. Any thread; never blocks.
  virtual void table_event() = 0;
  // A sentence for sys/log and the daemon's log, prefixed with the device's name. For what changes,
  // such as a mode, and not for each I/O that fails: nothing limits the rate. Any thread.
  virtual void log(std::string_view sentence) = 0;
  // True between presuspend of a noflush suspend and resume: bios may be requeued.
  [[nodiscard]] virtual bool noflush_suspending() const = 0;
  // The mapped device's name now, and the device itself. Control threads.
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual MappedDevice& mapped_device() = 0;
  // "253:0", for texts that print the kernel's device numbers.
  [[nodiscard]] virtual std::string numbers() const = 0;

 protected:
  ~TargetHost() = default;
};

// The target's place and what surrounds it: constant after construction.
struct TargetInfo {
  sector_t begin = 0;  // on the mapped device
  sector_t len = 0;
  DeviceMode mode = DeviceMode::kReadWrite;  // of the table
  TargetHost* host = nullptr;
  Env* env = nullptr;
  const TargetType* type = nullptr;

  [[nodiscard]] sector_t offset_of(const Bio& bio) const { return bio.sector - begin; }
};

// What a target offers; set in its constructor, constant once the table is live (reference: core.md
// section 7).
struct TargetFeatures {
  sector_t max_io_len = 0;  // sectors, relative to the target's start; 0: no limit; any number
  std::uint16_t num_flush_bios = 0;
  std::uint16_t num_discard_bios = 0;
  std::uint16_t num_secure_erase_bios = 0;
  std::uint16_t num_write_zeroes_bios = 0;
  bool discards_supported = false;  // even where the devices below do not discard
  bool flush_supported = false;     // has a volatile cache of its own, whatever lies below
  bool flush_bypasses_map = false;  // one flush per distinct device serves
  bool max_discard_granularity =
      false;                  // cut discards on multiples of the device's largest discard
  bool wants_end_io = false;  // end_io() is to be called
};

// One device that a target stands on, in the order opened.
struct TargetDevice {
  BlockDevice* dev = nullptr;
  sector_t start = 0;  // of the area that the target uses on it
  sector_t len = 0;
};
using DeviceFn = std::function<void(const TargetDevice&)>;

class Target {
 public:
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  virtual ~Target() = default;  // dtr: no I/O in flight; may block

  // Queue threads; must not block. bio.sector is on the mapped device: ti().offset_of(bio).
  virtual MapIo map(Bio& bio) noexcept = 0;
  // After the bio came back, only where features().wants_end_io, and not where map() said kKill or
  // kRequeue. bio.dev, sector and sectors are as map() was given them; data, op and flags are as
  // map() left them: who changed them puts them back. May change `status`. Any thread, not always
  // the one that mapped the bio; must not block.
  virtual EndIo end_io(Bio& bio, BlkStatus& status) noexcept {
    static_cast<void>(bio);
    static_cast<void>(status);
    return EndIo::kDone;
  }

  // Control threads from here on; all may block. In the order of a suspend and a resume:
  virtual void presuspend() {}               // stop making new I/O of its own, let held bios go
  virtual void presuspend_undo() {}          // the suspend was given up
  virtual void postsuspend() {}              // no bio is in flight: write back what must be
  virtual Status preresume() { return {}; }  // may fail: the device then stays suspended
  virtual void resume() {}

  // The status line's words after the target's name; kernel-exact. `noflush`: do not commit first.
  [[nodiscard]] virtual std::string status(bool noflush) const {
    static_cast<void>(noflush);
    return {};
  }
  // The table line's words after the target's name; ctr accepts exactly this. `show_keys`: else
  // keys are printed as zeroes.
  [[nodiscard]] virtual std::string table(bool show_keys) const = 0;
  // A message's words, at least one; the reply, mostly empty.
  virtual Result<std::string> message(std::span<const std::string_view> argv);
  // Every device that bios go to, with the area used (checked against its size at load).
  virtual void iterate_devices(const DeviceFn& fn) const { static_cast<void>(fn); }
  // Where every read and write goes to one device unchanged, each sector as far from the target's
  // first as on the mapped device: the area it goes to. The engine then sends them there itself,
  // but for the pieces of one that crosses the target's end: with these map() has to do the same.
  // max_io_len is 0 and wants_end_io false. Else no device. Constant.
  [[nodiscard]] virtual TargetDevice straight() const { return {}; }
  // What the target itself adds to the stacked limits of its devices.
  virtual void io_hints(QueueLimits& limits) const { static_cast<void>(limits); }
  // Data or hole at `sector` of the mapped device (inside the target), up to `max` sectors; see
  // BlockDevice::extent. By default all is data.
  [[nodiscard]] virtual Extent extent(sector_t sector, sector_t max) const {
    static_cast<void>(sector);
    return {max, false};
  }

  // A descriptor of the regular file whose bytes are the target's sectors one to one, from its
  // first byte to its last, for others to read and write past the engine (FUSE passthrough). The
  // target's own, good while it lives. Or why there is none. Once given, the target must see what
  // others write there.
  [[nodiscard]] virtual Result<int> whole_file();

  [[nodiscard]] const TargetInfo& ti() const { return ti_; }
  [[nodiscard]] const TargetFeatures& features() const { return features_; }
  [[nodiscard]] sector_t begin() const { return ti_.begin; }
  [[nodiscard]] sector_t end() const { return ti_.begin + ti_.len; }

 protected:
  Target(const TargetInfo& ti, const TargetFeatures& features) : ti_(ti), features_(features) {}

 private:
  const TargetInfo ti_;
  const TargetFeatures features_;
};

// An extent of a target that maps a run one to one onto `dev` at `at`.
Extent extent_below(const BlockDevice& dev, sector_t at, sector_t max);
// The whole file of a target that maps `len` sectors one to one onto `dev` at `at`.
Result<int> whole_file_below(const BlockDevice& dev, sector_t at, sector_t len);

}  // namespace mapperfs
