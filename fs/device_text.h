// The texts of the files below sys/ and of the replies of queries: docs/control.md sections 1.3,
// 1.4 and 2. Control threads; may block where a target does (a status that commits first).
#pragma once

#include <string>

#include "engine/engine.h"
#include "engine/mapped_device.h"
#include "fs/device_notes.h"

namespace mapperfs {

// "START LEN TYPE ARGS", a line a target, each headed by `prefix`. An empty table is an empty text.
std::string table_text(const MappedDevice& device, MappedDevice::Slot slot, bool show_keys,
                       const std::string& prefix = {});
std::string status_text(const MappedDevice& device, MappedDevice::Slot slot, bool noflush,
                        const std::string& prefix = {});
// As `dmsetup info NAME` prints, a blank line at the end; no read-ahead before the first table.
std::string info_text(const MappedDevice& device);
// A line each: "MAJ:MIN=NAME". A block device's path is looked up in sysfs.
std::string deps_text(const MappedDevice& device);
// The 17 fields of /sys/block/*/stat. Nothing is merged here, so the merge counts are zero.
std::string stats_text(const MappedDevice& device);
// Who reads and writes for the device's openers: one line.
std::string served_text(const MappedDevice& device, const DeviceNotes& notes);
// The line of the query `list`.
std::string list_line(const MappedDevice& device);
// "%-16s vA.B.C" a target type, the last registered first.
std::string targets_text(const TargetRegistry& registry);
// Every device in the form that a write to `control` takes, lower ones first, keys in the clear: a
// backup that restores.
std::string backup_text(const Engine& engine, const DeviceNotes& notes);

}  // namespace mapperfs
