#include "tools/mapperctl_own.h"

#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>

namespace mapperctl {
namespace {

constexpr std::array<std::string_view, 7> kOwnVerbs = {"top",         "graph",  "attach", "detach",
                                                       "passthrough", "served", "log"};

void add_verbs(CLI::App& app, OwnCommand& command) {
  using Verb = OwnCommand::Verb;
  const auto add = [&](const char* name, const char* text, Verb verb) {
    CLI::App* const sub = app.add_subcommand(name, text);
    sub->fallthrough();
    sub->callback([&command, verb] { command.verb = verb; });
    return sub;
  };
  CLI::App* const top = add("top", "what goes through each device", Verb::kTop);
  top->add_flag("--once", command.top.once, "one table, then end");
  top->add_option("--interval", command.top.interval_seconds, "seconds between tables")
      ->check(CLI::Range(0.01, 86400.0));
  add("graph", "devices and what they are built on, for graphviz", Verb::kGraph);
  CLI::App* const attach = add("attach", "put a loop device over a device", Verb::kAttach);
  attach->add_option("NAME", command.attach.name, "the device")->required();
  attach->add_flag("--direct-io", command.attach.direct_io, "bypass the loop device's page cache");
  attach->add_flag("-P,--partscan", command.attach.partitions, "make its partitions appear");
  attach->add_flag("-r,--read-only", command.attach.read_only, "a read-only loop device");
  attach->add_option("--sector-size", command.attach.sector_size, "logical block size in bytes")
      ->check(CLI::IsMember(std::vector<unsigned>{512, 1024, 2048, 4096}));
  CLI::App* const detach = add("detach", "take the loop devices over a device away", Verb::kDetach);
  detach->add_option("NAME", command.attach.name, "the device")->required();
  CLI::App* const pass = add("passthrough", "whether the kernel is to serve a device's file itself",
                             Verb::kPassthrough);
  pass->add_option("NAME", command.passthrough.name, "the device")->required();
  pass->add_option("on|off", command.passthrough.word, "from the next open on")
      ->required()
      ->check(CLI::IsMember({"on", "off"}));
  CLI::App* const served = add("served", "who serves each device's file", Verb::kServed);
  served->add_option("NAME", command.served, "devices; all if none is named");
  add("log", "the daemon's last sentences", Verb::kLog);
}

}  // namespace

std::string_view first_word(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--mount") {
      ++i;
    } else if (word.empty() || word.front() != '-') {
      return word;
    }
  }
  return {};
}

std::optional<OwnParse> parse_own_command(int argc, char** argv, std::ostream& out,
                                          std::ostream& err) {
  const std::string_view word = first_word(argc, argv);
  if (std::find(kOwnVerbs.begin(), kOwnVerbs.end(), word) == kOwnVerbs.end()) return std::nullopt;
  OwnCommand command;
  command.options.program = "mapperctl";
  CLI::App app("dmsetup for a mapperfs mount", "mapperctl");
  app.add_option("--mount", command.options.mount, "where the mapperfs is mounted");
  app.add_flag("--json", command.options.json, "print JSON");
  app.require_subcommand(1);
  add_verbs(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return OwnParse{std::nullopt, app.exit(error, out, err)};
    fmt::print(err, "mapperctl: {}: {}; mapperctl {} --help tells more\n", word, error.what(),
               word);
    return OwnParse{std::nullopt, 1};
  }
  return OwnParse{std::move(command), 0};
}

bool run_own_command(Session& session, const OwnCommand& command) {
  switch (command.verb) {
    case OwnCommand::Verb::kTop:
      return verb_top(session, command.top);
    case OwnCommand::Verb::kGraph:
      return verb_graph(session);
    case OwnCommand::Verb::kAttach:
      return verb_attach(session, command.attach);
    case OwnCommand::Verb::kDetach:
      return verb_detach(session, command.attach.name);
    case OwnCommand::Verb::kPassthrough:
      return verb_passthrough(session, command.passthrough);
    case OwnCommand::Verb::kServed:
      return verb_served(session, command.served);
    case OwnCommand::Verb::kLog:
      break;
  }
  return verb_log(session);
}

}  // namespace mapperctl
