// The whole program as a function, so that tests run it with streams and a mount of their own.
#pragma once

#include "tools/mapperctl_session.h"

namespace mapperctl {

// Returns the exit status: 0 or 1.
int run_mapperctl(int argc, char** argv, Console console, const TransportFactory& factory);

// Opens the mount that choose_mount() finds on this machine.
std::unique_ptr<Transport> open_chosen_mount(const std::string& option, std::string& error);

}  // namespace mapperctl
