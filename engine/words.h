// Keywords of tables and messages, which the kernel compares without regard to case.
#pragma once

#include <strings.h>

#include <string_view>

namespace mapperfs {

inline bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace mapperfs
