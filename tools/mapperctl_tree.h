// `ls --tree`: who is built on whom, drawn with lines. Takes devices, gives text.
#pragma once

#include <string>
#include <vector>

#include "tools/mapperctl_client.h"
#include "tools/mapperctl_options.h"

namespace mapperctl {

enum class TreeSymbols { kAscii, kUtf, kVt100 };

// The trees of all devices, a line each. `width` limits the lines (0: no limit). Names are printed
// as they are in `devices`.
std::string draw_trees(const std::vector<Device>& devices, const TreeOptions& options,
                       TreeSymbols symbols, size_t width);

// The name that a block device has below /dev: "dm-3" for a mapped device, else from /sys, else the
// last part of its path.
std::string block_name(const Dep& dep);

}  // namespace mapperctl
