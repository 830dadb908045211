// Store on RocksDB, tuned for metadata: small memory, at most two background threads, a log that is
// synced once a batch, and no timers, statistics or files beyond what it needs. The pages in it are
// cached above, so its own block cache holds little more than index and filter blocks.
#include <fmt/format.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <mutex>
#include <shared_mutex>
#include <system_error>
#include <utility>
#include <vector>

#include "metadata/guarded_logs.h"
#include "metadata/store.h"

namespace mapperfs {
namespace {

constexpr std::size_t kBlockCacheBytes = std::size_t{8} << 20;
constexpr std::size_t kFileBytes = std::size_t{16} << 20;
constexpr int kOpenFiles = 128;
constexpr int kLiveTries = 5;

// RocksDB hands a slice's pointer to memcmp() even where there is nothing to compare.
rocksdb::Slice slice(std::string_view text) {
  return text.empty() ? rocksdb::Slice() : rocksdb::Slice(text.data(), text.size());
}

// RocksDB tells what went wrong in classes and prose; an errno is made from both.
int errno_of_rocks(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  if (status.IsNoSpace() || text.find(std::strerror(ENOSPC)) != std::string::npos) {
    return ENOSPC;
  }
  if (status.IsCorruption()) {
    return EILSEQ;
  }
  if (status.IsBusy() || text.find("lock hold by current process") != std::string::npos ||
      text.find("While lock file") != std::string::npos) {
    return text.find(std::strerror(EROFS)) != std::string::npos ? EROFS : EBUSY;
  }
  for (const int error : {EACCES, EPERM, EROFS, ENOTDIR, EMFILE, EDQUOT}) {
    if (text.find(std::strerror(error)) != std::string::npos) {
      return error;
    }
  }
  if (status.IsPathNotFound() || text.find(std::strerror(ENOENT)) != std::string::npos) {
    return ENOENT;
  }
  if (text.find("does not exist (create_if_missing is false)") != std::string::npos) {
    return ENOENT;
  }
  return status.IsInvalidArgument() ? EINVAL : EIO;
}

class RocksBatch final : public StoreBatch {
 public:
  void put(std::string_view key, std::string_view value) override {
    // Building a batch in memory fails only past 4 GiB, which the bound on changes keeps away.
    MFS_ASSERT(batch_.Put(slice(key), slice(value)).ok());
  }
  void erase(std::string_view key) override { MFS_ASSERT(batch_.Delete(slice(key)).ok()); }
  [[nodiscard]] bool empty() const override { return batch_.Count() == 0; }
  [[nodiscard]] std::size_t bytes() const override { return batch_.GetDataSize(); }
  [[nodiscard]] const rocksdb::WriteBatch& rocks() const { return batch_; }

 private:
  rocksdb::WriteBatch batch_;
};

// A directory of this process's own for the log file that RocksDB wants of a live reader.
class ScratchDir {
 public:
  ScratchDir() {
    std::error_code ignored;
    std::string name = (std::filesystem::temp_directory_path(ignored) / "mapperfs-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) {
      path_ = name;
    }
  }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  ~ScratchDir() {
    if (!path_.empty()) {
      std::error_code ignored;  // a leftover log file in a temporary directory harms nobody
      std::filesystem::remove_all(path_, ignored);
    }
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The store's own, so that what a cut of power has torn is told from what has rotted.
std::unique_ptr<rocksdb::Env> make_env(const StoreOptions& options) {
  rocksdb::Env* const base = options.env != nullptr ? options.env : rocksdb::Env::Default();
  return rocksdb::NewCompositeEnv(make_guarded_logs_fs(base->GetFileSystem()));
}

rocksdb::Options rocks_options(const StoreOptions& options, rocksdb::Env* env) {
  rocksdb::Options rocks;
  rocks.env = env;
  rocks.create_if_missing = options.create && options.mode == StoreMode::kReadWrite;
  rocks.write_buffer_size = options.memtable_bytes;
  rocks.max_write_buffer_number = 3;
  rocks.target_file_size_base = kFileBytes;
  rocks.max_bytes_for_level_base = kFileBytes * 8;
  rocks.max_background_jobs = 2;
  rocks.max_subcompactions = 1;
  rocks.max_open_files = options.mode == StoreMode::kLive ? -1 : kOpenFiles;
  rocks.max_file_opening_threads = 1;
  // A cut of power leaves a torn tail, whose sectors may have landed in any order: stop there.
  // Logs that were synced and are gone are noticed through the manifest; but a database in use may
  // lose them while it is read. (With this off, opening for reading a manifest that has logs in it
  // is a failed assertion of RocksDB 7.8.)
  rocks.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocks.track_and_verify_wals_in_manifest = options.mode != StoreMode::kLive;
  rocks.paranoid_checks = true;
  // Batches come in the order of their keys: each record's place is looked for beside the last.
  rocks.memtable_insert_with_hint_prefix_extractor.reset(rocksdb::NewFixedPrefixTransform(1));
  // A log is allocated whole otherwise, memtable_bytes at once: 15 ms for who writes first.
  rocks.allow_fallocate = false;
  rocks.max_bgerror_resume_count = 0;  // errors are the pool's to handle, not a hidden thread's
  rocks.stats_dump_period_sec = 0;
  rocks.stats_persist_period_sec = 0;
  rocks.info_log_level = rocksdb::InfoLogLevel::ERROR_LEVEL;
  rocks.keep_log_file_num = 2;
  rocks.max_log_file_size = std::size_t{1} << 20;
  rocks.max_manifest_file_size = std::size_t{16} << 20;
  rocks.compression = options.compress ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.cache_index_and_filter_blocks = true;
  table.block_size = std::size_t{8} << 10;
  rocks.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return rocks;
}

class RocksStore final : public Store {
 public:
  RocksStore(std::string dir, const StoreOptions& options)
      : dir_(std::move(dir)),
        options_(options),
        env_(make_env(options)),
        rocks_options_(rocks_options(options, env_.get())),
        mode_(options.mode) {}
  ~RocksStore() override { close(); }

  // In the mode that mode_ says.
  Status open() {
    try {
      return open_mode();
    } catch (const std::exception& e) {
      return {EIO, fmt::format("metadata {}: {}", dir_, e.what())};
    }
  }

  Result<std::optional<std::string>> get(std::string_view key) const override {
    const std::shared_lock<std::shared_mutex> lock(open_mutex_);
    if (db_ == nullptr) {
      return closed();
    }
    std::string value;
    const rocksdb::Status s = db_->Get(rocksdb::ReadOptions(), slice(key), &value);
    if (s.ok()) {
      return std::optional<std::string>(std::move(value));
    }
    if (s.IsNotFound()) {
      return std::optional<std::string>();
    }
    return status("reading", s);
  }

  Status scan(std::string_view prefix,
              const std::function<bool(std::string_view, std::string_view)>& fn) const override {
    const std::shared_lock<std::shared_mutex> lock(open_mutex_);
    if (db_ == nullptr) {
      return closed();
    }
    rocksdb::ReadOptions read;
    read.fill_cache = false;
    read.readahead_size = std::size_t{256} << 10;
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(read));
    // Not Slice::starts_with(): an empty prefix would hand memcmp() a null pointer.
    for (it->Seek(slice(prefix)); it->Valid() && it->key().ToStringView().starts_with(prefix);
         it->Next()) {
      if (!fn({it->key().data(), it->key().size()}, {it->value().data(), it->value().size()})) {
        break;
      }
    }
    return it->status().ok() ? Status() : status("reading", it->status());
  }

  std::unique_ptr<StoreBatch> new_batch() const override { return std::make_unique<RocksBatch>(); }

  Status write(const StoreBatch& batch) override {
    MFS_ASSERT(options_.mode == StoreMode::kReadWrite);
    const std::shared_lock<std::shared_mutex> lock(open_mutex_);
    if (db_ == nullptr) {
      return closed();
    }
    if (!writable()) {
      return {EROFS,
              fmt::format("metadata {}: could only be opened for reading after an error", dir_)};
    }
    rocksdb::WriteOptions sync;
    sync.sync = true;
    // RocksDB stamps sequence numbers into the batch that it is given, so it gets a copy's worth
    // of mutability; the batch is not used again.
    auto& rocks = const_cast<rocksdb::WriteBatch&>(static_cast<const RocksBatch&>(batch).rocks());
    const rocksdb::Status s = db_->Write(sync, &rocks);
    return s.ok() ? Status() : status("writing", s);
  }

  Status reopen() override {
    const std::unique_lock<std::shared_mutex> lock(open_mutex_);
    close();
    mode_ = options_.mode;
    Status status = open();
    if (status.ok() || !writable()) {
      return status;
    }
    close();
    mode_ = StoreMode::kReadOnly;
    return open().ok() ? Status() : status;
  }

  [[nodiscard]] bool writable() const noexcept override { return mode_ == StoreMode::kReadWrite; }

 private:
  void close() {
    if (db_ != nullptr && writable()) {
      // What is not in a batch that returned is not to be kept; there is nothing to save here.
      db_->Close().PermitUncheckedError();
    }
    db_.reset();
    if (lock_ != nullptr) {
      rocks_options_.env->UnlockFile(lock_).PermitUncheckedError();
      lock_ = nullptr;
    }
  }

  Status open_mode() {
    if (mode_ == StoreMode::kLive) {
      return open_live();
    }
    rocksdb::DB* db = nullptr;
    if (mode_ == StoreMode::kReadOnly) {
      if (Status s = lock_for_reading(); !s.ok()) {
        return s;
      }
      const rocksdb::Status s = rocksdb::DB::OpenForReadOnly(rocks_options_, dir_, &db);
      db_.reset(db);
      return s.ok() ? Status() : status("opening", s);
    }
    if (options_.create) {
      const rocksdb::Status made = rocks_options_.env->CreateDirIfMissing(dir_);
      if (!made.ok()) {
        return status("making", made);
      }
    }
    if (Status s = refuse_foreign_files(); !s.ok()) {
      return s;
    }
    if (Status s = options_.create ? Status() : require_database(); !s.ok()) {
      return s;  // RocksDB would find out, and leave files of its own behind
    }
    const rocksdb::Status s = rocksdb::DB::Open(rocks_options_, dir_, &db);
    db_.reset(db);
    return s.ok() ? Status() : status("opening", s);
  }

  Status require_database() const {
    if (rocks_options_.env->FileExists(dir_ + "/CURRENT").ok()) {
      return {};
    }
    return {ENOENT, fmt::format("metadata {}: there is no database", dir_)};
  }

  // RocksDB's own lock, which opening for reading does not take. A file system that is read-only
  // has no second user.
  Status lock_for_reading() {
    if (Status s = require_database(); !s.ok()) {
      return s;
    }
    const rocksdb::Status s = rocks_options_.env->LockFile(dir_ + "/LOCK", &lock_);
    if (s.ok()) {
      return {};
    }
    lock_ = nullptr;
    const int error = errno_of_rocks(s);
    if (error == EROFS || error == EACCES) {
      return {};
    }
    return status("opening", s);
  }

  // The other process may delete a file between our reading its list and opening it: try again.
  Status open_live() {
    if (scratch_ == nullptr) {
      scratch_ = std::make_unique<ScratchDir>();
    }
    rocksdb::Status s;
    for (int i = 0; i < kLiveTries; ++i) {
      rocksdb::DB* db = nullptr;
      s = rocksdb::DB::OpenAsSecondary(rocks_options_, dir_, scratch_->path(), &db);
      db_.reset(db);
      if (s.ok()) {
        return {};
      }
    }
    return status("opening", s);
  }

  Status closed() const {
    return {EIO, fmt::format("metadata {}: could not be opened again after an error", dir_)};
  }

  // A directory that holds other things than a database is somebody's mistake.
  Status refuse_foreign_files() const {
    std::vector<std::string> names;
    if (!rocks_options_.env->GetChildren(dir_, &names).ok()) {
      return {};  // opening it will say what is wrong
    }
    for (const std::string& name : names) {
      if (name == "CURRENT") {
        return {};
      }
    }
    for (const std::string& name : names) {
      const bool ours = name == "." || name == ".." || name == "LOCK" || name == "IDENTITY" ||
                        name == "lost+found" || name.starts_with("LOG") ||
                        name.starts_with("MANIFEST-") || name.starts_with("OPTIONS-") ||
                        name.ends_with(".log") || name.ends_with(".dbtmp");
      if (!ours) {
        return {EINVAL, fmt::format("metadata {}: is neither empty nor metadata, it has a file {}",
                                    dir_, name)};
      }
    }
    return {};
  }

  Status status(std::string_view doing, const rocksdb::Status& s) const {
    const int error = errno_of_rocks(s);
    if (error == EBUSY) {
      return {EBUSY, fmt::format("metadata {}: is in use by another pool or process", dir_)};
    }
    return {error, fmt::format("metadata {}: {}: {}", dir_, doing, s.ToString())};
  }

  const std::string dir_;
  const StoreOptions options_;
  const std::unique_ptr<rocksdb::Env> env_;
  const rocksdb::Options rocks_options_;
  std::unique_ptr<ScratchDir> scratch_;   // outlives db_
  mutable std::shared_mutex open_mutex_;  // held for writing while what follows changes
  std::atomic<StoreMode> mode_;           // the options', or kReadOnly after a reopen()
  std::unique_ptr<rocksdb::DB> db_;       // null after a failed reopen()
  rocksdb::FileLock* lock_ = nullptr;     // in kReadOnly; RocksDB's to free
};

}  // namespace

Result<std::unique_ptr<Store>> open_rocks_store(const std::string& dir,
                                                const StoreOptions& options) {
  auto store = std::make_unique<RocksStore>(dir, options);
  if (Status s = store->open(); !s.ok()) {
    return s;
  }
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace mapperfs
