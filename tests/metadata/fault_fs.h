// A file system in memory for RocksDB that loses what a cut of power would lose and fails when told
// to. Unsynced bytes of a file are dropped, kept, or torn by sectors; names that no directory fsync
// covered are undone, last first. All chance comes from a seed.
#pragma once

#include <rocksdb/file_system.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace mapperfs::testing {

// Any thread.
class FaultFs final : public rocksdb::FileSystem {
 public:
  enum class Fault { kCut, kNoSpace, kIoError };

  static const char* kClassName() { return "FaultFs"; }
  const char* Name() const override { return kClassName(); }

  static constexpr std::uint64_t kForEver = 1'000'000;  // times, of fail_after()
  // The `count`-th change from now (1 is the next) fails. A cut takes everything after it along,
  // other faults only last for `times` changes.
  void fail_after(std::uint64_t count, Fault fault, std::uint64_t times = 1);
  // The `count`-th sync from now of a file whose name, without its directory, begins with `prefix`
  // is where the power goes: what that sync was for may have landed in part.
  void cut_at_sync(std::string prefix, std::uint64_t count);
  // The `count`-th read from now of a part of a file fails with an I/O error.
  void fail_read(std::uint64_t count);
  void disarm();
  // What the power cut leaves; the file system works again. Nothing may be open.
  void restore_power(std::uint64_t seed);
  // Changes since it was made: appends, syncs, creations, renames, deletions.
  [[nodiscard]] std::uint64_t changes() const;
  // Whether an armed fault has struck.
  [[nodiscard]] bool struck() const;
  // Flips a bit in the middle of every file whose name ends with `suffix`; how many there were.
  int damage(const std::string& suffix);
  // Flips a bit of the byte at `offset` of a file that has it.
  void flip_bit(const std::string& name, std::uint64_t offset);

  rocksdb::IOStatus NewSequentialFile(const std::string& name, const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* file,
                                      rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string& name,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewDirectory(const std::string& name, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus FileExists(const std::string& name, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus GetChildren(const std::string& dir, const rocksdb::IOOptions& options,
                                std::vector<std::string>* names,
                                rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus DeleteFile(const std::string& name, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus CreateDir(const std::string& name, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus CreateDirIfMissing(const std::string& name, const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus DeleteDir(const std::string& name, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus GetFileSize(const std::string& name, const rocksdb::IOOptions& options,
                                std::uint64_t* size, rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus GetFileModificationTime(const std::string& name,
                                            const rocksdb::IOOptions& options, std::uint64_t* time,
                                            rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus LockFile(const std::string& name, const rocksdb::IOOptions& options,
                             rocksdb::FileLock** lock, rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus UnlockFile(rocksdb::FileLock* lock, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus GetTestDirectory(const rocksdb::IOOptions& options, std::string* path,
                                     rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus GetAbsolutePath(const std::string& path, const rocksdb::IOOptions& options,
                                    std::string* absolute, rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus IsDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                bool* is_dir, rocksdb::IODebugContext* dbg) override;
  rocksdb::IOStatus NewLogger(const std::string& name, const rocksdb::IOOptions& options,
                              std::shared_ptr<rocksdb::Logger>* logger,
                              rocksdb::IODebugContext* dbg) override;

  struct Inode {
    std::string data;
    std::size_t synced = 0;  // bytes from the start that a cut leaves alone
  };
  // For the files.
  rocksdb::IOStatus append(Inode& inode, const std::string& data);
  rocksdb::IOStatus truncate(Inode& inode, std::size_t size);
  rocksdb::IOStatus sync(Inode& inode);
  rocksdb::IOStatus sync_directory();
  std::string read(const Inode& inode, std::uint64_t offset, std::size_t size) const;
  rocksdb::IOStatus read_part();  // before one

 private:
  using Names = std::map<std::string, std::shared_ptr<Inode>>;
  struct NameChange {
    std::string name;
    std::shared_ptr<Inode> before;  // null: there was none
    bool with_next = false;         // half of a rename
  };

  rocksdb::IOStatus change();
  bool sync_to_cut_at(const Inode& inode);
  void set_name(const std::string& name, std::shared_ptr<Inode> inode, bool with_next = false);
  std::shared_ptr<Inode> find(const std::string& name) const;
  void tear(Inode& inode, std::mt19937_64& random) const;

  mutable std::mutex mutex_;
  Names names_;
  std::vector<NameChange> unsynced_names_;
  std::map<std::string, bool> directories_;
  std::map<std::string, bool> locks_;
  std::uint64_t changes_ = 0;
  std::uint64_t fail_at_ = 0;  // 0: never
  std::uint64_t fail_times_ = 0;
  Fault fault_ = Fault::kCut;
  std::string cut_prefix_;
  std::uint64_t syncs_to_cut_ = 0;   // of files with that prefix; 0: none is cut
  std::uint64_t reads_to_fail_ = 0;  // 0: none fails
  bool struck_ = false;
  bool off_ = false;  // after a cut
};

}  // namespace mapperfs::testing
