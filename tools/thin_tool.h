// The thin tools: what mapperctl's verbs thin-check, thin-dump, thin-restore, thin-ls, thin-delta,
// thin-rmap and thin-trim do. They open a metadata directory themselves and need no mount. Exit
// codes are those of thin-provisioning-tools: 0, or 1 for whatever is wrong.
//
// At rest a directory is opened under RocksDB's own lock, so that no pool changes it meanwhile. In
// use it is read as a RocksDB secondary: a frozen view of the last commit that keeps all of its
// files open, needs nothing of the daemon and takes no disk space. (A checkpoint would need the
// daemon's help and write to the pool's file system; a plain read-only opening could see files go.)
#pragma once

#include <iosfwd>
#include <memory>

#include "engine/status.h"
#include "metadata/thin_query.h"
#include "tools/thin_options.h"
#include "tools/thin_progress.h"

namespace mapperthin {

struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool err_is_terminal = false;
};

// Runs `argv`, whose word 0 names the verb, and returns the exit code.
int run_thin_tool(int argc, char** argv, const Console& console);

// One run of a verb. One thread.
struct ThinRunContext {
  const ThinArgs& args;
  const Console& console;
  ProgressLine& progress_line;

  [[nodiscard]] mapperfs::ThinProgress progress() const;
  // What --metadata-snap and --live choose. EINVAL where they choose what is not there.
  [[nodiscard]] mapperfs::Result<std::unique_ptr<mapperfs::ThinMetadata>> open() const;
  [[nodiscard]] mapperfs::ThinView view() const {
    return args.metadata_snap ? mapperfs::ThinView::kMetadataSnap : mapperfs::ThinView::kPool;
  }
  // Prints the sentence; 1, to be returned.
  int fail(const mapperfs::Status& status) const;
};

// The devices, transaction id and time of the chosen view.
mapperfs::Result<mapperfs::ThinHeldSnapshot> state_of(const mapperfs::ThinMetadata& pool,
                                                      mapperfs::ThinView view);

int run_check(const ThinRunContext& run);    // thin_check_tool.cc
int run_dump(const ThinRunContext& run);     // thin_xml_tools.cc
int run_restore(const ThinRunContext& run);  // thin_xml_tools.cc
int run_ls(const ThinRunContext& run);       // thin_ls.cc
int run_delta(const ThinRunContext& run);    // thin_delta.cc
int run_rmap(const ThinRunContext& run);     // thin_tool.cc
int run_trim(const ThinRunContext& run);     // thin_trim.cc

}  // namespace mapperthin
