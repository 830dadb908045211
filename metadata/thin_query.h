// Questions about a pool's mappings, as thin_ls, thin_delta and thin_rmap ask them. Text in exactly
// their form is the tools' to make.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/status.h"
#include "metadata/thin_check.h"
#include "metadata/thin_metadata.h"

namespace mapperfs {

// Where thin devices stand: the pool as it is, or as its metadata snapshot holds it.
enum class ThinView { kPool, kMetadataSnap };

struct ThinUsage {
  ThinDeviceDetails details;
  // Data blocks that only this device of the view maps, and the others that it maps.
  std::uint64_t exclusive_blocks = 0;
  std::uint64_t shared_blocks = 0;
  std::uint64_t highest_block = 0;  // meaningless when nothing is mapped
};

// All devices of the view, by id. Takes a byte of memory for each data block of the pool.
Result<std::vector<ThinUsage>> list_thin_usage(ThinMetadata& pool, ThinView view,
                                               const ThinProgress& progress);

struct ThinDifference {
  enum class Kind { kSame, kLeftOnly, kRightOnly, kDifferent };
  Kind kind = Kind::kSame;
  std::uint64_t begin = 0;
  std::uint64_t length = 0;
  // Of the first block; what `kind` says is not there is 0. Both rise with the block.
  std::uint64_t left_data_begin = 0;
  std::uint64_t right_data_begin = 0;
};

// Calls `fn` for the runs in which two devices differ or do not, in order, until it returns false.
// "Same" is the same data block, whatever the time. Runs are as long as both data runs go on.
// ENODATA: no such device.
Status compare_thin_devices(ThinMetadata& pool, ThinView view, std::uint32_t left,
                            std::uint32_t right,
                            const std::function<bool(const ThinDifference&)>& fn,
                            const ThinProgress& progress);

// Data blocks [data_begin, data_begin + length) are blocks [virtual_begin, ...) of a device.
struct ThinReverseRun {
  std::uint64_t data_begin = 0;
  std::uint64_t length = 0;
  std::uint32_t device_id = 0;
  std::uint64_t virtual_begin = 0;
};

// Who maps the data blocks of `regions`, by data block and then by device.
Result<std::vector<ThinReverseRun>> reverse_thin_map(ThinMetadata& pool, ThinView view,
                                                     const std::vector<DataRun>& regions,
                                                     const ThinProgress& progress);

}  // namespace mapperfs
