// One open text file: `control` or a file below sys/. What it says is made when it is read from its
// beginning and stays the same until then, so that a reader in small steps sees one moment.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "fs/control_session.h"
#include "fs/inode.h"

namespace mapperfs {

class TextFile {
 public:
  struct Access {
    bool read = false;
    bool write = false;
  };
  // `device` is null for the mount's own files. `executor` and `notes` outlive this.
  TextFile(ControlExecutor& executor, const DeviceNotes& notes, FileKind kind,
           std::shared_ptr<MappedDevice> device, Access access);
  ~TextFile();
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;

  // Control threads; both may block. `offset` is the file position of the caller.
  Result<std::string> read(std::uint64_t offset, std::size_t size);
  // The reply can be read afterwards, from offset 0 or from the position behind the write.
  Status write(std::string_view data, std::uint64_t offset, bool cut, const RunOptions& options);
  // Refuses a write as if it had failed: its reply is the status's sentence. Does not wait.
  Status refuse(Status status, std::uint64_t offset);
  // A descriptor is closed: runs what a write left for now (ControlSession::finish).
  Status finish(const RunOptions& options);
  // Whether finish() has anything to do. Any thread.
  [[nodiscard]] bool holds() const { return holds_.load(std::memory_order_acquire); }

  [[nodiscard]] FileKind kind() const { return kind_; }
  [[nodiscard]] const std::shared_ptr<MappedDevice>& device() const { return device_; }
  // True when the device's event number is no longer the one last read here. Any thread.
  [[nodiscard]] bool event_came() const;

 private:
  Result<std::string> make_text();
  // mutex_ held: the end of a write.
  Status end_write(Outcome outcome, std::uint64_t next_offset);
  Outcome take(std::string_view data, bool cut, const RunOptions& options);

  ControlExecutor& executor_;
  const DeviceNotes& notes_;
  const FileKind kind_;
  const std::shared_ptr<MappedDevice> device_;
  const Access access_;
  // Whether reads give replies to writes rather than a text of the file's own.
  const bool replies_;
  std::atomic<std::uint32_t> event_seen_{0};

  std::atomic<bool> holds_{false};

  std::mutex mutex_;  // serialises what comes from threads that share the open file
  ControlSession session_;
  std::string text_;
  bool have_text_ = false;
  // The file position at which the reply begins for a reader that does not seek.
  std::uint64_t reply_at_ = 0;
  // Settled by the first read after a write.
  std::optional<std::uint64_t> base_;
};

}  // namespace mapperfs
