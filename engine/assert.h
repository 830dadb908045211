// MFS_ASSERT: for our own mistakes. It stays on in release and never judges input from a user, a
// disk or the kernel.
#pragma once

namespace mapperfs {

[[noreturn]] void assert_failed(const char* expression, const char* file, int line) noexcept;

}  // namespace mapperfs

#define MFS_ASSERT(expression)                                     \
  ((expression) ? static_cast<void>(0)                             \
                : ::mapperfs::assert_failed(#expression, __FILE__, \
                                            __LINE__))  // NOLINT(cppcoreguidelines-macro-usage)
