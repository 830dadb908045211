// create, create --concise, load: everything that reads a table.
#include <fmt/ostream.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>

#include "tools/mapperctl_paths.h"
#include "tools/mapperctl_verbs.h"
#include "tools/read_all.h"

namespace mapperctl {
namespace {

struct NewDevice {
  std::string name;  // mangled
  std::string uuid;  // mangled
  std::string shown_name;
  std::string shown_uuid;
  std::optional<int> major;
  std::optional<int> minor;
  bool read_only = false;
  bool notable = false;
  bool passthrough = false;
  std::vector<TableLine> table;
};

// Standard input to its end. Tests have another stream in its place. Nothing after an error.
std::optional<std::string> read_input(Session& session) {
  if (&session.in() != &std::cin) {
    return std::string(std::istreambuf_iterator<char>(session.in()), {});
  }
  mapperfs::ReadText input = mapperfs::read_descriptor(STDIN_FILENO);
  if (input.error != 0) {
    session.fail(fmt::format("Couldn't read standard input: {}.", std::strerror(input.error)));
    return std::nullopt;
  }
  return std::move(input.text);
}

// The table of --table, of the file named, or of stdin. Nothing after an error.
std::optional<std::vector<TableLine>> read_table(Session& session, const std::string* file) {
  ParsedTable parsed;
  if (session.opt().table) {
    parsed = parse_table(*session.opt().table, "");
  } else if (file != nullptr) {
    const mapperfs::ReadText text = mapperfs::read_path(*file);
    if (text.error != 0) {
      session.fail(text.opened
                       ? fmt::format("Couldn't read '{}': {}.", *file, std::strerror(text.error))
                       : fmt::format("Couldn't open '{}' for reading.", *file));
      return std::nullopt;
    }
    parsed = parse_table(text.text, *file);
  } else {
    const auto text = read_input(session);
    if (!text) return std::nullopt;
    parsed = parse_table(*text, "on stdin");
  }
  if (!parsed.error.empty()) {
    session.fail(parsed.error);
    return std::nullopt;
  }
  return std::move(parsed.lines);
}

// The major number of mapped devices, which a new device's error shows beside the minor asked for.
int mapped_major(Client& client) {
  constexpr int kUsualMajor = 253;
  const auto devices = client.list();
  return devices.value.empty() ? kUsualMajor : devices.value.front().major;
}

// The kernel refuses an empty table; the protocol has no way to write one.
Reply load_table(Client& client, const std::string& name, bool read_only,
                 const std::vector<TableLine>& table) {
  if (!table.empty()) return client.load(name, read_only, table);
  if (const auto device = client.device(name); !device.ok()) return device.reply;
  return {EINVAL, fmt::format("{}: no targets specified", name)};
}

Reply create_bare(Client& client, const NewDevice& device) {
  std::string line = "create";
  if (device.read_only) line += " --readonly";
  if (device.passthrough) line += " --passthrough";
  if (device.minor) line += fmt::format(" --minor {}", *device.minor);
  if (!device.uuid.empty()) line += " --uuid " + escape_word(device.uuid);
  return client.run(line + " " + escape_word(device.name));
}

// Numbers of a new device for the error about its table, as the kernel's reply carried them.
DeviceIdent numbered_ident(Client& client, const NewDevice& device) {
  DeviceIdent ident{device.shown_name, {}, {}, {}};
  if (const auto found = client.device(device.name); found.ok()) {
    ident.major = found.value.major;
    ident.minor = found.value.minor;
  }
  return ident;
}

bool make_live(Session& session, Client& client, const NewDevice& device) {
  const Reply loaded = client.load(device.name, device.read_only, device.table);
  if (!loaded.ok()) {
    return session.ioctl_failed("reload", numbered_ident(client, device), loaded);
  }
  const Reply resumed = client.run("resume " + escape_word(device.name));
  if (resumed.ok()) return true;
  return session.ioctl_failed("resume", {device.shown_name, {}, device.major, device.minor},
                              resumed);
}

// Owner and mode are those of the device's file, as they are the node's in /dev/mapper.
bool set_owner_and_mode(Session& session, Client& client, const NewDevice& device) {
  const Options& opt = session.opt();
  const std::string path = client.transport().path_of(device.name);
  const auto uid = opt.uid ? static_cast<uid_t>(*opt.uid) : static_cast<uid_t>(-1);
  const auto gid = opt.gid ? static_cast<gid_t>(*opt.gid) : static_cast<gid_t>(-1);
  if ((opt.uid || opt.gid) && ::chown(path.c_str(), uid, gid) != 0) {
    return session.fail(fmt::format("{}: chown failed: {}", path, std::strerror(errno)));
  }
  if (opt.mode && ::chmod(path.c_str(), static_cast<mode_t>(*opt.mode)) != 0) {
    return session.fail(fmt::format("{}: chmod failed: {}", path, std::strerror(errno)));
  }
  return true;
}

// create, load and resume; a device that cannot be finished is taken away again.
bool create_device(Session& session, NewDevice device) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  replace_paths(*client, device.table);
  if (const Reply created = create_bare(*client, device); !created.ok()) {
    DeviceIdent ident{device.shown_name, device.shown_uuid, {}, device.minor};
    if (device.minor) ident.major = device.major ? *device.major : mapped_major(*client);
    return session.ioctl_failed("create", ident, created);
  }
  if (!device.table.empty() && !make_live(session, *client, device)) {
    const Reply removed = client->run("remove " + escape_word(device.name));
    if (removed.ok()) return false;
    session.ioctl_failed("remove", {device.shown_name, {}, device.major, device.minor}, removed);
    return session.fail("Failed to revert device creation.");
  }
  return set_owner_and_mode(session, *client, device);
}

bool create_one(Session& session, const Args& args) {
  const Options& opt = session.opt();
  if (args.empty()) return session.fail("Please provide a name for the new device.");
  NewDevice device;
  device.shown_name = args[0];
  device.shown_uuid = opt.uuid.value_or("");
  device.major = opt.major;
  device.minor = opt.minor;
  device.read_only = opt.read_only;
  device.passthrough = opt.passthrough;
  const auto name = session.device_name(args[0]);
  if (!name) return false;
  const auto uuid = session.device_uuid(device.shown_uuid);
  if (!uuid) return false;
  device.name = *name;
  device.uuid = *uuid;
  if (!opt.notable) {
    auto table = read_table(session, args.size() > 1 ? &args[1] : nullptr);
    if (!table) return false;
    device.table = std::move(*table);
  }
  if (!create_device(session, device)) return false;
  return opt.verbose == 0 || print_info_of(session, device.name);
}

bool create_concise_device(Session& session, const ConciseDevice& entry) {
  NewDevice device;
  device.shown_name = entry.name;
  device.shown_uuid = entry.uuid;
  device.read_only = entry.read_only;
  if (!entry.minor.empty()) device.minor = std::atoi(entry.minor.c_str());
  const auto name = session.device_name(entry.name);
  if (!name) return false;
  const auto uuid = session.device_uuid(entry.uuid);
  if (!uuid) return false;
  device.name = *name;
  device.uuid = *uuid;
  ParsedTable table = parse_table(entry.table, "");
  if (!table.error.empty()) return session.fail(table.error);
  device.table = std::move(table.lines);
  return create_device(session, std::move(device));
}

bool create_concise(Session& session, const Args& args) {
  const Options& opt = session.opt();
  if (opt.table || opt.notable || opt.minor || opt.uuid || opt.inactive) {
    return session.fail(
        "--concise is incompatible with --[no]table, --minor, --uuid and --inactive.");
  }
  if (args.size() > 1) {
    return session.fail("dmsetup create --concise takes at most one argument");
  }
  auto text = args.empty() ? read_input(session) : args[0];
  if (!text) return false;
  if (!text->empty() && text->back() == '\n') text->pop_back();
  const ParsedConcise parsed = parse_concise(*text);
  for (const ConciseDevice& device : parsed.devices) {
    if (!create_concise_device(session, device)) return false;
  }
  return parsed.error.empty() || session.fail(parsed.error);
}

}  // namespace

bool verb_create(Session& session, const Args& args) {
  return session.opt().concise ? create_concise(session, args) : create_one(session, args);
}

bool verb_load(Session& session, const Args& args) {
  const Options& opt = session.opt();
  if (opt.notable) return session.fail("--notable only available when creating new device.");
  const bool by_number = session.selects_by_number_or_uuid();
  if (args.empty() && !by_number) return session.fail("Please specify device.");
  const size_t file_at = by_number ? 0 : 1;
  if (args.size() > file_at + 1) return session.fail("Too many command line arguments.");
  auto table = read_table(session, args.size() > file_at ? &args[file_at] : nullptr);
  if (!table) return false;
  const auto device = session.select(by_number ? nullptr : &args[0], "reload");
  if (!device) return false;
  replace_paths(*session.client(), *table);
  const Reply reply = load_table(*session.client(), device->name, opt.read_only, *table);
  if (!reply.ok()) return session.ioctl_failed("reload", device->ident, reply);
  return opt.verbose == 0 || print_info_of(session, device->name);
}

}  // namespace mapperctl
