// The command lines of the thin tools: the options of thin-provisioning-tools 0.9.0, as Debian 12
// has it, and a few of our own. getopt_long reads them, since scripts rely on what it does:
// abbreviations, options anywhere, and `-m` whose argument must stand in the same word.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metadata/thin_metadata.h"

namespace mapperthin {

enum class ThinVerb { kCheck, kDump, kRestore, kLs, kDelta, kRmap, kTrim };

// What each verb does not take stays as it is here.
struct ThinArgs {
  ThinVerb verb = ThinVerb::kCheck;
  std::string name;            // as errors call the tool: "thin-dump"
  std::string metadata;        // the metadata directory
  bool quiet = false;          // nothing but errors, or nothing at all where theirs does so
  bool show_progress = false;  // even where stderr is no terminal

  // Which state is read: as it is at rest, the last commit of a pool in use, or what the metadata
  // snapshot holds, which must be `snapshot_root` if that is given.
  bool live = false;
  bool metadata_snap = false;
  std::optional<std::uint64_t> snapshot_root;

  bool auto_repair = false;
  bool clear_needs_check = false;
  bool ignore_non_fatal = false;
  bool superblock_only = false;
  bool skip_mappings = false;

  bool human_readable = false;
  std::optional<std::uint32_t> device_id;
  std::string input;   // "-": standard input
  std::string output;  // of thin-dump; empty: standard output
  std::optional<std::uint64_t> transaction_id;
  std::optional<std::uint64_t> data_block_size;
  std::optional<std::uint64_t> nr_data_blocks;

  bool no_headers = false;
  std::string fields = "DEV,MAPPED,CREATE_TIME,SNAP_TIME";

  std::optional<std::uint32_t> left;
  std::optional<std::uint32_t> right;
  bool verbose = false;

  std::vector<mapperfs::DataRun> regions;

  std::string data_device;
};

// A command to run, or the exit status after help, the version or an error was printed.
struct ThinParse {
  std::optional<ThinArgs> args;
  int status = 0;
};

// `argv[0]` names the verb: "thin-dump", or "thin_dump" as the tool of that name is called.
// Nothing if it names none.
std::optional<ThinParse> parse_thin_command(int argc, char** argv, std::ostream& out,
                                            std::ostream& err);

// The verbs, one a line, for the program's own help.
void print_thin_verbs(std::ostream& out);

}  // namespace mapperthin
