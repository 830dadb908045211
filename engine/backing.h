// Backing devices: files and block devices through libaio, opened by path or MAJOR:MINOR and
// claimed.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"

namespace mapperfs {

struct BackingOptions {
  // Absolute path of the own mount, canonical; empty where there is none (tests).
  std::string mount_point;
};

// The real opener. Takes a path (a relative one starts at the process's working directory) of a
// regular file or block device, or MAJOR:MINOR of a block device.
//
// Every device is opened once for all tables that use it, and known by what it is, not by its name.
// It is claimed against other programs: block devices with O_EXCL, files with flock(2), exclusively
// as soon as one user writes, else shared among readers. A file system without flock leaves files
// unclaimed. A user that writes upgrades a device that was open for reading only. The last user
// closes it.
//
// A file's last bytes that are no whole sector are not reachable, as with the loop driver.
//
// Errors, each with a sentence that names the path: ENOENT no such file; ENOTDIR, ELOOP,
// ENAMETOOLONG of the path; ENOTBLK neither a regular file nor a block device, and paths into the
// own mount that are no mapped device's (never touched); ELOOP also where it stands on a loop
// device of the own mount (own_ground.h); ENXIO an unknown number or no mapped device of that name;
// EBUSY claimed by another program; EACCES, EROFS and others as open(2) says.
//
// Threads: any control thread. `env` outlives the opener; devices may outlive the opener.
std::unique_ptr<BackingOpener> make_backing_opener(Env& env, BackingOptions options);

}  // namespace mapperfs
