// A small ordered store of records that changes in atomic, synced batches: what mapping metadata
// needs of a database, and nothing more. The one behind it is RocksDB (metadata/rocks_store.cc).
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/status.h"

namespace rocksdb {
class Env;
}

namespace mapperfs {

// Changes that take effect together. Used by one thread at a time.
class StoreBatch {
 public:
  StoreBatch(const StoreBatch&) = delete;
  StoreBatch& operator=(const StoreBatch&) = delete;
  virtual ~StoreBatch() = default;
  virtual void put(std::string_view key, std::string_view value) = 0;
  virtual void erase(std::string_view key) = 0;
  [[nodiscard]] virtual bool empty() const = 0;
  [[nodiscard]] virtual std::size_t bytes() const = 0;

 protected:
  StoreBatch() = default;
};

enum class StoreMode {
  kReadWrite,
  kReadOnly,  // of a store that nobody has open; writes nothing
  kLive,      // the last batch that the process having it open has written; writes nothing there
};

struct StoreOptions {
  StoreMode mode = StoreMode::kReadWrite;
  bool create = true;  // make a missing or empty directory; never in the reading modes
  bool compress = false;
  std::size_t memtable_bytes = std::size_t{8} << 20;  // of the log that opening may have to replay
  rocksdb::Env* env = nullptr;  // whose file system to use; null: the system's
};

// Any thread, at the same time. Everything may block.
class Store {
 public:
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  virtual ~Store() = default;

  // The record's value; nullopt: there is none.
  virtual Result<std::optional<std::string>> get(std::string_view key) const = 0;
  // Calls `fn` for the records whose keys begin with `prefix`, in order, until it returns false.
  // One moment's view, whatever is written meanwhile.
  virtual Status scan(
      std::string_view prefix,
      const std::function<bool(std::string_view key, std::string_view value)>& fn) const = 0;
  virtual std::unique_ptr<StoreBatch> new_batch() const = 0;
  // All of the batch, on stable storage before it returns; after an error none or all of it, which
  // is known only after reopen(). EROFS: not writable().
  virtual Status write(const StoreBatch& batch) = 0;
  // Closes and opens the database, as after a failed write, when it refuses all others. If it
  // cannot be opened for writing, as where the file system stays full, it is opened for reading:
  // then it is no longer writable(). If that fails too, all else fails with EIO.
  virtual Status reopen() = 0;
  // False in the reading modes and after such a reopen(). Does not block.
  [[nodiscard]] virtual bool writable() const noexcept = 0;

 protected:
  Store() = default;
};

// ENOENT: no store there and `create` is off; EBUSY: open elsewhere; EILSEQ: damaged.
Result<std::unique_ptr<Store>> open_rocks_store(const std::string& dir,
                                                const StoreOptions& options);

}  // namespace mapperfs
