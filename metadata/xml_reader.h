// The part of XML that thin_dump and its like write: elements and attributes, no text. Streams, so
// that a dump of any size can be read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "engine/status.h"

namespace mapperfs {

// Puts the next bytes into `buffer`, up to `size` of them; 0 at the end.
using TextSource = std::function<Result<std::size_t>(char* buffer, std::size_t size)>;

struct XmlTag {
  std::string name;
  bool opens = false;   // <name ...> and <name .../>
  bool closes = false;  // </name> and <name .../>
  std::map<std::string, std::string> attributes;
  std::uint64_t line = 0;

  [[nodiscard]] bool has(const std::string& attribute) const {
    return attributes.contains(attribute);
  }
  // The number in an attribute. EINVAL: missing, or not a decimal number of 64 bits.
  [[nodiscard]] Result<std::uint64_t> number(const std::string& attribute) const;
};

// One thread.
class XmlReader {
 public:
  explicit XmlReader(TextSource source) : source_(std::move(source)) {}
  // The next tag; nullopt at the end. EINVAL with the line; else the source's error.
  Result<std::optional<XmlTag>> next();

 private:
  static constexpr std::size_t kMaxTagBytes = 64 << 10;

  Result<int> take();
  Result<std::string> take_tag_text();
  Result<XmlTag> parse(std::string_view text);
  Status bad(std::string_view what) const;

  TextSource source_;
  std::string buffer_;
  std::size_t at_ = 0;
  std::uint64_t line_ = 1;
};

}  // namespace mapperfs
