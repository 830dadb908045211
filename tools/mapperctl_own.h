// The verbs that only mapperctl has and that take options of their own: top, graph, attach, detach,
// passthrough, served, log. CLI11 reads these; their options would only make dmsetup's
// abbreviations ambiguous.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/mapperctl_verbs.h"

namespace mapperctl {

struct OwnCommand {
  enum class Verb { kTop, kGraph, kAttach, kDetach, kPassthrough, kServed, kLog };

  Verb verb = Verb::kLog;
  Options options;  // --mount and --json
  TopOptions top;
  AttachOptions attach;
  PassthroughOptions passthrough;
  std::vector<std::string> served;  // devices; none: all
};

// What came of reading the command line: a command, or an exit status after help or an error.
struct OwnParse {
  std::optional<OwnCommand> command;
  int status = 0;
};

// The first word that is no option; --mount's argument is none either. Empty: there is none.
std::string_view first_word(int argc, char** argv);

// Nothing when the first word is no verb of ours: the line is dmsetup's then.
std::optional<OwnParse> parse_own_command(int argc, char** argv, std::ostream& out,
                                          std::ostream& err);
bool run_own_command(Session& session, const OwnCommand& command);

}  // namespace mapperctl
