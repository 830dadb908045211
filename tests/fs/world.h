// An engine with the real targets over fake devices, and the face of `control` on it; no FUSE.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "fs/control_session.h"
#include "fs/device_text.h"
#include "fs/text_file.h"
#include "targets/targets.h"
#include "tests/fake/fake_opener.h"
#include "tests/fake/sim_env.h"

namespace mapperfs {

class World {
 public:
  World() {
    register_targets(registry);
    opener.add_mem("/data/a.img", 8192);
    opener.add_mem("/data/small.img", 16);
    opener.add_mem("/data/empty.img", 0);
    opener.add_error("/data/claimed.img", EBUSY);
  }
  ~World() { engine.shut_down(); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // One write to `control`.
  Outcome control(std::string_view text) {
    ControlSession session(executor, ControlSession::Kind::kControl, nullptr);
    return session.write(text, ControlSession::Rest::kNone, {});
  }
  void control_ok(std::string_view text) {
    const Outcome outcome = control(text);
    EXPECT_TRUE(outcome.status.ok()) << text << ": " << outcome.status.message();
  }
  std::string ask(std::string_view query) {
    const Outcome outcome = control(query);
    EXPECT_TRUE(outcome.status.ok()) << query << ": " << outcome.status.message();
    return outcome.reply;
  }
  std::shared_ptr<MappedDevice> device(const std::string& name) {
    Result<std::shared_ptr<MappedDevice>> found = engine.find(name);
    EXPECT_TRUE(found.ok()) << name;
    return found.ok() ? found.take() : nullptr;
  }
  // Everything that a command could leave behind.
  std::string state() {
    std::string all = ask("list") + ask("table") + ask("table --inactive");
    return all + std::to_string(opener.open_count());
  }
  std::unique_ptr<TextFile> open(FileKind kind, const std::string& name, bool read, bool write) {
    return std::make_unique<TextFile>(executor, notes, kind, name.empty() ? nullptr : device(name),
                                      TextFile::Access{read, write});
  }

  fake::SimEnv env;
  fake::FakeOpener opener;
  TargetRegistry registry;
  Engine engine{env, registry, opener};
  DeviceNotes notes;
  ControlExecutor executor{engine, notes, {}};
};

}  // namespace mapperfs
