// What the engine's own tests put above and below it: a device that notes what it is asked, and a
// target that does what a test tells it. The engine's rules are tested with these alone, without
// any real target.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace mapperfs::probe {

using Lines = std::vector<std::string>;

// "write 8+16 fua": what a bio asks for.
inline std::string describe(const Bio& bio) {
  static constexpr std::array<const char*, 6> kNames = {"read",    "write", "flush",
                                                        "discard", "erase", "zeroes"};
  std::string text = kNames.at(static_cast<std::size_t>(bio.op));
  if (bio.op != Op::kFlush) {
    text += fmt::format(" {}+{}", bio.sector, bio.sectors);
  }
  static constexpr std::array<std::pair<int, const char*>, 6> kFlags = {
      {{kBioFua, " fua"},
       {kBioPreflush, " preflush"},
       {kBioNowait, " nowait"},
       {kBioMeta, " meta"},
       {kBioReadahead, " ra"},
       {kBioInternal, " internal"}}};
  for (const auto& [flag, name] : kFlags) {
    if ((bio.flags & flag) != 0) {
      text += name;
    }
  }
  return text;
}

// What happened, in order, from any thread.
class Diary {
 public:
  void add(std::string line) {
    const std::lock_guard<std::mutex> lock(mutex_);
    lines_.push_back(std::move(line));
  }
  // What was noted since the last call.
  Lines take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(lines_, {});
  }

 private:
  std::mutex mutex_;
  Lines lines_;
};

// Notes each bio in its diary and answers at once, or keeps bios until the test ends them.
class Device final : public BlockDevice {
 public:
  Device(std::string name, sector_t size) : name_(std::move(name)), size_(size) {}

  void submit(Bio& bio) noexcept override {
    BlkStatus status = BlkStatus::kOk;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      seen_.push_back(describe(bio));
      data_.push_back(bio.data);
      if (keep_) {
        kept_.push_back(&bio);
        return;
      }
      if (answer_) {
        status = answer_(bio);
      }
    }
    bio.end_io(status);
  }
  [[nodiscard]] sector_t size_sectors() const override { return size_; }
  [[nodiscard]] QueueLimits limits() const override { return limits_; }
  [[nodiscard]] std::string table_name() const override { return name_; }
  // A file's, unless it is told to be a block device.
  [[nodiscard]] std::string numbers() const override { return numbers_; }
  void set_numbers(std::string numbers) { numbers_ = std::move(numbers); }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    return {std::min(max, sector_t{8}), sector % 16 >= 8};
  }

  // What was asked since the last call.
  Lines seen() {
    const std::lock_guard<std::mutex> lock(mutex_);
    data_.clear();
    return std::exchange(seen_, {});
  }
  // Where the data of the n-th bio since the last seen() lies.
  std::byte* data(std::size_t n) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return data_.at(n);
  }
  void answer(std::function<BlkStatus(const Bio&)> answer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    answer_ = std::move(answer);
  }
  void fail(BlkStatus status) {
    answer([status](const Bio&) { return status; });
  }
  void keep(bool on) {
    const std::lock_guard<std::mutex> lock(mutex_);
    keep_ = on;
  }
  std::size_t kept() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return kept_.size();
  }
  // Ends the n-th bio that is kept.
  void end(std::size_t n, BlkStatus status = BlkStatus::kOk) {
    Bio* bio = nullptr;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      bio = kept_.at(n);
      kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(n));
    }
    bio->end_io(status);
  }
  void end_all(BlkStatus status = BlkStatus::kOk) {
    while (kept() > 0) {
      end(0, status);
    }
  }
  QueueLimits& mutable_limits() { return limits_; }
  void set_size(sector_t size) { size_ = size; }

 private:
  const std::string name_;
  std::string numbers_ = "-";
  sector_t size_;
  QueueLimits limits_;
  std::mutex mutex_;
  Lines seen_;
  std::vector<std::byte*> data_;
  std::function<BlkStatus(const Bio&)> answer_;
  bool keep_ = false;
  std::deque<Bio*> kept_;
};

class Target;

// What a test wants a target to do, by the name in its table line ("hooks=NAME"). Without a hook a
// target maps as linear does and notes its life in the diary.
struct Hooks {
  std::function<MapIo(Target&, Bio&)> map;
  std::function<EndIo(Target&, Bio&, BlkStatus&)> end_io;
  std::function<Status()> preresume;
  std::function<void()> presuspend;
  std::function<Result<std::string>(std::span<const std::string_view>)> message;
  Diary diary;

  void forget() {
    map = nullptr;
    end_io = nullptr;
    preresume = nullptr;
    presuspend = nullptr;
    message = nullptr;
  }
};

inline std::map<std::string, Hooks*>& hooks_by_name() {
  static std::map<std::string, Hooks*> hooks;
  return hooks;
}

// Words, in any order: dev NAME (several: a stripe each), at=N, io=N (max_io_len), flush=N,
// discard=N, erase=N, zeroes=N (num_*_bios), lbs=N (io_hints), hooks=NAME, fail=ERRNO, and the bare
// words bypass, takes-discards, cuts-discards, has-cache, ends, straight.
class Target final : public mapperfs::Target {
 public:
  static Result<std::unique_ptr<mapperfs::Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    Spec spec;
    std::vector<DevRef> devs;
    Hooks* hooks = nullptr;
    for (std::size_t i = 0; i < args.count(); ++i) {
      const std::string word = args.word(i, "word");
      const std::size_t equals = word.find('=');
      const std::string key = word.substr(0, equals);
      const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
      std::uint64_t number = 0;
      parse_decimal(value, number);
      if (key == "dev") {
        devs.push_back(args.device(++i, "Device lookup failed"));
        if (args.failed()) {
          return args.status();
        }
      } else if (key == "fail") {
        return Status(static_cast<int>(number), "told to fail");
      } else if (key == "hooks") {
        hooks = hooks_by_name().at(value);
      } else {
        spec.set(key, number);
      }
    }
    auto target = std::make_unique<Target>(ti, spec, std::move(devs), hooks);
    target->note("ctr");
    return std::unique_ptr<mapperfs::Target>(std::move(target));
  }

  // What the words with numbers, and those without any, say.
  struct Spec {
    sector_t at = 0;
    std::uint32_t block_size = 0;
    bool straight = false;
    TargetFeatures features;

    void set(const std::string& key, std::uint64_t number) {
      const auto count = static_cast<std::uint16_t>(number);
      const std::map<std::string, std::function<void()>> setters = {
          {"at", [&] { at = number; }},
          {"lbs", [&] { block_size = static_cast<std::uint32_t>(number); }},
          {"io", [&] { features.max_io_len = number; }},
          {"flush", [&] { features.num_flush_bios = count; }},
          {"discard", [&] { features.num_discard_bios = count; }},
          {"erase", [&] { features.num_secure_erase_bios = count; }},
          {"zeroes", [&] { features.num_write_zeroes_bios = count; }},
          {"bypass", [&] { features.flush_bypasses_map = true; }},
          {"takes-discards", [&] { features.discards_supported = true; }},
          {"cuts-discards", [&] { features.max_discard_granularity = true; }},
          {"has-cache", [&] { features.flush_supported = true; }},
          {"ends", [&] { features.wants_end_io = true; }},
          {"straight", [&] { straight = true; }},
      };
      setters.at(key)();
    }
  };

  Target(const TargetInfo& ti, const Spec& spec, std::vector<DevRef> devs, Hooks* hooks)
      : mapperfs::Target(ti, spec.features),
        devs_(std::move(devs)),
        at_(spec.at),
        block_size_(spec.block_size),
        straight_(spec.straight),
        hooks_(hooks) {}
  ~Target() override { note("dtr"); }

  MapIo map(Bio& bio) noexcept override {
    if (hooks_ != nullptr && hooks_->map) {
      return hooks_->map(*this, bio);
    }
    return remap(bio);
  }
  EndIo end_io(Bio& bio, BlkStatus& status) noexcept override {
    return hooks_ != nullptr && hooks_->end_io ? hooks_->end_io(*this, bio, status) : EndIo::kDone;
  }
  void presuspend() override {
    note("presuspend");
    if (hooks_ != nullptr && hooks_->presuspend) {
      hooks_->presuspend();
    }
  }
  void presuspend_undo() override { note("presuspend_undo"); }
  void postsuspend() override { note("postsuspend"); }
  Status preresume() override {
    note("preresume");
    return hooks_ != nullptr && hooks_->preresume ? hooks_->preresume() : Status();
  }
  void resume() override { note("resume"); }
  [[nodiscard]] std::string table(bool show_keys) const override {
    return show_keys ? "key 1234" : "key 0000";
  }
  [[nodiscard]] std::string status(bool noflush) const override {
    return noflush ? "kept" : "flushed";
  }
  Result<std::string> message(std::span<const std::string_view> argv) override {
    return hooks_ != nullptr && hooks_->message ? hooks_->message(argv)
                                                : mapperfs::Target::message(argv);
  }
  void iterate_devices(const DeviceFn& fn) const override {
    for (const DevRef& dev : devs_) {
      fn({dev.get(), at_, ti().len / devs_.size()});
    }
  }
  [[nodiscard]] TargetDevice straight() const override {
    return straight_ ? TargetDevice{devs_.front().get(), at_, ti().len} : TargetDevice{};
  }
  void io_hints(QueueLimits& limits) const override {
    if (block_size_ != 0) {
      limits.logical_block_size = block_size_;
    }
  }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    return devs_.empty() ? Extent{max, true}
                         : extent_below(*devs_.front(), at_ + (sector - begin()), max);
  }

  // Sends the bio on: copy n of a flush or an abnormal operation to the n-th device.
  MapIo remap(Bio& bio) {
    if (devs_.empty()) {
      return MapIo::kKill;
    }
    bio.remap(*devs_.at(bio.bio_nr() % devs_.size()), at_ + ti().offset_of(bio));
    return MapIo::kRemapped;
  }
  BlockDevice& dev(std::size_t n = 0) { return *devs_.at(n); }

 private:
  void note(const char* what) {
    if (hooks_ != nullptr) {
      hooks_->diary.add(fmt::format("{} {}", what, begin()));
    }
  }

  const std::vector<DevRef> devs_;
  const sector_t at_;
  const std::uint32_t block_size_;
  const bool straight_;
  Hooks* const hooks_;
};

}  // namespace mapperfs::probe
