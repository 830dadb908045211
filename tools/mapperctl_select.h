// Selections: the expressions of -S, as in `segments>1 && name=~"^a"`. Parsing and evaluation; what
// a row's fields hold comes from the caller.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/mapperctl_fields.h"

namespace mapperctl {

// One value of a row: as it is printed, and as a number where the field is one.
struct Cell {
  std::string text;
  std::optional<int64_t> number;
};

using CellSource = std::function<Cell(const Field&)>;

class Selection {
 public:
  virtual ~Selection() = default;
  virtual bool matches(const CellSource& row) const = 0;
};

struct ParsedSelection {
  enum class Help { kNone, kFields, kOperators };

  std::unique_ptr<Selection> selection;  // null: an error
  std::string error;                     // lines without the last line end
  Help help = Help::kNone;               // the list that dmsetup prints before the error
  std::vector<const Field*> fields;      // those that it compares

  bool uses(std::string_view id) const;
};

ParsedSelection parse_selection(std::string_view text);

}  // namespace mapperctl
