// The limits of a table: stacked from its devices and targets, with every area checked against its
// device (drivers/md/dm-table.c, dm_calculate_queue_limits(); reference core.md sections 2 and 8).
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <unordered_map>
#include <vector>

#include "engine/table.h"

namespace mapperfs {

namespace {

class LimitsCalculator {
 public:
  explicit LimitsCalculator(const Table& table) : table_(table) {}

  Result<QueueLimits> calculate() {
    QueueLimits all = QueueLimits::stacking_defaults();
    std::vector<std::uint32_t> block_sizes;
    for (const auto& target : table_.targets()) {
      QueueLimits limits;
      if (Status status = target_limits(*target, limits); !status.ok()) {
        return status;
      }
      block_sizes.push_back(limits.logical_block_size);
      stack_limits(all, limits, target->begin());
    }
    if (Status status = check_borders(all, block_sizes); !status.ok()) {
      return status;
    }
    return all;
  }

 private:
  Status check_area(const TargetDevice& area, const QueueLimits& limits) {
    const sector_t size = device_size(*area.dev);
    // As the kernel: a device of size 0 is not checked, since it may get its size later (a mapped
    // device without a table, a loop device without a file). A file is what it is: an empty one, or
    // one of /proc, would be a disk that fails whatever is asked of it.
    if (size == 0 && area.dev->numbers() != "-") {
      return {};
    }
    if (area.start >= size || area.start + area.len > size || area.start + area.len < area.start) {
      return {EINVAL, fmt::format("{} too small for target: start={}, len={}, dev_size={}",
                                  area.dev->display_name(), area.start, area.len, size)};
    }
    const sector_t block = limits.logical_block_size >> kSectorShift;
    if (block > 1 && area.start % block != 0) {
      return {EINVAL, fmt::format("start={} not aligned to h/w logical block size {} of {}",
                                  area.start, limits.logical_block_size, area.dev->display_name())};
    }
    if (block > 1 && area.len % block != 0) {
      return {EINVAL, fmt::format("len={} not aligned to h/w logical block size {} of {}", area.len,
                                  limits.logical_block_size, area.dev->display_name())};
    }
    return {};
  }

  // A table of 100 000 lines over one file asks for its limits and size once.
  const QueueLimits& device_limits(BlockDevice& dev) {
    const auto [it, made] = limits_.try_emplace(&dev);
    if (made) {
      it->second = dev.limits();
    }
    return it->second;
  }
  sector_t device_size(BlockDevice& dev) {
    const auto [it, made] = sizes_.try_emplace(&dev, 0);
    if (made) {
      it->second = dev.size_sectors();
    }
    return it->second;
  }

  // What one target and its devices allow together. The block size that results binds every area,
  // whichever device or hint it comes from.
  Status target_limits(const Target& target, QueueLimits& limits) {
    limits = QueueLimits::stacking_defaults();
    bool any = false;
    target.iterate_devices([&](const TargetDevice& area) {
      any = true;
      stack_limits(limits, device_limits(*area.dev), area.start);
    });
    const TargetFeatures& features = target.features();
    const bool can_discard =
        features.num_discard_bios > 0 &&
        (features.discards_supported || (any && limits.max_discard_sectors > 0));
    if (!can_discard) {
      limits.max_discard_sectors = 0;
      limits.discard_zeroes = false;
    } else if (limits.max_discard_sectors == 0) {
      limits.max_discard_sectors = kUnlimitedSectors;  // the target takes them in itself
    }
    if (features.num_secure_erase_bios == 0 || !any) {
      limits.max_secure_erase_sectors = 0;
    }
    if (features.num_write_zeroes_bios == 0) {
      limits.max_write_zeroes_sectors = 0;
    }
    limits.write_cache = limits.write_cache || features.flush_supported;
    target.io_hints(limits);
    Status status;
    target.iterate_devices([&](const TargetDevice& area) {
      if (status.ok()) {
        status = check_area(area, limits);
      }
    });
    return status;
  }

  // An aligned I/O that is cut where two lines meet must leave pieces legal for both (dm-table.c,
  // validate_hardware_logical_block_alignment).
  Status check_borders(const QueueLimits& all,
                       const std::vector<std::uint32_t>& block_sizes) const {
    const std::uint32_t largest = all.logical_block_size;
    if (largest <= kSectorBytes) {
      return {};
    }
    const sector_t block = largest >> kSectorShift;
    sector_t rest = 0;  // sectors of a block begun before, that lie in this line and after it
    for (std::size_t i = 0; i < table_.targets().size(); ++i) {
      const Target& target = *table_.targets()[i];
      const sector_t own = block_sizes[i] >> kSectorShift;
      if (rest < target.ti().len && rest % own != 0) {
        return misaligned(i, target, block_sizes[i]);
      }
      rest = (block - target.end() % block) % block;
    }
    if (rest != 0) {
      const Target& last = *table_.targets().back();
      return misaligned(table_.targets().size() - 1, last, largest);
    }
    return {};
  }
  static Status misaligned(std::size_t i, const Target& target, std::uint32_t block_size) {
    return {EINVAL,
            fmt::format("table line {} (start sect {} len {}) not aligned to h/w logical block "
                        "size {}",
                        i, target.begin(), target.ti().len, block_size)};
  }

  const Table& table_;
  std::unordered_map<BlockDevice*, QueueLimits> limits_;
  std::unordered_map<BlockDevice*, sector_t> sizes_;
};

}  // namespace

Status Table::calculate_limits() {
  Result<QueueLimits> limits = LimitsCalculator(*this).calculate();
  if (!limits.ok()) {
    return limits.status();
  }
  limits_ = *limits;
  return {};
}

bool Table::lacks_data_devices() const {
  return std::all_of(targets_.begin(), targets_.end(), [](const std::unique_ptr<Target>& target) {
    bool any = (target->ti().type->flags & kTargetMayLackDevices) == 0;
    target->iterate_devices([&](const TargetDevice&) { any = true; });
    return !any;
  });
}

void Table::keep_limits(const QueueLimits& before) {
  limits_ = before;
  for (const auto& target : targets_) {
    const TargetFeatures& features = target->features();
    if (features.num_discard_bios == 0) {
      limits_.max_discard_sectors = 0;
      limits_.discard_granularity = 0;
      limits_.discard_zeroes = false;
    }
    if (features.num_secure_erase_bios == 0) {
      limits_.max_secure_erase_sectors = 0;
    }
    if (features.num_write_zeroes_bios == 0) {
      limits_.max_write_zeroes_sectors = 0;
    }
    limits_.write_cache = limits_.write_cache || features.flush_supported;
  }
}

}  // namespace mapperfs
