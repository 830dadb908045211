// `graph`: the devices and what they are built on, in the language of graphviz.
#include <fmt/ostream.h>

#include <set>

#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

// A string of the dot language.
std::string dot_quote(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c == '\n' ? ' ' : c);
  }
  return quoted + "\"";
}

std::string dep_node(const Dep& dep) {
  return dot_quote((dep.mapped ? "device " : "below ") + dep.name);
}

std::string dep_label(const Dep& dep) {
  return dep.is_file() ? dep.name : fmt::format("{} ({}:{})", dep.name, dep.major, dep.minor);
}

}  // namespace

bool verb_graph(Session& session) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  const auto devices = client->list();
  if (!devices.ok()) return session.ioctl_failed("names", {}, devices.reply);
  const auto tables = client->tables({});
  if (!tables.ok()) return session.ioctl_failed("table", {}, tables.reply);
  std::ostream& out = session.out();
  fmt::print(out, "digraph mapperfs {{\n  rankdir=LR;\n  node [shape=box, fontname=monospace];\n");
  std::set<std::string> below;
  for (const Device& device : devices.value) {
    std::set<std::string> types;
    for (const DeviceTable& table : tables.value) {
      if (table.name != device.name) continue;
      for (const TableLine& line : table.lines) types.insert(line.type);
    }
    const Dep self{device.major, device.minor, true, device.name};
    const std::string label = fmt::format(
        "{} ({}:{}) {} sectors, {}", session.shown(device.name), device.major, device.minor,
        device.size, types.empty() ? "no table" : fmt::format("{}", fmt::join(types, " ")));
    fmt::print(out, "  {} [label={}{}];\n", dep_node(self), dot_quote(label),
               device.suspended() ? ", style=dashed" : "");
    for (const Dep& dep : device.deps) {
      if (!dep.mapped && below.insert(dep.name).second) {
        fmt::print(out, "  {} [label={}, shape=cylinder];\n", dep_node(dep),
                   dot_quote(dep_label(dep)));
      }
      fmt::print(out, "  {} -> {};\n", dep_node(self), dep_node(dep));
    }
  }
  fmt::print(out, "}}\n");
  return true;
}

}  // namespace mapperctl
