// A block device as the engine sees it: a file, a disk, memory, a mapped device, a fake for tests.
#pragma once

#include <cerrno>
#include <memory>
#include <string>

#include "engine/bio.h"
#include "engine/limits.h"
#include "engine/status.h"
#include "engine/types.h"

namespace mapperfs {

class MappedDevice;

// A run of sectors that all hold data or all read as zeroes without taking space.
struct Extent {
  sector_t sectors = 0;  // at least 1
  bool hole = false;
};

class BlockDevice {
 public:
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;
  virtual ~BlockDevice() = default;

  // Takes the bio over and ends it, perhaps before it returns. Range and flags were checked: bio
  // lies inside the device, except for backing devices that shrank (then kIoError). Any thread;
  // never blocks on I/O.
  virtual void submit(Bio& bio) noexcept = 0;

  // Size now; 0 for a mapped device without a table. Any thread.
  [[nodiscard]] virtual sector_t size_sectors() const = 0;
  // What the device can do and likes. Control threads.
  [[nodiscard]] virtual QueueLimits limits() const = 0;
  // As a table line prints it, not escaped: "8:16", a path, a mapped device's name.
  [[nodiscard]] virtual std::string table_name() const = 0;
  // As the kernel names it in messages: "loop0", a file's path, a mapped device's name.
  [[nodiscard]] virtual std::string display_name() const { return table_name(); }
  // "MAJ:MIN" where the device has numbers, "-" where it has none (a file).
  [[nodiscard]] virtual std::string numbers() const { return "-"; }
  // Data or hole at `sector` (inside the device), up to `max` sectors. May block: not for queue
  // threads of a busy device, but the answer to a seek.
  [[nodiscard]] virtual Extent extent(sector_t sector, sector_t max) const {
    static_cast<void>(sector);
    return {max, false};
  }
  // This device if it is a mapped one, else null; stored, so that the way of a bio pays no call for
  // it.
  [[nodiscard]] MappedDevice* mapped() const { return mapped_; }
  // A descriptor of the regular file whose bytes are this device's sectors from the first to the
  // last, for others to read and write past the engine; the device's own, good while it lives. Or
  // why there is none. Control threads.
  [[nodiscard]] virtual Result<int> whole_file() const {
    return Status(EOPNOTSUPP, display_name() + " is no file");
  }
  // True where an I/O is answered at memory speed inside submit().
  [[nodiscard]] virtual bool is_memory() const { return false; }

 protected:
  explicit BlockDevice(MappedDevice* mapped = nullptr) : mapped_(mapped) {}

 private:
  MappedDevice* const mapped_;
};

enum class DeviceMode : std::uint8_t { kReadOnly, kReadWrite };

// A device that a table has opened: claims it, counts as an opener of a mapped device, and lets go
// in its destructor. Empty after a move or by default.
class DevRef {
 public:
  // What is held open, and what letting go means for it. Made by DeviceOpener.
  class Holder {
   public:
    virtual ~Holder() = default;  // lets go; may block, control threads only
    [[nodiscard]] virtual BlockDevice& device() const = 0;
  };
  DevRef() = default;
  explicit DevRef(std::shared_ptr<Holder> holder)
      : holder_(std::move(holder)), device_(&holder_->device()) {}

  BlockDevice& operator*() const { return *device_; }
  BlockDevice* operator->() const { return device_; }
  [[nodiscard]] BlockDevice* get() const { return device_; }
  explicit operator bool() const { return device_ != nullptr; }

 private:
  std::shared_ptr<Holder> holder_;
  BlockDevice* device_ = nullptr;
};

}  // namespace mapperfs
