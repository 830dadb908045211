// delay: holds bios back for a while.
//
//   START LEN delay DEV OFFSET MS [WDEV WOFFSET WMS [FDEV FOFFSET FMS]]      OFFSET in sectors
//
// Three classes: reads, writes (and discards), flushes; with 3 arguments all go by the first set,
// with 6 writes and flushes go by the second. A bio is mapped when it comes, waits MS milliseconds
// and is then sent on. Suspend lets every held bio go at once, and nothing is delayed until resume.
//
// Held bios. Within a class the delay is constant, so a list in order of arrival is one in order of
// expiry; a serial number merges the three into the order of arrival. One timer is armed for the
// earliest expiry. No thread of its own, no allocation: the links are the bios'.
//
// Threads: mutex_ guards what is held. It is not held across submit, nor across a timer's cancel,
// which waits for fire().
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <mutex>

#include "engine/env.h"
#include "engine/target_args.h"
#include "targets/targets.h"

namespace mapperfs {

namespace {

constexpr std::uint64_t kNanosPerMilli = 1'000'000;

class DelayTarget final : public Target, public Timer {
 public:
  // Where the bios of a class go, and how late.
  struct Class {
    DevRef dev;
    sector_t start = 0;
    std::uint32_t delay_ms = 0;
  };
  using Classes = std::array<Class, 3>;
  enum ClassIndex : std::size_t { kRead, kWrite, kFlush };

  static Result<std::unique_ptr<Target>> ctr(const TargetInfo& ti, TargetArgs& args) {
    const std::size_t count = args.count();
    if (count != 3 && count != 6 && count != 9) {
      args.fail("Requires exactly 3, 6 or 9 arguments", fmt::format("{} given", count));
    }
    Classes classes;
    for (std::size_t i = 0; i < classes.size(); ++i) {
      const std::size_t set = std::min(i, count / 3 - (count >= 3 ? 1 : 0)) * 3;
      classes[i].start = args.sector(set + 1, "Invalid device sector");
      classes[i].delay_ms = args.u32(set + 2, 0, "Invalid delay");
      classes[i].dev = args.device(set, "Device lookup failed");
    }
    if (args.failed()) {
      return args.status();
    }
    return std::unique_ptr<Target>(
        std::make_unique<DelayTarget>(ti, count / 3, std::move(classes)));
  }

  DelayTarget(const TargetInfo& ti, std::size_t sets, Classes classes)
      : Target(ti, features_of_delay()), sets_(sets), classes_(std::move(classes)) {}
  ~DelayTarget() override { ti().env->cancel(*this); }

  MapIo map(Bio& bio) noexcept override {
    const std::size_t index = class_of(bio);
    const Class& to = classes_[index];
    bio.remap(*to.dev, to.start + ti().offset_of(bio));
    if (to.delay_ms == 0 || !hold(bio, index)) {
      return MapIo::kRemapped;
    }
    return MapIo::kSubmitted;
  }

  // The timer: what has expired goes on its way.
  void fire() noexcept override {
    BioList due;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      armed_ns_ = kNotArmed;
      collect(ti().env->now_ns(), due);
      arm_next();
    }
    submit_all(due);
  }

  void presuspend() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      may_delay_ = false;
    }
    ti().env->cancel(*this);
    BioList due;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      armed_ns_ = kNotArmed;
      collect(std::numeric_limits<std::uint64_t>::max(), due);
    }
    submit_all(due);
  }
  void presuspend_undo() override { resume(); }
  void resume() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    may_delay_ = true;
  }

  [[nodiscard]] std::string status(bool noflush) const override {
    static_cast<void>(noflush);
    const std::lock_guard<std::mutex> lock(mutex_);
    return fmt::format("{} {} {}", held_[kRead].count, held_[kWrite].count, held_[kFlush].count);
  }
  [[nodiscard]] std::string table(bool show_keys) const override {
    static_cast<void>(show_keys);
    std::string text;
    for (std::size_t i = 0; i < sets_; ++i) {
      const Class& set = classes_[i];
      text += fmt::format("{}{} {} {}", i == 0 ? "" : " ", escape_word(set.dev->table_name()),
                          set.start, set.delay_ms);
    }
    return text;
  }
  void iterate_devices(const DeviceFn& fn) const override {
    for (const Class& each : classes_) {
      fn({each.dev.get(), each.start, ti().len});
    }
  }
  [[nodiscard]] Extent extent(sector_t sector, sector_t max) const override {
    const Class& read = classes_[kRead];
    return extent_below(*read.dev, read.start + (sector - begin()), max);
  }

 private:
  static constexpr std::uint64_t kNotArmed = std::numeric_limits<std::uint64_t>::max();
  // In the per-I/O data of a held bio.
  struct Held {
    std::uint64_t expires_ns;
    std::uint64_t serial;
  };
  struct HeldClass {
    BioList bios;
    std::uint32_t count = 0;
  };

  static TargetFeatures features_of_delay() {
    TargetFeatures features;
    features.num_flush_bios = 1;
    features.num_discard_bios = 1;
    return features;
  }
  static std::size_t class_of(const Bio& bio) noexcept {
    if (bio.op == Op::kFlush || (bio.flags & kBioPreflush) != 0) {
      return kFlush;
    }
    return bio.is_write() ? kWrite : kRead;
  }

  // False: the bio is not to be delayed now.
  bool hold(Bio& bio, std::size_t index) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!may_delay_) {
      return false;
    }
    // The clock is read with the lock held, so that a class's list is in order of expiry.
    const std::uint64_t expires_ns = ti().env->now_ns() + classes_[index].delay_ms * kNanosPerMilli;
    bio.make_per_io<Held>(Held{expires_ns, next_serial_++});
    held_[index].bios.push_back(bio);
    ++held_[index].count;
    if (expires_ns < armed_ns_) {
      arm(expires_ns);
    }
    return true;
  }

  // mutex_ held, in all below.
  static Bio* front(HeldClass& held) noexcept {
    Bio* bio = held.bios.pop_front();
    if (bio != nullptr) {
      held.bios.push_front(*bio);
    }
    return bio;
  }
  void collect(std::uint64_t now_ns, BioList& due) noexcept {
    while (true) {
      HeldClass* first = nullptr;
      std::uint64_t first_serial = 0;
      for (HeldClass& held : held_) {
        Bio* bio = front(held);
        if (bio == nullptr || bio->per_io<Held>().expires_ns > now_ns) {
          continue;
        }
        if (first == nullptr || bio->per_io<Held>().serial < first_serial) {
          first = &held;
          first_serial = bio->per_io<Held>().serial;
        }
      }
      if (first == nullptr) {
        return;
      }
      due.push_back(*first->bios.pop_front());
      --first->count;
    }
  }
  void arm_next() noexcept {
    std::uint64_t earliest = kNotArmed;
    for (HeldClass& held : held_) {
      if (Bio* bio = front(held); bio != nullptr) {
        earliest = std::min(earliest, bio->per_io<Held>().expires_ns);
      }
    }
    if (earliest < armed_ns_) {
      arm(earliest);
    }
  }
  // Armed under the lock: two threads that arm in the wrong order would lose the earlier expiry.
  void arm(std::uint64_t when_ns) noexcept {
    armed_ns_ = when_ns;
    ti().env->arm(*this, when_ns);
  }

  // No lock held: a bio may end before submit returns.
  static void submit_all(BioList& due) noexcept {
    while (Bio* bio = due.pop_front()) {
      submit_bio(*bio);
    }
  }

  const std::size_t sets_;  // given in the table line
  const Classes classes_;

  mutable std::mutex mutex_;
  bool may_delay_ = false;              // mutex_, as all below: false until the first resume
  std::array<HeldClass, 3> held_;       //
  std::uint64_t next_serial_ = 0;       //
  std::uint64_t armed_ns_ = kNotArmed;  // when the timer fires
};

}  // namespace

constinit const TargetType kDelayTarget = {"delay", {1, 5, 0}, 0, &DelayTarget::ctr};

}  // namespace mapperfs
