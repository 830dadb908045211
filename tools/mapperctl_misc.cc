// What is asked of the mount as a whole, and the verbs that have nothing to do here.
#include <fmt/ostream.h>

#include <cerrno>
#include <cstring>
#include <sstream>

#include "tools/mapperctl_json.h"
#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

// The dmsetup and the interface whose behaviour this is; scripts compare these numbers.
constexpr std::string_view kLibraryVersion = "1.02.205 (2025-02-27)";
constexpr std::string_view kDriverVersion = "4.50.0";

struct TargetVersion {
  std::string name;
  std::string version;  // "v1.2.3"
};

std::optional<std::vector<TargetVersion>> read_targets(Session& session, const DeviceIdent& ident,
                                                       std::string_view verb) {
  Client* const client = session.client();
  if (client == nullptr) return std::nullopt;
  const auto lines = client->lines_of("targets");
  if (!lines.ok()) {
    session.ioctl_failed(verb, ident, lines.reply);
    return std::nullopt;
  }
  std::vector<TargetVersion> targets;
  for (const std::string& line : lines.value) {
    std::istringstream words(line);
    TargetVersion target;
    if (words >> target.name >> target.version) targets.push_back(std::move(target));
  }
  return targets;
}

void print_target(Session& session, const TargetVersion& target) {
  fmt::print(session.out(), "{:<16} {}\n", target.name, target.version);
}

// "KEY: VALUE" lines; KEY in lower case.
void write_version_json(Session& session, const std::vector<std::string>& lines) {
  JsonWriter json(session.out());
  json.begin_object();
  json.field("library_version", kLibraryVersion);
  json.field("driver_version", kDriverVersion);
  json.key("mapperfs"), json.begin_object();
  for (const std::string& line : lines) {
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) json.field(line.substr(0, colon), line.substr(colon + 2));
  }
  json.end_object();
  json.end_object();
  json.finish();
}

// What a stored name should be: mangled, or plain where the user wants no mangling.
std::string wanted_form(const Session& session, const std::string& stored) {
  const std::string plain = unmangle(stored);
  if (session.opt().mangling == Mangling::kNone) return plain;
  return mangle(plain, "name", kMaxNameBytes * 4, Mangling::kHex).text;
}

bool mangle_device(Session& session, const Device& device) {
  if (is_mangled_twice(device.name)) {
    return session.fail(
        fmt::format("The name \"{}\" seems to be mangled more than once. Manual intervention "
                    "required to rename the device.",
                    device.name));
  }
  if (is_mangled_twice(device.uuid)) {
    return session.fail(
        fmt::format("The UUID \"{}\" seems to be mangled more than once. Manual intervention "
                    "required to correct the device UUID.",
                    device.uuid));
  }
  if (wanted_form(session, device.uuid) != device.uuid) {
    fmt::print(session.out(), "{}: {}: UUID in incorrect form. \n", device.name, device.uuid);
    return session.fail("Unable to change device UUID. The device must be deactivated first.");
  }
  // A malformed \xN is left as it is, since it cannot have come from mangling.
  const bool odd =
      device.name.find("\\x") != std::string::npos && unmangle(device.name) == device.name;
  const std::string wanted = odd ? device.name : wanted_form(session, device.name);
  if (wanted == device.name) {
    fmt::print(session.out(), "{}: {}: name {}already in correct form\n", device.name,
               device.uuid.empty() ? "[no UUID]" : device.uuid,
               device.uuid.empty() ? "" : "and UUID ");
    return true;
  }
  fmt::print(session.out(), "{}: renaming to {}\n", device.name, wanted);
  const Reply reply = session.client()->run(
      fmt::format("rename {} {}", escape_word(device.name), escape_word(wanted)));
  return reply.ok() || session.ioctl_failed("rename", {device.name, {}, {}, {}}, reply);
}

void print_served(Session& session, const std::vector<std::string>& devices,
                  const std::vector<std::string>& texts) {
  if (!session.opt().json) {
    for (size_t i = 0; i < devices.size(); ++i) {
      fmt::print(session.out(), "{}: {}\n", session.shown(devices[i]), texts[i]);
    }
    return;
  }
  JsonWriter json(session.out());
  json.begin_array();
  for (size_t i = 0; i < devices.size(); ++i) {
    json.begin_object();
    json.field("name", session.shown(devices[i])), json.field("served", texts[i]);
    json.end_object();
  }
  json.end_array();
  json.finish();
}

}  // namespace

bool verb_version(Session& session, const Args&) {
  if (!session.opt().json) {
    fmt::print(session.out(), "Library version:   {}\n", kLibraryVersion);
    session.out().flush();
  }
  Client* const client = session.client();
  if (client == nullptr) return false;
  const auto lines = client->lines_of("version");
  if (!lines.ok()) return session.ioctl_failed("version", {}, lines.reply);
  if (session.opt().json) return write_version_json(session, lines.value), true;
  fmt::print(session.out(), "Driver version:    {}\n", kDriverVersion);
  if (session.quiet()) return true;
  for (const std::string& line : lines.value) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string key = line.substr(0, colon);
    fmt::print(session.out(), "{:<19}{}\n", (key == "version" ? "mapperfs" : key) + ":",
               line.substr(colon + 2));
  }
  return true;
}

bool verb_targets(Session& session, const Args&) {
  const auto targets = read_targets(session, {}, "list_versions");
  if (!targets) return false;
  if (!session.opt().json) {
    for (const TargetVersion& target : *targets) print_target(session, target);
    return true;
  }
  JsonWriter json(session.out());
  json.begin_array();
  for (const TargetVersion& target : *targets) {
    json.begin_object();
    json.field("name", target.name);
    json.field("version", target.version.substr(target.version.find('v') + 1));
    json.end_object();
  }
  json.end_array();
  json.finish();
  return true;
}

bool verb_target_version(Session& session, const Args& args) {
  const DeviceIdent ident{args[0], {}, {}, {}};
  const auto targets = read_targets(session, ident, "target-version");
  if (!targets) return false;
  for (const TargetVersion& target : *targets) {
    if (target.name == args[0]) return print_target(session, target), true;
  }
  return session.ioctl_failed("target-version", ident,
                              {EINVAL, fmt::format("there is no target {}", args[0])});
}

bool verb_mknodes(Session&, const Args&) { return true; }

bool verb_mangle(Session& session, const Args& args) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  if (!args.empty() || session.selects_by_number_or_uuid()) {
    const auto selected = session.select(args.empty() ? nullptr : &args[0], "info");
    if (!selected) return false;
    const auto device = client->device(selected->name);
    return device.ok() && mangle_device(session, device.value);
  }
  const auto devices = client->list();
  if (!devices.ok()) return session.ioctl_failed("names", {}, devices.reply);
  if (devices.value.empty()) return no_devices(session);
  bool all_good = true;  // one that cannot be mended keeps none of the others from it
  for (const Device& device : devices.value) all_good = mangle_device(session, device) && all_good;
  return all_good;
}

bool verb_passthrough(Session& session, const PassthroughOptions& options) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  const auto name = session.device_name(options.name);
  if (!name) return false;
  const Reply reply =
      client->run(fmt::format("passthrough {} {}", escape_word(*name), options.word));
  return reply.ok() || session.refused(reply);
}

bool verb_served(Session& session, const std::vector<std::string>& names) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  std::vector<std::string> devices;
  for (const std::string& raw : names) {
    const auto name = session.device_name(raw);
    if (!name) return false;
    devices.push_back(*name);
  }
  if (names.empty()) {
    const auto all = client->list();
    if (!all.ok()) return session.refused(all.reply);
    for (const Device& device : all.value) devices.push_back(device.name);
  }
  std::vector<std::string> texts;
  for (const std::string& device : devices) {
    const std::string file = fmt::format("sys/{}/served", device);
    const Reply reply = client->transport().read_file(file);
    if (reply.err == ENOENT) return session.fail("Device does not exist.");
    if (!reply.ok()) {
      return session.fail(
          fmt::format("{}: {}", client->transport().path_of(file), std::strerror(reply.err)));
    }
    texts.push_back(reply.text.substr(0, reply.text.find('\n')));
  }
  print_served(session, devices, texts);
  return true;
}

bool verb_log(Session& session) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  const Reply reply = client->transport().read_file("sys/log");
  if (!reply.ok()) {
    return session.fail(
        fmt::format("{}: {}", client->transport().path_of("sys/log"), std::strerror(reply.err)));
  }
  fmt::print(session.out(), "{}", reply.text);
  return true;
}

}  // namespace mapperctl
