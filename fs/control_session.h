// One open `control`, `table` or `inactive` file: cuts what is written at `begin` and `commit`,
// collects what stands between them, and runs it.
#pragma once

#include <memory>
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

  // `device` is the one that bare tables are for; null for kControl. `executor` outlives this.
  ControlSession(ControlExecutor& executor, Kind kind, std::shared_ptr<MappedDevice> device)
      : executor_(executor), kind_(kind), device_(std::move(device)) {}

  // `cut`: the write is about as large as the transport's largest, so its end may be missing; only
  // a transaction may go on in the next.
  Outcome write(std::string_view data, bool cut, const RunOptions& options);
  // A transaction that was never committed is dropped, which the log says.
  void close();

 private:
  // A text to run: plain lines, or what stood between begin and commit.
  struct Piece {
    std::string_view text;
    bool transaction;
  };
  std::vector<Piece> split(std::string_view text, bool cut);
  Outcome run(std::string_view text, const RunOptions& options);
  Status run_bare(std::string_view text, const RunOptions& options);

  ControlExecutor& executor_;
  const Kind kind_;
  const std::shared_ptr<MappedDevice> device_;
  bool collecting_ = false;
  std::string buffer_;         // from behind the line `begin` on, while collecting
  std::size_t scan_from_ = 0;  // in buffer_: the first line that may not be complete
  std::size_t body_from_ = 0;  // in the text being split: where the transaction begins
};

}  // namespace mapperfs
