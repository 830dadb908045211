#include "metadata/xml_reader.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <utility>

namespace mapperfs {
namespace {

constexpr std::size_t kReadBytes = 64 << 10;
constexpr int kEnd = -1;
constexpr std::string_view kBlank = " \t\r\n";

std::string unescape(std::string_view text) {
  static constexpr std::pair<std::string_view, char> kEntities[] = {
      {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
  std::string out;
  while (!text.empty()) {
    bool found = false;
    for (const auto& [entity, character] : kEntities) {
      if (text.starts_with(entity)) {
        out.push_back(character);
        text.remove_prefix(entity.size());
        found = true;
        break;
      }
    }
    if (!found) {
      out.push_back(text.front());
      text.remove_prefix(1);
    }
  }
  return out;
}

void skip_blank(std::string_view& text) {
  const std::size_t at = text.find_first_not_of(kBlank);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at);
}

}  // namespace

Result<std::uint64_t> XmlTag::number(const std::string& attribute) const {
  const auto it = attributes.find(attribute);
  if (it == attributes.end()) {
    return Status(EINVAL, fmt::format("line {}: <{}> has no {}", line, name, attribute));
  }
  std::uint64_t value = 0;
  const char* end = it->second.data() + it->second.size();
  const auto [at, error] = std::from_chars(it->second.data(), end, value);
  if (error != std::errc() || at != end) {
    return Status(EINVAL, fmt::format("line {}: <{}> has {}=\"{}\", which is not a number", line,
                                      name, attribute, it->second));
  }
  return value;
}

Status XmlReader::bad(std::string_view what) const {
  return {EINVAL, fmt::format("line {}: {}", line_, what)};
}

Result<int> XmlReader::take() {
  if (at_ == buffer_.size()) {
    buffer_.resize(kReadBytes);
    auto got = source_(buffer_.data(), buffer_.size());
    if (!got.ok()) {
      return got.status();
    }
    buffer_.resize(*got);
    at_ = 0;
    if (buffer_.empty()) {
      return kEnd;
    }
  }
  const char c = buffer_[at_++];
  line_ += c == '\n' ? 1 : 0;
  return static_cast<unsigned char>(c);
}

// What is between '<' and '>', quotes minded; empty at the end.
Result<std::string> XmlReader::take_tag_text() {
  while (true) {
    auto c = take();
    if (!c.ok()) {
      return c.status();
    }
    if (*c == kEnd) {
      return std::string();
    }
    if (*c == '<') {
      break;
    }
    if (kBlank.find(static_cast<char>(*c)) == std::string_view::npos) {
      return bad(fmt::format("'{}' outside of an element", static_cast<char>(*c)));
    }
  }
  std::string text;
  char quote = 0;
  while (true) {
    auto c = take();
    if (!c.ok()) {
      return c.status();
    }
    if (*c == kEnd || text.size() >= kMaxTagBytes) {
      return bad("an element does not end");
    }
    const char character = static_cast<char>(*c);
    const bool comment = text.starts_with("!--");
    if (character == '>' && quote == 0 && (!comment || text.ends_with("--"))) {
      return text.empty() ? Result<std::string>(bad("an element has no name")) : text;
    }
    if (!comment && (character == '"' || character == '\'') && (quote == 0 || quote == character)) {
      quote = quote == 0 ? character : static_cast<char>(0);
    }
    text.push_back(character);
  }
}

Result<std::optional<XmlTag>> XmlReader::next() {
  while (true) {
    auto text = take_tag_text();
    if (!text.ok()) {
      return text.status();
    }
    if (text->empty()) {
      return std::optional<XmlTag>();
    }
    if (text->starts_with("![")) {
      return bad("a CDATA section, which is text outside of an element");
    }
    if (text->front() == '?' || text->front() == '!') {
      continue;  // a declaration or a comment
    }
    auto tag = parse(*text);
    if (!tag.ok()) {
      return tag.status();
    }
    return std::optional<XmlTag>(tag.take());
  }
}

Result<XmlTag> XmlReader::parse(std::string_view text) {
  XmlTag tag;
  tag.line = line_;
  tag.opens = text.front() != '/';
  tag.closes = !tag.opens;
  if (!tag.opens) {
    text.remove_prefix(1);
  } else if (text.back() == '/') {
    tag.closes = true;
    text.remove_suffix(1);
  }
  const std::size_t end = std::min(text.find_first_of(kBlank), text.size());
  tag.name = text.substr(0, end);
  text.remove_prefix(end);
  skip_blank(text);
  if (!tag.opens && !text.empty()) {
    return bad(fmt::format("</{}> has attributes", tag.name));
  }
  for (; !text.empty(); skip_blank(text)) {
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos || equals + 1 >= text.size()) {
      return bad(fmt::format("<{}> has an attribute without a value", tag.name));
    }
    const std::string name(text.substr(0, text.find_first_of(" \t\r\n=")));
    text.remove_prefix(equals + 1);
    skip_blank(text);
    const char quote = text.empty() ? '\0' : text.front();
    const std::size_t close =
        quote == '"' || quote == '\'' ? text.find(quote, 1) : std::string_view::npos;
    if (close == std::string_view::npos) {
      return bad(fmt::format("<{}> has a value without quotes at {}", tag.name, name));
    }
    if (!tag.attributes.emplace(name, unescape(text.substr(1, close - 1))).second) {
      return bad(fmt::format("<{}> has {} twice", tag.name, name));
    }
    text.remove_prefix(close + 1);
  }
  return tag;
}

}  // namespace mapperfs
