#include "tools/thin_progress.h"

#include <fmt/ostream.h>

#include <algorithm>
#include <ostream>
#include <utility>

namespace mapperthin {
namespace {

constexpr std::chrono::seconds kPatience{1};
constexpr std::chrono::milliseconds kRefresh{100};

}  // namespace

ProgressLine::ProgressLine(std::ostream& err, Style style, Clock clock)
    : err_(err), style_(style), clock_(std::move(clock)), begun_(clock_()), shown_(begun_) {}

ProgressLine::~ProgressLine() {
  if (width_ != 0) {
    fmt::print(err_, "\r{:{}}\r", "", width_);
    err_.flush();
  }
}

void ProgressLine::show(std::string_view stage, std::uint64_t done, std::uint64_t total) {
  if (style_ == Style::kNone) {
    return;
  }
  // An estimate may be passed; 100 % is said only of what is known to be all.
  const std::uint64_t percent = total == 0 ? 0 : std::min(done, total) * 100 / total;
  if (style_ == Style::kLines) {
    const std::uint64_t tenth = percent / 10 + 1;
    if (stage != stage_ || tenth > tenth_) {
      stage_ = stage;
      tenth_ = tenth;
      fmt::print(err_, "{}: {} %\n", stage, percent);
    }
    return;
  }
  const auto now = clock_();
  if (now - begun_ < kPatience || now - shown_ < kRefresh) {
    return;
  }
  shown_ = now;
  const std::string line =
      total == 0 ? fmt::format("{}: {}", stage, done) : fmt::format("{}: {} %", stage, percent);
  fmt::print(err_, "\r{:<{}}", line, width_);
  err_.flush();
  width_ = std::max(width_, line.size());
}

}  // namespace mapperthin
