// thin-delta: where two thin devices map the same data blocks and where not, as thin_delta's XML.
#include <fmt/ostream.h>

#include <array>
#include <optional>

#include "tools/thin_tool.h"

namespace mapperthin {
namespace {

using mapperfs::ThinDifference;
using Kind = ThinDifference::Kind;

// In the order of ThinDifference::Kind.
constexpr std::array<std::string_view, 4> kTags = {"same", "left_only", "right_only", "different"};

std::string_view tag_of(Kind kind) { return kTags.at(static_cast<std::size_t>(kind)); }

// Prints runs as they come, neighbours as one. In verbose form only neighbours whose data blocks go
// on are one, and runs of one kind that follow one another share an element.
class DeltaPrinter {
 public:
  DeltaPrinter(std::ostream& out, bool verbose) : out_(out), verbose_(verbose) {}

  void add(const ThinDifference& run) {
    if (pending_ && goes_on(*pending_, run)) {
      pending_->length += run.length;
      return;
    }
    print_pending();
    pending_ = run;
  }
  void finish() {
    print_pending();
    close_element();
  }

 private:
  [[nodiscard]] bool goes_on(const ThinDifference& before, const ThinDifference& run) const {
    if (before.kind != run.kind || before.begin + before.length != run.begin) {
      return false;
    }
    const bool left = run.kind == Kind::kRightOnly ||
                      before.left_data_begin + before.length == run.left_data_begin;
    const bool right = run.kind == Kind::kLeftOnly ||
                       before.right_data_begin + before.length == run.right_data_begin;
    return !verbose_ || (left && right);
  }
  void print_pending() {
    if (!pending_) {
      return;
    }
    const ThinDifference& run = *pending_;
    if (!verbose_) {
      fmt::print(out_, "    <{} begin=\"{}\" length=\"{}\"/>\n", tag_of(run.kind), run.begin,
                 run.length);
    } else {
      print_range(run);
    }
    pending_.reset();
  }
  void print_range(const ThinDifference& run) {
    if (element_ != run.kind) {
      close_element();
      fmt::print(out_, "    <{}>\n", tag_of(run.kind));
      element_ = run.kind;
    }
    const std::string data =
        run.kind == Kind::kDifferent
            ? fmt::format("left_data_begin=\"{}\" right_data_begin=\"{}\"", run.left_data_begin,
                          run.right_data_begin)
            : fmt::format("data_begin=\"{}\"", run.kind == Kind::kRightOnly ? run.right_data_begin
                                                                            : run.left_data_begin);
    fmt::print(out_, "      <range begin=\"{}\" {} length=\"{}\"/>\n", run.begin, data, run.length);
  }
  void close_element() {
    if (element_) {
      fmt::print(out_, "    </{}>\n", tag_of(*element_));
    }
    element_.reset();
  }

  std::ostream& out_;
  const bool verbose_;
  std::optional<ThinDifference> pending_;
  std::optional<Kind> element_;  // of the verbose form, not closed yet
};

bool has_device(const mapperfs::ThinHeldSnapshot& state, std::uint32_t id) {
  for (const mapperfs::ThinDeviceDetails& device : state.devices) {
    if (device.id == id) {
      return true;
    }
  }
  return false;
}

}  // namespace

int run_delta(const ThinRunContext& run) {
  const ThinArgs& args = run.args;
  auto pool = run.open();
  if (!pool.ok()) {
    return run.fail(pool.status());
  }
  const auto state = state_of(**pool, run.view());
  if (!state.ok()) {
    return run.fail(state.status());
  }
  for (const auto& [id, which] : {std::pair(*args.left, 1), std::pair(*args.right, 2)}) {
    if (!has_device(*state, id)) {
      fmt::print(run.console.err, "Unable to find mapping tree for snap{} ({})\n", which, id);
      return 1;
    }
  }
  std::ostream& out = run.console.out;
  fmt::print(out,
             "<superblock uuid=\"\" time=\"{}\" transaction=\"{}\" data_block_size=\"{}\" "
             "nr_data_blocks=\"{}\">\n  <diff left=\"{}\" right=\"{}\">\n",
             state->time, state->transaction_id, (*pool)->data_block_size(),
             (*pool)->status().total_data_blocks, *args.left, *args.right);
  DeltaPrinter printer(out, args.verbose);
  const mapperfs::Status status = compare_thin_devices(
      **pool, run.view(), *args.left, *args.right,
      [&](const ThinDifference& found) {
        printer.add(found);
        return static_cast<bool>(out);
      },
      run.progress());
  if (!status.ok()) {
    return run.fail(status);
  }
  printer.finish();
  fmt::print(out, "  </diff>\n</superblock>\n");
  return 0;
}

}  // namespace mapperthin
