// Carries out parsed commands on an engine. Knows no FUSE: tests and --tables use it as `control`
// does.
//
// Atomicity: a command either takes effect or leaves its device as it was. The engine does so for
// each of its verbs; what is added here is a table line's chain of create, load and resume.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "fs/control_parser.h"
#include "fs/device_notes.h"

namespace mapperfs {

// What came of a write: the sentence if it failed, and the text that the writer may read.
struct Outcome {
  Status status;
  std::string reply;
};

struct RunOptions {
  // Asked while something waits; true gives it up with EINTR.
  std::function<bool()> interrupted;
  // So many commands wait already that only those are run which do not wait for I/O, or which may
  // end the others' waits; else EAGAIN (fs/crowd.h).
  bool crowded = false;
  // Whether a reply can be read; else queries are refused.
  bool may_reply = true;
  // The device whose table the same writer set just before: lines of it that come now were probably
  // meant to be of that table, and a refusal says so.
  std::string table_before;
};

// The refusal of one more command, where too many wait.
Status crowded_status(std::string_view what);

// What the executor cannot know of itself. Each may be empty.
struct ExecutorHooks {
  std::function<std::string()> version_text;
  // A device to be removed is open: waits a moment for closes that are on their way. True: one
  // came.
  std::function<bool(MappedDevice&)> await_closes;
  // A device may have another table, and so other limits.
  std::function<void(MappedDevice&)> table_changed;
};

// Control threads; any number at once.
class ControlExecutor {
 public:
  // `engine` and `notes` outlive this.
  ControlExecutor(Engine& engine, DeviceNotes& notes, ExecutorHooks hooks)
      : engine_(engine), notes_(notes), hooks_(std::move(hooks)) {}

  // Runs the script's commands in order up to the first that fails, then reports the script's own
  // error. Failures go to the engine's log.
  Outcome run(const Script& script, const RunOptions& options);

  // The verbs behind files other than `control`. They do not log.
  Status set_table(const std::string& name, std::vector<TableLine> lines, bool read_only,
                   const RunOptions& options);
  Status load(const std::string& name, const std::vector<TableLine>& lines, bool read_only);
  Status clear(const std::string& name);
  Status remove(const std::string& name, bool deferred);
  Result<std::string> message(const std::string& name, sector_t sector,
                              const std::vector<std::string>& words);

  [[nodiscard]] Engine& engine() const { return engine_; }
  [[nodiscard]] std::string version_text() const {
    return hooks_.version_text ? hooks_.version_text() : std::string();
  }

 private:
  struct Saved;
  Status execute(const Command& command, const RunOptions& options, std::string& reply);
  Status change(const Command& command, const RunOptions& options, std::string& reply);
  Status query(const Command& command, std::string& reply);
  Status create(const Command& command);
  Status remove_command(const Command& command);
  Status remove_all(const Command& command);
  Status make_device(const std::string& name, const std::vector<TableLine>& lines, DeviceMode mode,
                     const RunOptions& options);
  static Saved save(const MappedDevice& device);
  static void restore(MappedDevice& device, const Saved& saved);
  // Runs `verb`; once more where files open with passthrough were in its way and are being closed.
  [[nodiscard]] Status past_closes(MappedDevice& device, const std::function<Status()>& verb) const;
  void changed(MappedDevice& device) const;

  Engine& engine_;
  DeviceNotes& notes_;
  const ExecutorHooks hooks_;
};

}  // namespace mapperfs
