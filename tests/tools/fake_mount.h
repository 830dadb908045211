// A mount for tests: a script of commands and their replies, a few files, and a record of what was
// asked. A command without a reply fails with EINVAL and a sentence that quotes it.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tools/mapperctl_transport.h"

namespace mapperctl {

class FakeMount {
 public:
  // `command` is the text of a transaction without its last line end.
  void answer(const std::string& command, const std::string& text);
  void refuse(const std::string& command, int err, const std::string& sentence = {});
  void file(const std::string& path, const std::string& text) { files_[path] = {text}; }
  // The same, of a file that changes: each reading takes the next text, and the last one stays.
  void file_changes(const std::string& path, std::vector<std::string> texts) {
    files_[path] = std::move(texts);
  }
  void unreachable(int err) { connect_err_ = err; }

  // A device: its line of `list`, fields separated by tabs, for `list` and `list NAME`.
  void device(const std::string& name, const std::string& list_line);

  const std::vector<std::string>& commands() const { return commands_; }

  // What a run of mapperctl did.
  struct Run {
    int status = -1;
    std::string out;
    std::string err;
  };
  Run run(std::initializer_list<const char*> words, const std::string& input = {});

 private:
  class FakeTransport;

  std::map<std::string, Reply> replies_;
  std::map<std::string, std::vector<std::string>> files_;
  std::map<std::string, std::string> device_lines_;
  std::vector<std::string> commands_;
  int connect_err_ = 0;
};

// A line of `list`: name, uuid, minor (major is 253), attr, open count, event number, deps.
std::string list_line(const std::string& name, const std::string& uuid, int minor,
                      const std::string& attr, int open_count = 0, int event_nr = 0,
                      const std::string& deps = {}, const std::string& flags = {}, int targets = 1);

}  // namespace mapperctl
