// Random life of a pool against a plain model. After a crash every device is there and each of its
// cells holds what it held at the last commit that was asked for, or what was written since.
// With every third seed new blocks are not zeroed, and given out by the thread that writes.
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "tests/targets/thin_support.h"

namespace mapperfs::test {

inline constexpr sector_t kCellSectors = 16;
inline constexpr std::size_t kCellsPerBlock = 8;
inline constexpr std::size_t kDeviceBlocks = 8;
inline constexpr std::size_t kCells = kDeviceBlocks * kCellsPerBlock;
inline constexpr unsigned kMaxDevices = 6;

struct Cell {
  unsigned now = 0;              // what a read must give; 0: zeroes
  std::set<unsigned> perhaps{};  // what it may be after a crash, besides: older and newer
};
// Whether a block may be mapped. What is not reads as zeroes, in every pool.
struct Mapping {
  bool now = false;          // something was written to it since it was discarded
  bool after_crash = false;  // in some state that a crash may leave; true where `now` is
};
struct Volume {
  void committed() {
    for (Cell& cell : cells) {
      cell.perhaps.clear();
    }
    for (Mapping& block : blocks) {
      block.after_crash = block.now;
    }
  }
  std::vector<Cell> cells = std::vector<Cell>(kCells);
  std::array<Mapping, kDeviceBlocks> blocks{};
};
using Model = std::map<unsigned, Volume>;  // by device id

// MAPPERFS_SEED=FIRST-LAST, as the metadata's tests; 1 to `few` unless told.
inline auto seeds(unsigned few) {
  unsigned first = 1;
  unsigned last = few;
  if (const char* text = std::getenv("MAPPERFS_SEED")) {
    char* end = nullptr;
    first = static_cast<unsigned>(std::strtoul(text, &end, 10));
    last = *end == '-' ? static_cast<unsigned>(std::strtoul(end + 1, nullptr, 10)) : first;
  }
  return ::testing::Range(first, last + 1);
}

class ThinModel : public ThinTest, public ::testing::WithParamInterface<unsigned> {
 protected:
  ThinModel() : fault_(harness_.add_fault_dev("data", 1024 * kBlock)), random_(GetParam()) {}

  unsigned below(std::size_t limit) { return static_cast<unsigned>(random_() % limit); }
  static std::string name(unsigned id) { return fmt::format("t{}", id); }
  // A device that exists, or one that does not.
  unsigned pick() { return std::next(model_.begin(), below(model_.size()))->first; }
  // If not, what nobody wrote to a mapped block may be anything.
  [[nodiscard]] static bool zeroes() { return GetParam() % 3 != 1; }
  // Made once: they are looked at again and again, and sanitizers make the making slow.
  const fake::Bytes& contents(unsigned tag) const {
    while (contents_.size() <= tag) {
      contents_.push_back(contents_.empty() ? filled(kCellSectors, 0)
                                            : fake::pattern(kCellSectors, contents_.size()));
    }
    return contents_[tag];
  }
  // Whether the power of the metadata's device has gone: what is asked for then may fail, and
  // nothing is certain to last.
  [[nodiscard]] virtual bool cut() const { return false; }
  // The operation went well, or the power went.
  [[nodiscard]] bool went(BlkStatus status) const { return status == BlkStatus::kOk || cut(); }
  // All that was done before is durable.
  void committed() {
    if (cut()) {
      return;
    }
    for (auto& [id, volume] : model_) {
      volume.committed();
    }
  }
  static void set(Cell& cell, unsigned tag) {
    cell.perhaps.insert(cell.now);
    cell.now = tag;
  }

  void write() {
    const unsigned id = pick();
    Volume& volume = model_[id];
    const std::size_t first = below(kCells);
    const std::size_t count = 1 + below(std::min(kCells - first, 2 * kCellsPerBlock));
    fake::Bytes data;
    for (std::size_t i = first; i < first + count; ++i) {
      const fake::Bytes& cell = contents(++tag_);
      data.insert(data.end(), cell.begin(), cell.end());
      set(volume.cells[i], tag_);
      volume.blocks.at(i / kCellsPerBlock) = {true, true};
    }
    const bool fua = below(10) == 0;
    ASSERT_TRUE(went(harness_.write(name(id), first * kCellSectors, data, fua ? kBioFua : 0)));
    if (fua && !cut()) {
      for (std::size_t i = first; i < first + count; ++i) {
        volume.cells[i].perhaps.clear();
      }
    }
  }
  void discard() {
    const unsigned id = pick();
    const std::size_t first = below(kCells);
    const std::size_t count = 1 + below(kCells - first);
    ASSERT_TRUE(
        went(harness_.run_op(name(id), Op::kDiscard, first * kCellSectors, count * kCellSectors)));
    const std::size_t begin = (first + kCellsPerBlock - 1) / kCellsPerBlock * kCellsPerBlock;
    const std::size_t end = (first + count) / kCellsPerBlock * kCellsPerBlock;
    for (std::size_t i = begin; i < end; ++i) {
      set(model_[id].cells[i], 0);
      model_[id].blocks.at(i / kCellsPerBlock).now = false;  // after a crash, if that is not lost
    }
  }
  void make() {
    const unsigned id = next_id_++;
    Volume volume;
    std::string text = fmt::format("create_thin {}", id);
    if (!model_.empty() && below(3) != 0) {
      const unsigned origin = pick();
      text = fmt::format("create_snap {} {}", id, origin);
      volume = model_[origin];
    }
    const int error = message_error(text);
    ASSERT_TRUE(error == 0 || cut()) << text << ": " << error;
    model_[id] = std::move(volume);
    if (cut()) {
      unsure_ = id;
      return;
    }
    open_thin(name(id), id, kDeviceBlocks);
    committed();
  }
  void drop() {
    const unsigned id = pick();
    remove(name(id));
    const int error = message_error(fmt::format("delete {}", id));
    ASSERT_TRUE(error == 0 || cut()) << "delete: " << error;
    if (cut()) {
      unsure_ = id;
      return;
    }
    model_.erase(id);
    committed();
  }
  void flush() {
    const unsigned id = pick();
    ASSERT_TRUE(went(harness_.run_op(name(id), Op::kFlush, 0, 0)));
    if (cut()) {
      return;
    }
    model_[id].committed();
  }
  // What is there of it: a cut may have come at any step of opening.
  void close() {
    for (const auto& [id, volume] : model_) {
      if (harness_.engine().find(name(id)).ok()) {
        remove(name(id));
      }
    }
    if (harness_.engine().find("pool").ok()) {
      remove("pool");
    }
  }
  void open() {
    const std::string_view rest = zeroes() ? "128 0" : "128 0 1 skip_block_zeroing";
    const Status status = harness_.set_table("pool", pool_line(256, rest, meta_));
    ASSERT_TRUE(status.ok() || cut()) << status.message();
    if (cut()) {
      return;
    }
    if (unsure_.has_value() && !harness_.set_table(name(*unsure_), line(*unsure_)).ok()) {
      model_.erase(*unsure_);
    }
    unsure_.reset();
    for (const auto& [id, volume] : model_) {
      const Status opened = harness_.set_table(name(id), line(id));
      ASSERT_TRUE(opened.ok() || cut()) << opened.message();
    }
  }
  static std::string line(unsigned id) {
    return fmt::format("0 {} thin pool {}", kDeviceBlocks * kBlock, id);
  }
  // Less than the pool's commit period, about that, or long after all is quiet.
  void pass_time() {
    constexpr std::array<std::uint64_t, 4> kUnits = {kSecond / 1000, kSecond / 10, kSecond,
                                                     600 * kSecond};
    harness_.env().advance(kUnits.at(below(kUnits.size())) * (1 + below(9)));
  }
  virtual void crash() {
    const std::string next = fmt::format("meta{}", ++crashes_);
    copy_metadata(meta_, next);
    fault_.crash();
    close();
    std::filesystem::remove_all(dir_ / meta_);
    meta_ = next;
    open();
    adopt_all();
  }
  // What is found after a crash is what there is.
  void adopt_all() {
    for (auto& [id, volume] : model_) {
      const fake::Bytes data = harness_.read(name(id), 0, kCells * kCellSectors);
      ASSERT_FALSE(data.empty());
      for (Mapping& block : volume.blocks) {
        block.now = block.after_crash;
      }
      for (std::size_t i = 0; i < kCells; ++i) {
        adopt(id, i, data);
      }
    }
  }
  // Whether the cell's contents at `real` are those of a write; of one sector only, if it is given.
  // By memcmp(): vectors of bytes compare byte by byte, which sanitizers look at one by one.
  bool is(const std::byte* real, unsigned tag) const {
    return std::memcmp(real, contents(tag).data(), kCellSectors * kSectorBytes) == 0;
  }
  bool is(const std::byte* real, unsigned tag, std::size_t sector) const {
    const std::size_t at = sector * kSectorBytes;
    return std::memcmp(real + at, contents(tag).data() + at, kSectorBytes) == 0;
  }
  // Whether they may stand for it in cell `i`.
  template <typename... Sector>
  bool holds(const Volume& volume, std::size_t i, const std::byte* real, unsigned tag,
             Sector... sector) const {
    const bool anything = !zeroes() && volume.blocks.at(i / kCellsPerBlock).now;
    return (tag == 0 && anything) || is(real, tag, sector...);
  }
  // Which write a sector's contents come from, for who has to find out.
  std::string owner_of(std::size_t sector, const std::byte* real) const {
    for (unsigned tag = 0; tag <= tag_; ++tag) {
      if (is(real, tag, sector)) {
        return fmt::format("{}", tag);
      }
    }
    return "what nobody wrote";
  }
  // Finds out which of its possible states a cell has, sector by sector: a write may be torn.
  void adopt(unsigned id, std::size_t i, const fake::Bytes& data) {
    Volume& volume = model_[id];
    Cell& cell = volume.cells[i];
    std::set<unsigned> tags = cell.perhaps;
    tags.insert(cell.now);
    const std::byte* const real = data.data() + i * kCellSectors * kSectorBytes;
    // 0, which may be anything, is the last to be thought of.
    const auto tag = std::find_if(tags.rbegin(), tags.rend(),
                                  [&](unsigned one) { return holds(volume, i, real, one); });
    if (tag != tags.rend()) {
      cell = Cell{*tag, {}};
      return;
    }
    for (std::size_t sector = 0; sector < kCellSectors; ++sector) {
      ASSERT_TRUE(std::any_of(tags.begin(), tags.end(),
                              [&](unsigned one) { return holds(volume, i, real, one, sector); }))
          << "seed " << GetParam() << ": device " << id << " cell " << i << " sector " << sector
          << " holds " << owner_of(sector, real) << ", not "
          << fmt::format("{}", fmt::join(tags, " "));
    }
    // Torn: made whole again, since the model knows whole cells only.
    const fake::Bytes& whole = contents(++tag_);
    ASSERT_EQ(harness_.write(name(id), i * kCellSectors, whole, kBioFua), BlkStatus::kOk);
    cell = Cell{tag_, {}};
  }
  // Every device has what the model says.
  void verify() {
    for (const auto& [id, volume] : model_) {
      const fake::Bytes data = harness_.read(name(id), 0, kCells * kCellSectors);
      ASSERT_FALSE(data.empty());
      for (std::size_t i = 0; i < kCells; ++i) {
        const std::byte* const real = data.data() + i * kCellSectors * kSectorBytes;
        ASSERT_TRUE(holds(volume, i, real, volume.cells[i].now))
            << "seed " << GetParam() << ": device " << id << " cell " << i << " starts with "
            << owner_of(0, real) << ", not " << volume.cells[i].now;
      }
    }
  }
  // All devices go, and then no block may be in use.
  void expect_nothing_leaks() {
    for (const auto& [id, volume] : model_) {
      remove(name(id));
      EXPECT_EQ(message_error(fmt::format("delete {}", id)), 0);
    }
    harness_.env().advance(2 * kSecond);
    EXPECT_EQ(used(), "0/256") << "a block is lost";
  }
  void step() {
    const unsigned what = below(100);
    if (model_.empty() || (what < 6 && model_.size() < kMaxDevices)) {
      make();
    } else if (what < 60) {
      write();
    } else if (what < 72) {
      discard();
    } else if (what < 76 && model_.size() > 1) {
      drop();
    } else if (what < 82) {
      flush();
    } else if (what < 88) {
      pass_time();
    } else if (what < 90) {
      crash();
    } else if (what < 91) {
      close();
      committed();
      if (!cut()) {
        open();
      }
    } else {
      verify();
    }
  }

  fake::FaultDev& fault_;
  std::mt19937_64 random_;
  mutable std::deque<fake::Bytes> contents_;  // by tag
  Model model_;
  std::string meta_ = "meta";
  unsigned next_id_ = 0;
  unsigned tag_ = 0;
  unsigned crashes_ = 0;
  std::optional<unsigned> unsure_;  // may be there or not after the crash that is to come
};

}  // namespace mapperfs::test
