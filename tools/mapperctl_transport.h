// How mapperctl reaches a mount: whole commands through `control`, single facts through files below
// it. The interface exists so that tests stand in for a mount; docs/control.md is the protocol.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mapperctl {

// What came of one transaction or one file: errno (0: it took effect) and the text answered, which
// after an error is the daemon's sentence that says why (may be empty).
struct Reply {
  int err = 0;
  std::string text;

  bool ok() const { return err == 0; }
};

// One thread. No call throws; every failure is a Reply.
class Transport {
 public:
  virtual ~Transport() = default;

  // Makes sure that control can be spoken to. Calling it is not needed, but tells a missing mount
  // from a refused command.
  virtual Reply connect() = 0;
  // Writes `lines` to control as one transaction and reads the reply of it.
  virtual Reply command(std::string_view lines) = 0;
  // The whole text of a file, by its path below the mount ("sys/version").
  virtual Reply read_file(const std::string& path) = 0;
  // Sleeps until the event number of the device is not `event_nr`. ENXIO: no such device. A device
  // that goes away while waited for is an event too.
  virtual Reply wait_event(const std::string& name, unsigned long event_nr) = 0;
  // The path of the file `name` in the mount; "" is the mount itself.
  virtual std::string path_of(std::string_view name) const = 0;
};

// A mount that was looked for: where it is, or the sentence that says why none can be chosen.
struct FoundMount {
  std::string path;
  std::string error;
};

// The mount by option, then by MAPPERFS_MOUNT, then the only one of type fuse.mapperfs in
// `mountinfo`, the text of /proc/self/mountinfo.
FoundMount choose_mount(std::string_view option, const char* environment,
                        std::string_view mountinfo);

// Whether an open file lies in a mapperfs: errno (0: it does) and the sentence that says why not.
using MountCheck = std::function<Reply(int fd)>;

// ENODEV for a file of any other file system. Asks the file's own file system and
// /proc/self/mountinfo; where that cannot be read, FUSE of any kind will do.
Reply check_mapperfs(int fd);
// The same, told the file's device number and the text of mountinfo.
bool is_mapperfs_device(dev_t device, std::string_view mountinfo);

// Opens nothing yet: the first call does, and its Reply says when that fails. `check` is asked
// about `control` before a byte is written to it: tests put a plain folder in a mount's place.
std::unique_ptr<Transport> open_mount(std::string path, MountCheck check = check_mapperfs);

// The text of a whole file, errno in the Reply.
Reply read_whole_file(const std::string& path);

}  // namespace mapperctl
