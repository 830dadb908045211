// Which pool objects there are: one per metadata directory, found by the mapped device of the
// thin-pool target as well (dm_thin_pool_table of drivers/md/dm-thin.c).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/block_device.h"
#include "engine/status.h"
#include "engine/target.h"
#include "metadata/thin_metadata.h"

namespace mapperfs::thinp {

class Pool;

// What the kernel has as module parameters, and how much memory a pool's metadata may take.
// Applies to pools opened later. Any thread.
struct PoolTuning {
  std::uint64_t no_space_timeout_ns = 60'000'000'000;  // 0: bios wait for space for ever
  std::size_t cache_bytes = std::size_t{128} << 20;
  std::uint64_t nr_metadata_blocks = kThinMaxMetadataBlocks;
  // For tests: changes that the database keeps in memory and in one log, and its file system.
  std::size_t memtable_bytes = ThinMetadataOptions{}.memtable_bytes;
  rocksdb::Env* env = nullptr;
  // As ThinMetadataOptions::at_place, for steps of the pool's own.
  std::function<void(std::string_view place)> at_place;
};
PoolTuning pool_tuning();
void set_pool_tuning(const PoolTuning& tuning);

struct PoolKey {
  TargetHost* host = nullptr;  // the mapped device that the pool's table belongs to
  Env* env = nullptr;
  std::string metadata_dir;  // as the table says it
  DevRef data;
  std::uint32_t block_sectors = 0;
  bool read_only = false;  // do not format
};

// The pool of that metadata directory, opened if nobody has it. `created` says which. The kernel's
// rules: EBUSY where another mapped device has it or its data device is another one; EINVAL where
// the mapped device has another pool. Control threads; may block.
Result<std::shared_ptr<Pool>> find_or_open_pool(const PoolKey& key, bool& created);

// The pool whose target is on `device`; null: there is none. Control threads.
std::shared_ptr<Pool> find_pool(const MappedDevice& device);

}  // namespace mapperfs::thinp
