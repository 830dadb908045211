// The verbs. Each takes the words after its own name and returns whether it succeeded; what went
// wrong was printed.
#pragma once

#include <string>
#include <vector>

#include "tools/mapperctl_select.h"
#include "tools/mapperctl_session.h"

namespace mapperctl {

using Args = std::vector<std::string>;

// mapperctl_create.cc
bool verb_create(Session& session, const Args& args);
bool verb_load(Session& session, const Args& args);

// mapperctl_change.cc
bool verb_remove(Session& session, const Args& args);
bool verb_remove_all(Session& session, const Args& args);
bool verb_suspend(Session& session, const Args& args);
bool verb_resume(Session& session, const Args& args);
bool verb_clear(Session& session, const Args& args);
bool verb_wipe_table(Session& session, const Args& args);
// The same for a device that -S chose: what its name looks like does not matter any more.
bool remove_device(Session& session, const Selected& device);
bool suspend_device(Session& session, const Selected& device);
bool resume_device(Session& session, const Selected& device);
bool clear_device(Session& session, const Selected& device);
bool wipe_device(Session& session, const Selected& device);
bool verb_rename(Session& session, const Args& args);
bool verb_message(Session& session, const Args& args);
bool verb_setgeometry(Session& session, const Args& args);
bool verb_wait(Session& session, const Args& args);
bool verb_mangle(Session& session, const Args& args);

// mapperctl_info.cc
bool verb_info(Session& session, const Args& args);
bool verb_ls(Session& session, const Args& args);
bool verb_tree(Session& session, const Args& args);
bool verb_deps(Session& session, const Args& args);
// The lines of `info NAME`.
void print_info(Session& session, const Device& device);
// The same of a device by name, for -v. Always true: it is an extra.
bool print_info_of(Session& session, const std::string& name);

// mapperctl_columns.cc
bool verb_splitname(Session& session, const Args& args);
bool info_columns(Session& session, const Args& args);
// A column of `info -c` that needs no other device. Those that do, and those of statistics, are
// empty.
Cell device_cell(const Session& session, const Device& device, const Field& field);

// mapperctl_show.cc
bool verb_table(Session& session, const Args& args);
bool verb_status(Session& session, const Args& args);
bool verb_measure(Session& session, const Args& args);
// `ls` restricted to a target type or with a command.
bool list_by_target(Session& session);
// Says that there are none, where no JSON is wanted. Always true: it is no failure.
bool no_devices(Session& session);

// mapperctl_misc.cc
bool verb_version(Session& session, const Args& args);
bool verb_targets(Session& session, const Args& args);
bool verb_target_version(Session& session, const Args& args);
bool verb_mknodes(Session& session, const Args& args);
bool verb_log(Session& session);

// mapperctl_udev.cc
bool verb_udevcookies(Session& session, const Args& args);
bool verb_udevcreatecookie(Session& session, const Args& args);
bool verb_udevreleasecookie(Session& session, const Args& args);
bool verb_udevflags(Session& session, const Args& args);
bool verb_udevcomplete(Session& session, const Args& args);
bool verb_udevcomplete_all(Session& session, const Args& args);

// mapperctl_stats.cc; `args` begins with the word after `stats`.
bool verb_stats(Session& session, const Args& args);

// Only here.
struct TopOptions {
  bool once = false;
  double interval_seconds = 1;
};
struct AttachOptions {
  std::string name;
  bool direct_io = false;
  bool partitions = false;
  bool read_only = false;
  unsigned sector_size = 0;  // bytes; 0: the kernel's choice
};
struct PassthroughOptions {
  std::string name;
  std::string word;  // "on" or "off"
};
bool verb_top(Session& session, const TopOptions& options);        // mapperctl_top.cc
bool verb_graph(Session& session);                                 // mapperctl_graph.cc
bool verb_attach(Session& session, const AttachOptions& options);  // mapperctl_loop.cc
bool verb_detach(Session& session, const std::string& name);       // mapperctl_loop.cc
// mapperctl_misc.cc; no names: every device.
bool verb_passthrough(Session& session, const PassthroughOptions& options);
bool verb_served(Session& session, const std::vector<std::string>& names);

}  // namespace mapperctl
