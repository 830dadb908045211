#include "engine/target.h"

#include <fmt/format.h>

#include <cerrno>

namespace mapperfs {

Result<std::string> Target::message(std::span<const std::string_view> argv) {
  static_cast<void>(argv);
  return Status(EINVAL, "Target type does not support messages");
}

Result<int> Target::whole_file() {
  return Status(EOPNOTSUPP, fmt::format("{} does not map one whole file", ti_.type->name));
}

Extent extent_below(const BlockDevice& dev, sector_t at, sector_t max) {
  return dev.extent(at, max);
}

Result<int> whole_file_below(const BlockDevice& dev, sector_t at, sector_t len) {
  const sector_t size = dev.size_sectors();
  if (at != 0 || len != size) {
    return Status(EOPNOTSUPP, fmt::format("sectors {} to {} are not the whole of {}, which has {}",
                                          at, at + len, dev.display_name(), size));
  }
  return dev.whole_file();
}

}  // namespace mapperfs
