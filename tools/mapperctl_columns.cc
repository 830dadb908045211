// The columns of `info -c` and `splitname`, as cells of a report.
#include <fmt/format.h>
#include <fmt/ostream.h>

#include <cstdlib>
#include <thread>

#include "tools/mapperctl_choice.h"
#include "tools/mapperctl_report.h"
#include "tools/mapperctl_tree.h"
#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

constexpr std::string_view kInfoDefault = "name,major,minor,attr,open,segments,events,uuid";
constexpr std::string_view kInfoAll = "name_all,info_all,deps_all,splitname_all";
constexpr std::string_view kSplitDefault = "vg_name,lv_name,lv_layer";

Cell text_cell(std::string text) { return {std::move(text), std::nullopt}; }
Cell number_cell(int64_t number) { return {std::to_string(number), number}; }

std::string join(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, ","));
}

std::string_view tables_loaded(const Device& device) {
  if (device.live()) return device.inactive() ? "Both" : "Live";
  return device.inactive() ? "Inactive" : "None";
}

Cell split_cell(const LvmName& name, std::string_view subsystem, std::string_view id) {
  if (id == "subsystem") return text_cell(std::string(subsystem));
  if (subsystem != "LVM") return text_cell({});
  if (id == "vg_name") return text_cell(name.vg);
  return text_cell(id == "lv_name" ? name.lv : name.layer);
}

std::optional<Cell> name_cell(const Session& session, const Device& device, std::string_view id) {
  if (id == "name") return text_cell(session.shown(device.name));
  if (id == "mangled_name") return text_cell(device.name);
  if (id == "unmangled_name") return text_cell(unmangle(device.name));
  if (id == "uuid") return text_cell(session.shown(device.uuid));
  if (id == "mangled_uuid") return text_cell(device.uuid);
  if (id == "unmangled_uuid") return text_cell(unmangle(device.uuid));
  if (id == "read_ahead") {
    // None is 0, as dmsetup has it of a device that it cannot ask.
    return number_cell(std::strtoll(device.read_ahead.c_str(), nullptr, 10));
  }
  return std::nullopt;
}

std::optional<Cell> state_cell(const Device& device, std::string_view id) {
  if (id == "blkdevname") return text_cell(fmt::format("dm-{}", device.minor));
  if (id == "attr") return text_cell(device.attr);
  if (id == "tables_loaded") return text_cell(std::string(tables_loaded(device)));
  if (id == "suspended") return text_cell(device.suspended() ? "Suspended" : "Active");
  if (id == "readonly") return text_cell(device.read_only() ? "Read-only" : "Writeable");
  if (id == "devno") return text_cell(fmt::format("{}:{}", device.major, device.minor));
  if (id == "major") return number_cell(device.major);
  if (id == "minor") return number_cell(device.minor);
  if (id == "open") return number_cell(device.open_count);
  if (id == "segments") return number_cell(device.targets);
  if (id == "events") return number_cell(device.event_nr);
  return std::nullopt;
}

std::optional<Cell> deps_cell(const Session& session, const Device& device, std::string_view id) {
  std::vector<std::string> words;
  // Names come from the tree of devices, which is one of live tables, with --inactive too.
  const auto& asked = session.opt().inactive ? device.inactive_deps : device.deps;
  if (id == "device_count") return number_cell(static_cast<int64_t>(asked.size()));
  const bool names = id == "devs_used";
  const bool numbers = id == "devnos_used";
  const bool blocks = id == "blkdevs_used";
  if (!names && !numbers && !blocks) return std::nullopt;
  for (const Dep& dep : names ? device.deps : asked) {
    if (names && dep.mapped) words.push_back(session.shown(dep.name));
    if (numbers && !dep.is_file()) words.push_back(fmt::format("{}:{}", dep.major, dep.minor));
    if (blocks) words.push_back(dep.is_file() ? dep.name : block_name(dep));
  }
  return text_cell(join(words));
}

// One round of the report. False: a device named is missing; the rows before it are in.
bool fill(Session& session, const Args& args, Report& report, bool& any_device) {
  auto rows = DeviceRows::fetch(session, "info");
  if (!rows) return false;
  if (session.opt().inactive && !rows->count_inactive_targets(session)) return false;
  const auto add = [&](const Device& device) {
    any_device = true;
    report.add([&](const Field& field) { return rows->cell(session, device, field); });
  };
  if (args.empty() && !session.selects_by_number_or_uuid()) {
    for (const Device& device : rows->devices()) add(device);
    return true;
  }
  for (size_t i = 0; i == 0 || i < args.size(); ++i) {
    const auto selected = session.select(args.empty() ? nullptr : &args[i], "");
    if (!selected) return false;
    const Device* const device = rows->find(selected->name);
    if (device == nullptr) return session.fail("Device does not exist.");
    add(*device);
  }
  return true;
}

// Runs a report once, or --count times every --interval seconds (0: for ever).
template <class Round>
bool repeat(const Options& opt, std::ostream& out, const Round& round) {
  const bool endless = opt.count ? *opt.count == 0 : opt.interval_seconds.has_value();
  const int rounds = opt.count.value_or(1);
  for (int i = 0; endless || i < rounds; ++i) {
    if (i > 0) {
      out.flush();
      std::this_thread::sleep_for(std::chrono::seconds(opt.interval_seconds.value_or(1)));
      fmt::print(out, "\n");
    }
    if (!round()) return false;
  }
  return true;
}

}  // namespace

Cell device_cell(const Session& session, const Device& device, const Field& field) {
  if (auto cell = name_cell(session, device, field.id)) return std::move(*cell);
  if (auto cell = state_cell(device, field.id)) return std::move(*cell);
  if (auto cell = deps_cell(session, device, field.id)) return std::move(*cell);
  const std::string_view id = field.id;
  if (id == "subsystem" || id == "vg_name" || id == "lv_name" || id == "lv_layer") {
    return split_cell(split_lvm_name(unmangle(device.name)), uuid_prefix(device.uuid), id);
  }
  return {};
}

bool info_columns(Session& session, const Args& args) {
  std::optional<Report> report;
  switch (Report::create({kInfoDefault, kInfoAll}, session.opt(), session.err(), report)) {
    case Report::Outcome::kReady:
      break;
    case Report::Outcome::kHelpPrinted:
      return true;
    case Report::Outcome::kFailed:
      return session.fail_silently();
  }
  if (refuse_statistics(session, parse_selection(session.opt().select.value_or("")))) return false;
  return repeat(session.opt(), session.out(), [&] {
    bool any_device = false;
    const bool found = fill(session, args, *report, any_device);
    if (found && !any_device && !session.opt().json) return no_devices(session);
    report->print(session.out());
    return found;
  });
}

bool verb_splitname(Session& session, const Args& args) {
  std::optional<Report> report;
  switch (Report::create({kSplitDefault, "splitname_all"}, session.opt(), session.err(), report)) {
    case Report::Outcome::kReady:
      break;
    case Report::Outcome::kHelpPrinted:
      return true;
    case Report::Outcome::kFailed:
      return session.fail_silently();
  }
  if (report->uses_section("name_") || report->uses_section("info_") ||
      report->uses_section("deps_")) {
    return session.fail("splitname knows the parts of a name only: -o splitname_all");
  }
  const LvmName name = split_lvm_name(args[0]);
  const std::string subsystem = args.size() > 1 ? args[1] : "LVM";
  return repeat(session.opt(), session.out(), [&] {
    report->add([&](const Field& field) { return split_cell(name, subsystem, field.id); });
    report->print(session.out());
    return true;
  });
}

}  // namespace mapperctl
