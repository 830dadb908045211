// mapperctl: dmsetup for a mapperfs mount. `alias dmsetup=mapperctl` keeps scripts running.
#include <clocale>
#include <iostream>

#include "tools/mapperctl_run.h"

int main(int argc, char** argv) {
  std::setlocale(LC_ALL, "");
  const mapperctl::Console console{std::cin, std::cout, std::cerr};
  return mapperctl::run_mapperctl(argc, argv, console, mapperctl::open_chosen_mount);
}
