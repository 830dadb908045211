// One open `control`, `table` or `inactive` file: cuts what is written at `begin` and `commit`,
// collects what stands between them, and runs it.
//
// Programs that copy (cat, cp, dd) write a long text in pieces that end anywhere. Half a line would
// be another line, and half a table another table; so a piece that may have a rest is held until
// the rest came or the file is closed, and runs as one text. docs/control.md section 1.1.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/control_executor.h"

namespace mapperfs {

// Limits: kMaxTransactionBytes between a begin and its commit. Threads: one call at a time.
class ControlSession {
 public:
  static constexpr std::size_t kMaxTransactionBytes = std::size_t{256} << 20;
  enum class Kind : std::uint8_t { kControl, kTable, kInactive };
  // Whether the text of a write goes on in the next one.
  enum class Rest : std::uint8_t {
    kNone,      // it is complete
    kPossible,  // what stands outside of transactions is held
    kRefused,   // it is not, and is refused but for transactions
  };

  // `device` is the one that bare tables are for; null for kControl. `executor` outlives this.
  ControlSession(ControlExecutor& executor, Kind kind, std::shared_ptr<MappedDevice> device)
      : executor_(executor), kind_(kind), device_(std::move(device)) {}

  // What one write(2) looks like. `cut`: it is about as large as the transport's largest, so that
  // its end may be missing. `holds`: the writer hears on closing what becomes of a held text.
  static Rest rest_of(std::string_view data, bool cut, bool holds);

  Outcome write(std::string_view data, Rest rest, const RunOptions& options);
  // A descriptor of the file is closed: runs what is held. EINVAL where its last line is not
  // complete; it stays, since another descriptor may bring the rest.
  Outcome finish(const RunOptions& options);
  // Refuses a write unseen: it has no effect, and what is buffered is dropped.
  Outcome refuse(Status status);
  // Whether finish() has anything to do.
  [[nodiscard]] bool holds() const { return !collecting_ && !buffer_.empty(); }
  // Whether a transaction was begun and not committed.
  [[nodiscard]] bool collecting() const { return collecting_; }
  // What was neither committed nor finished is dropped, which the log says.
  void close();

 private:
  // A text to run: plain lines, or what stood between begin and commit.
  struct Piece {
    std::string_view text;
    bool transaction;
  };
  std::vector<Piece> split(std::string_view text, Rest rest);
  // Whether a text that is cut off may be taken as far as it goes.
  [[nodiscard]] bool bears_cut(const std::vector<Piece>& pieces) const;
  // Runs the pieces; drops what is buffered when one fails.
  Outcome run_all(std::span<const Piece> pieces, const RunOptions& options);
  // Forgets what is buffered, a transaction that has begun included.
  void drop();
  Outcome run(std::string_view text, const RunOptions& options);
  Status run_bare(std::string_view text, const RunOptions& options);

  ControlExecutor& executor_;
  const Kind kind_;
  const std::shared_ptr<MappedDevice> device_;
  bool collecting_ = false;
  // From behind the line `begin` on while collecting; else the text that is held.
  std::string buffer_;
  std::size_t scan_from_ = 0;  // in buffer_: the first line that may not be complete
  std::size_t body_from_ = 0;  // in the text being split: where the transaction or the rest begins
  // Whose table the last write that took effect set: for RunOptions::table_before.
  std::string table_before_;
};

}  // namespace mapperfs
