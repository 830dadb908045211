// Whole texts from files and descriptors, with the error that a stream would hide or throw.
#pragma once

#include <string>

namespace mapperfs {

struct ReadText {
  std::string text;
  int error = 0;  // an errno: nothing in `text` is to be used
  bool opened = true;
};

// From where the descriptor stands to the end. Does not close it.
ReadText read_descriptor(int fd);
// EISDIR for a folder, as for every other error of open(2) and read(2).
ReadText read_path(const std::string& path);

}  // namespace mapperfs
