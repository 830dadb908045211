#include "tools/thin_tool.h"

#include <fmt/ostream.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

namespace mapperthin {

using mapperfs::Result;
using mapperfs::Status;
using mapperfs::ThinHeldSnapshot;
using mapperfs::ThinMetadata;
using mapperfs::ThinMetadataOptions;
using mapperfs::ThinView;

mapperfs::ThinProgress ThinRunContext::progress() const {
  ProgressLine* const line = &progress_line;
  return [line](std::string_view stage, std::uint64_t done, std::uint64_t total) {
    line->show(stage, done, total);
  };
}

Result<std::unique_ptr<ThinMetadata>> ThinRunContext::open() const {
  std::error_code error;
  if (!std::filesystem::is_directory(args.metadata, error)) {
    return Status(error ? error.value() : ENOTDIR,
                  fmt::format("{} is no directory with thin metadata", args.metadata));
  }
  ThinMetadataOptions options;
  options.may_format = false;
  options.mode = args.live || args.metadata_snap ? ThinMetadataOptions::Mode::kLive
                                                 : ThinMetadataOptions::Mode::kReadOnly;
  auto pool = ThinMetadata::open(args.metadata, options);
  if (!pool.ok() || !args.metadata_snap) {
    return pool;
  }
  const std::uint64_t root = (*pool)->status().held_root;
  if (root == 0) {
    return Status(EINVAL, "no current metadata snap");
  }
  if (args.snapshot_root.value_or(root) != root) {
    return Status(EINVAL,
                  fmt::format("the metadata snapshot is {}, not {}", root, *args.snapshot_root));
  }
  return pool;
}

int ThinRunContext::fail(const Status& status) const {
  console.out.flush();
  fmt::print(console.err, "{}: {}\n", args.name, status.message());
  if (status.error() == EBUSY && args.verb != ThinVerb::kRestore && args.verb != ThinVerb::kTrim) {
    fmt::print(console.err,
               "A pool in use is read with --live, or with --metadata-snap after the message "
               "reserve_metadata_snap.\n");
  }
  return 1;
}

Result<ThinHeldSnapshot> state_of(const ThinMetadata& pool, ThinView view) {
  if (view == ThinView::kMetadataSnap) {
    return pool.held_snapshot();
  }
  const mapperfs::ThinPoolStatus status = pool.status();
  return ThinHeldSnapshot{status.transaction_id, status.time, pool.devices()};
}

int run_rmap(const ThinRunContext& run) {
  auto pool = run.open();
  if (!pool.ok()) {
    return run.fail(pool.status());
  }
  const auto runs = reverse_thin_map(**pool, run.view(), run.args.regions, run.progress());
  if (!runs.ok()) {
    return run.fail(runs.status());
  }
  for (const mapperfs::ThinReverseRun& found : *runs) {
    fmt::print(run.console.out, "data {}..{} -> thin({}) {}..{}\n", found.data_begin,
               found.data_begin + found.length, found.device_id, found.virtual_begin,
               found.virtual_begin + found.length);
  }
  return 0;
}

int run_thin_tool(int argc, char** argv, const Console& console) {
  const auto parse = parse_thin_command(argc, argv, console.out, console.err);
  if (!parse.has_value()) {
    fmt::print(console.err, "mapperthin: {} is no verb. There are:\n", argv[0]);
    print_thin_verbs(console.err);
    return 1;
  }
  if (!parse->args.has_value()) {
    return parse->status;
  }
  const ThinArgs& args = *parse->args;
  using Style = ProgressLine::Style;
  const Style style = args.quiet                ? Style::kNone
                      : console.err_is_terminal ? Style::kTerminal
                      : args.show_progress      ? Style::kLines
                                                : Style::kNone;
  ProgressLine line(console.err, style);
  const ThinRunContext run{args, console, line};
  // In the order of ThinVerb.
  constexpr std::array<int (*)(const ThinRunContext&), 7> kRun = {
      run_check, run_dump, run_restore, run_ls, run_delta, run_rmap, run_trim};
  const int code = kRun.at(static_cast<std::size_t>(args.verb))(run);
  console.out.flush();
  if (!console.out && code == 0) {
    fmt::print(console.err, "{}: the output could not be written\n", args.name);
    return 1;
  }
  return code;
}

}  // namespace mapperthin
