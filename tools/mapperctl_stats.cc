// `stats`: regions of I/O statistics, made, listed, printed and dropped by @stats messages. Regions
// are not grouped here, and files are not mapped to regions: both are bookkeeping of dmstats alone.
#include <fmt/ostream.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "tools/mapperctl_help.h"
#include "tools/mapperctl_regions.h"
#include "tools/mapperctl_report.h"
#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

constexpr std::string_view kProgramId = "dmstats";
constexpr std::string_view kListFields =
    "stats_name,group_id,region_id,obj_type,region_start,region_len,area_count,area_len,program_id";
constexpr std::string_view kVerboseListFields =
    "stats_name,group_id,region_id,obj_type,region_start,region_len,area_count,area_id,area_start,"
    "area_len,program_id";
constexpr std::string_view kHistogramListFields =
    "stats_name,group_id,region_id,obj_type,region_start,region_len,area_count,area_len,hist_bins,"
    "hist_bounds";

class Stats {
 public:
  explicit Stats(Session& session) : session_(session) {}

  bool create(const Args& names);
  bool list(const Args& names);
  bool print(const Args& names) { return for_regions(names, "print"); }
  bool clear(const Args& names) { return for_regions(names, "clear"); }
  bool remove(const Args& names) { return for_regions(names, "delete"); }

 private:
  struct Named {
    Selected selected;
    uint64_t size = 0;
    std::vector<TableLine> table;
  };

  // The devices named, or all of them with --alldevices or, for reading verbs, without any name.
  std::optional<std::vector<Named>> devices(const Args& names, bool all);
  std::optional<std::string> message(const Selected& device, const std::string& text);
  std::optional<std::vector<Region>> regions(const Selected& device);
  bool wanted(const Region& region) const;
  bool for_regions(const Args& names, const std::string& action);
  bool act(const Named& device, const std::string& action);
  bool act_on(const Named& device, const std::string& id, const std::string& action);
  bool no_region(const Named& device, const std::string& id, const std::string& action,
                 bool none_at_all);
  bool check_create_options();
  std::optional<std::string> step_text();
  bool create_region(const Named& device, uint64_t start, uint64_t length);
  void add_rows(Report& report, const Named& device, const Region& region);

  const Options& opt() const { return session_.opt(); }
  Session& session_;
};

std::optional<std::vector<Stats::Named>> Stats::devices(const Args& names, bool all) {
  Client* const client = session_.client();
  if (client == nullptr) return std::nullopt;
  std::vector<Named> found;
  if (names.empty() && !session_.selects_by_number_or_uuid()) {
    if (!all) return found;
    const auto list = client->list();
    for (const Device& device : list.value) {
      found.push_back({{device.name, {session_.shown(device.name), {}, {}, {}}}, device.size, {}});
    }
    return found;
  }
  for (size_t i = 0; i == 0 || i < names.size(); ++i) {
    const auto selected = session_.select(names.empty() ? nullptr : &names[i], "table");
    if (!selected) return std::nullopt;
    const auto device = client->device(selected->name);
    if (!device.ok()) {
      session_.ioctl_failed("table", selected->ident, device.reply);
      return std::nullopt;
    }
    found.push_back({*selected, device.value.size, {}});
  }
  return found;
}

std::optional<std::string> Stats::message(const Selected& device, const std::string& text) {
  const Reply reply =
      session_.client()->run(fmt::format("message {} 0 {}", escape_word(device.name), text));
  if (reply.ok()) return reply.text;
  session_.ioctl_failed("message", device.ident, reply);
  return std::nullopt;
}

bool Stats::wanted(const Region& region) const {
  return opt().all_programs || region.program == opt().program_id.value_or(std::string(kProgramId));
}

std::optional<std::vector<Region>> Stats::regions(const Selected& device) {
  const auto text = message(device, "@stats_list");
  if (!text) return std::nullopt;
  std::vector<Region> regions;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const auto region = parse_region(line);
    if (region && wanted(*region)) regions.push_back(*region);
  }
  return regions;
}

bool Stats::check_create_options() {
  if (opt().all_regions) return session_.fail("Cannot use --allregions with create.");
  if (opt().all_programs) return session_.fail("Cannot use --allprograms with create.");
  if (opt().areas && opt().area_size) {
    return session_.fail("Please specify one of --areas and --areasize.");
  }
  return step_text().has_value();
}

// The step of a region: /COUNT, a size in sectors, or one area. Nothing after an error.
std::optional<std::string> Stats::step_text() {
  if (opt().areas && *opt().areas != "0") return "/" + *opt().areas;
  if (!opt().area_size) return "/1";
  const auto size = parse_size(*opt().area_size);
  if (size && *size > 0) return std::to_string(*size);
  session_.fail(fmt::format("Invalid areasize argument: \"{}\"", *opt().area_size));
  return std::nullopt;
}

bool Stats::create_region(const Named& device, uint64_t start, uint64_t length) {
  const auto step = step_text();
  if (!step) return false;
  std::vector<std::string> options;
  if (opt().precise) options.emplace_back("precise_timestamps");
  if (opt().bounds) {
    const auto bounds = parse_bounds(*opt().bounds, opt().precise);
    if (!bounds) {
      return session_.fail(fmt::format("Invalid bounds argument: \"{}\"", *opt().bounds));
    }
    options.push_back("histogram:" + *bounds);
  }
  std::string text = fmt::format("@stats_create {}+{} {} {}", start, length, *step, options.size());
  for (const std::string& option : options) text += " " + option;
  text += fmt::format(" {} {}", opt().program_id.value_or(std::string(kProgramId)),
                      opt().user_data.value_or("-"));
  const auto reply = message(device.selected, text);
  if (!reply) return false;
  const uint64_t id = std::strtoull(reply->c_str(), nullptr, 10);
  uint64_t areas = 1;
  for (const Region& region : regions(device.selected).value_or(std::vector<Region>())) {
    if (region.id == id) areas = region.areas();
  }
  fmt::print(session_.out(), "{}: Created new region with {} area(s) as region ID {}\n",
             device.selected.ident.name, areas, id);
  return true;
}

bool Stats::create(const Args& names) {
  if (!check_create_options()) return false;
  if (names.empty() && !opt().all_devices && !session_.selects_by_number_or_uuid()) {
    return session_.fail("Please specify device(s) or use --alldevices.");
  }
  const auto start = parse_size(opt().start.value_or("0"));
  const auto length = parse_size(opt().length.value_or("0"));
  if (!start) return session_.fail(fmt::format("Invalid start argument: \"{}\"", *opt().start));
  if (!length) return session_.fail(fmt::format("Invalid length argument: \"{}\"", *opt().length));
  const auto found = devices(names, opt().all_devices);
  if (!found) return false;
  for (const Named& device : *found) {
    if (!opt().segments) {
      const uint64_t rest = device.size > *start ? device.size - *start : 0;
      if (!create_region(device, *start, *length == 0 ? rest : *length)) return false;
      continue;
    }
    const auto tables = session_.client()->tables({}, device.selected.name);
    if (tables.value.empty()) continue;
    for (const TableLine& line : tables.value.front().lines) {
      if (!create_region(device, line.start, line.length)) return false;
    }
  }
  return true;
}

void Stats::add_rows(Report& report, const Named& device, const Region& region) {
  const bool by_area = opt().verbose > 0;
  for (uint64_t area = 0; area < (by_area ? region.areas() : 1); ++area) {
    report.add([&](const Field& field) -> Cell {
      const auto number = [](uint64_t value) {
        return Cell{std::to_string(value), static_cast<int64_t>(value)};
      };
      const auto size = [](uint64_t sectors) {
        return Cell{size_text(sectors), static_cast<int64_t>(sectors)};
      };
      const std::string_view id = field.id;
      if (id == "stats_name" || id == "name") return {device.selected.ident.name, {}};
      if (id == "group_id") return {"-", -1};
      if (id == "region_id") return number(region.id);
      if (id == "obj_type") return {by_area ? "area" : "region", {}};
      if (id == "region_start") return size(region.start);
      if (id == "region_len") return size(region.length);
      if (id == "area_count") return number(region.areas());
      if (id == "area_id") return number(area);
      if (id == "area_start") return size(region.start + area * region.step);
      if (id == "area_offset") return size(area * region.step);
      if (id == "area_len") return size(region.step);
      if (id == "program_id") return {region.program, {}};
      if (id == "user_data") return {region.user_data, {}};
      if (id == "precise") return {region.precise ? "1" : "0", {}};
      if (id == "hist_bounds") return {bounds_text(region), {}};
      const auto bins = std::count(region.bounds.begin(), region.bounds.end(), ',') + 2;
      if (id == "hist_bins") return {std::to_string(region.bounds.empty() ? 0 : bins), {}};
      return {};
    });
  }
}

bool Stats::list(const Args& names) {
  const std::string_view fields = opt().histogram     ? kHistogramListFields
                                  : opt().verbose > 0 ? kVerboseListFields
                                                      : kListFields;
  std::optional<Report> report;
  const auto outcome = Report::create({fields, "region_all"}, opt(), session_.err(), report);
  if (outcome == Report::Outcome::kHelpPrinted) return true;
  if (outcome == Report::Outcome::kFailed) return session_.fail_silently();
  const auto found = devices(names, true);
  if (!found) return false;
  if (found->empty()) return no_devices(session_);
  for (const Named& device : *found) {
    const auto listed = regions(device.selected);
    if (!listed) return false;
    for (const Region& region : *listed) add_rows(*report, device, region);
  }
  report->print(session_.out());
  return true;
}

bool Stats::act_on(const Named& device, const std::string& id, const std::string& action) {
  const std::string verb = action == "print" && opt().clear ? "print_clear" : action;
  const auto text = message(device.selected, fmt::format("@stats_{} {}", verb, id));
  if (!text) return false;
  if (action == "print") fmt::print(session_.out(), "{}", *text);
  if (opt().verbose > 0 && action == "delete") {
    fmt::print(session_.out(), "Deleted statistics region {}.\n", id);
  }
  if (opt().verbose > 0 && action == "clear") {
    fmt::print(session_.out(), "Cleared statistics region {}.\n", id);
  }
  return true;
}

bool Stats::act(const Named& device, const std::string& action) {
  const auto listed = regions(device.selected);
  if (!listed) return false;
  bool hit = false;
  for (const Region& region : *listed) {
    const std::string id = std::to_string(region.id);
    if (!opt().all_regions && id != *opt().region_id) continue;
    hit = true;
    if (!act_on(device, id, action)) return false;
  }
  return hit || opt().all_regions || no_region(device, *opt().region_id, action, listed->empty());
}

// Each command finds out at another place that the region is not there, and says so in other words.
bool Stats::no_region(const Named& device, const std::string& id, const std::string& action,
                      bool none_at_all) {
  if (action == "delete") {
    session_.fail(none_at_all ? fmt::format("Could not delete region ID {}: no regions found", id)
                              : fmt::format("Region ID {} does not exist", id));
    return session_.fail("Could not delete statistics region");
  }
  if (action == "print") {
    return act_on(device, id, action) || session_.fail("Could not print statistics region.");
  }
  return none_at_all || session_.fail(fmt::format("No such region: {}.", id));
}

bool Stats::for_regions(const Args& names, const std::string& action) {
  if (!opt().region_id && !opt().all_regions) {
    return session_.fail(action == "delete"
                             ? "Please specify a --regionid or --groupid, or use --allregions."
                             : "Please specify a --regionid or use --allregions.");
  }
  const auto found = devices(names, true);
  if (!found) return false;
  for (const Named& device : *found) {
    if (!act(device, action)) return false;
  }
  return true;
}

}  // namespace

bool verb_stats(Session& session, const Args& args) {
  const Options& opt = session.opt();
  const std::string& verb = args[0];
  const Args names(args.begin() + 1, args.end());
  if (find_stats_usage(verb) == nullptr) {
    fmt::print(session.err(), "Unknown stats command.\n");
    print_stats_usage(session.err(), opt.program);
    return false;
  }
  if (opt.all_programs && opt.program_id) {
    return session.fail("Please supply one of --allprograms and --programid");
  }
  if (opt.all_regions && opt.region_id && verb != "create") {
    return session.fail("Please supply one of --allregions and --regionid");
  }
  Stats stats(session);
  if (verb == "create") return stats.create(names);
  if (verb == "list") return stats.list(names);
  if (verb == "print") return stats.print(names);
  if (verb == "clear") return stats.clear(names);
  if (verb == "delete") return stats.remove(names);
  if (verb == "version") return verb_version(session, {});
  print_stats_usage(session.err(), opt.program);
  return true;
}

}  // namespace mapperctl
