// Finds the node of a block device by its numbers.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "engine/path_resolver.h"
#include "engine/status.h"

namespace mapperfs {

// "8:16" as a device number; nothing where the word has another form. Decimal, without signs; the
// kernel's limits (12 bits of major, 20 of minor) are kept.
std::optional<dev_t> parse_device_numbers(const std::string& word);

// A path in /dev (or below) of the block device with these numbers, by the name that sysfs gives or
// by a search; ENXIO where there is none. Does not enter the own mount.
Result<std::string> find_block_device(dev_t rdev, const PathResolver& resolver);

}  // namespace mapperfs
