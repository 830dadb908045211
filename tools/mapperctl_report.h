// Reports: rows of chosen fields, selected, sorted and printed as dmsetup prints them: aligned
// columns, separated values, NAME='value' pairs, fields as rows, or JSON.
#pragma once

#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/mapperctl_fields.h"
#include "tools/mapperctl_options.h"
#include "tools/mapperctl_select.h"

namespace mapperctl {

struct ReportSpec {
  std::string_view default_fields;  // comma-separated
  std::string_view all_fields;      // what the word "all" stands for, as sections: "name_all,..."
};

// Says why a selection was not understood, with what it can be made of.
void complain_selection(const ParsedSelection& parsed, std::ostream& err);

class Report {
 public:
  enum class Outcome { kReady, kHelpPrinted, kFailed };

  // Reads -o, -O and -S of `options`, which must outlive the report. Help asked for and errors are
  // printed on `err`; the report is of use only when the outcome is kReady.
  static Outcome create(const ReportSpec& spec, const Options& options, std::ostream& err,
                        std::optional<Report>& report);

  // Takes a row unless the selection drops it.
  void add(const CellSource& row);
  bool empty() const { return rows_.empty(); }
  // True when some chosen, sorted or selected field is one of these sections' (by prefix).
  bool uses_section(std::string_view prefix) const;
  // Sorts, prints and drops the rows, so that a repeated report starts anew.
  void print(std::ostream& out);

 private:
  struct SortKey {
    const Field* field;
    bool descending;
  };
  struct Row {
    std::vector<Cell> cells;  // of columns_
    std::vector<Cell> keys;   // of sort_keys_
  };

  explicit Report(const Options& options) : options_(&options) {}

  // Empty: understood. Else the word that no field is called.
  std::optional<std::string> choose_columns(const ReportSpec& spec, std::string_view list);
  std::optional<std::string> choose_sort_keys(std::string_view list);
  bool add_columns(const ReportSpec& spec, std::string_view word);
  void drop_column(std::string_view word);

  void sort_rows();
  bool aligned() const;
  std::string separator() const;
  std::string heading_of(const Field& field) const;
  std::string value_of(size_t column, const Row& row) const;
  void print_columns(std::ostream& out) const;
  void print_rows_as_lines(std::ostream& out) const;
  void print_json(std::ostream& out) const;

  const Options* options_;
  std::vector<const Field*> columns_;
  std::vector<SortKey> sort_keys_;
  std::unique_ptr<Selection> selection_;
  std::vector<const Field*> used_;  // columns and sort keys
  std::vector<Row> rows_;
  bool shows_selected_ = false;
};

// True when -S names rows that pass; used where no report is printed but names are filtered.
bool wants_help(std::string_view list);

}  // namespace mapperctl
