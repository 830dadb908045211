// The columns that dmsetup's reports can have: their names, headings, widths, and the lists of them
// that `help -c` and `-S help` print.
#pragma once

#include <cstddef>
#include <iosfwd>
#include <span>
#include <string_view>

namespace mapperctl {

enum class FieldType { kString, kNumber, kSize };

struct Field {
  std::string_view id;
  std::string_view heading;
  size_t width = 0;  // at least; a longer heading or value widens the column
  FieldType type = FieldType::kString;
  std::string_view description;
};

struct FieldSection {
  std::string_view title;
  std::string_view prefix;  // PREFIXall stands for the section
  std::span<const Field> fields;
  std::string_view all = {};  // what PREFIXall leaves, comma-separated; empty: every field
};

std::span<const FieldSection> field_sections();

// Finds a field whatever the case and the underscores, as dmsetup does. Null when there is none.
const Field* find_field(std::string_view word);
// The section that a word like "info_all" stands for, or null.
const FieldSection* find_field_section(std::string_view word);
// The column that tells whether a row passes the selection; no section has it.
const Field& selected_field();

void print_field_help(std::ostream& out);
// The fields with their types, and the operators: together what `-S help` prints.
void print_selection_fields(std::ostream& out);
void print_selection_operators(std::ostream& out);

}  // namespace mapperctl
