// The daemon's facts as values: devices, tables, dependencies, read through a Transport, and
// commands sent to it. Knows the protocol's words and escapes, nothing of how things are printed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/mapperctl_table.h"
#include "tools/mapperctl_transport.h"

namespace mapperctl {

// A device that a table uses: a mapped device (name), a block device (number and path) or a file.
struct Dep {
  int major = -1;  // -1: a file, which has no number
  int minor = -1;
  bool mapped = false;
  std::string name;  // of the mapped device, else the path

  bool is_file() const { return major < 0; }
};

struct Device {
  std::string name;  // as the daemon has it: mangled
  std::string uuid;
  int major = 0;
  int minor = 0;
  std::string attr;  // four characters, `L`/`-`, `I`/`-`, `s`/`-`, `r`/`w`
  int64_t open_count = 0;
  uint32_t event_nr = 0;
  uint32_t targets = 0;
  std::string read_ahead;  // sectors; empty: not known
  uint64_t size = 0;       // sectors
  std::string flags;
  std::vector<Dep> deps;
  std::vector<Dep> inactive_deps;

  bool live() const { return has_attr(0, 'L'); }
  bool inactive() const { return has_attr(1, 'I'); }
  bool suspended() const { return has_attr(2, 's'); }
  bool read_only() const { return has_attr(3, 'r'); }
  bool deferred_remove() const { return flags.find('D') != std::string::npos; }

 private:
  bool has_attr(size_t at, char letter) const { return attr.size() > at && attr[at] == letter; }
};

struct DeviceTable {
  std::string name;
  std::vector<TableLine> lines;
};

// A value, or the Reply that says why there is none.
template <class T>
struct Answer {
  Reply reply;
  T value{};

  bool ok() const { return reply.ok(); }
};

struct TableQuery {
  bool status = false;
  bool inactive = false;
  bool showkeys = false;
  bool noflush = false;
};

// Words of the protocol: what would end the word or make it a comment, an option or the beginning
// of a table line gets a backslash: blanks, backslashes, a # or - at the front, a colon at the end.
std::string escape_word(std::string_view raw);
std::string unescape_word(std::string_view escaped);

// The parts of the protocol that are text; exposed for tests.
std::optional<Device> parse_list_line(std::string_view line);
std::vector<DeviceTable> parse_table_reply(std::string_view reply);

class Client {
 public:
  explicit Client(Transport& transport) : transport_(transport) {}

  Transport& transport() { return transport_; }
  // One command, its line without the end.
  Reply run(const std::string& line) { return transport_.command(line + '\n'); }
  // Every device, or the one named (ENXIO when there is none).
  Answer<std::vector<Device>> list();
  Answer<Device> device(const std::string& name);
  Answer<std::vector<DeviceTable>> tables(const TableQuery& query, const std::string& name = {});
  // Lines of `targets` and `version`, split.
  Answer<std::vector<std::string>> lines_of(const std::string& query);
  Reply load(const std::string& name, bool read_only, const std::vector<TableLine>& lines);

 private:
  Transport& transport_;
};

}  // namespace mapperctl
