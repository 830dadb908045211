// How far a long work is, on stderr: one line that is written over on a terminal, a line each tenth
// elsewhere. Nothing is shown of what ends within a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <string_view>

namespace mapperthin {

class ProgressLine {
 public:
  enum class Style { kNone, kTerminal, kLines };
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  // `err` outlives this. One thread. `clock` is for tests.
  ProgressLine(std::ostream& err, Style style, Clock clock = &std::chrono::steady_clock::now);
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine();  // takes the line off a terminal

  // As mapperfs::ThinProgress calls it; `total` 0: unknown.
  void show(std::string_view stage, std::uint64_t done, std::uint64_t total);

 private:
  std::ostream& err_;
  const Style style_;
  const Clock clock_;
  const std::chrono::steady_clock::time_point begun_;
  std::chrono::steady_clock::time_point shown_;
  std::string stage_;
  std::uint64_t tenth_ = 0;  // the last printed of `stage_`, plus 1
  std::size_t width_ = 0;    // of the line on the terminal
};

}  // namespace mapperthin
