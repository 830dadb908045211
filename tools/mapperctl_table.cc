#include "tools/mapperctl_table.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <limits>
#include <optional>

namespace mapperctl {
namespace {

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

void skip_spaces(std::string_view& text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
}

void trim(std::string_view& text) {
  skip_spaces(text);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
}

// scanf's %llu: blanks, a sign, digits; a negative number wraps and a huge one saturates.
std::optional<uint64_t> scan_number(std::string_view& text) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  skip_spaces(text);
  const bool negative = !text.empty() && text.front() == '-';
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text.front())) == 0) {
    return std::nullopt;
  }
  uint64_t value = 0;
  bool saturated = false;
  while (!text.empty() && std::isdigit(static_cast<unsigned char>(text.front())) != 0) {
    const auto digit = static_cast<uint64_t>(text.front() - '0');
    saturated = saturated || value > (kMax - digit) / 10;
    value = saturated ? kMax : value * 10 + digit;
    text.remove_prefix(1);
  }
  return negative && !saturated ? uint64_t{0} - value : value;
}

std::string_view scan_word(std::string_view& text) {
  skip_spaces(text);
  size_t end = 0;
  while (end < text.size() && !is_space(text[end])) ++end;
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

// One line into `table`; blank lines and comments add nothing. Returns the error or an empty text.
std::string parse_line(std::string_view line, std::string_view source, int number,
                       std::vector<TableLine>& table) {
  trim(line);
  if (line.empty() || line.front() == '#') return {};
  const auto start = scan_number(line);
  const auto length = start ? scan_number(line) : std::nullopt;
  const std::string_view type = length ? scan_word(line) : std::string_view();
  if (type.empty()) {
    return fmt::format("Invalid format on line {} of table {}.", number, source);
  }
  skip_spaces(line);
  line = line.substr(0, line.find('#'));
  if (type.size() > kMaxTargetTypeBytes) {
    return fmt::format("Target type name {} is too long.", type);
  }
  table.push_back({*start, *length, std::string(type), std::string(line)});
  return {};
}

// The fields of one device in the concise form, unescaped, and where it stopped.
struct ConciseFields {
  static constexpr size_t kCount = 5;  // name, uuid, minor, flags, table
  std::array<std::optional<std::string>, kCount> text;
  size_t complete = 0;  // fields that a separator or the end of the device ended

  std::string describe() const {
    const auto show = [this](size_t i) { return text[i] ? *text[i] : std::string("(null)"); };
    return fmt::format("Parsed {} fields: name: {} uuid: {} minor: {} flags: {} table: {}",
                       complete, show(0), show(1), show(2), show(3), show(4));
  }
};

class ConciseParser {
 public:
  explicit ConciseParser(std::string_view text) : text_(text) {}

  ParsedConcise run() {
    while (at_ < text_.size() && result_.error.empty()) parse_device();
    return std::move(result_);
  }

 private:
  void fail(std::string_view sentence, const ConciseFields& fields) {
    result_.error = fmt::format("{}\n{}", sentence, fields.describe());
  }

  void skip_blanks() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }

  // Reads up to the separator that ends the device. Returns false when an error was recorded.
  bool read_fields(ConciseFields& fields) {
    size_t field = 0;
    skip_blanks();
    fields.text[0] = "";
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      std::string& out = *fields.text[field];
      open_end_ = c == '\\' || c == ',';
      if (c == '\\') {
        if (at_ == text_.size()) {
          fields.complete = field + 1;
          fail("Backslash must be followed by another character at end of string.", fields);
          return false;
        }
        out.push_back(text_[at_++]);
      } else if (c == ';') {
        fields.complete = field + 1;
        if (fields.complete == ConciseFields::kCount) return true;
        fail("Five comma-separated fields are required for each device", fields);
        return false;
      } else if (c == ',') {
        skip_blanks();
        // Past the fourth comma, one more begins the next line of the table.
        if (field + 1 == ConciseFields::kCount) {
          out.push_back('\n');
        } else {
          fields.text[++field] = "";
        }
      } else {
        out.push_back(c);
      }
    }
    fields.complete = field + 1;
    return true;
  }

  void parse_device() {
    ConciseFields fields;
    if (!read_fields(fields)) return;
    if (open_end_ || fields.complete < ConciseFields::kCount) {
      // dmsetup words it in two ways: after a comma it still waited for a field.
      fail(open_end_ ? "Incomplete entry: five comma-separated fields are required for each device"
                     : "Five comma-separated fields are required for each device",
           fields);
      return;
    }
    const std::string& flags = *fields.text[3];
    if (!flags.empty() && flags != "ro" && flags != "rw") {
      result_.error =
          fmt::format("Invalid flags parameter '{}' must be 'ro' or 'rw' or empty.", flags);
      return;
    }
    result_.devices.push_back({std::move(*fields.text[0]), std::move(*fields.text[1]),
                               std::move(*fields.text[2]), flags == "ro",
                               std::move(*fields.text[4])});
  }

  std::string_view text_;
  size_t at_ = 0;
  bool open_end_ = false;  // the last character was a comma or an escaped one
  ParsedConcise result_;
};

}  // namespace

ParsedTable parse_table(std::string_view text, std::string_view source) {
  ParsedTable result;
  int number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    result.error = parse_line(line, source, ++number, result.lines);
    if (!result.error.empty()) return result;
  }
  return result;
}

ParsedConcise parse_concise(std::string_view text) { return ConciseParser(text).run(); }

std::string escape_concise(std::string_view field) {
  std::string escaped;
  escaped.reserve(field.size());
  for (const char c : field) {
    if (c == ',' || c == ';' || c == '\\') escaped.push_back('\\');
    escaped.push_back(c);
  }
  return escaped;
}

}  // namespace mapperctl
