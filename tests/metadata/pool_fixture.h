// What the tests of thin metadata share: a pool on a file system in memory, opened and closed, and
// a plain model to compare it with.
#pragma once

#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "metadata/thin_metadata.h"
#include "tests/metadata/fault_fs.h"

namespace mapperfs::testing {

// A pool's metadata in memory. Closing it loses what is not committed, as a crash of the process
// would.
class Pool {
 public:
  explicit Pool(std::uint64_t nr_data_blocks = 1000);
  ThinMetadata& operator*() { return *metadata_; }
  ThinMetadata* operator->() { return metadata_.get(); }
  FaultFs& fs() { return *fs_; }
  rocksdb::Env* env() { return env_.get(); }
  ThinMetadataOptions options;  // for the next open()
  Status open();
  void close() { metadata_.reset(); }
  // Close and open; the test fails if that does not work.
  void reopen();

  static constexpr const char* kDir = "/pool";

 private:
  std::shared_ptr<FaultFs> fs_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<ThinMetadata> metadata_;
};

// Allocates a block and maps it; the block, or the test fails.
std::uint64_t provision(ThinMetadata& pool, ThinDevice& device, std::uint64_t virtual_block);
std::unique_ptr<ThinDevice> must_open(ThinMetadata& pool, std::uint32_t id);

// The test fails if the checker finds an error or a leak. The first closes the pool; the second
// wants it closed.
void expect_clean(Pool& pool);
void expect_clean(rocksdb::Env* env, const std::string& dir);

// Everything that can be seen of a pool.
struct Picture {
  struct Device {
    std::uint64_t mapped_blocks = 0;
    std::uint64_t transaction_id = 0;
    std::uint32_t creation_time = 0;
    std::uint32_t snapshotted_time = 0;
    std::map<std::uint64_t, std::pair<std::uint64_t, std::uint32_t>> map;
    bool operator==(const Device&) const = default;
  };
  std::map<std::uint32_t, Device> devices;
  std::map<std::uint32_t, Device> held;
  std::uint64_t transaction_id = 0;
  std::uint32_t time = 0;
  std::uint64_t nr_data_blocks = 0;
  bool has_held = false;
  bool operator==(const Picture&) const = default;
};
Picture picture_of(ThinMetadata& pool);
// Data blocks that the devices of a picture map.
std::set<std::uint64_t> blocks_of(const Picture& picture);

// The seeds to use: MAPPERFS_SEED=N or FIRST-LAST if set, else `runs` from 1 on, and in long mode
// (MAPPERFS_LONG=1) a hundred times as many; a quarter or less under a sanitizer.
std::uint64_t first_seed();
std::uint64_t seed_count(std::uint64_t runs);

}  // namespace mapperfs::testing
