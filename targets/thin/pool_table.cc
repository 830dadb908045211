#include "targets/thin/pool_table.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <vector>

#include "targets/thin/pool.h"

namespace mapperfs::thinp {

namespace {

struct Entry {
  const MappedDevice* device;
  std::string directory;  // canonical
  std::weak_ptr<Pool> pool;
};

// Held while a pool is opened, so that two tables never open one directory twice.
struct PoolTable {
  std::mutex mutex;
  std::vector<Entry> entries;  // mutex
  PoolTuning tuning;           // mutex
};

PoolTable& pools() {
  static PoolTable table;
  return table;
}

// The one name of a directory; what does not exist yet has the name that it will have.
std::string canonical(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::weakly_canonical(directory, error);
  std::string name = error ? directory : path.string();
  while (name.size() > 1 && name.back() == '/') {
    name.pop_back();
  }
  return name;
}

}  // namespace

PoolTuning pool_tuning() {
  const std::lock_guard<std::mutex> lock(pools().mutex);
  return pools().tuning;
}

void set_pool_tuning(const PoolTuning& tuning) {
  const std::lock_guard<std::mutex> lock(pools().mutex);
  pools().tuning = tuning;
}

Result<std::shared_ptr<Pool>> find_or_open_pool(const PoolKey& key, bool& created) {
  PoolTable& table = pools();
  const MappedDevice& device = key.host->mapped_device();
  const std::string directory = canonical(key.metadata_dir);
  const std::lock_guard<std::mutex> lock(table.mutex);
  std::erase_if(table.entries, [](const Entry& entry) { return entry.pool.expired(); });
  created = false;
  for (const Entry& entry : table.entries) {
    const std::shared_ptr<Pool> pool = entry.pool.lock();
    if (pool == nullptr || entry.directory != directory) {
      continue;
    }
    if (entry.device != &device) {
      return Status(EBUSY, "metadata device already in use by a pool");
    }
    if (&pool->data() != key.data.get()) {
      return Status(EBUSY, "data device already in use by a pool");
    }
    return pool;
  }
  for (const Entry& entry : table.entries) {
    if (entry.device == &device && !entry.pool.expired()) {
      return Status(EINVAL, "different pool cannot replace a pool");
    }
  }
  Result<std::shared_ptr<Pool>> pool = Pool::open(key, table.tuning);
  if (!pool.ok()) {
    return pool.status().with_context("Error creating metadata object");
  }
  created = true;
  table.entries.push_back({&device, directory, *pool});
  return pool;
}

std::shared_ptr<Pool> find_pool(const MappedDevice& device) {
  PoolTable& table = pools();
  const std::lock_guard<std::mutex> lock(table.mutex);
  for (const Entry& entry : table.entries) {
    if (entry.device == &device) {
      if (std::shared_ptr<Pool> pool = entry.pool.lock()) {
        return pool;
      }
    }
  }
  return nullptr;
}

}  // namespace mapperfs::thinp
