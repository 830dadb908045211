// The texts are dmsetup's own interface, its spelling included; `tests/tools` compares them with
// the dmsetup that is installed.
#include "tools/mapperctl_fields.h"

#include <fmt/ostream.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace mapperctl {
namespace {

constexpr std::array kNameFields = {
    Field{"name", "Name", 16, FieldType::kString, "Name of mapped device."},
    Field{"mangled_name", "MangledName", 16, FieldType::kString, "Mangled name of mapped device."},
    Field{"unmangled_name", "UnmangledName", 16, FieldType::kString,
          "Unmangled name of mapped device."},
    Field{"uuid", "UUID", 32, FieldType::kString,
          "Unique (optional) identifier for mapped device."},
    Field{"mangled_uuid", "MangledUUID", 32, FieldType::kString,
          "Mangled unique (optional) identifier for mapped device."},
    Field{"unmangled_uuid", "UnmangledUUID", 32, FieldType::kString,
          "Unmangled unique (optional) identifier for mapped device."},
    Field{"read_ahead", "RAhead", 6, FieldType::kNumber, "Read ahead value."},
};

constexpr std::array kInfoFields = {
    Field{"blkdevname", "BlkDevName", 16, FieldType::kString, "Name of block device."},
    Field{"attr", "Stat", 4, FieldType::kString,
          "(L)ive, (I)nactive, (s)uspended, (r)ead-only, read-(w)rite."},
    Field{"tables_loaded", "Tables", 6, FieldType::kString,
          "Which of the live and inactive table slots are filled."},
    Field{"suspended", "Suspended", 9, FieldType::kString, "Whether the device is suspended."},
    Field{"readonly", "Read-only", 9, FieldType::kString,
          "Whether the device is read-only or writeable."},
    Field{"devno", "DevNo", 5, FieldType::kString, "Device major and minor numbers"},
    Field{"major", "Maj", 3, FieldType::kNumber, "Block device major number."},
    Field{"minor", "Min", 3, FieldType::kNumber, "Block device minor number."},
    Field{"open", "Open", 4, FieldType::kNumber,
          "Number of references to open device, if requested."},
    Field{"segments", "Targ", 4, FieldType::kNumber,
          "Number of segments in live table, if present."},
    Field{"events", "Event", 6, FieldType::kNumber, "Number of most recent event."},
};

constexpr std::array kDepsFields = {
    Field{"device_count", "#Devs", 5, FieldType::kNumber, "Number of devices used by this one."},
    Field{"devs_used", "DevNamesUsed", 16, FieldType::kString,
          "List of names of mapped devices used by this one."},
    Field{"devnos_used", "DevNosUsed", 16, FieldType::kString,
          "List of device numbers of devices used by this one."},
    Field{"blkdevs_used", "BlkDevNamesUsed", 16, FieldType::kString,
          "List of names of block devices used by this one."},
    Field{"device_ref_count", "#Refs", 5, FieldType::kNumber,
          "Number of mapped devices referencing this one."},
    Field{"names_using_dev", "RefNames", 8, FieldType::kString,
          "List of names of mapped devices using this one."},
    Field{"devnos_using_dev", "RefDevNos", 9, FieldType::kString,
          "List of device numbers of mapped devices using this one."},
};

constexpr std::array kSplitnameFields = {
    Field{"subsystem", "Subsys", 6, FieldType::kString,
          "Userspace subsystem responsible for this device."},
    Field{"vg_name", "VG", 4, FieldType::kString, "LVM Volume Group name."},
    Field{"lv_name", "LV", 4, FieldType::kString, "LVM Logical Volume name."},
    Field{"lv_layer", "LVLayer", 7, FieldType::kString, "LVM device layer."},
};

constexpr std::array kStatsFields = {
    Field{"read_count", "#Reads", 6, FieldType::kNumber, "Count of reads completed."},
    Field{"reads_merged_count", "#RdMrgs", 7, FieldType::kNumber, "Count of read requests merged."},
    Field{"read_sector_count", "#RdSectors", 10, FieldType::kNumber, "Count of sectors read."},
    Field{"read_time", "AccRdTime", 9, FieldType::kNumber,
          "Accumulated duration of all read requests (ns)."},
    Field{"write_count", "#Writes", 7, FieldType::kNumber, "Count of writes completed."},
    Field{"writes_merged_count", "#WrMrgs", 7, FieldType::kNumber,
          "Count of write requests merged."},
    Field{"write_sector_count", "#WrSectors", 10, FieldType::kNumber, "Count of sectors written."},
    Field{"write_time", "AccWrTime", 9, FieldType::kNumber,
          "Accumulated duration of all writes (ns)."},
    Field{"in_progress_count", "#InProg", 7, FieldType::kNumber,
          "Count of requests currently in progress."},
    Field{"io_ticks", "IoTicks", 7, FieldType::kNumber, "Nanoseconds spent servicing requests."},
    Field{"queue_ticks", "QueueTicks", 10, FieldType::kNumber, "Total nanoseconds spent in queue."},
    Field{"read_ticks", "RdTicks", 7, FieldType::kNumber, "Nanoseconds spent servicing reads."},
    Field{"write_ticks", "WrTicks", 7, FieldType::kNumber, "Nanoseconds spent servicing writes."},
    Field{"reads_merged_per_sec", "RMrg/s", 6, FieldType::kNumber,
          "Read requests merged per second."},
    Field{"writes_merged_per_sec", "WMrg/s", 6, FieldType::kNumber,
          "Write requests merged per second."},
    Field{"reads_per_sec", "R/s", 3, FieldType::kNumber, "Reads per second."},
    Field{"writes_per_sec", "W/s", 3, FieldType::kNumber, "Writes per second."},
    Field{"read_size_per_sec", "RSz/s", 5, FieldType::kNumber, "Size of data read per second."},
    Field{"write_size_per_sec", "WSz/s", 5, FieldType::kNumber, "Size of data written per second."},
    Field{"avg_request_size", "AvgRqSz", 7, FieldType::kNumber, "Average request size."},
    Field{"queue_size", "QSize", 5, FieldType::kNumber, "Average queue size."},
    Field{"await", "AWait", 5, FieldType::kNumber, "Averate wait time."},
    Field{"read_await", "RdAWait", 7, FieldType::kNumber, "Averate read wait time."},
    Field{"write_await", "WrAWait", 7, FieldType::kNumber, "Averate write wait time."},
    Field{"throughput", "Throughput", 10, FieldType::kNumber, "Throughput."},
    Field{"service_time", "SvcTm", 5, FieldType::kNumber, "Service time."},
    Field{"util", "Util%", 5, FieldType::kNumber, "Utilization."},
    Field{"hist_count", "Histogram Counts", 16, FieldType::kString, "Latency histogram counts."},
    Field{"hist_count_bounds", "Histogram Counts", 16, FieldType::kString,
          "Latency histogram counts with bin boundaries."},
    Field{"hist_count_ranges", "Histogram Counts", 16, FieldType::kString,
          "Latency histogram counts with bin ranges."},
    Field{"hist_percent", "Histogram%", 10, FieldType::kString, "Relative latency histogram."},
    Field{"hist_percent_bounds", "Histogram%", 10, FieldType::kString,
          "Relative latency histogram with bin boundaries."},
    Field{"hist_percent_ranges", "Histogram%", 10, FieldType::kString,
          "Relative latency histogram with bin ranges."},
    Field{"interval_ns", "IntervalNs", 10, FieldType::kNumber, "Sampling interval in nanoseconds."},
    Field{"interval", "Interval", 8, FieldType::kNumber, "Sampling interval."},
};

constexpr std::array kRegionFields = {
    Field{"region_id", "RgID", 4, FieldType::kNumber, "Region ID."},
    Field{"region_start", "RgStart", 7, FieldType::kSize, "Region start."},
    Field{"region_len", "RgSize", 7, FieldType::kSize, "Region length."},
    Field{"area_id", "ArID", 4, FieldType::kNumber, "Area ID."},
    Field{"area_start", "ArStart", 7, FieldType::kSize, "Area offset from start of device."},
    Field{"area_len", "ArSize", 6, FieldType::kSize, "Area length."},
    Field{"area_offset", "ArOff", 5, FieldType::kSize, "Area offset from start of region."},
    Field{"area_count", "#Areas", 6, FieldType::kNumber, "Area count."},
    Field{"group_id", "GrpID", 5, FieldType::kNumber, "Group ID."},
    Field{"program_id", "ProgID", 6, FieldType::kString, "Program ID."},
    Field{"user_data", "UserData", 8, FieldType::kString, "Auxiliary data."},
    Field{"precise", "Precise", 7, FieldType::kString,
          "Set if nanosecond precision counters are enabled."},
    Field{"hist_bins", "#Bins", 9, FieldType::kString, "The number of histogram bins configured."},
    Field{"hist_bounds", "Histogram Bounds", 16, FieldType::kString,
          "Latency histogram bin boundaries."},
    Field{"hist_ranges", "Histogram Ranges", 16, FieldType::kString,
          "Latency histogram bin ranges."},
    Field{"stats_name", "Name", 16, FieldType::kString, "Stats name of current object."},
    Field{"obj_type", "ObjType", 7, FieldType::kString, "Type of stats object being reported."},
};

constexpr std::array kSections = {
    FieldSection{"Mapped Device Name Fields", "name_", kNameFields},
    FieldSection{"Mapped Device Information Fields", "info_", kInfoFields},
    FieldSection{"Mapped Device Relationship Information Fields", "deps_", kDepsFields,
                 "device_count,devnos_used,blkdevs_used"},
    FieldSection{"Mapped Device Name Components Fields", "splitname_", kSplitnameFields},
    FieldSection{"Mapped Device Statistics Fields", "stats_", kStatsFields},
    FieldSection{"Mapped Device Statistics Region Information Fields", "region_", kRegionFields},
};

constexpr Field kSelected = {"selected", "Selected", 8, FieldType::kNumber,
                             "Set if item passes selection criteria."};

constexpr size_t kIdColumn = 21;  // the longest id

std::string normalize(std::string_view word) {
  std::string plain;
  for (const char c : word) {
    if (c != '_') plain.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  }
  return plain;
}

std::string_view type_name(FieldType type) {
  switch (type) {
    case FieldType::kNumber:
      return "number";
    case FieldType::kSize:
      return "size";
    case FieldType::kString:
      break;
  }
  return "string";
}

void print_title(std::ostream& out, std::string_view title) {
  fmt::print(out, "{}\n{:->{}}\n", title, "", title.size());
}

void print_entry(std::ostream& out, std::string_view id, std::string_view text,
                 std::string_view type = {}) {
  fmt::print(out, "  {:<{}} - {}", id, kIdColumn, text);
  if (!type.empty()) fmt::print(out, " [{}]", type);
  fmt::print(out, "\n");
}

// Field lists, with types for selections and with the section's own word for output.
void print_fields(std::ostream& out, bool selection) {
  for (const FieldSection& section : kSections) {
    print_title(out, section.title);
    if (!selection) {
      print_entry(out, fmt::format("{}all", section.prefix), "All fields in this section.");
    }
    for (const Field& field : section.fields) {
      print_entry(out, field.id, field.description,
                  selection ? type_name(field.type) : std::string_view());
    }
    fmt::print(out, " \n");
  }
  print_title(out, "Special Fields");
  const std::string_view unselectable = selection ? "unselectable number" : "";
  print_entry(out, kSelected.id, kSelected.description, selection ? "number" : "");
  print_entry(out, "help", "Show help.", unselectable);
  print_entry(out, "?", "Show help.", unselectable);
  fmt::print(out, " \n");
}

}  // namespace

std::span<const FieldSection> field_sections() { return kSections; }

const Field& selected_field() { return kSelected; }

const Field* find_field(std::string_view word) {
  const std::string wanted = normalize(word);
  if (wanted == kSelected.id) return &kSelected;
  for (const FieldSection& section : kSections) {
    for (const Field& field : section.fields) {
      if (normalize(field.id) == wanted) return &field;
    }
  }
  return nullptr;
}

const FieldSection* find_field_section(std::string_view word) {
  const std::string wanted = normalize(word);
  for (const FieldSection& section : kSections) {
    if (normalize(section.prefix) + "all" == wanted) return &section;
  }
  return nullptr;
}

void print_field_help(std::ostream& out) { print_fields(out, false); }

void print_selection_fields(std::ostream& out) { print_fields(out, true); }

void print_selection_operators(std::ostream& out) {
  print_title(out, "Selection operands");
  fmt::print(
      out,
      "  field               - Reporting field.\n"
      "  number              - Non-negative integer value.\n"
      "  size                - Floating point value with units, 'm' unit used by default if not "
      "specified.\n"
      "  percent             - Non-negative integer with or without % suffix.\n"
      "  string              - Characters quoted by ' or \" or unquoted.\n"
      "  string list         - Strings enclosed by [ ] or {{ }} and elements delimited by either\n"
      "                        \"all items must match\" or \"at least one item must match\" "
      "operator.\n"
      "  regular expression  - Characters quoted by ' or \" or unquoted.\n \n");
  print_title(out, "Selection operators");
  fmt::print(out,
             "  Comparison operators:\n"
             "        =~  - Matching regular expression. [regex]\n"
             "        !~  - Not matching regular expression. [regex]\n"
             "         =  - Equal to. [number, size, percent, string, string list, time]\n"
             "        !=  - Not equal to. [number, size, percent, string, string_list, time]\n"
             "        >=  - Greater than or equal to. [number, size, percent, time]\n"
             "         >  - Greater than. [number, size, percent, time]\n"
             "        <=  - Less than or equal to. [number, size, percent, time]\n"
             "         <  - Less than. [number, size, percent, time]\n"
             "     since  - Since specified time (same as '>='). [time]\n"
             "     after  - After specified time (same as '>'). [time]\n"
             "     until  - Until specified time (same as '<='). [time]\n"
             "    before  - Before specified time (same as '<'). [time]\n \n"
             "  Logical and grouping operators:\n"
             "      &&  - All fields must match\n"
             "       ,  - All fields must match\n"
             "      ||  - At least one field must match\n"
             "       #  - At least one field must match\n"
             "       !  - Logical negation\n"
             "       (  - Left parenthesis\n"
             "       )  - Right parenthesis\n"
             "       [  - List start\n"
             "       ]  - List end\n"
             "       {{  - List subset start\n"
             "       }}  - List subset end\n \n");
}

}  // namespace mapperctl
