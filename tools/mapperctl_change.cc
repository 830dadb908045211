// The verbs that change a device which exists: remove, suspend, resume, clear, rename, messages.
#include <fmt/ostream.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

// `remove --retry` tries this often, this far apart.
constexpr int kRemoveTries = 25;
constexpr std::chrono::milliseconds kRemovePause(200);

const std::string* first_or_null(const Args& args) { return args.empty() ? nullptr : &args[0]; }

std::string suspend_flags(const Options& opt) {
  std::string flags;
  if (opt.noflush) flags += "--noflush ";
  if (opt.nolockfs) flags += "--nolockfs ";
  return flags;
}

// One command for one device, whose name goes behind it; -v shows what became of it.
bool simple(Session& session, const Selected& device, std::string_view verb,
            const std::string& command) {
  const Reply reply = session.client()->run(command + escape_word(device.name));
  if (!reply.ok()) return session.ioctl_failed(verb, device.ident, reply);
  return session.opt().verbose == 0 || print_info_of(session, device.name);
}

// Replaces the table by one that fails everything. dmsetup does it in steps, and of a device that
// is not there it complains at the first two.
bool wipe(Session& session, const Selected& device, const std::string& flags) {
  Client& client = *session.client();
  if (const auto found = client.device(device.name); !found.ok()) {
    session.ioctl_failed("table", device.ident, found.reply);
    return session.ioctl_failed("reload", device.ident, {found.reply.err, {}});
  }
  const Reply reply = client.run(fmt::format("wipe_table {}{}", flags, escape_word(device.name)));
  return reply.ok() || session.ioctl_failed("reload", device.ident, reply);
}

bool remove_once_or_retry(Session& session, const Selected& device) {
  const Options& opt = session.opt();
  const std::string line =
      fmt::format("remove {}{}", opt.deferred ? "--deferred " : "", escape_word(device.name));
  auto next_try = std::chrono::steady_clock::now();
  for (int tries = opt.retry ? kRemoveTries : 1;; --tries) {
    Reply reply = session.client()->run(line);
    if (reply.ok()) return true;
    const bool last = tries == 1 || reply.err != EBUSY;
    // The reason does not change from try to try: once, at the end, is enough.
    if (!last) reply.text.clear();
    session.ioctl_failed("remove", device.ident, reply);
    if (last) return false;
    next_try += kRemovePause;
    std::this_thread::sleep_until(next_try);
  }
}

void warn_of_cookie(Session& session) {
  if (session.opt().force > 0 && !session.opt().udev_cookie.empty()) {
    fmt::print(session.err(), "WARNING: Use of cookie and --force is not compatible.\n");
  }
}

// With --force a table that fails everything comes first.
bool wipe_and_remove(Session& session, const Selected& device) {
  // Like there, a device that cannot be wiped is still tried to be removed.
  if (session.opt().force > 0) wipe(session, device, "--noflush --nolockfs ");
  return remove_once_or_retry(session, device);
}

// Sends the whole list away and says how many devices stayed.
std::optional<size_t> remaining_devices(Session& session, std::vector<Device>& devices) {
  auto left = session.client()->list();
  if (!left.ok()) {
    session.ioctl_failed("names", {}, left.reply);
    return std::nullopt;
  }
  devices = std::move(left.value);
  return devices.size();
}

bool valid_new_name(Session& session, const std::string& name) {
  if (name.empty()) return session.fail("Non empty new name is required.");
  if (name.find('/') != std::string::npos) {
    return session.fail(fmt::format("Name \"{}\" invalid. It contains \"/\".", name));
  }
  // Without the full stop that a name too long to create gets.
  if (name.size() > kMaxNameBytes) {
    return session.fail(fmt::format("Name \"{}\" too long", name));
  }
  return true;
}

// The words of a message as one line: a newline would end the command, a # begin a comment.
std::string message_text(const Args& args, size_t from) {
  std::string text;
  for (size_t i = from; i < args.size(); ++i) {
    if (i > from) text.push_back(' ');
    for (const char c : args[i]) {
      const bool hash = c == '#' && (text.empty() || text.back() == ' ');
      if (hash) text.push_back('\\');
      text.push_back(c == '\n' ? ' ' : c);
    }
  }
  return text;
}

bool parse_sector(const std::string& word, unsigned long long& sector) {
  char* end = nullptr;
  sector = std::strtoull(word.c_str(), &end, 10);
  return !word.empty() && *end == '\0';
}

}  // namespace

bool verb_remove(Session& session, const Args& args) {
  warn_of_cookie(session);
  const auto device = session.select(first_or_null(args), "remove");
  return device && wipe_and_remove(session, *device);
}

bool remove_device(Session& session, const Selected& device) {
  warn_of_cookie(session);
  return wipe_and_remove(session, device);
}

bool verb_remove_all(Session& session, const Args&) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  const std::string command = session.opt().deferred ? "remove_all --deferred" : "remove_all";
  if (const Reply reply = client->run(command); !reply.ok()) {
    return session.ioctl_failed("remove_all", {}, reply);
  }
  if (session.opt().force == 0) return true;
  std::vector<Device> devices;
  const auto before = remaining_devices(session, devices);
  if (!before) return false;
  if (*before == 0) return true;
  for (const Device& device : devices) {
    wipe(session, {device.name, {session.shown(device.name), {}, {}, {}}}, "--noflush --nolockfs ");
  }
  if (const Reply reply = client->run(command); !reply.ok()) {
    return session.ioctl_failed("remove_all", {}, reply);
  }
  const auto after = remaining_devices(session, devices);
  if (!after) return false;
  if (*after > 0) session.fail(fmt::format("Unable to remove {} device(s).", *after));
  return true;
}

bool verb_suspend(Session& session, const Args& args) {
  const auto device = session.select(first_or_null(args), "suspend");
  return device && suspend_device(session, *device);
}

bool suspend_device(Session& session, const Selected& device) {
  return simple(session, device, "suspend", "suspend " + suspend_flags(session.opt()));
}

bool verb_resume(Session& session, const Args& args) {
  const auto device = session.select(first_or_null(args), "resume");
  return device && resume_device(session, *device);
}

bool resume_device(Session& session, const Selected& device) {
  return simple(session, device, "resume", "resume " + suspend_flags(session.opt()));
}

bool verb_clear(Session& session, const Args& args) {
  const auto device = session.select(first_or_null(args), "clear");
  return device && clear_device(session, *device);
}

bool clear_device(Session& session, const Selected& device) {
  return simple(session, device, "clear", "clear ");
}

bool verb_wipe_table(Session& session, const Args& args) {
  const auto device = session.select(first_or_null(args), "table");
  return device && wipe_device(session, *device);
}

bool wipe_device(Session& session, const Selected& device) {
  const Options& opt = session.opt();
  return wipe(session, device, opt.force > 0 ? "--noflush --nolockfs " : suspend_flags(opt));
}

bool verb_rename(Session& session, const Args& args) {
  const bool by_number = session.selects_by_number_or_uuid() && args.size() == 1;
  if (args.size() < 2 && !by_number) return session.fail("No device specified.");
  const std::string& wanted = args.back();
  const bool uuid = session.opt().set_uuid;
  if (!uuid && !valid_new_name(session, wanted)) return false;
  const auto device = session.select(by_number ? nullptr : &args[0], "rename");
  if (!device) return false;
  const auto mangled = uuid ? session.device_uuid(wanted) : session.device_name(wanted);
  if (!mangled) return false;
  const Reply reply = session.client()->run(fmt::format(
      "{} {} {}", uuid ? "setuuid" : "rename", escape_word(device->name), escape_word(*mangled)));
  return reply.ok() || session.ioctl_failed("rename", device->ident, reply);
}

bool verb_message(Session& session, const Args& args) {
  const size_t sector_at = session.selects_by_number_or_uuid() ? 0 : 1;
  unsigned long long sector = 0;
  if (!parse_sector(args[sector_at], sector)) return session.fail("Invalid sector.");
  if (args.size() <= sector_at + 1) session.fail("No message supplied.");
  const auto device = session.select(sector_at == 0 ? nullptr : &args[0], "message");
  if (!device) return false;
  const Reply reply = session.client()->run(fmt::format(
      "message {} {} {}", escape_word(device->name), sector, message_text(args, sector_at + 1)));
  if (!reply.ok()) return session.ioctl_failed("message", device->ident, reply);
  if (!reply.text.empty()) {
    fmt::print(session.out(), "{}{}", reply.text, reply.text.back() == '\n' ? "" : "\n");
  }
  return true;
}

bool verb_setgeometry(Session& session, const Args& args) {
  const auto device = session.select(&args[0], "setgeometry");
  if (!device) return false;
  const Reply reply = session.client()->run(fmt::format(
      "setgeometry {} {} {} {} {}", escape_word(device->name), args[1], args[2], args[3], args[4]));
  return reply.ok() || session.ioctl_failed("setgeometry", device->ident, reply);
}

bool verb_wait(Session& session, const Args& args) {
  const bool by_number = session.selects_by_number_or_uuid();
  const size_t number_at = by_number ? 0 : 1;
  const unsigned long event_nr =
      args.size() > number_at ? std::strtoul(args[number_at].c_str(), nullptr, 10) : 0;
  const auto device = session.select(by_number ? nullptr : first_or_null(args), "waitevent");
  if (!device) return false;
  session.out().flush();
  const Reply reply = session.client()->transport().wait_event(device->name, event_nr);
  if (!reply.ok()) {
    // The event's file cannot say a sentence as control does.
    const std::string why = reply.err == ENXIO
                                ? fmt::format("there is no mapped device \"{}\"", device->name)
                                : fmt::format("{}: {}", device->name, std::strerror(reply.err));
    return session.ioctl_failed("waitevent", device->ident, {reply.err, why});
  }
  return session.opt().verbose == 0 || print_info_of(session, device->name);
}

}  // namespace mapperctl
