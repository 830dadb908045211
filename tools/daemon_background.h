// Going into the background so that the caller learns what became of it: the first process waits
// until the second says that it serves, or why it does not.
#pragma once

#include <string>

#include "engine/unique_fd.h"

namespace mapperfs {

class Background {
 public:
  // Forks unless `foreground`. In the first process this does not return: it exits with 0 when
  // ready() is called in the second, or else with 1 and the sentence that failed() was given. Must
  // come before any thread.
  explicit Background(bool foreground);
  // The mount serves: lets the caller go and the terminal with it. Any thread; once.
  void ready();
  // It will not serve. Says why where the caller can read it.
  void failed(const std::string& sentence);

 private:
  UniqueFd to_caller_;
  bool foreground_;
};

}  // namespace mapperfs
