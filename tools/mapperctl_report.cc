#include "tools/mapperctl_report.h"

#include <fmt/ostream.h>

#include <algorithm>
#include <cctype>

#include "tools/mapperctl_json.h"

namespace mapperctl {
namespace {

std::vector<std::string_view> split_list(std::string_view list) {
  std::vector<std::string_view> words;
  while (true) {
    const size_t comma = list.find(',');
    words.push_back(list.substr(0, comma));
    if (comma == std::string_view::npos) return words;
    list.remove_prefix(comma + 1);
  }
}

int compare(const Cell& a, const Cell& b) {
  if (a.number && b.number) return *a.number < *b.number ? -1 : *a.number > *b.number ? 1 : 0;
  return a.text.compare(b.text);
}

std::string variable_name(const Field& field) {
  std::string name = "DM_";
  for (const char c : field.id) {
    name.push_back(static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  }
  return name;
}

// Columns count characters, not bytes: a continuation byte of UTF-8 takes no room.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

std::string padding(size_t width, std::string_view text) {
  const size_t used = width_of(text);
  return std::string(width > used ? width - used : 0, ' ');
}

}  // namespace

void complain_selection(const ParsedSelection& parsed, std::ostream& err) {
  if (parsed.help == ParsedSelection::Help::kFields) print_selection_fields(err);
  if (parsed.help == ParsedSelection::Help::kOperators) print_selection_operators(err);
  fmt::print(err, "{}\n", parsed.error);
}

bool wants_help(std::string_view list) { return list == "help" || list == "?"; }

Report::Outcome Report::create(const ReportSpec& spec, const Options& options, std::ostream& err,
                               std::optional<Report>& report) {
  const std::string fields = options.fields.value_or("");
  const std::string sort = options.sort.value_or("");
  const std::string select = options.select.value_or("");
  if (wants_help(fields) || wants_help(sort)) {
    print_field_help(err);
    return Outcome::kHelpPrinted;
  }
  if (wants_help(select)) {
    print_selection_fields(err);
    print_selection_operators(err);
    return Outcome::kHelpPrinted;
  }
  Report made(options);
  const bool chosen = options.fields.has_value();
  if (auto bad = made.choose_columns(spec, chosen ? fields : spec.default_fields)) {
    print_field_help(err);
    fmt::print(err, "Unrecognised field: {}\n", *bad);
    return Outcome::kFailed;
  }
  if (auto bad = made.choose_sort_keys(sort)) {
    print_field_help(err);
    fmt::print(err, "dm_report: Unrecognised field: {}\n", *bad);
    return Outcome::kFailed;
  }
  ParsedSelection parsed = parse_selection(select);
  if (!parsed.selection) {
    complain_selection(parsed, err);
    return Outcome::kFailed;
  }
  made.selection_ = std::move(parsed.selection);
  report = std::move(made);
  return Outcome::kReady;
}

bool Report::add_columns(const ReportSpec& spec, std::string_view word) {
  if (word == "all") {
    for (const std::string_view prefix : split_list(spec.all_fields)) {
      for (const Field& field : find_field_section(prefix)->fields) columns_.push_back(&field);
    }
    return true;
  }
  if (const FieldSection* const section = find_field_section(word)) {
    for (const std::string_view id : split_list(section->all)) {
      if (!id.empty()) columns_.push_back(find_field(id));
    }
    for (const Field& field : section->fields) {
      if (section->all.empty()) columns_.push_back(&field);
    }
    return true;
  }
  const Field* const field = find_field(word);
  if (field != nullptr) columns_.push_back(field);
  return field != nullptr;
}

void Report::drop_column(std::string_view word) {
  const Field* const field = find_field(word);
  columns_.erase(std::remove(columns_.begin(), columns_.end(), field), columns_.end());
}

std::optional<std::string> Report::choose_columns(const ReportSpec& spec, std::string_view list) {
  if (list.empty()) return std::nullopt;
  const bool append = list.front() == '+';
  const bool drop = list.front() == '-';
  if (append || drop) {
    for (const std::string_view word : split_list(spec.default_fields)) add_columns(spec, word);
    list.remove_prefix(1);
  }
  for (const std::string_view word : split_list(list)) {
    const bool known = find_field(word) != nullptr || find_field_section(word) != nullptr;
    if (drop && known) {
      drop_column(word);
    } else if (drop || !add_columns(spec, word)) {
      return std::string(word);
    }
  }
  shows_selected_ =
      std::find(columns_.begin(), columns_.end(), &selected_field()) != columns_.end();
  used_ = columns_;
  return std::nullopt;
}

std::optional<std::string> Report::choose_sort_keys(std::string_view list) {
  if (list.empty()) return std::nullopt;
  for (std::string_view word : split_list(list)) {
    const bool descending = !word.empty() && word.front() == '-';
    if (!word.empty() && (descending || word.front() == '+')) word.remove_prefix(1);
    const Field* const field = find_field(word);
    if (field == nullptr) return std::string(word);
    sort_keys_.push_back({field, descending});
    used_.push_back(field);
  }
  return std::nullopt;
}

bool Report::uses_section(std::string_view prefix) const {
  for (const FieldSection& section : field_sections()) {
    if (section.prefix != prefix) continue;
    for (const Field* const field : used_) {
      if (field >= section.fields.data() && field < section.fields.data() + section.fields.size()) {
        return true;
      }
    }
  }
  return false;
}

void Report::add(const CellSource& row) {
  // `selected` in a selection stands for what the row would be without it: true.
  const auto source = [&row](const Field& field) {
    return &field == &selected_field() ? Cell{"1", 1} : row(field);
  };
  const bool selected = selection_->matches(source);
  if (!selected && !shows_selected_) return;
  const auto printed = [&row, selected](const Field& field) {
    return &field == &selected_field() ? Cell{selected ? "1" : "0", selected ? 1 : 0} : row(field);
  };
  Row made;
  for (const Field* const field : columns_) made.cells.push_back(printed(*field));
  for (const SortKey& key : sort_keys_) made.keys.push_back(printed(*key.field));
  rows_.push_back(std::move(made));
}

void Report::sort_rows() {
  std::stable_sort(rows_.begin(), rows_.end(), [this](const Row& a, const Row& b) {
    for (size_t i = 0; i < sort_keys_.size(); ++i) {
      const int order = compare(a.keys[i], b.keys[i]);
      if (order != 0) return sort_keys_[i].descending ? order > 0 : order < 0;
    }
    return false;
  });
}

bool Report::aligned() const {
  return !options_->separator && options_->headings != Headings::kNone &&
         !options_->name_prefixes && !options_->rows;
}

std::string Report::separator() const {
  if (options_->separator) return *options_->separator;
  return options_->headings == Headings::kNone ? ":" : " ";
}

std::string Report::heading_of(const Field& field) const {
  return std::string(options_->headings == Headings::kFull ? field.id : field.heading);
}

std::string Report::value_of(size_t column, const Row& row) const {
  const std::string& text = row.cells[column].text;
  if (!options_->name_prefixes) return text;
  const std::string_view quote = options_->unquoted ? "" : "'";
  return fmt::format("{}={}{}{}", variable_name(*columns_[column]), quote, text, quote);
}

void Report::print(std::ostream& out) {
  sort_rows();
  if (options_->json) {
    print_json(out);
  } else if (!rows_.empty()) {
    options_->rows ? print_rows_as_lines(out) : print_columns(out);
  }
  rows_.clear();
}

void Report::print_columns(std::ostream& out) const {
  std::vector<size_t> widths(columns_.size(), 0);
  const bool align = aligned();
  const bool headings = options_->headings != Headings::kNone;
  for (size_t i = 0; align && i < columns_.size(); ++i) {
    widths[i] = std::max(columns_[i]->width, width_of(heading_of(*columns_[i])));
    for (const Row& row : rows_) widths[i] = std::max(widths[i], width_of(row.cells[i].text));
  }
  const std::string between = separator();
  for (size_t i = 0; headings && i < columns_.size(); ++i) {
    const std::string heading = heading_of(*columns_[i]);
    fmt::print(out, "{}{}{}", i == 0 ? "" : between, heading, padding(widths[i], heading));
  }
  if (headings) fmt::print(out, "\n");
  for (const Row& row : rows_) {
    for (size_t i = 0; i < columns_.size(); ++i) {
      const std::string value = value_of(i, row);
      const bool right = columns_[i]->type != FieldType::kString;
      const std::string pad = padding(widths[i], value);
      fmt::print(out, "{}{}{}{}", i == 0 ? "" : between, right ? pad : "", value, right ? "" : pad);
    }
    fmt::print(out, "\n");
  }
}

void Report::print_rows_as_lines(std::ostream& out) const {
  const std::string between = separator();
  for (size_t i = 0; i < columns_.size(); ++i) {
    std::string line;
    if (options_->headings != Headings::kNone) line = heading_of(*columns_[i]) + between;
    for (size_t r = 0; r < rows_.size(); ++r) {
      line += (r == 0 ? "" : between) + value_of(i, rows_[r]);
    }
    fmt::print(out, "{}\n", line);
  }
}

void Report::print_json(std::ostream& out) const {
  JsonWriter json(out);
  json.begin_array();
  for (const Row& row : rows_) {
    json.begin_object();
    for (size_t i = 0; i < columns_.size(); ++i) {
      json.key(columns_[i]->id);
      const Cell& cell = row.cells[i];
      cell.number ? json.number(*cell.number) : json.string(cell.text);
    }
    json.end_object();
  }
  json.end_array();
  json.finish();
}

}  // namespace mapperctl
