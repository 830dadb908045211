// What the verbs are called, how many arguments they take, and the usage text made from that.
#pragma once

#include <iosfwd>
#include <string_view>

namespace mapperctl {

struct Usage {
  std::string_view verb;
  std::string_view arguments;  // as the usage text shows them
  int min_arguments = 0;
  int max_arguments = 0;    // -1: any number
  bool repeatable = false;  // runs once for each word; the others take them all at once
};

// The verb's entry, or null. "tree" is ours; every other one is dmsetup's.
const Usage* find_usage(std::string_view verb);
// The same for what follows `stats`.
const Usage* find_stats_usage(std::string_view verb);

// The text of `dmsetup help`, called `program` in it. `own` adds what only mapperctl has.
void print_usage(std::ostream& out, std::string_view program, bool own);
// The text of `dmsetup stats help`.
void print_stats_usage(std::ostream& out, std::string_view program);

}  // namespace mapperctl
