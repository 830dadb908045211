// table, status, measure, and the ls that looks into tables.
#include <fmt/ostream.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <sstream>

#include "tools/mapperctl_choice.h"
#include "tools/mapperctl_json.h"
#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

constexpr size_t kMaxExecWords = 63;

// What is printed of each device.
enum class Show { kTable, kStatus, kMeasure, kNames };

std::string_view ioctl_of(Show show) { return show == Show::kTable ? "table" : "status"; }

// A status that is asked of no device is worded as info words it; only a table is an error.
std::string_view select_verb(Show show) {
  return show == Show::kTable ? std::string_view("table") : std::string_view();
}

struct Shown {
  Device device;
  std::vector<TableLine> lines;  // those that --target lets through, all without it
  bool has_table = false;
};

// Runs --exec's command with the path of the device behind its words. It has the terminal
// meanwhile.
bool run_command(Session& session, const std::string& name) {
  std::istringstream stream(*session.opt().exec);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  if (words.size() > kMaxExecWords) return session.fail("Too many args to --exec.");
  words.push_back(session.client()->transport().path_of(name));
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  session.out().flush();
  const pid_t child = ::fork();
  if (child < 0) return session.fail(fmt::format("fork failed: {}", std::strerror(errno)));
  if (child == 0) {
    ::execvp(argv[0], argv.data());
    ::_exit(errno);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return true;  // what the command made of it is not our failure
}

// Fetches one device's or every device's table. Errors are printed.
class Fetcher {
 public:
  Fetcher(Session& session, Show show) : session_(session), show_(show) {}

  bool all(std::vector<Shown>& shown) {
    const auto rows = DeviceRows::fetch(session_, ioctl_of(show_));
    if (!rows) return false;
    auto tables = session_.client()->tables(query());
    if (!tables.ok()) return session_.ioctl_failed(ioctl_of(show_), {}, tables.reply);
    std::map<std::string, std::vector<TableLine>> by_name;
    for (DeviceTable& table : tables.value) by_name[table.name] = std::move(table.lines);
    for (const Device& device : rows->devices()) {
      shown.push_back(filter(device, std::move(by_name[device.name])));
    }
    return true;
  }

  // Those that -S lets through. No other is asked: a status may have a device commit.
  bool chosen(const Args& args, std::vector<Shown>& shown) {
    auto choice = Choice::create(session_, ioctl_of(show_), Choice::Act::kReads);
    return choice && choice->for_each(args, [&](const Device& device) {
      auto fetched = one({device.name, {session_.shown(device.name), {}, {}, {}}});
      if (fetched) shown.push_back(std::move(*fetched));
      return fetched.has_value();
    });
  }

  std::optional<Shown> one(const Selected& selected) {
    auto tables = session_.client()->tables(query(), selected.name);
    if (!tables.ok()) return failed(selected, tables.reply);
    auto device = session_.client()->device(selected.name);
    if (!device.ok()) return failed(selected, device.reply);
    auto lines =
        tables.value.empty() ? std::vector<TableLine>() : std::move(tables.value.front().lines);
    return filter(device.value, std::move(lines));
  }

 private:
  std::nullopt_t failed(const Selected& selected, const Reply& reply) {
    if (reply.err == ENXIO && show_ != Show::kTable) {
      session_.fail("Device does not exist.");
    } else {
      session_.ioctl_failed(ioctl_of(show_), selected.ident, reply);
    }
    return std::nullopt;
  }

  TableQuery query() const {
    const Options& opt = session_.opt();
    return {show_ == Show::kStatus || show_ == Show::kNames, opt.inactive, opt.showkeys,
            opt.noflush};
  }

  Shown filter(const Device& device, std::vector<TableLine> lines) const {
    Shown shown{device, {}, !lines.empty()};
    const auto& target = session_.opt().target;
    for (TableLine& line : lines) {
      if (!target || line.type == *target) shown.lines.push_back(std::move(line));
    }
    return shown;
  }

  Session& session_;
  Show show_;
};

// The words that IMA would measure: what a target is made of. Only linear and striped are known
// well enough to say them; of the others the line ends after the type, as it does for targets
// without any.
std::string measure_text(const TableLine& line,
                         const std::map<std::string, std::string>& versions) {
  const auto version = versions.find(line.type);
  if (version == versions.end()) return {};
  std::istringstream words(line.params);
  const std::string head =
      fmt::format("target_name={},target_version={}", line.type, version->second);
  std::string device;
  std::string start;
  if (line.type == "linear" && words >> device >> start) {
    return fmt::format("{},device_name={},start={};", head, device, start);
  }
  size_t stripes = 0;
  std::string chunk;
  if (line.type != "striped" || !(words >> stripes >> chunk)) return {};
  std::string text = fmt::format("{},stripes={},chunk_size={}", head, stripes, chunk);
  for (size_t i = 0; i < stripes && words >> device >> start; ++i) {
    text += fmt::format(
        ",stripe_{0}_device_name={1},stripe_{0}_physical_start={2},"
        "stripe_{0}_status=A",
        i, device, start);
  }
  return text + ";";
}

class Printer {
 public:
  Printer(Session& session, Show show) : session_(session), show_(show) {}

  void set_versions(std::map<std::string, std::string> versions) {
    versions_ = std::move(versions);
  }

  bool print(const Shown& shown, bool with_name) {
    const Options& opt = session_.opt();
    const bool filtered_out = opt.target && shown.lines.empty();
    if (!filtered_out && (!opt.exec || opt.verbose > 0)) print_text(shown, with_name);
    return filtered_out || !opt.exec || run_command(session_, shown.device.name);
  }

 private:
  void print_text(const Shown& shown, bool with_name) {
    const bool verbose = session_.opt().verbose > 0;
    std::ostream& out = session_.out();
    if (show_ == Show::kNames) {
      fmt::print(out, "{}\t({}, {})\n", session_.shown(shown.device.name), shown.device.major,
                 shown.device.minor);
      return;
    }
    if (verbose) print_info(session_, shown.device);
    const std::string prefix =
        with_name && !verbose ? session_.shown(shown.device.name) + ": " : std::string();
    if (shown.lines.empty()) fmt::print(out, "{}\n", prefix);
    for (const TableLine& line : shown.lines) {
      fmt::print(out, "{}{} {} {} {}\n", prefix, line.start, line.length, line.type,
                 show_ == Show::kMeasure ? measure_text(line, versions_) : line.params);
    }
    if (with_name && verbose) fmt::print(out, "\n");
  }

  Session& session_;
  Show show_;
  std::map<std::string, std::string> versions_;
};

void write_json(Session& session, const std::vector<Shown>& devices, std::string_view params) {
  JsonWriter json(session.out());
  json.begin_array();
  for (const Shown& shown : devices) {
    if (session.opt().target && shown.lines.empty()) continue;
    json.begin_object();
    json.field("name", session.shown(shown.device.name));
    json.key("targets"), json.begin_array();
    for (const TableLine& line : shown.lines) {
      json.begin_object();
      json.key("start"), json.unsigned_number(line.start);
      json.key("length"), json.unsigned_number(line.length);
      json.field("type", line.type);
      json.field(params, line.params);
      json.end_object();
    }
    json.end_array();
    json.end_object();
  }
  json.end_array();
  json.finish();
}

// name,uuid,minor,flags,table[,table...] of every device on one line.
void print_concise(Session& session, const std::vector<Shown>& devices) {
  std::string text;
  for (const Shown& shown : devices) {
    if (session.opt().target && shown.lines.empty()) continue;
    const Device& device = shown.device;
    if (!text.empty()) text.push_back(';');
    text += fmt::format("{},{},{},{}", escape_concise(session.shown(device.name)),
                        escape_concise(session.shown(device.uuid)), device.minor,
                        device.read_only() ? "ro" : "rw");
    for (const TableLine& line : shown.lines) {
      text += fmt::format(",{} {} {} {}", line.start, line.length, line.type,
                          escape_concise(line.params));
    }
  }
  if (!text.empty()) fmt::print(session.out(), "{}\n", text);
}

std::map<std::string, std::string> target_versions(Session& session) {
  std::map<std::string, std::string> versions;
  const auto lines = session.client()->lines_of("targets");
  for (const std::string& line : lines.value) {
    std::istringstream words(line);
    std::string name;
    std::string version;
    if (words >> name >> version) versions[name] = version.substr(version.find('v') + 1);
  }
  return versions;
}

// Every device, those that -S lets through, or those named until one is missing: what was found
// before is still printed.
bool fetch(Session& session, const Args& args, Show show, std::vector<Shown>& devices) {
  Fetcher fetcher(session, show);
  if (session.opt().select) return fetcher.chosen(args, devices);
  if (args.empty() && !session.selects_by_number_or_uuid()) return fetcher.all(devices);
  for (size_t i = 0; i == 0 || i < args.size(); ++i) {
    const auto selected = session.select(args.empty() ? nullptr : &args[i], select_verb(show));
    if (!selected) return false;
    auto shown = fetcher.one(*selected);
    if (!shown) return false;
    devices.push_back(std::move(*shown));
  }
  return true;
}

bool print_all(Session& session, const std::vector<Shown>& devices, Show show, bool with_name) {
  if (session.opt().json && show != Show::kMeasure) {
    write_json(session, devices, show == Show::kTable ? "table" : "status");
    return true;
  }
  if (session.opt().concise && show == Show::kTable) return print_concise(session, devices), true;
  Printer printer(session, show);
  if (show == Show::kMeasure) printer.set_versions(target_versions(session));
  for (const Shown& shown : devices) {
    if (!printer.print(shown, with_name)) return false;
  }
  return true;
}

bool show_devices(Session& session, const Args& args, Show show) {
  if (session.client() == nullptr) return false;
  const bool everything = args.empty() && !session.selects_by_number_or_uuid();
  std::vector<Shown> devices;
  const bool found = fetch(session, args, show, devices);
  const bool plain = !session.opt().json && !session.opt().select;
  if (found && everything && devices.empty() && plain) return no_devices(session);
  const bool with_name = everything || args.size() > 1 || session.opt().select;
  return print_all(session, devices, show, with_name) && found;
}

}  // namespace

bool no_devices(Session& session) {
  if (!session.opt().json) fmt::print(session.out(), "No devices found\n");
  return true;
}

bool list_by_target(Session& session) { return show_devices(session, {}, Show::kNames); }

bool verb_table(Session& session, const Args& args) {
  return show_devices(session, args, Show::kTable);
}

bool verb_status(Session& session, const Args& args) {
  return show_devices(session, args, Show::kStatus);
}

bool verb_measure(Session& session, const Args& args) {
  return show_devices(session, args, Show::kMeasure);
}

}  // namespace mapperctl
