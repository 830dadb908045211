#include "fs/device_text.h"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/control_parser.h"

namespace mapperfs {
namespace {

// What the kernel gives every block device by default; mapperfs does no read-ahead of its own.
constexpr unsigned kReadAheadSectors = 256;
constexpr std::uint64_t kNsPerMs = 1000000;

std::string lines_text(const std::vector<MappedDevice::StatusLine>& lines,
                       const std::string& prefix) {
  std::string text;
  for (const MappedDevice::StatusLine& line : lines) {
    fmt::format_to(std::back_inserter(text), "{}{} {} {} {}\n", prefix, line.start, line.len,
                   line.type, line.words);
  }
  return text;
}

// Where udev, or devtmpfs, puts the node of a block device; its numbers, which are its name in
// tables, when the kernel does not tell.
std::string block_path(const std::string& numbers) {
  constexpr std::string_view kKey = "DEVNAME=";
  std::ifstream uevent(fmt::format("/sys/dev/block/{}/uevent", numbers));
  for (std::string line; std::getline(uevent, line);) {
    if (line.starts_with(kKey)) {
      return "/dev/" + line.substr(kKey.size());
    }
  }
  return numbers;
}

std::string dep_word(const MappedDevice::Dependency& dep) {
  const bool block_device = dep.name == dep.numbers;
  return fmt::format("{}={}", dep.numbers,
                     escape_name(block_device ? block_path(dep.numbers) : dep.name));
}

std::string deps_field(const MappedDevice& device, MappedDevice::Slot slot) {
  std::string text;
  for (const MappedDevice::Dependency& dep : device.dependencies(slot)) {
    text += text.empty() ? "" : " ";
    text += dep_word(dep);
  }
  return text;
}

// A device gets its queue, and with it its read-ahead, from its first table.
bool has_read_ahead(const MappedDevice::Info& info) { return info.live || info.inactive; }

std::string_view tables_present(const MappedDevice::Info& info) {
  if (info.live) {
    return info.inactive ? "LIVE & INACTIVE" : "LIVE";
  }
  return info.inactive ? "INACTIVE" : "None";
}

std::pair<std::string, std::string> split_numbers(const MappedDevice& device) {
  const std::string numbers = device.numbers();
  const std::size_t colon = numbers.find(':');
  return colon == std::string::npos
             ? std::pair<std::string, std::string>("0", "0")
             : std::pair(numbers.substr(0, colon), numbers.substr(colon + 1));
}

}  // namespace

std::string table_text(const MappedDevice& device, MappedDevice::Slot slot, bool show_keys,
                       const std::string& prefix) {
  return lines_text(device.table_lines(slot, show_keys), prefix);
}

std::string status_text(const MappedDevice& device, MappedDevice::Slot slot, bool noflush,
                        const std::string& prefix) {
  return lines_text(device.status_lines(slot, noflush), prefix);
}

std::string info_text(const MappedDevice& device) {
  const MappedDevice::Info info = device.info();
  const std::string uuid = device.uuid();
  const auto [major, minor] = split_numbers(device);
  std::string text = fmt::format(
      "Name:              {}\n"
      "State:             {}{}{}\n"
      "{}"
      "Tables present:    {}\n"
      "Open count:        {}\n"
      "Event number:      {}\n"
      "Major, minor:      {}, {}\n"
      "Number of targets: {}\n",
      device.name(), info.suspended ? "SUSPENDED" : "ACTIVE", info.read_only ? " (READ-ONLY)" : "",
      info.deferred_remove ? " (DEFERRED REMOVE)" : "",
      has_read_ahead(info) ? fmt::format("Read Ahead:        {}\n", kReadAheadSectors) : "",
      tables_present(info), info.open_count, info.event_nr, major, minor, info.targets);
  if (!uuid.empty()) {
    text += fmt::format("UUID: {}\n", uuid);
  }
  return text + "\n";
}

std::string deps_text(const MappedDevice& device) {
  std::string text;
  for (const MappedDevice::Dependency& dep : device.dependencies(MappedDevice::Slot::kLive)) {
    text += dep_word(dep) + "\n";
  }
  return text;
}

std::string stats_text(const MappedDevice& device) {
  const IoSums sums = device.io_sums();
  const auto group = [&](StatGroup g) { return static_cast<std::size_t>(g); };
  const auto ms = [&](StatGroup g) { return sums.time_ns[group(g)] / kNsPerMs; };
  std::uint64_t queue_ms = 0;
  for (const std::uint64_t ns : sums.time_ns) {
    queue_ms += ns / kNsPerMs;
  }
  const auto ios = [&](StatGroup g) { return sums.ios[group(g)]; };
  const auto sectors = [&](StatGroup g) { return sums.sectors[group(g)]; };
  using enum StatGroup;
  return fmt::format(
      "{:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8} {:8}\n",
      ios(kRead), 0, sectors(kRead), ms(kRead), ios(kWrite), 0, sectors(kWrite), ms(kWrite),
      sums.in_flight, sums.busy_ns / kNsPerMs, queue_ms, ios(kDiscard), 0, sectors(kDiscard),
      ms(kDiscard), ios(kFlush), ms(kFlush));
}

std::string served_text(const MappedDevice& device, const DeviceNotes& notes) {
  if (device.bypassed()) {
    return "passthrough\n";
  }
  if (!notes.wants_passthrough(device.serial())) {
    return "engine\n";
  }
  const std::string why = notes.get(device.serial()).not_passed;
  return why.empty() ? "engine; passthrough from the next open on\n"
                     : fmt::format("engine; no passthrough: {}\n", why);
}

std::string list_line(const MappedDevice& device) {
  const MappedDevice::Info info = device.info();
  const auto [major, minor] = split_numbers(device);
  const std::array<char, 4> attr = {info.live ? 'L' : '-', info.inactive ? 'I' : '-',
                                    info.suspended ? 's' : '-', info.read_only ? 'r' : 'w'};
  const std::string flags = fmt::format("{}{}", info.deferred_remove ? "D" : "",  //
                                        device.bypassed() ? "P" : "");
  return fmt::format("{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
                     escape_name(device.name()), escape_name(device.uuid()), major, minor,
                     std::string_view(attr.data(), attr.size()), info.open_count, info.event_nr,
                     info.targets, has_read_ahead(info) ? std::to_string(kReadAheadSectors) : "",
                     info.size, flags, deps_field(device, MappedDevice::Slot::kLive),
                     deps_field(device, MappedDevice::Slot::kInactive));
}

std::string targets_text(const TargetRegistry& registry) {
  std::string text;
  // Newest first, as the kernel lists them.
  const std::span<const TargetType* const> types = registry.types();
  for (auto at = types.rbegin(); at != types.rend(); ++at) {
    const TargetType* const type = *at;
    fmt::format_to(std::back_inserter(text), "{:<16} v{}.{}.{}\n", type->name, type->version.major,
                   type->version.minor, type->version.patch);
  }
  return text;
}

std::string backup_text(const Engine& engine, const DeviceNotes& notes) {
  std::string text = "begin\n";
  for (const auto& device : engine.list_bottom_up()) {
    const std::string name = escape_name(device->name());
    const std::string uuid = device->uuid();
    const MappedDevice::Info info = device->info();
    const DeviceNote note = notes.get(device->serial());
    const bool read_only = info.read_only || note.load_read_only;
    if (!info.live || !uuid.empty() || read_only || note.passthrough) {
      text += fmt::format("create{}{}{}{} {}\n", read_only ? " --readonly" : "",
                          note.passthrough.value_or(false) ? " --passthrough" : "",
                          uuid.empty() ? "" : " --uuid ", escape_name(uuid), name);
    }
    if (note.passthrough && !*note.passthrough) {
      text += fmt::format("passthrough {} off\n", name);
    }
    text += table_text(*device, MappedDevice::Slot::kLive, true, name + ": ");
  }
  return text + "commit\n";
}

}  // namespace mapperfs
