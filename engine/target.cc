#include "engine/target.h"

#include <cerrno>

namespace mapperfs {

Result<std::string> Target::message(std::span<const std::string_view> argv) {
  static_cast<void>(argv);
  return Status(EINVAL, "Target type does not support messages");
}

Extent extent_below(const BlockDevice& dev, sector_t at, sector_t max) {
  return dev.extent(at, max);
}

}  // namespace mapperfs
