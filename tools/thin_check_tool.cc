// thin-check: prints what the checker of metadata/ finds, in the words and streams of thin_check.
#include <fmt/ostream.h>

#include "metadata/thin_check.h"
#include "tools/thin_tool.h"

namespace mapperthin {
namespace {

// What a status line would say; nothing where damage keeps the pool from opening.
void print_totals(const ThinRunContext& run, const mapperfs::ThinCheckReport& report) {
  fmt::print(run.console.out, "TRANSACTION_ID={}\n", report.transaction_id);
  if (const auto pool = run.open(); pool.ok()) {
    const mapperfs::ThinPoolStatus status = (*pool)->status();
    fmt::print(run.console.out, "METADATA_FREE_BLOCKS={}\n",
               status.total_metadata_blocks - status.used_metadata_blocks);
  }
}

void print_findings(const ThinRunContext& run, const mapperfs::ThinCheckReport& report) {
  std::ostream& err = run.console.err;
  for (const std::string& message : report.messages) {
    fmt::print(err, "  {}\n", message);
  }
  if (report.damage > report.messages.size()) {
    fmt::print(err, "  and {} more\n", report.damage - report.messages.size());
  }
  if (report.leaked_data_blocks != 0 || report.leaked_pages != 0) {
    fmt::print(err, "  {} data blocks and {} pages are counted as used and are not{}\n",
               report.leaked_data_blocks, report.leaked_pages,
               report.leaks_repaired ? ": repaired" : "");
  }
  if (report.needs_check) {
    const bool partly = run.args.skip_mappings || run.args.superblock_only;
    fmt::print(err, "the needs_check flag is set; {}\n",
               !run.args.clear_needs_check ? "--clear-needs-check-flag clears it"
               : partly                    ? "it stays, as the mappings were not checked"
                                           : "it stays, as something is wrong");
  }
}

}  // namespace

int run_check(const ThinRunContext& run) {
  const ThinArgs& args = run.args;
  std::ostream& err = run.console.err;
  if (args.metadata_snap) {
    // Only to see that there is one: what it holds is checked with all the rest.
    if (const auto pool = run.open(); !pool.ok()) {
      return args.quiet ? 1 : run.fail(pool.status());
    }
  }
  mapperfs::ThinCheckOptions options;
  options.live = args.live || args.metadata_snap;
  options.superblock_only = args.superblock_only;
  options.skip_mappings = args.skip_mappings;
  options.repair_leaks = args.auto_repair;
  options.clear_needs_check = args.clear_needs_check;
  options.progress = run.progress();
  if (!args.quiet) {
    fmt::print(err, "examining superblock\n");
    if (!args.superblock_only) {
      fmt::print(err, "examining devices tree\n");
    }
    if (!args.superblock_only && !args.skip_mappings) {
      fmt::print(err, "examining mapping tree\n");
    }
  }
  const auto report = check_thin_metadata(args.metadata, options);
  if (!report.ok()) {
    return args.quiet ? 1 : run.fail(report.status());
  }
  if (!args.quiet) {
    if (!args.superblock_only && !args.skip_mappings) {
      fmt::print(err, "checking space map counts\n");
    }
    print_findings(run, *report);
    print_totals(run, *report);
  }
  if (args.clear_needs_check && report->needs_check) {
    return 1;  // asked for and not done
  }
  const bool only_leaks = report->damage == 0;
  return report->clean() || (only_leaks && args.ignore_non_fatal) ? 0 : 1;
}

}  // namespace mapperthin
