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

// The real opener. Every device is opened once for all tables that use it, exclusively against
// other programs: block devices with O_EXCL, files with flock(2) (shared among read-only users).
// `env` outlives it.
std::unique_ptr<BackingOpener> make_backing_opener(Env& env, BackingOptions options);

// Memory as a device: zero-filled, `sectors` long, pages given back on discard. For targets and
// tests.
class MemoryDevice;

}  // namespace mapperfs
