// Grammar:  or := and (("||" | "#") and)*    and := unary (("&&" | ",") unary)*
//           unary := "!" "(" or ")" | "(" or ")" | field operator value
#include "tools/mapperctl_select.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <regex>

namespace mapperctl {
namespace {

enum class Compare {
  kMatches,
  kNotMatches,
  kEqual,
  kNotEqual,
  kAtLeast,
  kMore,
  kAtMost,
  kLess,
  kTime
};

struct Operator {
  std::string_view text;
  Compare compare;
};

// Longer ones first, or `>=` would be read as `>`.
constexpr std::array kOperators = {
    Operator{"=~", Compare::kMatches},  Operator{"!~", Compare::kNotMatches},
    Operator{"!=", Compare::kNotEqual}, Operator{">=", Compare::kAtLeast},
    Operator{"<=", Compare::kAtMost},   Operator{"=", Compare::kEqual},
    Operator{">", Compare::kMore},      Operator{"<", Compare::kLess},
    Operator{"since", Compare::kTime},  Operator{"after", Compare::kTime},
    Operator{"until", Compare::kTime},  Operator{"before", Compare::kTime},
};

class Logical final : public Selection {
 public:
  Logical(bool all, std::vector<std::unique_ptr<Selection>> parts)
      : all_(all), parts_(std::move(parts)) {}
  bool matches(const CellSource& row) const override {
    for (const auto& part : parts_) {
      if (part->matches(row) != all_) return !all_;
    }
    return all_;
  }

 private:
  bool all_;
  std::vector<std::unique_ptr<Selection>> parts_;
};

class Negation final : public Selection {
 public:
  explicit Negation(std::unique_ptr<Selection> inner) : inner_(std::move(inner)) {}
  bool matches(const CellSource& row) const override { return !inner_->matches(row); }

 private:
  std::unique_ptr<Selection> inner_;
};

class Always final : public Selection {
 public:
  bool matches(const CellSource&) const override { return true; }
};

class TextComparison final : public Selection {
 public:
  TextComparison(const Field& field, bool equal, std::string value)
      : field_(field), equal_(equal), value_(std::move(value)) {}
  bool matches(const CellSource& row) const override {
    return (row(field_).text == value_) == equal_;
  }

 private:
  const Field& field_;
  bool equal_;
  std::string value_;
};

class NumberComparison final : public Selection {
 public:
  NumberComparison(const Field& field, Compare compare, int64_t value)
      : field_(field), compare_(compare), value_(value) {}
  bool matches(const CellSource& row) const override {
    const int64_t number = row(field_).number.value_or(0);
    switch (compare_) {
      case Compare::kEqual:
        return number == value_;
      case Compare::kNotEqual:
        return number != value_;
      case Compare::kAtLeast:
        return number >= value_;
      case Compare::kMore:
        return number > value_;
      case Compare::kAtMost:
        return number <= value_;
      case Compare::kLess:
        return number < value_;
      default:
        return false;
    }
  }

 private:
  const Field& field_;
  Compare compare_;
  int64_t value_;
};

class RegexComparison final : public Selection {
 public:
  RegexComparison(const Field& field, bool wanted, std::regex pattern)
      : field_(field), wanted_(wanted), pattern_(std::move(pattern)) {}
  bool matches(const CellSource& row) const override {
    return std::regex_search(row(field_).text, pattern_) == wanted_;
  }

 private:
  const Field& field_;
  bool wanted_;
  std::regex pattern_;
};

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

class SelectionParser {
 public:
  explicit SelectionParser(std::string_view text) : text_(text) {}

  ParsedSelection run() {
    auto selection = parse_or();
    if (selection && !rest().empty()) {
      selection = syntax_error("Expecting logical operator", at_, Help::kNone);
    }
    result_.selection = std::move(selection);
    return std::move(result_);
  }

 private:
  using Help = ParsedSelection::Help;
  using Node = std::unique_ptr<Selection>;

  std::string_view rest() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    return text_.substr(at_);
  }

  bool take(std::string_view token) {
    if (rest().substr(0, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  // Records what is wrong; `where` is the position that is quoted to the end.
  Node syntax_error(std::string_view sentence, size_t where, Help help) {
    if (!result_.error.empty()) return nullptr;
    result_.help = help;
    result_.error = fmt::format(
        "{}\nSelection syntax error at '{}'.\nUse 'help' for selection to get more help.", sentence,
        text_.substr(where));
    return nullptr;
  }

  Node parenthesis_error(std::string_view side) {
    if (result_.error.empty()) {
      result_.error = fmt::format("Syntax error: {} parenthesis expected at '{}'", side, rest());
    }
    return nullptr;
  }

  Node parse_list(bool all, std::string_view token, std::string_view short_token) {
    std::vector<Node> parts;
    do {
      Node part = all ? parse_unary() : parse_list(true, "&&", ",");
      if (!part) return nullptr;
      parts.push_back(std::move(part));
    } while (take(token) || take(short_token));
    if (parts.size() == 1) return std::move(parts.front());
    return std::make_unique<Logical>(all, std::move(parts));
  }

  Node parse_or() { return parse_list(false, "||", "#"); }

  Node parse_parenthesis() {
    Node inner = parse_or();
    if (inner && !take(")")) return parenthesis_error("right");
    return inner;
  }

  Node parse_unary() {
    if (take("!")) {
      if (!take("(")) return parenthesis_error("left");
      Node inner = parse_parenthesis();
      return inner ? std::make_unique<Negation>(std::move(inner)) : nullptr;
    }
    if (take("(")) return parse_parenthesis();
    return parse_comparison();
  }

  Node parse_comparison() {
    rest();
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 ||
                                  text_[at_] == '_' || text_[at_] == '?')) {
      ++at_;
    }
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (word.empty()) return syntax_error("Expecting field name", begin, Help::kNone);
    if (word == "help" || word == "?") return uncomparable(word, begin);
    const Field* const field = find_field(word);
    if (field == nullptr) {
      return syntax_error(fmt::format("Unrecognised selection field: {}", word), begin,
                          Help::kFields);
    }
    result_.fields.push_back(field);
    return parse_operator(*field, begin);
  }

  Node uncomparable(std::string_view word, size_t begin) {
    return syntax_error(fmt::format("Selection field is uncomparable: {}.", word), begin,
                        Help::kFields);
  }

  Node parse_operator(const Field& field, size_t begin) {
    rest();
    for (const Operator& op : kOperators) {
      if (take(op.text)) return parse_value(field, op.compare, begin);
    }
    return syntax_error(fmt::format("Unrecognised comparison operator: {}", rest()), begin,
                        Help::kOperators);
  }

  Node parse_value(const Field& field, Compare compare, size_t begin) {
    const bool regex = compare == Compare::kMatches || compare == Compare::kNotMatches;
    const bool equality = compare == Compare::kEqual || compare == Compare::kNotEqual;
    if (compare == Compare::kTime) {
      return misused_operator("Operator can be used only with time fields", begin);
    }
    if (regex) return parse_regex(field, compare == Compare::kMatches, begin);
    if (field.type != FieldType::kString) return parse_number(field, compare, begin);
    if (!equality) {
      return misused_operator("Operator can be used only with number, size, time or percent fields",
                              begin);
    }
    auto value = take_string();
    if (!value) return bad_value("string", field, begin);
    return std::make_unique<TextComparison>(field, compare == Compare::kEqual, std::move(*value));
  }

  Node misused_operator(std::string_view sentence, size_t begin) {
    return syntax_error(fmt::format("{}: {}", sentence, text_.substr(begin)), begin,
                        Help::kOperators);
  }

  Node bad_value(std::string_view kind, const Field& field, size_t begin) {
    return syntax_error(fmt::format("{}Failed to parse {} value for selection field {}.",
                                    missing_quote_ ? "Missing end quote.\n" : "", kind, field.id),
                        begin, Help::kNone);
  }

  // Digits, and a fraction that does not count.
  Node parse_number(const Field& field, Compare compare, size_t begin) {
    std::string_view text = rest();
    int64_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool digit = !text.empty() && std::isdigit(static_cast<unsigned char>(text[0])) != 0;
    if (!digit || parsed.ec != std::errc()) return bad_value("numeric", field, begin);
    at_ += static_cast<size_t>(parsed.ptr - text.data());
    while (at_ < text_.size() && (text_[at_] == '.' || is_fraction_digit())) ++at_;
    return std::make_unique<NumberComparison>(field, compare, value);
  }

  bool is_fraction_digit() const {
    return std::isdigit(static_cast<unsigned char>(text_[at_])) != 0;
  }

  Node parse_regex(const Field& field, bool wanted, size_t begin) {
    const auto value = take_string("\"'([{", "\"')]}");
    if (!value) return bad_value("regex", field, begin);
    try {
      std::regex pattern(*value, std::regex::extended | std::regex::nosubs);
      return std::make_unique<RegexComparison>(field, wanted, std::move(pattern));
    } catch (const std::regex_error&) {
      return bad_value("regex", field, begin);
    }
  }

  // A quoted string, or what comes before a blank, a logical operator or a closing parenthesis. The
  // quotes are pairs of `openers` and `closers`.
  std::optional<std::string> take_string(std::string_view openers = "\"'",
                                         std::string_view closers = "\"'") {
    const std::string_view text = rest();
    const size_t quote = text.empty() ? std::string_view::npos : openers.find(text.front());
    if (quote != std::string_view::npos) {
      const size_t end = text.find(closers[quote], 1);
      if (end == std::string_view::npos) {
        missing_quote_ = true;
        return std::nullopt;
      }
      at_ += end + 1;
      return std::string(text.substr(1, end - 1));
    }
    size_t end = 0;
    while (end < text.size() && !is_space(text[end]) && text[end] != ')' && text[end] != ',' &&
           text[end] != '#' && text.substr(end, 2) != "&&" && text.substr(end, 2) != "||") {
      ++end;
    }
    at_ += end;
    return std::string(text.substr(0, end));
  }

  std::string_view text_;
  size_t at_ = 0;
  bool missing_quote_ = false;
  ParsedSelection result_;
};

}  // namespace

bool ParsedSelection::uses(std::string_view id) const {
  return std::any_of(fields.begin(), fields.end(),
                     [id](const Field* field) { return field->id == id; });
}

ParsedSelection parse_selection(std::string_view text) {
  if (!text.empty()) return SelectionParser(text).run();
  ParsedSelection everything;
  everything.selection = std::make_unique<Always>();
  return everything;
}

}  // namespace mapperctl
