#include "fs/control_executor.h"

#include <fmt/format.h>

#include <cerrno>
#include <span>
#include <utility>

#include "fs/device_text.h"

namespace mapperfs {
namespace {

using Slot = MappedDevice::Slot;

std::vector<TableLine> as_table(const std::vector<MappedDevice::StatusLine>& lines) {
  std::vector<TableLine> table;
  table.reserve(lines.size());
  for (const MappedDevice::StatusLine& line : lines) {
    table.push_back({line.start, line.len, line.type, line.words});
  }
  return table;
}

bool equal(const std::vector<TableLine>& a, const std::vector<TableLine>& b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(), [](const TableLine& x, const TableLine& y) {
        return x.start == y.start && x.len == y.len && x.type == y.type && x.args == y.args;
      });
}

SuspendOptions suspend_options(const Command& command, const RunOptions& options) {
  SuspendOptions suspend;
  suspend.noflush = command.has(kOptNoflush);
  suspend.nolockfs = command.has(kOptNolockfs);
  suspend.interrupted = options.interrupted;
  return suspend;
}

DeviceMode mode_of(bool read_only) {
  return read_only ? DeviceMode::kReadOnly : DeviceMode::kReadWrite;
}

// Most likely the further lines of a table whose first ones came in a write of their own.
bool in_pieces(const Command& command, const RunOptions& options) {
  return command.verb == Verb::kTable && command.table.front().start != 0 &&
         command.name() == options.table_before;
}
constexpr const char* kInPieces =
    "; the write before this one set the table of the same device: all lines of a table stand in "
    "one write, or between \"begin\" and \"commit\" (bash's echo and printf write each line by "
    "itself)";

// What waits for I/O and ends nobody's wait. Tables and what ends I/O by force do.
bool may_only_wait(const Command& command) {
  switch (command.verb) {
    case Verb::kSuspend:
    case Verb::kMessage:
    case Verb::kQueryStatus:
      return true;
    case Verb::kRemove:
    case Verb::kRemoveAll:
      return !command.has(kOptForce);
    default:
      return false;
  }
}

}  // namespace

// A device before a swap, for the case that the swap fails half way.
struct ControlExecutor::Saved {
  std::vector<TableLine> live;
  std::vector<TableLine> inactive;
  MappedDevice::Info info;
};

Status crowded_status(std::string_view what) {
  return {EAGAIN, fmt::format("{}: too many commands of this mount wait for I/O already: let them "
                              "end (a suspended device? a full pool?) or interrupt them",
                              what)};
}

Outcome ControlExecutor::run(const Script& script, const RunOptions& options) {
  Outcome outcome;
  std::size_t line = script.lines;
  for (const Command& command : script.commands) {
    if (options.interrupted && options.interrupted()) {
      outcome.status = Status(EINTR, "interrupted");
    } else {
      outcome.status = execute(command, options, outcome.reply);
    }
    if (!outcome.status.ok()) {
      line = command.line;
      if (in_pieces(command, options)) {
        outcome.status = {outcome.status.error(), outcome.status.message() + kInPieces};
      }
      break;
    }
  }
  if (outcome.status.ok()) {
    outcome.status = script.error;
  }
  if (!outcome.status.ok()) {
    if (script.lines > 1) {
      outcome.status = outcome.status.with_context(fmt::format("line {}", line));
    }
    engine_.log().add(outcome.status.message());
    outcome.reply = outcome.status.message() + "\n";
  }
  return outcome;
}

Status ControlExecutor::execute(const Command& command, const RunOptions& options,
                                std::string& reply) {
  if (options.crowded && may_only_wait(command)) {
    return crowded_status(verb_word(command.verb));
  }
  if (!is_query(command.verb)) {
    return change(command, options, reply);
  }
  if (!options.may_reply) {
    return {EINVAL, fmt::format("{}: a query needs a file opened for reading and writing, which "
                                "mapperctl does",
                                verb_word(command.verb))};
  }
  return query(command, reply);
}

Status ControlExecutor::change(const Command& command, const RunOptions& options,
                               std::string& reply) {
  switch (command.verb) {
    case Verb::kTable:
      return set_table(command.name(), command.table, false, options);
    case Verb::kLoad:
      return load(command.name(), command.table, command.has(kOptReadonly));
    case Verb::kCreate:
      return create(command);
    case Verb::kClear:
      return clear(command.name());
    case Verb::kRemove:
      return remove_command(command);
    case Verb::kRemoveAll:
      return remove_all(command);
    case Verb::kRename:
      return engine_.rename(command.operands[0], command.operands[1]);
    case Verb::kSetUuid:
      return engine_.set_uuid(command.operands[0], command.operands[1]);
    case Verb::kCancelDeferredRemove:
      return engine_.cancel_deferred_remove(command.name());
    case Verb::kMessage: {
      Result<std::string> answer = message(command.name(), command.sector,
                                           {command.operands.begin() + 1, command.operands.end()});
      if (answer.ok()) {
        reply += *answer;
      }
      return answer.status();
    }
    default:
      break;
  }
  Result<std::shared_ptr<MappedDevice>> found = engine_.find(command.name());
  if (!found.ok()) {
    return found.status();
  }
  MappedDevice& device = **found;
  const SuspendOptions suspend = suspend_options(command, options);
  Status status;
  switch (command.verb) {
    case Verb::kSuspend:
      status = past_closes(device, [&] { return device.suspend(suspend); });
      break;
    case Verb::kResume:
      status = past_closes(device, [&] { return device.resume(suspend); });
      changed(device);
      break;
    case Verb::kWipeTable:
      status = past_closes(device, [&] { return device.wipe_table(suspend); });
      changed(device);
      break;
    case Verb::kPassthrough:
      notes_.update(device.serial(),
                    [&](DeviceNote& note) { note.passthrough = command.operands[1] == "on"; });
      break;
    default:
      status = device.set_geometry(command.geometry);
      break;
  }
  return status.with_context(command.name());
}

Status ControlExecutor::query(const Command& command, std::string& reply) {
  if (command.verb == Verb::kTargets) {
    reply += targets_text(engine_.registry());
    return {};
  }
  if (command.verb == Verb::kVersion) {
    reply += version_text();
    return {};
  }
  std::vector<std::shared_ptr<MappedDevice>> devices;
  for (const std::string& name : command.operands) {
    Result<std::shared_ptr<MappedDevice>> found = engine_.find(name);
    if (!found.ok()) {
      return found.status();
    }
    devices.push_back(found.take());
  }
  if (command.operands.empty()) {
    devices = engine_.list();
  }
  const Slot slot = command.has(kOptInactive) ? Slot::kInactive : Slot::kLive;
  for (const auto& device : devices) {
    if (command.verb == Verb::kList) {
      reply += list_line(*device);
      continue;
    }
    const std::string prefix = escape_name(device->name()) + ": ";
    const std::string text = command.verb == Verb::kQueryTable
                                 ? table_text(*device, slot, command.has(kOptShowkeys), prefix)
                                 : status_text(*device, slot, command.has(kOptNoflush), prefix);
    reply += text.empty() ? prefix + "\n" : text;
  }
  return {};
}

Status ControlExecutor::create(const Command& command) {
  Engine::CreateOptions options;
  options.uuid = command.uuid;
  options.minor = command.minor;
  Result<std::shared_ptr<MappedDevice>> device = engine_.create(command.name(), options);
  if (device.ok() && command.has(kOptReadonly)) {
    notes_.update((*device)->serial(), [](DeviceNote& note) { note.load_read_only = true; });
  }
  if (device.ok() && command.has(kOptPassthrough)) {
    notes_.update((*device)->serial(), [](DeviceNote& note) { note.passthrough = true; });
  }
  return device.status();
}

Status ControlExecutor::set_table(const std::string& name, std::vector<TableLine> lines,
                                  bool read_only, const RunOptions& options) {
  Result<std::shared_ptr<MappedDevice>> found = engine_.find(name);
  if (!found.ok()) {
    return make_device(name, lines, mode_of(read_only), options);
  }
  MappedDevice& device = **found;
  const bool as_noted = notes_.get(device.serial()).load_read_only;
  const Saved saved = save(device);
  Status status = device.load(lines, mode_of(read_only || as_noted));
  if (!status.ok()) {
    return status.with_context(name);
  }
  lines.clear();
  SuspendOptions suspend;
  suspend.interrupted = options.interrupted;
  status = past_closes(device, [&] { return device.resume(suspend); });
  if (!status.ok()) {
    restore(device, saved);
  }
  changed(device);
  return status.with_context(name);
}

Status ControlExecutor::make_device(const std::string& name, const std::vector<TableLine>& lines,
                                    DeviceMode mode, const RunOptions& options) {
  Result<std::shared_ptr<MappedDevice>> made = engine_.create(name, {});
  if (!made.ok()) {
    return made.status();
  }
  Status status = (*made)->load(lines, mode);
  if (status.ok()) {
    SuspendOptions suspend;
    suspend.interrupted = options.interrupted;
    status = (*made)->resume(suspend);
  }
  if (!status.ok()) {
    // Nobody else can have it open yet but by chance; then it stays, without a table.
    engine_.remove(name, false).ignore();
  }
  return status.with_context(name);
}

ControlExecutor::Saved ControlExecutor::save(const MappedDevice& device) {
  return {as_table(device.table_lines(Slot::kLive, true)),
          as_table(device.table_lines(Slot::kInactive, true)), device.info()};
}

void ControlExecutor::restore(MappedDevice& device, const Saved& saved) {
  // Each step may fail for the reason that the swap did (a backing device that went away). The
  // sentence of the first failure is what the user gets; these only do what still can be done.
  device.clear().ignore();
  if (!saved.live.empty() && !equal(saved.live, as_table(device.table_lines(Slot::kLive, true)))) {
    // The new table went live and then could not be resumed.
    device.load(saved.live, mode_of(saved.info.read_only)).ignore();
  }
  if (!saved.info.suspended && !saved.live.empty()) {
    device.resume({}).ignore();
  }
  if (!saved.inactive.empty()) {
    device.load(saved.inactive, mode_of(saved.info.read_only)).ignore();
  }
}

Status ControlExecutor::load(const std::string& name, const std::vector<TableLine>& lines,
                             bool read_only) {
  Result<std::shared_ptr<MappedDevice>> found = engine_.find(name);
  if (!found.ok()) {
    return found.status();
  }
  // What `create --readonly` noted is for table lines; a load says its own mode, as the kernel's.
  return (*found)->load(lines, mode_of(read_only)).with_context(name);
}

Status ControlExecutor::clear(const std::string& name) {
  Result<std::shared_ptr<MappedDevice>> found = engine_.find(name);
  return found.ok() ? (*found)->clear().with_context(name) : found.status();
}

Status ControlExecutor::remove_command(const Command& command) {
  if (command.has(kOptForce)) {
    Result<std::shared_ptr<MappedDevice>> found = engine_.find(command.name());
    if (!found.ok()) {
      return found.status();
    }
    if ((*found)->info().live) {
      SuspendOptions options;
      options.noflush = true;
      options.nolockfs = true;
      Status status = past_closes(**found, [&] { return (*found)->wipe_table(options); });
      if (!status.ok()) {
        return status.with_context(command.name());
      }
      changed(**found);
    }
  }
  return remove(command.name(), command.has(kOptDeferred));
}

Status ControlExecutor::remove(const std::string& name, bool deferred) {
  Status status = engine_.remove(name, deferred);
  if (status.error() == EBUSY && hooks_.await_closes) {
    Result<std::shared_ptr<MappedDevice>> found = engine_.find(name);
    if (found.ok() && hooks_.await_closes(**found)) {
      status = engine_.remove(name, deferred);
    }
  }
  return status;
}

Status ControlExecutor::remove_all(const Command& command) {
  std::vector<std::shared_ptr<MappedDevice>> devices = engine_.list();
  for (const auto& device : devices) {
    const MappedDevice::Info info = device->info();
    if (info.open_count > 0 && hooks_.await_closes) {
      hooks_.await_closes(*device);
    }
    if (command.has(kOptForce) && info.live) {
      SuspendOptions options;
      options.noflush = true;
      options.nolockfs = true;
      // One that will not be wiped is not removed either, and is then left as it is.
      device->wipe_table(options).ignore();
      changed(*device);
    }
  }
  devices.clear();
  return engine_.remove_all(command.has(kOptDeferred));
}

Result<std::string> ControlExecutor::message(const std::string& name, sector_t sector,
                                             const std::vector<std::string>& words) {
  Result<std::shared_ptr<MappedDevice>> found = engine_.find(name);
  if (!found.ok()) {
    return found.status();
  }
  const std::vector<std::string_view> argv(words.begin(), words.end());
  Result<std::string> answer = (*found)->message(sector, argv);
  if (!answer.ok()) {
    return answer.status().with_context(name);
  }
  if (!answer->empty() && answer->back() != '\n') {
    *answer += '\n';
  }
  return answer;
}

Status ControlExecutor::past_closes(MappedDevice& device,
                                    const std::function<Status()>& verb) const {
  Status status = verb();
  if (status.error() == EBUSY && device.bypassed() && hooks_.await_closes &&
      hooks_.await_closes(device)) {
    status = verb();
  }
  return status;
}

void ControlExecutor::changed(MappedDevice& device) const {
  if (hooks_.table_changed) {
    hooks_.table_changed(device);
  }
}

}  // namespace mapperfs
