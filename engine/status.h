// The two kinds of outcome. BlkStatus (one byte, no text) ends an I/O; Status and Result<T> (errno
// and a sentence) answer the control path. They are converted into one another here and nowhere
// else.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/assert.h"

namespace mapperfs {

// How a bio ended (blk_status_t of include/linux/blk_types.h, as far as a mapper needs it).
enum class [[nodiscard]] BlkStatus : std::uint8_t{
    kOk = 0,
    kIoError,       // EIO
    kNotSupported,  // EOPNOTSUPP
    kNoSpace,       // ENOSPC
    kTargetError,   // EREMOTEIO: the device no longer does this operation
    kAgain,         // EAGAIN: would have blocked and was told not to
    kProtection,    // EILSEQ: data does not match its tag or hash
    kMedium,        // ENODATA: unreadable sector
    kResource,      // ENOMEM
    kReadOnly,      // EPERM, as a write to a read-only mapped device
    kRequeue,       // back to the mapped device (noflush suspend); of submitters only exclusive
                    // work sees it
};

int errno_of(BlkStatus status) noexcept;
BlkStatus blk_status_of_errno(int error) noexcept;

// A text for logs and terminals: control characters are written as \r, \t, \x1b; other bytes stay,
// so that names in UTF-8 read as they are.
std::string printable(std::string_view text);

// Outcome of a control operation: 0, or an errno with the sentence that says what, where, which
// value, which limit. Must be looked at.
class [[nodiscard]] Status {
 public:
  Status() = default;
  // `error` is a positive errno; 0 is not an error. The message is made printable: it repeats words
  // that anybody may have written.
  Status(int error, std::string_view message) : error_(error), message_(printable(message)) {
    MFS_ASSERT(error > 0);
  }
  [[nodiscard]] bool ok() const { return error_ == 0; }
  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] const std::string& message() const { return message_; }
  // The same error, with what the caller knows in front of its sentence.
  [[nodiscard]] Status with_context(std::string_view context) const;
  // For the rare place that can do nothing with a failure; the comment there says why.
  void ignore() const {}

 private:
  int error_ = 0;
  std::string message_;
};

// "EINVAL" and so on; the number in decimal for one without a name.
std::string errno_name(int error);

// A value or why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    MFS_ASSERT(!status_.ok());
  }
  [[nodiscard]] bool ok() const { return value_.has_value(); }
  [[nodiscard]] const Status& status() const { return status_; }
  T& operator*() {
    MFS_ASSERT(ok());
    return *value_;
  }
  const T& operator*() const {
    MFS_ASSERT(ok());
    return *value_;
  }
  T* operator->() { return &**this; }
  const T* operator->() const { return &**this; }
  // Moves the value out.
  T take() { return std::move(**this); }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace mapperfs
