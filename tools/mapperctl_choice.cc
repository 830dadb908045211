#include "tools/mapperctl_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "tools/mapperctl_report.h"

namespace mapperctl {
namespace {

// The targets in the inactive tables of all devices, or of the one named.
bool recount(Session& session, std::vector<Device>& devices, const std::string& name = {}) {
  const auto tables = session.client()->tables({false, true, false, false}, name);
  if (!tables.ok()) return session.ioctl_failed("info", {}, tables.reply);
  std::map<std::string_view, size_t> counts;
  for (const DeviceTable& table : tables.value) counts[table.name] = table.lines.size();
  for (Device& device : devices) device.targets = static_cast<uint32_t>(counts[device.name]);
  return true;
}

bool is_statistics(const Field* field) {
  for (const std::string_view section : {"stats_all", "region_all"}) {
    const auto fields = find_field_section(section)->fields;
    if (field >= fields.data() && field < fields.data() + fields.size()) return true;
  }
  return false;
}

}  // namespace

std::optional<DeviceRows> DeviceRows::fetch(Session& session, std::string_view verb) {
  Client* const client = session.client();
  if (client == nullptr) return std::nullopt;
  auto devices = client->list();
  if (!devices.ok()) {
    session.ioctl_failed(verb, {}, devices.reply);
    return std::nullopt;
  }
  DeviceRows rows;
  rows.devices_ = std::move(devices.value);
  for (size_t i = 0; i < rows.devices_.size(); ++i) {
    for (const Dep& dep : rows.devices_[i].deps) {
      if (dep.mapped) rows.users_[dep.name].push_back(i);
    }
  }
  return rows;
}

const Device* DeviceRows::find(std::string_view name) const {
  const auto found = std::find_if(devices_.begin(), devices_.end(),
                                  [&](const Device& device) { return device.name == name; });
  return found == devices_.end() ? nullptr : &*found;
}

bool DeviceRows::count_inactive_targets(Session& session) { return recount(session, devices_); }

std::optional<Cell> DeviceRows::users_cell(const Session& session, const Device& device,
                                           std::string_view id) const {
  const bool count = id == "device_ref_count";
  const bool names = id == "names_using_dev";
  if (!count && !names && id != "devnos_using_dev") return std::nullopt;
  static const std::vector<size_t> kNobody;
  const auto found = users_.find(device.name);
  const auto& users = found == users_.end() ? kNobody : found->second;
  if (count) return Cell{std::to_string(users.size()), static_cast<int64_t>(users.size())};
  std::vector<std::string> words;
  for (const size_t place : users) {
    const Device& user = devices_[place];
    words.push_back(names ? session.shown(user.name)
                          : fmt::format("{}:{}", user.major, user.minor));
  }
  return Cell{fmt::format("{}", fmt::join(words, ",")), std::nullopt};
}

Cell DeviceRows::cell(const Session& session, const Device& device, const Field& field) const {
  if (auto cell = users_cell(session, device, field.id)) return std::move(*cell);
  return device_cell(session, device, field);
}

bool refuse_statistics(Session& session, const ParsedSelection& selection) {
  const auto found = std::find_if(selection.fields.begin(), selection.fields.end(), is_statistics);
  if (found == selection.fields.end()) return false;
  session.fail(
      fmt::format("Selection field {} is one of statistics, which only the reports of stats have.",
                  (*found)->id));
  return true;
}

std::optional<Choice> Choice::create(Session& session, std::string_view verb, Act act) {
  ParsedSelection parsed = parse_selection(session.opt().select.value_or(""));
  if (!parsed.selection) {
    complain_selection(parsed, session.err());
    session.fail_silently();
    return std::nullopt;
  }
  if (refuse_statistics(session, parsed)) return std::nullopt;
  auto rows = DeviceRows::fetch(session, verb);
  if (!rows) return std::nullopt;
  Choice choice(session, act, std::move(*rows));
  choice.parsed_ = std::move(parsed);
  const bool counts = act == Act::kReads && choice.counts_inactive();
  if (counts && !choice.rows_.count_inactive_targets(session)) return std::nullopt;
  return choice;
}

bool Choice::counts_inactive() const {
  return session_->opt().inactive && parsed_.uses("segments");
}

std::optional<Device> Choice::look(const std::string& name, const Device* known) {
  if (act_ == Act::kReads && known != nullptr) return *known;
  Answer<Device> device{{ENXIO, {}}, {}};
  if (act_ == Act::kChanges) device = session_->client()->device(name);
  if (device.reply.err == ENXIO) session_->fail("Device does not exist.");
  if (!device.ok() && device.reply.err != ENXIO) {
    session_->ioctl_failed("info", {session_->shown(name), {}, {}, {}}, device.reply);
  }
  if (!device.ok()) return std::nullopt;
  std::vector<Device> looked{std::move(device.value)};
  if (counts_inactive() && !recount(*session_, looked, name)) return std::nullopt;
  return std::move(looked.front());
}

bool Choice::passes(const Device& device) const {
  return parsed_.selection->matches([&](const Field& field) {
    return &field == &selected_field() ? Cell{"1", 1} : rows_.cell(*session_, device, field);
  });
}

bool Choice::for_each(const Args& args, const std::function<bool(const Device&)>& act) {
  // `known` is the row of the device, null where there is none.
  const auto turn = [&](const std::string& name, const Device* known) {
    const auto device = look(name, known);
    return device && (!passes(*device) || act(*device));
  };
  bool well = true;
  if (args.empty() && !session_->selects_by_number_or_uuid()) {
    if (rows_.devices().empty()) return no_devices(*session_);
    for (const Device& device : rows_.devices()) well = turn(device.name, &device) && well;
    return well;
  }
  for (size_t i = 0; well && (i == 0 || i < args.size()); ++i) {
    const auto selected = session_->select(args.empty() ? nullptr : &args[i], "");
    well = selected && turn(selected->name, rows_.find(selected->name));
  }
  return well;
}

}  // namespace mapperctl
