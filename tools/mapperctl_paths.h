// The paths among the words of a table, as the daemon has to be told them. A kernel looks a path up
// in the folder of the dmsetup that loads the table; the daemon has a folder of its own, and does
// not know the caller's.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/mapperctl_client.h"

namespace mapperctl {

// What a word of a table is judged by. All calls come from the thread that asks.
struct PathWorld {
  std::string folder;                                    // the caller's, absolute; empty: not known
  std::function<bool(const std::string&)> is_device;     // a device of the mount, by its name
  std::function<bool(const std::string&)> exists;        // by absolute path
  std::function<bool(const std::string&)> is_directory;  // by absolute path
};

// What `word` (unescaped) is to be replaced by; nothing: it stays. In this order:
// 1. /dev/mapper/NAME is NAME where the mount has such a device.
// 2. What begins with ./ or ../ is a path in `folder`.
// 3. What has a slash further on is one if the file, or the folder it would lie in, is there; but
//    not what has a colon before the slash (a URI, a key's description).
// 4. What has no slash is one if it has a dot and is no number, there is such a file, and the mount
//    has no device of that name. No keyword of any target has a dot, so that a file that happens to
//    be called like one ("disk", "sync") is never taken for it.
std::optional<std::string> replace_path(const std::string& word, const PathWorld& world);

// `params` with its paths replaced; everything else keeps its bytes, blanks and escapes.
std::string replace_paths(std::string_view params, const PathWorld& world);

// The same for the lines of a table, with this process's folder, and the mount's devices, which are
// asked for when a word turns on them.
void replace_paths(Client& client, std::vector<TableLine>& table);

}  // namespace mapperctl
