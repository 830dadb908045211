// info in lines, ls, deps: what is known about devices, without their tables.
#include <fmt/ostream.h>
#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "tools/mapperctl_choice.h"
#include "tools/mapperctl_json.h"
#include "tools/mapperctl_report.h"
#include "tools/mapperctl_tree.h"
#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

std::string_view tables_present(const Device& device) {
  if (device.live()) return device.inactive() ? "LIVE & INACTIVE" : "LIVE";
  return device.inactive() ? "INACTIVE" : "None";
}

size_t inactive_targets(Client& client, const std::string& name) {
  const auto tables = client.tables({false, true, false, false}, name);
  return tables.value.empty() ? 0 : tables.value.front().lines.size();
}

void write_dep(JsonWriter& json, const Dep& dep) {
  json.begin_object();
  if (!dep.is_file()) {
    json.field("major", dep.major);
    json.field("minor", dep.minor);
  }
  json.field(dep.mapped ? "device" : "path", dep.name);
  json.end_object();
}

void write_device(JsonWriter& json, Session& session, const Device& device) {
  json.begin_object();
  json.field("name", session.shown(device.name));
  json.field("uuid", session.shown(device.uuid));
  json.field("major", device.major);
  json.field("minor", device.minor);
  json.field("state", device.suspended() ? "SUSPENDED" : "ACTIVE");
  json.key("read_only"), json.boolean(device.read_only());
  json.key("deferred_remove"), json.boolean(device.deferred_remove());
  json.key("live_table"), json.boolean(device.live());
  json.key("inactive_table"), json.boolean(device.inactive());
  json.field("open_count", device.open_count);
  json.field("event_number", int64_t{device.event_nr});
  json.field("targets", int64_t{device.targets});
  json.key("size_sectors"), json.unsigned_number(device.size);
  json.key("deps"), json.begin_array();
  for (const Dep& dep : device.deps) write_dep(json, dep);
  json.end_array();
  json.end_object();
}

// Every device, or those named until one is missing. With an empty verb a missing one is told as
// info tells it.
bool fetch(Session& session, const Args& args, std::string_view verb,
           std::vector<Device>& devices) {
  for (size_t i = 0; i == 0 || i < args.size(); ++i) {
    const auto selected = session.select(args.empty() ? nullptr : &args[i], verb);
    if (!selected) return false;
    auto device = session.client()->device(selected->name);
    if (!device.ok() && verb.empty()) return session.fail("Device does not exist.");
    if (!device.ok()) return session.ioctl_failed(verb, selected->ident, device.reply);
    devices.push_back(std::move(device.value));
  }
  return true;
}

// -S does not choose among the devices of the long form; dmsetup shows them all.
bool fetch_all(Session& session, std::vector<Device>& devices) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  auto all = client->list();
  if (!all.ok()) return session.ioctl_failed("names", {}, all.reply);
  devices = std::move(all.value);
  return true;
}

void info_json(Session& session, const std::vector<Device>& devices) {
  JsonWriter json(session.out());
  json.begin_array();
  for (const Device& device : devices) write_device(json, session, device);
  json.end_array();
  json.finish();
}

// How `deps -o` and `ls -o` call a device.
std::string dep_text(const Session& session, const Dep& dep) {
  const DeviceNaming naming = session.opt().device_naming;
  if (naming == DeviceNaming::kDevname && dep.mapped) return session.shown(dep.name);
  if (naming != DeviceNaming::kDevno) return block_name(dep);
  return dep.is_file() ? dep.name : fmt::format("{}, {}", dep.major, dep.minor);
}

void print_deps(Session& session, const Device& device, bool with_name) {
  const bool verbose = session.opt().verbose > 0;
  if (verbose) print_info(session, device);
  if (with_name && !verbose) fmt::print(session.out(), "{}: ", session.shown(device.name));
  const auto& deps = session.opt().inactive ? device.inactive_deps : device.deps;
  fmt::print(session.out(), "{} dependencies\t:", deps.size());
  for (const Dep& dep : deps) fmt::print(session.out(), " ({})", dep_text(session, dep));
  fmt::print(session.out(), "\n");
  if (with_name && verbose) fmt::print(session.out(), "\n");
}

void deps_json(Session& session, const std::vector<Device>& devices) {
  JsonWriter json(session.out());
  json.begin_array();
  for (const Device& device : devices) {
    json.begin_object();
    json.field("name", session.shown(device.name));
    json.key("deps"), json.begin_array();
    for (const Dep& dep : session.opt().inactive ? device.inactive_deps : device.deps) {
      write_dep(json, dep);
    }
    json.end_array();
    json.end_object();
  }
  json.end_array();
  json.finish();
}

TreeSymbols choose_symbols(const TreeOptions& options) {
  using Chosen = TreeOptions::Symbols;
  switch (options.symbols) {
    case Chosen::kAscii:
      return TreeSymbols::kAscii;
    case Chosen::kUtf:
      return TreeSymbols::kUtf;
    case Chosen::kVt100:
      return TreeSymbols::kVt100;
    case Chosen::kByLocale:
      break;
  }
  const bool utf = std::strcmp(::nl_langinfo(CODESET), "UTF-8") == 0;
  return utf ? TreeSymbols::kUtf : TreeSymbols::kAscii;
}

// Only a terminal cuts lines.
size_t terminal_width() {
  winsize size{};
  if (::isatty(STDOUT_FILENO) == 0) return 0;
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void ls_json(Session& session, const std::vector<Device>& devices) {
  JsonWriter json(session.out());
  json.begin_array();
  for (const Device& device : devices) {
    json.begin_object();
    json.field("name", session.shown(device.name));
    json.field("major", device.major);
    json.field("minor", device.minor);
    json.end_object();
  }
  json.end_array();
  json.finish();
}

}  // namespace

void print_info(Session& session, const Device& device) {
  std::ostream& out = session.out();
  fmt::print(out, "Name:              {}\n", session.shown(device.name));
  fmt::print(out, "State:             {}{}{}\n", device.suspended() ? "SUSPENDED" : "ACTIVE",
             device.read_only() ? " (READ-ONLY)" : "",
             device.deferred_remove() ? " (DEFERRED REMOVE)" : "");
  if (!device.read_ahead.empty()) fmt::print(out, "Read Ahead:        {}\n", device.read_ahead);
  fmt::print(out, "Tables present:    {}\n", tables_present(device));
  fmt::print(out, "Open count:        {}\n", device.open_count);
  fmt::print(out, "Event number:      {}\n", device.event_nr);
  fmt::print(out, "Major, minor:      {}, {}\n", device.major, device.minor);
  const size_t targets =
      session.opt().inactive ? inactive_targets(*session.client(), device.name) : device.targets;
  fmt::print(out, "Number of targets: {}\n", targets);
  if (!device.uuid.empty()) fmt::print(out, "UUID: {}\n", session.shown(device.uuid));
  fmt::print(out, "\n");
}

bool print_info_of(Session& session, const std::string& name) {
  Client* const client = session.client();
  if (client == nullptr) return true;
  const auto device = client->device(name);
  if (device.ok()) print_info(session, device.value);
  return true;
}

bool verb_info(Session& session, const Args& args) {
  if (session.opt().columns) return info_columns(session, args);
  const bool everything = args.empty() && !session.selects_by_number_or_uuid();
  std::vector<Device> devices;
  const bool found = everything ? fetch_all(session, devices) : fetch(session, args, "", devices);
  if (session.opt().json) return info_json(session, devices), found;
  if (found && devices.empty()) return no_devices(session);
  for (const Device& device : devices) print_info(session, device);
  return found;
}

bool verb_deps(Session& session, const Args& args) {
  const bool everything = args.empty() && !session.selects_by_number_or_uuid();
  std::vector<Device> devices;
  bool found = true;
  if (everything || session.opt().select) {
    auto choice = Choice::create(session, "deps", Choice::Act::kReads);
    if (!choice) return false;
    found = choice->for_each(args, [&](const Device& device) {
      devices.push_back(device);
      return true;
    });
  } else {
    found = fetch(session, args, "deps", devices);
  }
  if (session.opt().json) return deps_json(session, devices), found;
  const bool with_name = everything || args.size() > 1 || session.opt().select;
  for (const Device& device : devices) print_deps(session, device, with_name);
  return found;
}

bool verb_tree(Session& session, const Args&) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  auto devices = client->list();
  if (!devices.ok()) return session.ioctl_failed("names", {}, devices.reply);
  if (session.opt().json) return deps_json(session, devices.value), true;
  if (devices.value.empty()) return no_devices(session);
  for (Device& device : devices.value) {
    device.name = session.shown(device.name);
    device.uuid = session.shown(device.uuid);
    for (Dep& dep : device.deps) {
      if (dep.mapped) dep.name = session.shown(dep.name);
    }
  }
  const TreeOptions& options = session.opt().tree_options;
  fmt::print(session.out(), "{}",
             draw_trees(devices.value, options, choose_symbols(options), terminal_width()));
  return true;
}

bool verb_ls(Session& session, const Args& args) {
  if (session.opt().target || session.opt().exec) return list_by_target(session);
  if (session.opt().tree) return verb_tree(session, args);
  Client* const client = session.client();
  if (client == nullptr) return false;
  const auto devices = client->list();
  if (!devices.ok()) return session.ioctl_failed("names", {}, devices.reply);
  if (session.opt().json) return ls_json(session, devices.value), true;
  if (devices.value.empty()) return no_devices(session);
  for (const Device& device : devices.value) {
    const std::string name = session.shown(device.name);
    const Dep self{device.major, device.minor, true, device.name};
    if (session.opt().device_naming == DeviceNaming::kDevno) {
      fmt::print(session.out(), "{}\t({}:{})\n", name, device.major, device.minor);
    } else {
      fmt::print(session.out(), "{}\t({})\n", name, dep_text(session, self));
    }
  }
  return true;
}

}  // namespace mapperctl
