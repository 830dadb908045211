#include "tools/mapperctl_client.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>

namespace mapperctl {
namespace {

// The text up to a separator, which is taken away with it.
std::string_view take_until(std::string_view& text, char separator) {
  const size_t end = text.find(separator);
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return part;
}

// The next word as it is written, escapes kept; the separator after it is taken away too.
std::string_view take_word(std::string_view& text, std::string_view separators = " \t") {
  size_t end = 0;
  while (end < text.size() && separators.find(text[end]) == std::string_view::npos) {
    end += text[end] == '\\' ? 2 : 1;
  }
  end = std::min(end, text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

template <class Number>
Number to_number(std::string_view text, Number missing = 0) {
  Number value = missing;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// MAJ:MIN=NAME, MAJ:MIN=PATH or -=PATH. A block device that was given by its number has that in
// place of a path.
Dep parse_dep(std::string_view word) {
  Dep dep;
  std::string_view number = take_until(word, '=');
  const bool by_number = word == number;
  dep.name = unescape_word(word);
  if (number != "-") {
    dep.major = to_number<int>(take_until(number, ':'), -1);
    dep.minor = to_number<int>(number, -1);
    dep.mapped = !by_number && (dep.name.empty() || dep.name.front() != '/');
  }
  return dep;
}

std::vector<Dep> parse_deps(std::string_view text) {
  std::vector<Dep> deps;
  while (!text.empty()) {
    const std::string_view word = take_word(text);
    if (!word.empty()) deps.push_back(parse_dep(word));
  }
  return deps;
}

}  // namespace

std::string escape_word(std::string_view raw) {
  std::string escaped;
  for (size_t i = 0; i < raw.size(); ++i) {
    const char c = raw[i];
    const bool first_special = i == 0 && (c == '#' || c == '-');
    const bool last_colon = i + 1 == raw.size() && c == ':';
    if (c == ' ' || c == '\t' || c == '\\' || first_special || last_colon) {
      escaped.push_back('\\');
    }
    escaped.push_back(c);
  }
  return escaped;
}

std::string unescape_word(std::string_view escaped) {
  std::string raw;
  for (size_t i = 0; i < escaped.size(); ++i) {
    if (escaped[i] == '\\' && i + 1 < escaped.size()) ++i;
    raw.push_back(escaped[i]);
  }
  return raw;
}

std::optional<Device> parse_list_line(std::string_view line) {
  constexpr size_t kNeededFields = 10;
  std::vector<std::string_view> fields;
  // A tab that is a name's own has a backslash before it.
  while (!line.empty()) fields.push_back(take_word(line, "\t"));
  if (fields.size() < kNeededFields) return std::nullopt;
  fields.resize(13);
  Device device;
  device.name = unescape_word(fields[0]);
  device.uuid = unescape_word(fields[1]);
  device.major = to_number<int>(fields[2]);
  device.minor = to_number<int>(fields[3]);
  device.attr = fields[4];
  device.open_count = to_number<int64_t>(fields[5]);
  device.event_nr = to_number<uint32_t>(fields[6]);
  device.targets = to_number<uint32_t>(fields[7]);
  device.read_ahead = fields[8];
  device.size = to_number<uint64_t>(fields[9]);
  device.flags = fields[10];
  device.deps = parse_deps(fields[11]);
  device.inactive_deps = parse_deps(fields[12]);
  return device;
}

std::vector<DeviceTable> parse_table_reply(std::string_view reply) {
  std::vector<DeviceTable> tables;
  while (!reply.empty()) {
    std::string_view line = take_until(reply, '\n');
    std::string_view name = take_word(line);
    if (name.empty() || name.back() != ':') continue;
    name.remove_suffix(1);
    const std::string plain = unescape_word(name);
    if (tables.empty() || tables.back().name != plain) tables.push_back({plain, {}});
    if (line.empty()) continue;
    TableLine target;
    target.start = to_number<uint64_t>(take_until(line, ' '));
    target.length = to_number<uint64_t>(take_until(line, ' '));
    target.type = take_until(line, ' ');
    target.params = line;
    tables.back().lines.push_back(std::move(target));
  }
  return tables;
}

Answer<std::vector<Device>> Client::list() {
  Answer<std::vector<Device>> answer{transport_.command("list\n"), {}};
  std::string_view text = answer.ok() ? std::string_view(answer.reply.text) : std::string_view();
  while (!text.empty()) {
    if (auto device = parse_list_line(take_until(text, '\n'))) {
      answer.value.push_back(std::move(*device));
    }
  }
  return answer;
}

Answer<Device> Client::device(const std::string& name) {
  Answer<Device> answer{run("list " + escape_word(name)), {}};
  if (!answer.ok()) return answer;
  std::string_view text = answer.reply.text;
  auto device = parse_list_line(take_until(text, '\n'));
  if (!device) answer.reply = {ENXIO, {}};
  if (device) answer.value = std::move(*device);
  return answer;
}

Answer<std::vector<DeviceTable>> Client::tables(const TableQuery& query, const std::string& name) {
  std::string line = query.status ? "status" : "table";
  if (query.inactive) line += " --inactive";
  if (query.showkeys && !query.status) line += " --showkeys";
  if (query.noflush && query.status) line += " --noflush";
  if (!name.empty()) line += " " + escape_word(name);
  Answer<std::vector<DeviceTable>> answer{run(line), {}};
  if (answer.ok()) answer.value = parse_table_reply(answer.reply.text);
  return answer;
}

Answer<std::vector<std::string>> Client::lines_of(const std::string& query) {
  Answer<std::vector<std::string>> answer{run(query), {}};
  std::string_view text = answer.ok() ? std::string_view(answer.reply.text) : std::string_view();
  while (!text.empty()) answer.value.emplace_back(take_until(text, '\n'));
  return answer;
}

Reply Client::load(const std::string& name, bool read_only, const std::vector<TableLine>& lines) {
  std::string text;
  const std::string prefix =
      fmt::format("load {}{}:", read_only ? "--readonly " : "", escape_word(name));
  for (const TableLine& line : lines) {
    text += fmt::format("{} {} {} {} {}\n", prefix, line.start, line.length, escape_word(line.type),
                        line.params);
  }
  return transport_.command(text);
}

}  // namespace mapperctl
