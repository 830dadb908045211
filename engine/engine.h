// The engine: mapped devices by name, and the verbs that act on them.
//
// Threads: every method may be called on any control thread; none on a queue thread's I/O path. The
// engine's mutex guards names, uuids, open counts and who stands on whom, and is held for look-ups
// only; work on one device is serialised by that device.
//
// Limits: kMaxNameBytes, kMaxUuidBytes, kMaxMinors devices, kMaxDepth mapped devices on top of one
// another.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/env.h"
#include "engine/mapped_device.h"
#include "engine/table.h"

namespace mapperfs {

inline constexpr std::size_t kMaxNameBytes = 127;
inline constexpr std::size_t kMaxUuidBytes = 128;
inline constexpr unsigned kMaxMinors = 1U << 20;
inline constexpr unsigned kMaxDepth = 32;
// How long the end waits for bios under way before it asks targets to give them back.
inline constexpr std::uint64_t kEndPatienceNs = 5'000'000'000;
// The kernel's largest block major is 511: a number that can never be a real device's.
inline constexpr unsigned kMapperMajor = 512;

// Opens what is not a mapped device: paths and MAJOR:MINOR. engine/backing.h has the real one.
class BackingOpener {
 public:
  virtual ~BackingOpener() = default;
  virtual Result<DevRef> open(const std::string& word, DeviceMode mode) = 0;
  // The name inside the own mount that the path stands for ("disk" for "/mnt/disk"), or an empty
  // string. Must not touch the own mount.
  [[nodiscard]] virtual std::string own_mount_name(const std::string& path) const = 0;
  // DeviceOpener::outside_mount().
  [[nodiscard]] virtual Status outside_mount(const std::string& path) const {
    static_cast<void>(path);
    return {};
  }
};

// Told what happens to devices, for whoever shows them. Called on control threads and, for events,
// on any thread; must not block or call back into the engine.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void device_event(MappedDevice& device) { static_cast<void>(device); }
  virtual void device_resized(MappedDevice& device) { static_cast<void>(device); }
  virtual void device_removed(MappedDevice& device, const std::string& name) {
    static_cast<void>(device), static_cast<void>(name);
  }
  virtual void device_renamed(MappedDevice& device, const std::string& from) {
    static_cast<void>(device), static_cast<void>(from);
  }
};

// The last sentences, newest last, for sys/log; passes them on to a sink (the daemon's log). Any
// thread.
class EngineLog {
 public:
  void add(std::string_view text);
  [[nodiscard]] std::string text() const;
  void set_sink(std::function<void(const std::string&)> sink);

 private:
  static constexpr std::size_t kMaxBytes = 64 * 1024;
  mutable std::mutex mutex_;
  std::deque<std::string> sentences_;
  std::size_t bytes_ = 0;
  std::function<void(const std::string&)> sink_;
};

class Engine {
 public:
  struct CreateOptions {
    std::string uuid;
    int minor = -1;  // -1: the lowest free one
  };
  // All three outlive the engine.
  Engine(Env& env, const TargetRegistry& registry, BackingOpener& backing);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Result<std::shared_ptr<MappedDevice>> create(const std::string& name,
                                               const CreateOptions& options);
  Status remove(const std::string& name, bool deferred);
  Status remove_all(bool deferred);
  Status cancel_deferred_remove(const std::string& name);
  Status rename(const std::string& from, const std::string& to);
  Status set_uuid(const std::string& name, const std::string& uuid);

  // ENXIO where there is none. The device may be removed while the caller holds it: it then answers
  // ENXIO.
  [[nodiscard]] Result<std::shared_ptr<MappedDevice>> find(const std::string& name) const;
  [[nodiscard]] std::shared_ptr<MappedDevice> find_serial(std::uint64_t serial) const;
  // By name.
  [[nodiscard]] std::vector<std::shared_ptr<MappedDevice>> list() const;
  // Lower devices before those that stand on them.
  [[nodiscard]] std::vector<std::shared_ptr<MappedDevice>> list_bottom_up() const;

  // An opener of the device file. Close may remove the device (deferred remove): on a worker.
  Status open(MappedDevice& device);
  void close(MappedDevice& device);

  // Opens what a table word of `for_device` names; see docs/design.md "Devices named in tables".
  Result<DevRef> open_word(const std::string& word, DeviceMode mode, MappedDevice& for_device);
  [[nodiscard]] Status outside_mount(const std::string& path) const {
    return backing_.outside_mount(path);
  }

  [[nodiscard]] Env& env() const { return env_; }
  [[nodiscard]] const TargetRegistry& registry() const { return registry_; }
  EngineLog& log() { return log_; }
  void set_observer(EngineObserver* observer) { observer_ = observer; }

  // Suspends (flushing) and removes every device, uppermost first: a clean end. Openers do not stop
  // it. What waits for a suspended device fails; so does, after a while, what a target keeps and
  // would give back in a noflush suspend, such as a write that waits for a thin pool's space.
  // Devices whose I/O has not ended after twice the patience stay as they are: their names. The
  // time that a target takes to write down what it knows is not in the patience.
  std::vector<std::string> shut_down(std::uint64_t patience_ns = kEndPatienceNs);

  // What is wrong with a device name, or ok.
  static Status check_name(const std::string& name);

 private:
  friend class MappedDevice;
  class MappedHolder;
  class StackWalk;

  // engine_mutex_ held.
  [[nodiscard]] std::shared_ptr<MappedDevice> find_locked(const std::string& name) const;
  void unlink_locked(MappedDevice& device);
  // Records what the inactive table of `device` stands on, or refuses a cycle or a stack too deep.
  Status set_inactive_dependencies(MappedDevice& device, std::vector<BlockDevice*> deps);
  // The inactive table goes live. What the one that it replaces stands on stays, the first so many
  // that are returned, until drop_dependencies(): a message to that one may still wait for it.
  std::size_t add_dependencies_live(MappedDevice& device);
  void drop_dependencies(MappedDevice& device, std::size_t count);
  [[nodiscard]] int above_locked(const MappedDevice& device) const;
  void drop_open(MappedDevice& device);
  // After unlink_locked(), without the mutex: drains and destroys the device, tells who waits for
  // it.
  void finish_removal(MappedDevice& device);
  // A device of shut_down() goes. Not if it went meanwhile.
  void end(MappedDevice& device);
  // Whether nothing of it is under way, and nothing will be; with a flush. Gives up at `until_ns`.
  bool quiesce(MappedDevice& device, std::uint64_t until_ns);
  // ENOENT, EOVERFLOW: a word that is not a path, a name or a possible number.
  static Status check_word(const std::string& word);
  // "512:N" as a mapped device's numbers are printed.
  static bool parse_mapped_number(const std::string& word, unsigned& minor);
  void notify_event(MappedDevice& device);

  Env& env_;
  const TargetRegistry& registry_;
  BackingOpener& backing_;
  EngineLog log_;
  EngineObserver* observer_ = nullptr;

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<MappedDevice>> by_name_;
  std::unordered_map<std::string, MappedDevice*> by_uuid_;
  std::unordered_map<std::uint64_t, MappedDevice*> by_serial_;
  std::map<unsigned, MappedDevice*> by_minor_;
  unsigned next_minor_hint_ = 0;
  std::uint64_t next_serial_ = 1;
};

}  // namespace mapperfs
