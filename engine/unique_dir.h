// A directory that is being read, closed when its reader goes.
#pragma once

#include <dirent.h>

#include <memory>

namespace mapperfs {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using UniqueDir = std::unique_ptr<DIR, CloseDir>;

}  // namespace mapperfs
