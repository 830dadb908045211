#include "tools/mapperctl_json.h"

#include <fmt/ostream.h>

#include <cmath>

namespace mapperctl {
namespace {

constexpr std::string_view kReplacement = "\\ufffd";

// Bytes of the well-formed UTF-8 sequence at the start of `text`, 0 when there is none. Overlong
// forms, surrogates and what is past U+10FFFF are not well-formed.
size_t utf8_length(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return 0;
  }
  const bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
  const bool outside = (first == 0xED && byte(1) > 0x9F) || (first == 0xF4 && byte(1) > 0x8F);
  return overlong || outside ? 0 : length;
}

void append_ascii(std::string& out, char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\r':
      out += "\\r";
      return;
    default:
      break;
  }
  const auto u = static_cast<unsigned char>(c);
  if (u < 0x20 || u == 0x7F) {
    out += fmt::format("\\u{:04x}", u);
  } else {
    out.push_back(c);
  }
}

}  // namespace

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 1) append_ascii(out, text.front());
    if (length > 1) out.append(text.substr(0, length));
    if (length == 0) out.append(kReplacement);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out.push_back('"');
  return out;
}

void JsonWriter::key(std::string_view name) {
  before_element();
  fmt::print(out_, "{}: ", json_quote(name));
  after_key_ = true;
}

void JsonWriter::real(double value) {
  std::isfinite(value) ? element(fmt::format("{:.2f}", value)) : null();
}

void JsonWriter::finish() { fmt::print(out_, "\n"); }

void JsonWriter::open(char bracket) {
  before_element();
  fmt::print(out_, "{}", bracket);
  has_elements_.push_back(false);
}

void JsonWriter::close(char bracket) {
  const bool had_elements = has_elements_.back();
  has_elements_.pop_back();
  if (had_elements) fmt::print(out_, "\n{:{}}", "", has_elements_.size() * 2);
  fmt::print(out_, "{}", bracket);
}

void JsonWriter::element(const std::string& text) {
  before_element();
  fmt::print(out_, "{}", text);
}

void JsonWriter::before_element() {
  if (after_key_ || has_elements_.empty()) {
    after_key_ = false;
    return;
  }
  fmt::print(out_, "{}\n{:{}}", has_elements_.back() ? "," : "", "", has_elements_.size() * 2);
  has_elements_.back() = true;
}

}  // namespace mapperctl
