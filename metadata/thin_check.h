// The checker of thin metadata: walks every tree, counts again what is counted, and compares. It
// shares nothing with the code that it checks but the packing of records.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/status.h"

namespace rocksdb {
class Env;
}

namespace mapperfs {

// Called now and then with how far a long work is; `total` may be an estimate.
using ThinProgress =
    std::function<void(std::string_view stage, std::uint64_t done, std::uint64_t total)>;

struct ThinCheckOptions {
  // Check the last commit of a pool that another process has open.
  bool live = false;
  bool superblock_only = false;
  // Only the device table, not what it maps.
  bool skip_mappings = false;
  // If leaks are all that is wrong, mend them; clear the needs_check flag if nothing else is wrong.
  // Not with `live`.
  bool repair_leaks = false;
  bool clear_needs_check = false;
  ThinProgress progress;
  rocksdb::Env* env = nullptr;  // for tests
};

struct ThinCheckReport {
  // What endangers data: blocks with more owners than counted, pages that are damaged or missing.
  // At most kMaxMessages sentences; `damage` counts all.
  static constexpr std::size_t kMaxMessages = 200;
  std::vector<std::string> messages;
  std::uint64_t damage = 0;
  // What only wastes space: blocks and pages counted as used that nothing uses.
  std::uint64_t leaked_data_blocks = 0;
  std::uint64_t leaked_pages = 0;
  bool leaks_repaired = false;
  bool needs_check = false;  // the flag, as it is left
  std::uint64_t transaction_id = 0;
  std::uint64_t devices = 0;
  std::uint64_t mapped_blocks = 0;  // of all devices together
  std::uint64_t used_data_blocks = 0;
  std::uint64_t tree_pages = 0;
  [[nodiscard]] bool clean() const {
    return damage == 0 && (leaks_repaired || (leaked_data_blocks == 0 && leaked_pages == 0));
  }
};

// An error means that it could not be checked at all: EINVAL, EBUSY, EILSEQ of the superblock, EIO.
Result<ThinCheckReport> check_thin_metadata(const std::string& dir,
                                            const ThinCheckOptions& options);

}  // namespace mapperfs
