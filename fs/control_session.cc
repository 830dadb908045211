#include "fs/control_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace mapperfs {
namespace {

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

Outcome ControlSession::write(std::string_view data, bool cut, const RunOptions& options) {
  const bool was_collecting = collecting_;
  const std::size_t old_size = buffer_.size();
  const std::size_t old_scan = scan_from_;
  buffer_ += data;
  if (buffer_.size() > kMaxTransactionBytes) {
    collecting_ = false;
    buffer_.clear();
    scan_from_ = 0;
    const Status status(EMSGSIZE, fmt::format("a transaction of more than {} bytes is dropped",
                                              kMaxTransactionBytes));
    executor_.engine().log().add(status.message());
    return {status, status.message() + "\n"};
  }
  const std::string text = std::exchange(buffer_, {});
  const std::vector<Piece> pieces = split(text, cut);
  if (cut && std::any_of(pieces.begin(), pieces.end(),
                         [](const Piece& p) { return !p.transaction && !is_blank_text(p.text); })) {
    collecting_ = was_collecting;
    buffer_ = text.substr(0, old_size);
    scan_from_ = old_scan;
    const Status status(EMSGSIZE,
                        fmt::format("a write of {} bytes fills the transport's largest: longer "
                                    "texts stand between \"begin\" and \"commit\"",
                                    data.size()));
    executor_.engine().log().add(status.message());
    return {status, status.message() + "\n"};
  }
  if (collecting_) {
    buffer_ = text.substr(body_from_);
    scan_from_ -= body_from_;
  }
  Outcome all;
  for (const Piece& piece : pieces) {
    if (!piece.transaction && is_blank_text(piece.text) &&
        (kind_ == Kind::kControl || pieces.size() > 1 || collecting_)) {
      continue;
    }
    Outcome outcome = run(piece.text, options);
    if (!outcome.status.ok()) {
      // What comes after a failed line has no effect, an unfinished transaction included.
      collecting_ = false;
      buffer_.clear();
      return outcome;
    }
    all.reply += outcome.reply;
  }
  return all;
}

// Leaves collecting_ as it is after the text; then body_from_ and scan_from_ are offsets in it.
std::vector<ControlSession::Piece> ControlSession::split(std::string_view text, bool cut) {
  std::vector<Piece> pieces;
  std::size_t piece_from = 0;
  std::size_t at = collecting_ ? scan_from_ : 0;
  scan_from_ = at;
  while (at < text.size()) {
    const std::size_t end = text.find('\n', at);
    const bool whole = end != std::string_view::npos;
    const std::size_t next = whole ? end + 1 : text.size();
    const std::string_view line = text.substr(at, (whole ? end : next) - at);
    // Most lines are long; only a short one can be a keyword with its blanks or a comment.
    const std::string_view word = trim_line(line.substr(0, 4096));
    if (!collecting_ && word == "begin" && (whole || !cut)) {
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
    if (piece_from < text.size() || pieces.empty()) {
      pieces.push_back({text.substr(piece_from), false});
    }
    scan_from_ = 0;
  }
  return pieces;
}

Outcome ControlSession::run(std::string_view text, const RunOptions& options) {
  if (kind_ == Kind::kControl) {
    return executor_.run_text(text, options);
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
    collecting_ = false;
    buffer_.clear();
  }
}

}  // namespace mapperfs
