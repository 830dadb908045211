// Writes JSON, and nothing but valid JSON: text that is no UTF-8 gets U+FFFD for each bad byte.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace mapperctl {

// `text` as a JSON string with its quotes.
std::string json_quote(std::string_view text);

// Elements are written one after another; commas and line breaks come by themselves. Keys inside
// objects, values elsewhere: the caller's order is the document's.
class JsonWriter {
 public:
  explicit JsonWriter(std::ostream& out) : out_(out) {}

  void begin_object() { open('{'); }
  void end_object() { close('}'); }
  void begin_array() { open('['); }
  void end_array() { close(']'); }
  void key(std::string_view name);
  void string(std::string_view value) { element(json_quote(value)); }
  void number(int64_t value) { element(std::to_string(value)); }
  void unsigned_number(uint64_t value) { element(std::to_string(value)); }
  void real(double value);
  void boolean(bool value) { element(value ? "true" : "false"); }
  void null() { element("null"); }
  // A key and its value in one.
  void field(std::string_view name, std::string_view value) { key(name), string(value); }
  void field(std::string_view name, int64_t value) { key(name), number(value); }
  // The line end after the document.
  void finish();

 private:
  void open(char bracket);
  void close(char bracket);
  void element(const std::string& text);
  void before_element();

  std::ostream& out_;
  std::vector<bool> has_elements_;  // per open bracket
  bool after_key_ = false;
};

}  // namespace mapperctl
