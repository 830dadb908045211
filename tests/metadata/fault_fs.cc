#include "tests/metadata/fault_fs.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <cstring>

namespace mapperfs::testing {
namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr std::size_t kSector = 512;

class Sequential final : public rocksdb::FSSequentialFile {
 public:
  Sequential(const FaultFs& fs, std::shared_ptr<FaultFs::Inode> inode)
      : fs_(fs), inode_(std::move(inode)) {}
  IOStatus Read(std::size_t n, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) override {
    const std::string data = fs_.read(*inode_, at_, n);
    std::memcpy(scratch, data.data(), data.size());
    *result = Slice(scratch, data.size());
    at_ += data.size();
    return IOStatus::OK();
  }
  IOStatus Skip(std::uint64_t n) override {
    at_ += n;
    return IOStatus::OK();
  }

 private:
  const FaultFs& fs_;
  const std::shared_ptr<FaultFs::Inode> inode_;
  std::uint64_t at_ = 0;
};

class RandomAccess final : public rocksdb::FSRandomAccessFile {
 public:
  RandomAccess(FaultFs& fs, std::shared_ptr<FaultFs::Inode> inode)
      : fs_(fs), inode_(std::move(inode)) {}
  IOStatus Read(std::uint64_t offset, std::size_t n, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    if (IOStatus s = fs_.read_part(); !s.ok()) {
      return s;
    }
    const std::string data = fs_.read(*inode_, offset, n);
    std::memcpy(scratch, data.data(), data.size());
    *result = Slice(scratch, data.size());
    return IOStatus::OK();
  }

 private:
  FaultFs& fs_;
  const std::shared_ptr<FaultFs::Inode> inode_;
};

class Writable final : public rocksdb::FSWritableFile {
 public:
  Writable(FaultFs& fs, std::shared_ptr<FaultFs::Inode> inode)
      : fs_(fs), inode_(std::move(inode)) {}
  using rocksdb::FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    return fs_.append(*inode_, data.ToString());
  }
  IOStatus Truncate(std::uint64_t size, const IOOptions&, IODebugContext*) override {
    return fs_.truncate(*inode_, size);
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return fs_.sync(*inode_); }
  std::uint64_t GetFileSize(const IOOptions&, IODebugContext*) override {
    return inode_->data.size();
  }

 private:
  FaultFs& fs_;
  const std::shared_ptr<FaultFs::Inode> inode_;
};

class Directory final : public rocksdb::FSDirectory {
 public:
  explicit Directory(FaultFs& fs) : fs_(fs) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return fs_.sync_directory(); }

 private:
  FaultFs& fs_;
};

class Lock final : public rocksdb::FileLock {
 public:
  explicit Lock(std::string lock_name) : name(std::move(lock_name)) {}
  const std::string name;
};

class Silent final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
  std::size_t GetLogFileSize() const override { return 0; }

 protected:
  rocksdb::Status CloseImpl() override { return rocksdb::Status::OK(); }
};

std::string tidy(std::string name) {
  std::string out;
  for (const char c : name) {
    if (c != '/' || out.empty() || out.back() != '/') {
      out.push_back(c);
    }
  }
  return out.size() > 1 && out.back() == '/' ? out.substr(0, out.size() - 1) : out;
}

}  // namespace

void FaultFs::fail_after(std::uint64_t count, Fault fault, std::uint64_t times) {
  const std::lock_guard<std::mutex> lock(mutex_);
  fail_at_ = changes_ + count;
  fail_times_ = times;
  fault_ = fault;
  struck_ = false;
}

void FaultFs::cut_at_sync(std::string prefix, std::uint64_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  cut_prefix_ = std::move(prefix);
  syncs_to_cut_ = count;
  struck_ = false;
}

void FaultFs::fail_read(std::uint64_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reads_to_fail_ = count;
  struck_ = false;
}

void FaultFs::disarm() {
  const std::lock_guard<std::mutex> lock(mutex_);
  reads_to_fail_ = 0;
  fail_at_ = 0;
  syncs_to_cut_ = 0;
}

std::uint64_t FaultFs::changes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return changes_;
}

bool FaultFs::struck() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return struck_;
}

int FaultFs::damage(const std::string& suffix) {
  const std::lock_guard<std::mutex> lock(mutex_);
  int files = 0;
  for (auto& [name, inode] : names_) {
    if (name.ends_with(suffix) && !inode->data.empty()) {
      inode->data[inode->data.size() / 2] ^= 4;
      ++files;
    }
  }
  return files;
}

void FaultFs::flip_bit(const std::string& name, std::uint64_t offset) {
  const std::lock_guard<std::mutex> lock(mutex_);
  find(name)->data.at(offset) ^= 4;
}

IOStatus FaultFs::change() {
  if (off_) {
    return IOStatus::IOError("power is off");
  }
  ++changes_;
  if (fail_at_ == 0 || changes_ < fail_at_) {
    return IOStatus::OK();
  }
  if (fault_ == Fault::kCut) {
    struck_ = true;
    off_ = true;
    return IOStatus::IOError("power is off");
  }
  if (changes_ >= fail_at_ + fail_times_) {
    return IOStatus::OK();
  }
  struck_ = true;
  return fault_ == Fault::kNoSpace ? IOStatus::NoSpace("No space left on device")
                                   : IOStatus::IOError("Input/output error");
}

void FaultFs::restore_power(std::uint64_t seed) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::mt19937_64 random(seed);
  std::size_t keep = unsynced_names_.empty() ? 0 : random() % (unsynced_names_.size() + 1);
  if (keep != 0 && unsynced_names_[keep - 1].with_next) {
    --keep;  // a rename happens whole or not at all
  }
  while (unsynced_names_.size() > keep) {
    const NameChange& undo = unsynced_names_.back();
    if (undo.before == nullptr) {
      names_.erase(undo.name);
    } else {
      names_[undo.name] = undo.before;
    }
    unsynced_names_.pop_back();
  }
  unsynced_names_.clear();
  for (auto& [name, inode] : names_) {
    tear(*inode, random);
  }
  locks_.clear();
  off_ = false;
  fail_at_ = 0;
  syncs_to_cut_ = 0;
}

// Each sector past the synced bytes may or may not have got to the disk, as may the file's size.
void FaultFs::tear(Inode& inode, std::mt19937_64& random) const {
  if (inode.synced >= inode.data.size()) {
    inode.synced = inode.data.size();
    return;
  }
  const std::size_t loose = inode.data.size() - inode.synced;
  switch (random() % 4) {
    case 0:
      inode.data.resize(inode.synced);
      break;
    case 1:
      inode.data.resize(inode.synced + random() % (loose + 1));
      break;
    case 2:
      break;
    default:
      for (std::size_t at = inode.synced; at < inode.data.size();) {
        const std::size_t end = std::min(inode.data.size(), (at / kSector + 1) * kSector);
        if (random() % 3 == 0) {
          std::fill(inode.data.begin() + static_cast<std::ptrdiff_t>(at),
                    inode.data.begin() + static_cast<std::ptrdiff_t>(end),
                    static_cast<char>(random() % 2 == 0 ? 0 : random()));
        }
        at = end;
      }
  }
  inode.synced = inode.data.size();
}

void FaultFs::set_name(const std::string& name, std::shared_ptr<Inode> inode, bool with_next) {
  const auto it = names_.find(name);
  unsynced_names_.push_back({name, it == names_.end() ? nullptr : it->second, with_next});
  if (inode == nullptr) {
    names_.erase(name);
  } else {
    names_[name] = std::move(inode);
  }
}

std::shared_ptr<FaultFs::Inode> FaultFs::find(const std::string& name) const {
  const auto it = names_.find(tidy(name));
  return it == names_.end() ? nullptr : it->second;
}

IOStatus FaultFs::append(Inode& inode, const std::string& data) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool was_off = off_;
  IOStatus s = change();
  if (s.ok() || (off_ && !was_off)) {
    inode.data += data;  // a write that power interrupts may be there in part: tear() decides
  }
  return s;
}

IOStatus FaultFs::truncate(Inode& inode, std::size_t size) {
  const std::lock_guard<std::mutex> lock(mutex_);
  IOStatus s = change();
  if (s.ok() && size < inode.data.size()) {
    inode.data.resize(size);
    inode.synced = std::min(inode.synced, size);
  }
  return s;
}

// Counts the sync if it is of a file that a cut waits for.
bool FaultFs::sync_to_cut_at(const Inode& inode) {
  if (syncs_to_cut_ == 0 || off_) {
    return false;
  }
  const auto it = std::find_if(names_.begin(), names_.end(),
                               [&](const auto& name) { return name.second.get() == &inode; });
  return it != names_.end() &&
         it->first.substr(it->first.rfind('/') + 1).starts_with(cut_prefix_) &&
         --syncs_to_cut_ == 0;
}

IOStatus FaultFs::sync(Inode& inode) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (sync_to_cut_at(inode)) {
    struck_ = true;
    off_ = true;
  }
  IOStatus s = change();
  if (s.ok()) {
    inode.synced = inode.data.size();
  }
  return s;
}

IOStatus FaultFs::sync_directory() {
  const std::lock_guard<std::mutex> lock(mutex_);
  IOStatus s = change();
  if (s.ok()) {
    unsynced_names_.clear();
  }
  return s;
}

std::string FaultFs::read(const Inode& inode, std::uint64_t offset, std::size_t size) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return offset >= inode.data.size() ? std::string() : inode.data.substr(offset, size);
}

IOStatus FaultFs::read_part() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (reads_to_fail_ == 0 || --reads_to_fail_ != 0) {
    return IOStatus::OK();
  }
  struck_ = true;
  return IOStatus::IOError("Input/output error");
}

IOStatus FaultFs::NewSequentialFile(const std::string& name, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSSequentialFile>* file,
                                    IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto inode = find(name);
  if (inode == nullptr) {
    return IOStatus::PathNotFound(name);
  }
  *file = std::make_unique<Sequential>(*this, std::move(inode));
  return IOStatus::OK();
}

IOStatus FaultFs::NewRandomAccessFile(const std::string& name, const rocksdb::FileOptions&,
                                      std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                      IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto inode = find(name);
  if (inode == nullptr) {
    return IOStatus::PathNotFound(name);
  }
  *file = std::make_unique<RandomAccess>(*this, std::move(inode));
  return IOStatus::OK();
}

IOStatus FaultFs::NewWritableFile(const std::string& name, const rocksdb::FileOptions&,
                                  std::unique_ptr<rocksdb::FSWritableFile>* file, IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  IOStatus s = change();
  if (!s.ok()) {
    return s;
  }
  auto inode = std::make_shared<Inode>();
  set_name(tidy(name), inode);
  *file = std::make_unique<Writable>(*this, std::move(inode));
  return s;
}

IOStatus FaultFs::NewDirectory(const std::string&, const IOOptions&,
                               std::unique_ptr<rocksdb::FSDirectory>* directory, IODebugContext*) {
  *directory = std::make_unique<Directory>(*this);
  return IOStatus::OK();
}

IOStatus FaultFs::FileExists(const std::string& name, const IOOptions&, IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return find(name) != nullptr || directories_.contains(tidy(name)) ? IOStatus::OK()
                                                                    : IOStatus::NotFound(name);
}

IOStatus FaultFs::GetChildren(const std::string& dir, const IOOptions&,
                              std::vector<std::string>* names, IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  names->clear();
  const std::string prefix = tidy(dir) + "/";
  for (const auto& [name, inode] : names_) {
    if (name.starts_with(prefix)) {
      names->push_back(name.substr(prefix.size()));
    }
  }
  return IOStatus::OK();
}

IOStatus FaultFs::DeleteFile(const std::string& name, const IOOptions&, IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  IOStatus s = change();
  if (s.ok() && find(name) == nullptr) {
    return IOStatus::PathNotFound(name);
  }
  if (s.ok()) {
    set_name(tidy(name), nullptr);
  }
  return s;
}

IOStatus FaultFs::CreateDir(const std::string& name, const IOOptions&, IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  directories_[tidy(name)] = true;
  return IOStatus::OK();
}

IOStatus FaultFs::CreateDirIfMissing(const std::string& name, const IOOptions& options,
                                     IODebugContext* dbg) {
  return CreateDir(name, options, dbg);
}

IOStatus FaultFs::DeleteDir(const std::string& name, const IOOptions&, IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  directories_.erase(tidy(name));
  return IOStatus::OK();
}

IOStatus FaultFs::GetFileSize(const std::string& name, const IOOptions&, std::uint64_t* size,
                              IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto inode = find(name);
  if (inode == nullptr) {
    return IOStatus::PathNotFound(name);
  }
  *size = inode->data.size();
  return IOStatus::OK();
}

IOStatus FaultFs::GetFileModificationTime(const std::string&, const IOOptions&, std::uint64_t* time,
                                          IODebugContext*) {
  *time = 0;
  return IOStatus::OK();
}

IOStatus FaultFs::RenameFile(const std::string& from, const std::string& to, const IOOptions&,
                             IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  IOStatus s = change();
  auto inode = find(from);
  if (s.ok() && inode == nullptr) {
    return IOStatus::PathNotFound(from);
  }
  if (s.ok()) {
    set_name(tidy(to), inode, true);
    set_name(tidy(from), nullptr);
  }
  return s;
}

IOStatus FaultFs::LockFile(const std::string& name, const IOOptions&, rocksdb::FileLock** lock,
                           IODebugContext*) {
  const std::lock_guard<std::mutex> guard(mutex_);
  if (locks_[tidy(name)]) {
    return IOStatus::IOError("While lock file: " + name, "Resource temporarily unavailable");
  }
  locks_[tidy(name)] = true;
  *lock = std::make_unique<Lock>(tidy(name)).release();
  return IOStatus::OK();
}

IOStatus FaultFs::UnlockFile(rocksdb::FileLock* lock, const IOOptions&, IODebugContext*) {
  const std::lock_guard<std::mutex> guard(mutex_);
  const std::unique_ptr<Lock> owned(static_cast<Lock*>(lock));
  locks_[owned->name] = false;
  return IOStatus::OK();
}

IOStatus FaultFs::GetTestDirectory(const IOOptions&, std::string* path, IODebugContext*) {
  *path = "/test";
  return IOStatus::OK();
}

IOStatus FaultFs::GetAbsolutePath(const std::string& path, const IOOptions&, std::string* absolute,
                                  IODebugContext*) {
  *absolute = path;
  return IOStatus::OK();
}

IOStatus FaultFs::IsDirectory(const std::string& path, const IOOptions&, bool* is_dir,
                              IODebugContext*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  *is_dir = directories_.contains(tidy(path));
  return IOStatus::OK();
}

IOStatus FaultFs::NewLogger(const std::string&, const IOOptions&,
                            std::shared_ptr<rocksdb::Logger>* logger, IODebugContext*) {
  *logger = std::make_shared<Silent>();
  return IOStatus::OK();
}

}  // namespace mapperfs::testing
