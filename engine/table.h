// A table: targets that lie end to end from sector 0. Constant once it is built.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/block_device.h"
#include "engine/limits.h"
#include "engine/status.h"
#include "engine/target.h"
#include "engine/target_args.h"

namespace mapperfs {

// Most targets of a table (DM_MAX_TARGETS of drivers/md/dm.h).
inline constexpr std::size_t kMaxTargets = 1048576;
// Longest name of a target type, in bytes (DM_MAX_TYPE_NAME less its NUL).
inline constexpr std::size_t kMaxTypeName = 15;

// One line of a table, not yet understood. `args` is as it was written, backslashes and all.
struct TableLine {
  sector_t start = 0;
  sector_t len = 0;
  std::string type;
  std::string args;
};

// "START LEN TYPE ARGS". EINVAL with a sentence where a field is missing or no number.
Result<TableLine> parse_table_line(std::string_view text);

// Target types by name, in order of registration. Built once at start, constant afterwards.
class TargetRegistry {
 public:
  void add(const TargetType& type) { types_.push_back(&type); }
  [[nodiscard]] const TargetType* find(std::string_view name) const;
  [[nodiscard]] std::span<const TargetType* const> types() const { return types_; }

 private:
  std::vector<const TargetType*> types_;
};

class Table {
 public:
  struct Options {
    DeviceMode mode = DeviceMode::kReadWrite;
    TargetHost* host = nullptr;
    Env* env = nullptr;
    const TargetRegistry* registry = nullptr;
    DeviceOpener* opener = nullptr;
    // Check sizes and alignment now; else calculate_limits() must follow before the table is live.
    bool check_limits = true;
  };

  // Builds targets and checks the table as a whole (core.md section 2). On failure every device
  // that a constructor opened is let go. Control threads.
  static Result<std::unique_ptr<Table>> load(std::span<const TableLine> lines,
                                             const Options& options);
  // Waits as wait_unheld().
  ~Table();
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  // Keeps a table for one who asks its targets what may take long (a message, a status): it may be
  // taken out of its slot meanwhile, and is not destroyed. Made under the lock that keeps the table
  // in its slot; control threads.
  class Hold {
   public:
    explicit Hold(const Table* table) : table_(table) {
      if (table_ != nullptr) {
        table_->take_hold();
      }
    }
    ~Hold() {
      if (table_ != nullptr) {
        table_->let_go();
      }
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

    const Table* operator->() const { return table_; }
    explicit operator bool() const { return table_ != nullptr; }

   private:
    const Table* const table_;
  };
  // Returns when nobody holds the table. Who has taken it out of its slot, where no new hold comes
  // from.
  void wait_unheld() const;

  [[nodiscard]] sector_t size() const { return size_; }
  [[nodiscard]] DeviceMode mode() const { return mode_; }
  [[nodiscard]] const QueueLimits& limits() const { return limits_; }
  [[nodiscard]] std::span<const std::unique_ptr<Target>> targets() const { return targets_; }
  // What the way of a bio needs of a target, in half a line of the cache: a table of many lines
  // is in no cache, and each further line of memory that a bio touches is one more miss.
  struct alignas(32) Place {
    sector_t begin;
    sector_t end;
    BlockDevice* dev;  // of Target::straight(), or null: map() has to be asked
    union {
      sector_t start;  // with dev: where `begin` lies on it
      Target* target;  // without
    };
  };
  // That of the target that holds `sector`, which is below size(). Queue threads.
  [[nodiscard]] const Place& place(sector_t sector) const noexcept {
    return single_ != nullptr ? *places_.data() : place_among_many(sector);
  }
  [[nodiscard]] Target& target_at(const Place& place) const noexcept {
    return place.dev == nullptr ? *place.target
                                : *targets_[static_cast<std::size_t>(&place - places_.data())];
  }
  [[nodiscard]] Target& find(sector_t sector) const noexcept { return target_at(place(sector)); }
  // The only target, or null where there are several.
  [[nodiscard]] Target* single() const { return single_; }
  // Where every target says flush_bypasses_map: the distinct devices to flush instead of mapping.
  [[nodiscard]] std::span<BlockDevice* const> flush_devices() const { return flush_devices_; }
  [[nodiscard]] bool flush_bypasses_map() const { return flush_bypasses_map_; }
  // Flush bios of all targets together.
  [[nodiscard]] std::size_t flush_bios() const { return flush_bios_; }
  // The type that every later table must have, or null.
  [[nodiscard]] const TargetType* immutable_type() const { return immutable_type_; }
  // Distinct devices in order of first opening.
  [[nodiscard]] std::span<BlockDevice* const> devices() const { return devices_; }

  // Stacks the limits of the devices below as they are now, and checks every area against its
  // device. EINVAL with the line or the device that does not fit. Not once the table is live.
  Status calculate_limits();
  // Whether every target could stand on a device and none does: an `error` without one.
  [[nodiscard]] bool lacks_data_devices() const;
  // Instead of calculate_limits(): the limits of the table that this one replaces, but for the
  // operations that a target here does not take. Not once the table is live.
  void keep_limits(const QueueLimits& before);

  // Calls the targets in order; control threads. preresume stops at the first failure.
  void presuspend() const;
  void presuspend_undo() const;
  void postsuspend() const;
  [[nodiscard]] Status preresume() const;
  void resume() const;

 private:
  class Builder;
  Table() = default;
  void take_hold() const;
  void let_go() const;
  [[nodiscard]] const Place& place_among_many(sector_t sector) const noexcept;

  std::vector<std::unique_ptr<Target>> targets_;
  std::vector<Place> places_;  // as targets_
  // Buckets of equal width over the table, each the index of the target that holds its first
  // sector. A look-up goes to its bucket and guesses between that target and the next bucket's, as
  // if those were of one length. So few buckets that they stay in the caches, which places_ does
  // not.
  std::vector<std::uint32_t> buckets_;
  unsigned bucket_shift_ = 0;
  unsigned guess_shift_ = 0;  // less sharp a look at wide buckets, or the product would overflow
  sector_t size_ = 0;
  Target* single_ = nullptr;
  DeviceMode mode_ = DeviceMode::kReadWrite;
  QueueLimits limits_;
  std::vector<BlockDevice*> flush_devices_;
  std::vector<BlockDevice*> devices_;
  bool flush_bypasses_map_ = false;
  std::size_t flush_bios_ = 0;
  const TargetType* immutable_type_ = nullptr;

  mutable std::mutex hold_mutex_;
  mutable std::condition_variable unheld_cv_;  // with hold_mutex_
  mutable std::size_t holds_ = 0;              // hold_mutex_
};

}  // namespace mapperfs
