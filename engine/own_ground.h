// Finds out whether a device stands on the own mount.
//
// A loop device can be made of a device of this very mount, and what is above such a loop device
// (its partitions, a dm or md device of the kernel's, a file of a file system on it) can be named
// in a table of the same mount. Its I/O would then wait, inside the kernel, for the threads that
// sent it: once the loop device's queue is full nothing goes on, and no signal ends it. Such a
// device is refused before it is opened.
//
// Seen: partitions, `slaves` of dm and md, loop devices, and the disk below a file, as deep as they
// stand on each other. Not seen: what lies behind another program, as a second mount of this kind
// or a network device, and file systems whose files have no disk's number (btrfs, overlay).
#pragma once

#include <sys/stat.h>

#include <string>

#include "engine/path_resolver.h"
#include "engine/status.h"

namespace mapperfs {

// ELOOP with a sentence where the block device or file `st`, called `word` by who asks, stands on
// a device of the own mount. Reads sysfs, which `sysfs` is in tests; never touches the own mount or
// the device. What cannot be found out is no reason to refuse. Any control thread.
Status refuse_own_ground(const std::string& word, const struct stat& st,
                         const PathResolver& resolver, const std::string& sysfs = "/sys/dev/block");

}  // namespace mapperfs
