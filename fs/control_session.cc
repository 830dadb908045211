#include "fs/control_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace mapperfs {
namespace {

// Programs that copy write whole sectors at once, and but for dd's default at least so much.
constexpr std::size_t kPieceBytes = 4096;
constexpr std::string_view kUnfinished =
    "the last line of the text has no newline, so that a part may be missing: nothing is executed";

// Neither a command nor part of a table: may stand anywhere.
bool is_blank_text(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (!trim_line(text.substr(0, end)).empty()) {
      return false;
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return true;
}

}  // namespace

ControlSession::Rest ControlSession::rest_of(std::string_view data, bool cut, bool holds) {
  if (cut) {
    return Rest::kRefused;
  }
  const bool half_line = data.size() >= kPieceBytes && !data.ends_with('\n');
  if (!holds) {
    return half_line ? Rest::kRefused : Rest::kNone;
  }
  // Also where a piece happens to end with a line. What is short may lack its newline: `echo -n`.
  const bool whole_sectors = !data.empty() && data.size() % kSectorBytes == 0;
  return half_line || whole_sectors ? Rest::kPossible : Rest::kNone;
}

Outcome ControlSession::write(std::string_view data, Rest rest, const RunOptions& options) {
  const bool was_collecting = collecting_;
  const std::size_t old_size = buffer_.size();
  const std::size_t old_scan = scan_from_;
  buffer_ += data;
  if (buffer_.size() > kMaxTransactionBytes) {
    return refuse({EMSGSIZE, fmt::format("a transaction of more than {} bytes is dropped",
                                         kMaxTransactionBytes)});
  }
  const std::string text = std::exchange(buffer_, {});
  std::vector<Piece> pieces = split(text, rest);
  if (rest == Rest::kRefused && !bears_cut(pieces)) {
    Outcome refused = refuse(
        {EMSGSIZE, fmt::format("a write of {} bytes {}: longer texts stand between \"begin\" and "
                               "\"commit\"",
                               data.size(),
                               data.ends_with('\n') ? "fills the transport's largest"
                                                    : "ends in the middle of a line")});
    if (was_collecting) {
      collecting_ = true;
      buffer_ = text.substr(0, old_size);
      scan_from_ = old_scan;
    }
    return refused;
  }
  if (collecting_ || rest == Rest::kPossible) {
    buffer_ = text.substr(body_from_);
    scan_from_ -= body_from_;
    if (!collecting_) {
      pieces.pop_back();  // what is held
    }
  } else {
    scan_from_ = 0;
  }
  return run_all(pieces, options);
}

Outcome ControlSession::finish(const RunOptions& options) {
  if (!holds()) {
    return {};
  }
  if (buffer_.back() != '\n') {
    return {Status(EINVAL, std::string(kUnfinished)), {}};
  }
  return write({}, Rest::kNone, options);
}

void ControlSession::drop() {
  collecting_ = false;
  buffer_.clear();
  scan_from_ = 0;
}

Outcome ControlSession::refuse(Status status) {
  drop();
  executor_.engine().log().add(status.message());
  std::string reply = status.message() + "\n";
  return {std::move(status), std::move(reply)};
}

// Only what stands in transactions, and behind the last of them nothing or whole blank lines: then
// no line of the rest is half here.
bool ControlSession::bears_cut(const std::vector<Piece>& pieces) const {
  if (std::any_of(pieces.begin(), pieces.end(),
                  [](const Piece& p) { return !p.transaction && !is_blank_text(p.text); })) {
    return false;
  }
  const std::string_view last = pieces.empty() ? std::string_view() : pieces.back().text;
  return collecting_ || (pieces.size() > 1 && (last.empty() || last.ends_with('\n')));
}

Outcome ControlSession::run_all(std::span<const Piece> pieces, const RunOptions& options) {
  Outcome all;
  for (const Piece& piece : pieces) {
    if (!piece.transaction && is_blank_text(piece.text) &&
        (kind_ == Kind::kControl || pieces.size() > 1 || collecting_)) {
      continue;
    }
    Outcome outcome = run(piece.text, options);
    if (!outcome.status.ok()) {
      // What comes after a failed line has no effect, an unfinished transaction included.
      drop();
      return outcome;
    }
    all.reply += outcome.reply;
  }
  return all;
}

// Leaves collecting_ as it is after the text; then body_from_ and scan_from_ are offsets in it.
std::vector<ControlSession::Piece> ControlSession::split(std::string_view text, Rest rest) {
  std::vector<Piece> pieces;
  std::size_t piece_from = 0;
  std::size_t at = scan_from_;
  while (at < text.size()) {
    const std::size_t end = text.find('\n', at);
    const bool whole = end != std::string_view::npos;
    const std::size_t next = whole ? end + 1 : text.size();
    const std::string_view line = text.substr(at, (whole ? end : next) - at);
    // Most lines are long; only a short one can be a keyword with its blanks or a comment.
    const std::string_view word = trim_line(line.substr(0, 4096));
    if (!collecting_ && word == "begin" && (whole || rest == Rest::kNone)) {
      pieces.push_back({text.substr(piece_from, at - piece_from), false});
      collecting_ = true;
      piece_from = next;
    } else if (collecting_ && word == "commit") {
      pieces.push_back({text.substr(piece_from, at - piece_from), true});
      collecting_ = false;
      piece_from = next;
    }
    scan_from_ = whole ? next : at;
    at = next;
  }
  body_from_ = piece_from;
  scan_from_ = std::max(scan_from_, piece_from);
  if (!collecting_) {
    // Behind the last transaction; empty where nothing stands there.
    pieces.push_back({text.substr(piece_from), false});
  }
  return pieces;
}

Outcome ControlSession::run(std::string_view text, const RunOptions& options) {
  if (kind_ == Kind::kControl) {
    const Script script = parse_control(text);
    RunOptions all = options;
    all.table_before = table_before_;
    Outcome outcome = executor_.run(script, all);
    if (outcome.status.ok()) {
      const bool table = !script.commands.empty() && script.commands.back().verb == Verb::kTable;
      table_before_ = table ? script.commands.back().name() : std::string();
    }
    return outcome;
  }
  Outcome outcome;
  outcome.status = run_bare(text, options);
  if (!outcome.status.ok()) {
    executor_.engine().log().add(outcome.status.message());
    outcome.reply = outcome.status.message() + "\n";
  }
  return outcome;
}

Status ControlSession::run_bare(std::string_view text, const RunOptions& options) {
  if (device_->removed()) {
    return {ENXIO, "the device has been removed"};
  }
  const std::string name = device_->name();
  Result<std::vector<TableLine>> lines = parse_bare_table(text);
  if (!lines.ok()) {
    return lines.status().with_context(name);
  }
  if (kind_ == Kind::kTable) {
    return executor_.set_table(name, lines.take(), false, options);
  }
  return lines->empty() ? executor_.clear(name) : executor_.load(name, *lines, false);
}

void ControlSession::close() {
  if (collecting_) {
    executor_.engine().log().add(fmt::format(
        "a transaction was closed before \"commit\": {} bytes dropped", buffer_.size()));
  } else if (holds()) {
    executor_.engine().log().add(
        fmt::format("a text of {} bytes was closed: {}", buffer_.size(), kUnfinished));
  }
  drop();
}

}  // namespace mapperfs
