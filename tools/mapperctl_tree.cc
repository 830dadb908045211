#include "tools/mapperctl_tree.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <map>

namespace mapperctl {
namespace {

struct Symbols {
  std::string_view vertical;  // two columns
  std::string_view branch;
  std::string_view last;
  std::string_view single;  // three columns, compact trees only
  std::string_view first;
};

constexpr Symbols kAsciiSymbols = {"| ", "|-", "`-", "---", "-+-"};
constexpr Symbols kUtfSymbols = {"\u2502 ", "\u251c\u2500", "\u2514\u2500", "\u2500\u2500\u2500",
                                 "\u2500\u252c\u2500"};
constexpr Symbols kVt100Symbols = {"\033(0\017x\033(B ", "\033(0\017tq\033(B", "\033(0\017mq\033(B",
                                   "\033(0\017qqq\033(B", "\033(0\017qwq\033(B"};

const Symbols& symbols_of(TreeSymbols symbols) {
  switch (symbols) {
    case TreeSymbols::kUtf:
      return kUtfSymbols;
    case TreeSymbols::kVt100:
      return kVt100Symbols;
    case TreeSymbols::kAscii:
      break;
  }
  return kAsciiSymbols;
}

struct Node {
  const Device* device = nullptr;  // null: what is not a mapped device
  Dep dep;                         // of the latter
  std::vector<size_t> uses;
  std::vector<size_t> used_by;
};

// Printed columns of a text: continuation bytes and terminal escapes take none.
size_t columns_of(std::string_view text) {
  size_t columns = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\033') {
      i += 2;
    } else if (text[i] == '\017') {
      continue;  // "shift in", a part of the line drawing
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U) {
      ++columns;
    }
  }
  return columns;
}

class Graph {
 public:
  explicit Graph(const std::vector<Device>& devices) {
    for (const Device& device : devices) by_name_.emplace(device.name, &device);
    for (const Device& device : devices) add_device(device);
  }

  const Node& node(size_t i) const { return nodes_[i]; }
  size_t size() const { return nodes_.size(); }

 private:
  size_t add_device(const Device& device) {
    const std::string key = "=" + device.name;
    if (const auto known = index_.find(key); known != index_.end()) return known->second;
    const size_t at = add_node(key);
    nodes_[at].device = &device;
    for (const Dep& dep : device.deps) link(at, add_dep(dep));
    return at;
  }

  size_t add_dep(const Dep& dep) {
    const auto mapped = dep.mapped ? by_name_.find(dep.name) : by_name_.end();
    if (mapped != by_name_.end()) return add_device(*mapped->second);
    const std::string key = dep.is_file() ? dep.name : fmt::format("{}:{}", dep.major, dep.minor);
    if (const auto known = index_.find(key); known != index_.end()) return known->second;
    const size_t at = add_node(key);
    nodes_[at].dep = dep;
    return at;
  }

  size_t add_node(const std::string& key) {
    nodes_.emplace_back();
    index_.emplace(key, nodes_.size() - 1);
    return nodes_.size() - 1;
  }

  void link(size_t user, size_t used) {
    nodes_[user].uses.push_back(used);
    nodes_[used].used_by.push_back(user);
  }

  std::map<std::string, const Device*> by_name_;
  std::map<std::string, size_t> index_;
  std::deque<Node> nodes_;  // links keep indices, not addresses
};

// Draws as dmsetup does, which knows of a line only what it printed last at each depth. Where nodes
// without a name are left out of a compact tree, that makes odd pictures (lines that go on with the
// next branch, margins of the tree before, no end of the last line), and scripts see the same here.
class Painter {
 public:
  Painter(const Graph& graph, const TreeOptions& options, const Symbols& symbols, size_t width)
      : graph_(graph),
        options_(options),
        compact_(options.compact && !shows_attributes(options)),
        symbols_(symbols),
        width_(width) {}

  std::string paint() {
    std::vector<size_t> roots;
    for (size_t i = 0; i < graph_.size(); ++i) {
      const Node& node = graph_.node(i);
      if ((options_.inverted ? node.uses : node.used_by).empty()) roots.push_back(i);
    }
    walk(roots, 0);
    return out_ + cut(line_);
  }

 private:
  // They take a line each.
  static bool shows_attributes(const TreeOptions& options) {
    return options.active || options.open || options.rw || options.uuid;
  }

  const std::vector<size_t>& children(size_t i) const {
    return options_.inverted ? graph_.node(i).used_by : graph_.node(i).uses;
  }

  // Without numbers and block names, what has no name has nothing to show.
  bool shown(const Node& node) const {
    return node.device != nullptr || options_.device || options_.blkdevname;
  }

  std::string label(const Node& node) const {
    const bool file = node.device == nullptr && node.dep.is_file();
    std::string text = node.device != nullptr ? node.device->name : std::string();
    const Dep self = node.device == nullptr
                         ? node.dep
                         : Dep{node.device->major, node.device->minor, true, node.device->name};
    if (options_.blkdevname) text += fmt::format(" <{}>", block_name(self));
    if (options_.device) {
      text +=
          file ? fmt::format(" ({})", self.name) : fmt::format(" ({}:{})", self.major, self.minor);
    }
    if (node.device != nullptr) text += attributes(*node.device);
    return text;
  }

  std::string attributes(const Device& device) const {
    std::vector<std::string> words;
    if (options_.active) words.emplace_back(device.suspended() ? "SUSPENDED" : "ACTIVE");
    if (options_.rw) words.emplace_back(device.read_only() ? "RO" : "RW");
    if (options_.open) words.push_back(std::to_string(device.open_count));
    if (options_.uuid) words.push_back(device.uuid);
    return words.empty() ? std::string() : fmt::format(" [{}]", fmt::join(words, ", "));
  }

  std::string cut(std::string_view line) const {
    if (width_ == 0 || options_.notrunc || columns_of(line) <= width_) return std::string(line);
    size_t end = 0;
    while (columns_of(line.substr(0, end + 1)) < width_) ++end;
    return fmt::format("{}+", line.substr(0, end));
  }

  void walk(const std::vector<size_t>& siblings, size_t depth) {
    if (levels_.size() < depth + 2) levels_.resize(depth + 2);
    for (size_t n = 0; n < siblings.size(); ++n) {
      paint_node(siblings[n], depth, n + 1 == siblings.size());
      if (!children(siblings[n]).empty()) walk(children(siblings[n]), depth + 1);
    }
  }

  void paint_node(size_t i, size_t depth, bool last) {
    const Node& node = graph_.node(i);
    if (!shown(node)) return;
    levels_[depth] = {!last, 0};
    const bool first_on_line = line_.empty();
    if (!compact_ || first_on_line) line_ += prefix(depth);
    const size_t from = columns_of(line_);
    if (compact_ && !first_on_line) line_ += last ? symbols_.single : symbols_.first;
    line_ += label(node);
    if (!compact_) return end_line();
    levels_[depth].columns = columns_of(line_) - from;
    // The first child goes on with this line.
    if (children(i).empty()) end_line();
  }

  // What stands before a node that begins a line: below each of those above it, then its branch.
  std::string prefix(size_t depth) const {
    std::string text;
    for (size_t d = 0; d < depth; ++d) {
      text.append(levels_[d].columns + 1, ' ');
      if (d + 1 == depth) {
        text += levels_[depth].more ? symbols_.branch : symbols_.last;
      } else {
        text += levels_[d + 1].more ? symbols_.vertical : std::string_view("  ");
      }
    }
    return text;
  }

  void end_line() {
    out_ += cut(line_) + '\n';
    line_.clear();
  }

  // What was painted last at a depth.
  struct Level {
    bool more = false;   // siblings follow
    size_t columns = 0;  // of a compact tree, the symbol before the name with it
  };

  const Graph& graph_;
  const TreeOptions& options_;
  bool compact_;
  const Symbols& symbols_;
  size_t width_;
  std::vector<Level> levels_;
  std::string line_;
  std::string out_;
};

}  // namespace

std::string block_name(const Dep& dep) {
  if (dep.mapped) return fmt::format("dm-{}", dep.minor);
  if (!dep.is_file()) {
    std::array<char, 4096> target{};
    const std::string link = fmt::format("/sys/dev/block/{}:{}", dep.major, dep.minor);
    const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
    if (length > 0) {
      const std::string_view path(target.data(), static_cast<size_t>(length));
      return std::string(path.substr(path.rfind('/') + 1));
    }
  }
  return dep.name.substr(dep.name.rfind('/') + 1);
}

std::string draw_trees(const std::vector<Device>& devices, const TreeOptions& options,
                       TreeSymbols symbols, size_t width) {
  const Graph graph(devices);
  return Painter(graph, options, symbols_of(symbols), width).paint();
}

}  // namespace mapperctl
