// Writes that do not begin and end on block boundaries: read, change, write back. Bios that overlap
// these blocks are kept out meanwhile, so that they are atomic against other writes of the same
// sectors; all others go on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "engine/status.h"
#include "fs/open_devices.h"
#include "fs/thread_pool.h"

namespace mapperfs {

// Waits: not for queue threads. `block_bytes` is a power of two from 512 on; `flags` are BioFlags
// of the write. The range must lie inside the device (else kIoError, as the device answers).
BlkStatus write_unaligned(MappedDevice& device, std::uint32_t block_bytes,
                          std::uint64_t offset_bytes, std::span<const std::byte> data,
                          std::uint8_t flags);

// Runs `job` on a thread of `pool`, after the jobs of the same device that came before it. At most
// one thread at a time waits for a device, however many writes do.
void run_in_order(ThreadPool& pool, const std::shared_ptr<SharedDevice>& shared,
                  std::function<void()> job);

}  // namespace mapperfs
