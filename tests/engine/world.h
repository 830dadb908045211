// An engine with devices and targets of tests/engine/probe.h, and what a test of it does again and
// again.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/probe.h"

namespace mapperfs::probe {

inline constexpr TargetType kPlain = {"plain", {1, 2, 3}, 0, &Target::ctr};
inline constexpr TargetType kAlone = {"alone", {1, 0, 0}, kTargetSingleton, &Target::ctr};
inline constexpr TargetType kFixed = {"fixed", {1, 0, 0}, kTargetImmutable, &Target::ctr};
inline constexpr TargetType kFixed2 = {"fixed2", {1, 0, 0}, kTargetImmutable, &Target::ctr};
inline constexpr TargetType kWriter = {"writer", {1, 0, 0}, kTargetAlwaysWriteable, &Target::ctr};
// Named as what wipe_table() loads.
inline constexpr TargetType kWild = {"error", {1, 0, 0}, kTargetWildcard, &Target::ctr};

// A bio with data of its own that notes when it has come back.
class TestBio final : public Completion {
 public:
  TestBio(BlockDevice& dev, Op op, sector_t sector, sector_t sectors, int flags = 0)
      : data_(op == Op::kRead || op == Op::kWrite ? sectors * kSectorBytes : 0) {
    bio_.dev = &dev;
    bio_.op = op;
    bio_.sector = sector;
    bio_.sectors = sectors;
    bio_.data = data_.empty() ? nullptr : data_.data();
    bio_.flags = static_cast<std::uint8_t>(flags);
    bio_.completion = this;
  }
  TestBio& submit() {
    submit_bio(bio_);
    return *this;
  }
  // Sends it and expects it back at once.
  BlkStatus run() {
    submit();
    EXPECT_EQ(ended(), 1);
    return status();
  }
  void run_ok() { EXPECT_EQ(run(), BlkStatus::kOk); }
  [[nodiscard]] int ended() const { return ended_.load(); }
  [[nodiscard]] bool done() const { return ended() > 0; }
  // Until it is back; for bios that other threads end.
  BlkStatus wait() {
    ended_.wait(0);
    return status();
  }
  [[nodiscard]] BlkStatus status() const { return bio_.status(); }
  Bio& bio() { return bio_; }
  std::byte* data() { return data_.data(); }
  void complete(Bio& bio) noexcept override {
    EXPECT_EQ(&bio, &bio_);
    if (on_end) {
      on_end();
    }
    ended_.fetch_add(1);
    ended_.notify_all();
  }
  std::function<void()> on_end;

 private:
  Bio bio_;
  std::vector<std::byte> data_;
  std::atomic<int> ended_{0};
};

class World : public ::testing::Test, public BackingOpener, public EngineObserver {
 protected:
  World() {
    for (const TargetType* type : {&kPlain, &kAlone, &kFixed, &kFixed2, &kWriter, &kWild}) {
      registry_.add(*type);
    }
    engine_ = std::make_unique<Engine>(*env_, registry_, *this);
    engine_->set_observer(this);
  }
  // The targets go before their hooks do, and what the hooks point to has gone with the test.
  ~World() override {
    for (Hooks& hooks : hooks_) {
      hooks.forget();
    }
    engine_.reset();
    hooks_by_name().clear();
  }

  // BackingOpener: the devices made with add_device().
  class Holder final : public DevRef::Holder {
   public:
    Holder(Device& device, std::atomic<int>& open) : device_(device), open_(open) { ++open_; }
    ~Holder() override { --open_; }
    [[nodiscard]] BlockDevice& device() const override { return device_; }

   private:
    Device& device_;
    std::atomic<int>& open_;
  };
  Result<DevRef> open(const std::string& word, DeviceMode mode) override {
    const std::lock_guard<std::mutex> lock(open_mutex_);
    last_mode_ = mode;
    const auto it = devices_.find(word);
    if (it == devices_.end()) {
      return Status(ENOENT, "no such file: " + word);
    }
    return DevRef(std::make_shared<Holder>(*it->second, open_[word]));
  }
  [[nodiscard]] std::string own_mount_name(const std::string& path) const override {
    return path.starts_with("/mnt/") ? path.substr(5) : "";
  }
  // EngineObserver
  void device_event(MappedDevice& md) override {
    diary_.add("event " + std::to_string(md.minor()));
  }
  void device_resized(MappedDevice& md) override {
    diary_.add("resized " + std::to_string(md.size_sectors()));
  }
  void device_removed(MappedDevice& md, const std::string& name) override {
    static_cast<void>(md);
    diary_.add("removed " + name);
  }
  void device_renamed(MappedDevice& md, const std::string& from) override {
    diary_.add("renamed " + from + " to " + md.name());
  }

  Device& add_device(const std::string& name, sector_t size) {
    return *(devices_[name] = std::make_unique<Device>(name, size));
  }
  // What targets with "hooks=NAME" do.
  Hooks& add_hooks(const std::string& name) {
    return *(hooks_by_name()[name] = &hooks_.emplace_back());
  }
  // How often the backing device is open.
  int open_count(const std::string& name) { return open_[name]; }

  std::shared_ptr<MappedDevice> make(const std::string& name) {
    Result<std::shared_ptr<MappedDevice>> md = engine_->create(name, {});
    EXPECT_TRUE(md.ok()) << md.status().message();
    return md.take();
  }
  static std::vector<TableLine> parse(std::initializer_list<std::string_view> text) {
    std::vector<TableLine> lines;
    for (const std::string_view line : text) {
      Result<TableLine> parsed = parse_table_line(line);
      EXPECT_TRUE(parsed.ok()) << parsed.status().message();
      lines.push_back(parsed.take());
    }
    return lines;
  }
  static Status load(MappedDevice& md, std::initializer_list<std::string_view> text,
                     DeviceMode mode = DeviceMode::kReadWrite) {
    return md.load(parse(text), mode);
  }
  // A device with a live table.
  std::shared_ptr<MappedDevice> bring_up(const std::string& name,
                                         std::initializer_list<std::string_view> text,
                                         DeviceMode mode = DeviceMode::kReadWrite) {
    std::shared_ptr<MappedDevice> md = make(name);
    expect_ok(load(*md, text, mode));
    expect_ok(md->resume({}));
    diary_.take();
    return md;
  }
  static void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }
  static void expect_error(const Status& status, int error, std::string_view part) {
    EXPECT_EQ(errno_name(status.error()), errno_name(error)) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos)
        << "\"" << status.message() << "\" does not say \"" << part << "\"";
  }

  std::unique_ptr<Env> env_ = make_real_env();
  TargetRegistry registry_;
  std::deque<Hooks> hooks_;
  std::map<std::string, std::unique_ptr<Device>> devices_;
  std::mutex open_mutex_;
  std::map<std::string, std::atomic<int>> open_;
  DeviceMode last_mode_ = DeviceMode::kReadWrite;
  Diary diary_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace mapperfs::probe
