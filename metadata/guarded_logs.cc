#include "metadata/guarded_logs.h"

#include <fmt/format.h>
#include <rocksdb/file_system.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/assert.h"
#include "metadata/crc32c.h"
#include "metadata/little_endian.h"
#include "metadata/log_walk.h"

namespace mapperfs {
namespace {

using rocksdb::FileOptions;
using rocksdb::FileSystem;
using rocksdb::FSSequentialFile;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

// A mark: length of the manifest (8), checksum of these bytes (4), zeroes (4). It divides a sector,
// so that a torn write leaves whole marks only.
constexpr std::size_t kMarkBytes = 16;
constexpr std::size_t kLengthBytes = 8;

bool is_manifest(const std::string& path) {
  constexpr std::string_view kPrefix = "MANIFEST-";
  const std::string_view name = std::string_view(path).substr(path.rfind('/') + 1);
  return name.starts_with(kPrefix) && name.size() > kPrefix.size() &&
         std::all_of(name.begin() + kPrefix.size(), name.end(),
                     [](char c) { return c >= '0' && c <= '9'; });
}

bool is_log_of_batches(const std::string& path) { return path.ends_with(".log"); }

// Of a log of batches, N.log; nullopt: it is none.
std::optional<std::uint64_t> log_number(std::string_view path) {
  constexpr std::string_view kSuffix = ".log";
  const std::string_view name = path.substr(path.rfind('/') + 1);
  if (!name.ends_with(kSuffix)) {
    return std::nullopt;
  }
  std::uint64_t number = 0;
  const char* const end = name.data() + name.size() - kSuffix.size();
  const auto [at, error] = std::from_chars(name.data(), end, number);
  return error == std::errc() && at == end ? std::optional(number) : std::nullopt;
}

std::string marks_of(const std::string& manifest) { return manifest + ".synced"; }

std::string mark(std::uint64_t length) {
  std::string bytes;
  put_little_endian(bytes, length, kLengthBytes);
  put_little_endian(bytes, crc32c(bytes), 4);
  bytes.resize(kMarkBytes, '\0');
  return bytes;
}

// Calls `fn` for pieces of `piece` bytes, the last one may be shorter, until it returns false.
template <typename Fn>
IOStatus for_each_piece(FSSequentialFile& file, std::size_t piece, const Fn& fn) {
  std::vector<char> buffer(piece);
  while (true) {
    std::string bytes;
    while (bytes.size() < piece) {
      Slice got;
      IOStatus s = file.Read(piece - bytes.size(), IOOptions(), &got, buffer.data(), nullptr);
      if (!s.ok()) {
        return s;
      }
      if (got.empty()) {
        break;
      }
      bytes.append(got.data(), got.size());
    }
    if (bytes.empty() || !fn(std::string_view(bytes)) || bytes.size() < piece) {
      return IOStatus::OK();
    }
  }
}

// How far the manifest is certain; nullopt: nothing says so.
IOStatus read_marks(FileSystem& fs, const std::string& manifest,
                    std::optional<std::uint64_t>& synced) {
  std::unique_ptr<FSSequentialFile> file;
  IOStatus s = fs.NewSequentialFile(marks_of(manifest), FileOptions(), &file, nullptr);
  if (!s.ok()) {
    return s.IsNotFound() || s.IsPathNotFound() ? IOStatus::OK() : s;
  }
  return for_each_piece(*file, kMarkBytes, [&](std::string_view bytes) {
    if (bytes.size() == kMarkBytes) {
      const std::uint64_t length = little_endian(bytes.substr(0, kLengthBytes));
      if (bytes == mark(length)) {
        synced = std::max(synced.value_or(0), length);
      }
    }
    return true;
  });
}

// Ends at `end`, whatever comes after.
class EndedFile final : public rocksdb::FSSequentialFileOwnerWrapper {
 public:
  EndedFile(std::unique_ptr<FSSequentialFile>&& file, std::uint64_t end)
      : FSSequentialFileOwnerWrapper(std::move(file)), end_(end) {}
  IOStatus Read(std::size_t n, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* dbg) override {
    IOStatus s = FSSequentialFileOwnerWrapper::Read(left(n, at_), options, result, scratch, dbg);
    at_ += s.ok() ? result->size() : 0;
    return s;
  }
  IOStatus Skip(std::uint64_t n) override {
    at_ += n;
    return FSSequentialFileOwnerWrapper::Skip(n);
  }
  IOStatus PositionedRead(std::uint64_t offset, std::size_t n, const IOOptions& options,
                          Slice* result, char* scratch, IODebugContext* dbg) override {
    return FSSequentialFileOwnerWrapper::PositionedRead(offset, left(n, offset), options, result,
                                                        scratch, dbg);
  }

 private:
  [[nodiscard]] std::size_t left(std::size_t n, std::uint64_t at) const {
    return std::min<std::size_t>(n, at < end_ ? end_ - at : 0);
  }

  const std::uint64_t end_;
  std::uint64_t at_ = 0;
};

// A manifest being written, with its marks. One thread at a time, as RocksDB does.
class MarkedFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  MarkedFile(std::unique_ptr<FSWritableFile>&& manifest, std::unique_ptr<FSWritableFile>&& marks)
      : FSWritableFileOwnerWrapper(std::move(manifest)), marks_(std::move(marks)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* dbg) override {
    return appended(data.size(), FSWritableFileOwnerWrapper::Append(data, options, dbg));
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& info, IODebugContext* dbg) override {
    return appended(data.size(), FSWritableFileOwnerWrapper::Append(data, options, info, dbg));
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* dbg) override {
    return synced(FSWritableFileOwnerWrapper::Sync(options, dbg), options, dbg);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override {
    return synced(FSWritableFileOwnerWrapper::Fsync(options, dbg), options, dbg);
  }
  IOStatus Close(const IOOptions& options, IODebugContext* dbg) override {
    IOStatus s = FSWritableFileOwnerWrapper::Close(options, dbg);
    IOStatus marks = marks_->Close(options, dbg);
    return s.ok() ? marks : s;
  }

 private:
  IOStatus appended(std::size_t bytes, IOStatus s) {
    length_ += bytes;
    sound_ = sound_ && s.ok();
    return s;
  }
  // After an error nothing is vouched for any more: a later sync that succeeds does not say that
  // what an earlier one was for has got to the disk.
  IOStatus synced(IOStatus s, const IOOptions& options, IODebugContext* dbg) {
    sound_ = sound_ && s.ok();
    if (!sound_ || length_ == marked_) {
      return s;
    }
    s = marks_->Append(mark(length_), options, dbg);
    if (s.ok()) {
      s = marks_->Sync(options, dbg);
    }
    sound_ = s.ok();
    marked_ = length_;
    return s;
  }

  const std::unique_ptr<FSWritableFile> marks_;
  std::uint64_t length_ = 0;
  std::uint64_t marked_ = 0;
  bool sound_ = true;
};

class GuardedLogsFs final : public rocksdb::FileSystemWrapper {
 public:
  explicit GuardedLogsFs(const std::shared_ptr<FileSystem>& base) : FileSystemWrapper(base) {}
  static const char* kClassName() { return "GuardedLogsFs"; }
  const char* Name() const override { return kClassName(); }

  IOStatus NewSequentialFile(const std::string& name, const FileOptions& options,
                             std::unique_ptr<FSSequentialFile>* file,
                             IODebugContext* dbg) override {
    std::optional<std::uint64_t> end;
    if (is_manifest(name)) {
      if (IOStatus s = check_manifest(name, options, end); !s.ok()) {
        return s;
      }
    } else if (is_log_of_batches(name)) {
      if (IOStatus s = check_batches(name, options); !s.ok()) {
        return s;
      }
    }
    IOStatus s = FileSystemWrapper::NewSequentialFile(name, options, file, dbg);
    if (s.ok() && end.has_value()) {
      *file = std::make_unique<EndedFile>(std::move(*file), *end);
    }
    return s;
  }

  IOStatus NewWritableFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<FSWritableFile>* file, IODebugContext* dbg) override {
    if (!is_manifest(name)) {
      return FileSystemWrapper::NewWritableFile(name, options, file, dbg);
    }
    // The marks first: those of an older file of that name say nothing about this one.
    std::unique_ptr<FSWritableFile> marks;
    IOStatus s = FileSystemWrapper::NewWritableFile(marks_of(name), options, &marks, dbg);
    if (s.ok()) {
      s = FileSystemWrapper::NewWritableFile(name, options, file, dbg);
    }
    if (s.ok()) {
      *file = std::make_unique<MarkedFile>(std::move(*file), std::move(marks));
    }
    return s;
  }

  IOStatus DeleteFile(const std::string& name, const IOOptions& options,
                      IODebugContext* dbg) override {
    if (is_manifest(name)) {
      // The marks first: RocksDB would not come back for them. An old database has none.
      FileSystemWrapper::DeleteFile(marks_of(name), options, dbg).PermitUncheckedError();
    }
    return FileSystemWrapper::DeleteFile(name, options, dbg);
  }

 private:
  // Up to its end, where `total` gets the length, or as far as it matters; without `total` only up
  // to the first batch.
  IOStatus walk(const std::string& name, const FileOptions& options, LogWalk& walk,
                std::uint64_t* total) {
    std::unique_ptr<FSSequentialFile> file;
    IOStatus s = target()->NewSequentialFile(name, options, &file, nullptr);
    return s.ok() ? for_each_piece(*file, kLogBlockBytes,
                                   [&](std::string_view bytes) {
                                     if (total != nullptr) {
                                       *total += bytes.size();
                                     }
                                     return walk.block(bytes) &&
                                            (total != nullptr || !walk.has_changes());
                                   })
                  : s;
  }

  // Sets `end` if the manifest is to end before its end.
  IOStatus check_manifest(const std::string& name, const FileOptions& options,
                          std::optional<std::uint64_t>& end) {
    // The marks first: who has the database open may be adding to both.
    std::optional<std::uint64_t> synced;
    IOStatus s = read_marks(*target(), name, synced);
    if (!s.ok() || !synced.has_value()) {
      return s;
    }
    LogWalk records(/*batches=*/false);
    std::uint64_t bytes = 0;
    s = walk(name, options, records, &bytes);
    if (!s.ok()) {
      return s;
    }
    if (records.whole() < *synced) {
      return IOStatus::Corruption(fmt::format("{}: damaged at byte {}, and {} had been synced",
                                              name, records.whole(), *synced));
    }
    if (records.damaged()) {
      end = records.whole();
    }
    return s;
  }

  IOStatus check_batches(const std::string& name, const FileOptions& options) {
    // The next log first: who has the database open may be adding to this one, but not once it has
    // begun the next.
    bool goes_on = false;
    IOStatus s = find_later_log(name, options, goes_on);
    if (!s.ok()) {
      return s;
    }
    LogWalk records(/*batches=*/true);
    std::uint64_t bytes = 0;
    s = walk(name, options, records, &bytes);
    if (!s.ok()) {
      return s;
    }
    if (records.later_batch()) {
      return IOStatus::Corruption(fmt::format("{}: damaged at byte {}, and later batches are sound",
                                              name, records.whole()));
    }
    if (goes_on && records.whole() != bytes) {
      return IOStatus::Corruption(
          fmt::format("{}: damaged at byte {}, and a later log has batches that are sound", name,
                      records.whole()));
    }
    return s;
  }

  // Sets `found` if a log with a higher number has a batch that is sound and changes something.
  IOStatus find_later_log(const std::string& name, const FileOptions& options, bool& found) {
    const std::size_t slash = name.rfind('/');
    const std::string dir = slash == std::string::npos ? "." : name.substr(0, slash);
    const std::optional<std::uint64_t> number = log_number(name);
    std::vector<std::string> names;
    IOStatus s = target()->GetChildren(dir, IOOptions(), &names, nullptr);
    if (!s.ok() || !number.has_value()) {
      return s;
    }
    for (const std::string& other : names) {
      const std::optional<std::uint64_t> its = log_number(other);
      if (!its.has_value() || *its <= *number) {
        continue;
      }
      LogWalk records(/*batches=*/true);
      s = walk(fmt::format("{}/{}", dir, other), options, records, nullptr);
      if (!s.ok() && !s.IsNotFound() && !s.IsPathNotFound()) {  // deleted meanwhile
        return s;
      }
      found = records.has_changes();
      if (found) {
        break;
      }
    }
    return IOStatus::OK();
  }
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> make_guarded_logs_fs(
    std::shared_ptr<rocksdb::FileSystem> base) {
  MFS_ASSERT(base != nullptr);
  return std::make_shared<GuardedLogsFs>(base);
}

}  // namespace mapperfs
