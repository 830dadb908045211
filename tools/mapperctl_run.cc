#include "tools/mapperctl_run.h"

#include <fmt/ostream.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "tools/mapperctl_choice.h"
#include "tools/mapperctl_help.h"
#include "tools/mapperctl_own.h"
#include "tools/mapperctl_thin.h"
#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

struct Verb {
  std::string_view name;
  bool (*run)(Session&, const Args&);
  // Of the verbs that change each device which -S lets through: what they do to one.
  bool (*change)(Session&, const Selected&) = nullptr;
};

bool verb_help(Session& session, const Args&) {
  print_usage(session.err(), session.opt().program, !session.quiet());
  if (session.opt().columns) print_field_help(session.err());
  return true;
}

constexpr std::array kVerbs = {
    Verb{"help", verb_help},
    Verb{"create", verb_create},
    Verb{"remove", verb_remove, remove_device},
    Verb{"remove_all", verb_remove_all},
    Verb{"suspend", verb_suspend, suspend_device},
    Verb{"resume", verb_resume, resume_device},
    Verb{"load", verb_load},
    Verb{"clear", verb_clear, clear_device},
    Verb{"reload", verb_load},
    Verb{"wipe_table", verb_wipe_table, wipe_device},
    Verb{"rename", verb_rename},
    Verb{"measure", verb_measure},
    Verb{"message", verb_message},
    Verb{"ls", verb_ls},
    Verb{"tree", verb_tree},
    Verb{"info", verb_info},
    Verb{"deps", verb_deps},
    Verb{"stats", verb_stats},
    Verb{"status", verb_status},
    Verb{"table", verb_table},
    Verb{"wait", verb_wait},
    Verb{"mknodes", verb_mknodes},
    Verb{"mangle", verb_mangle},
    Verb{"udevcreatecookie", verb_udevcreatecookie},
    Verb{"udevreleasecookie", verb_udevreleasecookie},
    Verb{"udevflags", verb_udevflags},
    Verb{"udevcomplete", verb_udevcomplete},
    Verb{"udevcomplete_all", verb_udevcomplete_all},
    Verb{"udevcookies", verb_udevcookies},
    Verb{"udevcookie", verb_udevcookies},
    Verb{"target-version", verb_target_version},
    Verb{"targets", verb_targets},
    Verb{"version", verb_version},
    Verb{"setgeometry", verb_setgeometry},
    Verb{"splitname", verb_splitname},
};

const Verb* find_verb(std::string_view name) {
  for (const Verb& verb : kVerbs) {
    if (verb.name == name) return &verb;
  }
  return nullptr;
}

int failed(Session& session) {
  session.out().flush();
  if (!session.failed_silently()) fmt::print(session.err(), "Command failed.\n");
  return 1;
}

int usage_error(Session& session, std::string_view sentence) {
  if (!sentence.empty()) fmt::print(session.err(), "{}\n", sentence);
  const bool stats = !session.opt().words.empty() && session.opt().words.front() == "stats";
  if (stats) {
    print_stats_usage(session.err(), session.opt().program);
  } else {
    print_usage(session.err(), session.opt().program, !session.quiet());
  }
  return 1;
}

bool run_on_selected(Session& session, const Verb& verb, const Args& args) {
  auto choice = Choice::create(session, verb.name, Choice::Act::kChanges);
  return choice && choice->for_each(args, [&](const Device& device) {
    return verb.change(session, {device.name, {session.shown(device.name), {}, {}, {}}});
  });
}

// Runs the verb for all its words, or once for each where that is how it works.
bool run_verb(Session& session, const Verb& verb, const Usage& usage, const Args& args) {
  if (session.opt().select && verb.change != nullptr) return run_on_selected(session, verb, args);
  if (!usage.repeatable || args.size() < 2) return verb.run(session, args);
  for (const std::string& word : args) {
    if (!verb.run(session, {word})) return false;
  }
  return true;
}

int run_words(Session& session) {
  const Options& opt = session.opt();
  if (opt.version) {
    // dmsetup ends well even where only its own version could be told.
    if (!verb_version(session, {})) failed(session);
    return 0;
  }
  if (opt.help) {
    const bool stats = !opt.words.empty() && opt.words.front() == "stats";
    stats ? print_stats_usage(session.err(), opt.program) : void(verb_help(session, {}));
    return 0;
  }
  if (opt.words.empty()) return usage_error(session, {});
  const Usage* const usage = find_usage(opt.words.front());
  const Verb* const verb = find_verb(opt.words.front());
  if (usage == nullptr || verb == nullptr) return usage_error(session, "Unknown command.");
  const Args args(opt.words.begin() + 1, opt.words.end());
  const auto count = static_cast<int>(args.size());
  if (count < usage->min_arguments || (usage->max_arguments >= 0 && count > usage->max_arguments)) {
    return usage_error(session, "Incorrect number of arguments.");
  }
  return run_verb(session, *verb, *usage, args) ? 0 : failed(session);
}

// Called as dmsetup, or asked to by the environment, mapperctl adds nothing of its own.
bool wants_quiet(std::string_view program) {
  const char* const quiet = std::getenv("MAPPERCTL_QUIET");
  const bool asked = quiet != nullptr && *quiet != '\0' && std::strcmp(quiet, "0") != 0;
  return asked || program == "dmsetup" || program == "dmstats";
}

}  // namespace

int run_mapperctl(int argc, char** argv, Console console, const TransportFactory& factory) {
  if (is_thin_verb(first_word(argc, argv))) return become_thin_tool(argc, argv, console.err);
  if (const auto own = parse_own_command(argc, argv, console.out, console.err)) {
    if (!own->command) return own->status;
    Session session(own->command->options, console, factory, wants_quiet("mapperctl"));
    return run_own_command(session, *own->command) ? 0 : failed(session);
  }
  auto options = parse_options(argc, argv, console.err);
  if (!options) {
    fmt::print(console.err, "Couldn't process command line.\n");
    return 1;
  }
  const bool quiet = wants_quiet(options->program);
  if (options->program == "dmstats") {
    options->words.insert(options->words.begin(), "stats");
    options->program = "dmsetup";
  }
  Session session(*options, console, factory, quiet);
  return run_words(session);
}

std::unique_ptr<Transport> open_chosen_mount(const std::string& option, std::string& error) {
  const Reply mountinfo = read_whole_file("/proc/self/mountinfo");
  FoundMount found = choose_mount(option, std::getenv("MAPPERFS_MOUNT"), mountinfo.text);
  error = found.error;
  return found.path.empty() ? nullptr : open_mount(std::move(found.path));
}

}  // namespace mapperctl
