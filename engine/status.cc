#include "engine/status.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mapperfs {

void assert_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "mapperfs: assertion failed: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

int errno_of(BlkStatus status) noexcept {
  switch (status) {
    case BlkStatus::kOk:
      return 0;
    case BlkStatus::kNotSupported:
      return EOPNOTSUPP;
    case BlkStatus::kNoSpace:
      return ENOSPC;
    case BlkStatus::kTargetError:
      return EREMOTEIO;
    case BlkStatus::kAgain:
      return EAGAIN;
    case BlkStatus::kProtection:
      return EILSEQ;
    case BlkStatus::kMedium:
      return ENODATA;
    case BlkStatus::kResource:
      return ENOMEM;
    case BlkStatus::kReadOnly:
      return EPERM;
    case BlkStatus::kIoError:
    case BlkStatus::kRequeue:
      return EIO;
  }
  return EIO;
}

BlkStatus blk_status_of_errno(int error) noexcept {
  switch (error) {
    case 0:
      return BlkStatus::kOk;
    case EOPNOTSUPP:
      return BlkStatus::kNotSupported;
    case ENOSPC:
    case EDQUOT:
      return BlkStatus::kNoSpace;
    case EREMOTEIO:
      return BlkStatus::kTargetError;
    case EAGAIN:
      return BlkStatus::kAgain;
    case EILSEQ:
      return BlkStatus::kProtection;
    case ENODATA:
      return BlkStatus::kMedium;
    case ENOMEM:
      return BlkStatus::kResource;
    case EPERM:
    case EROFS:
      return BlkStatus::kReadOnly;
    default:
      return BlkStatus::kIoError;
  }
}

std::string errno_name(int error) {
  const char* name = strerrorname_np(error);
  return name != nullptr ? std::string(name) : std::to_string(error);
}

std::string printable(std::string_view text) {
  std::string shown;
  shown.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    constexpr unsigned char kDelete = 0x7f;
    if (byte >= ' ' && byte != kDelete) {
      shown += c;
    } else if (c == '\n' || c == '\r' || c == '\t') {
      shown += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else {
      shown += fmt::format("\\x{:02x}", byte);
    }
  }
  return shown;
}

Status Status::with_context(std::string_view context) const {
  if (ok()) {
    return {};
  }
  std::string text(context);
  text += ": ";
  text += message_;
  return {error_, std::move(text)};
}

}  // namespace mapperfs
