// Random life of a pool against a plain model, with crashes: after each, every device is there and
// each of its cells holds what it held at the last commit that was asked for, or what was written
// since.
#include <fmt/ranges.h>

#include <map>
#include <random>
#include <set>

#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

constexpr sector_t kCellSectors = 16;
constexpr std::size_t kCellsPerBlock = 8;
constexpr std::size_t kDeviceBlocks = 8;
constexpr std::size_t kCells = kDeviceBlocks * kCellsPerBlock;
constexpr unsigned kMaxDevices = 6;

struct Cell {
  unsigned now = 0;              // what a read must give; 0: zeroes
  std::set<unsigned> perhaps{};  // what it may be after a crash, besides: older and newer
};
using Model = std::map<unsigned, std::vector<Cell>>;  // by device id

class ThinModel : public ThinTest, public testing::WithParamInterface<unsigned> {
 protected:
  ThinModel() : fault_(harness_.add_fault_dev("data", 1024 * kBlock)), random_(GetParam()) {}

  unsigned below(std::size_t limit) { return static_cast<unsigned>(random_() % limit); }
  static std::string name(unsigned id) { return fmt::format("t{}", id); }
  // A device that exists, or one that does not.
  unsigned pick() { return std::next(model_.begin(), below(model_.size()))->first; }
  static fake::Bytes contents(unsigned tag) {
    return tag == 0 ? filled(kCellSectors, 0) : fake::pattern(kCellSectors, tag);
  }
  // All that was done before is durable.
  void committed() {
    for (auto& [id, cells] : model_) {
      for (Cell& cell : cells) {
        cell.perhaps.clear();
      }
    }
  }
  static void set(Cell& cell, unsigned tag) {
    cell.perhaps.insert(cell.now);
    cell.now = tag;
  }

  void write() {
    const unsigned id = pick();
    const std::size_t first = below(kCells);
    const std::size_t count = 1 + below(std::min(kCells - first, 2 * kCellsPerBlock));
    fake::Bytes data;
    for (std::size_t i = first; i < first + count; ++i) {
      const fake::Bytes cell = contents(++tag_);
      data.insert(data.end(), cell.begin(), cell.end());
      set(model_[id][i], tag_);
    }
    const bool fua = below(10) == 0;
    ASSERT_EQ(harness_.write(name(id), first * kCellSectors, data, fua ? kBioFua : 0),
              BlkStatus::kOk);
    if (fua) {
      for (std::size_t i = first; i < first + count; ++i) {
        model_[id][i].perhaps.clear();
      }
    }
  }
  void discard() {
    const unsigned id = pick();
    const std::size_t first = below(kCells);
    const std::size_t count = 1 + below(kCells - first);
    ASSERT_EQ(harness_.run_op(name(id), Op::kDiscard, first * kCellSectors, count * kCellSectors),
              BlkStatus::kOk);
    const std::size_t begin = (first + kCellsPerBlock - 1) / kCellsPerBlock * kCellsPerBlock;
    const std::size_t end = (first + count) / kCellsPerBlock * kCellsPerBlock;
    for (std::size_t i = begin; i < end; ++i) {
      set(model_[id][i], 0);
    }
  }
  void make() {
    const unsigned id = next_id_++;
    if (model_.empty() || below(3) == 0) {
      make_thin(name(id), id, kDeviceBlocks);
      model_[id].resize(kCells);
    } else {
      const unsigned origin = pick();
      snap(id, origin);
      open_thin(name(id), id, kDeviceBlocks);
      model_[id] = model_[origin];
    }
    committed();
  }
  void drop() {
    const unsigned id = pick();
    remove(name(id));
    ASSERT_EQ(message_error(fmt::format("delete {}", id)), 0);
    model_.erase(id);
    committed();
  }
  void flush() {
    const unsigned id = pick();
    ASSERT_EQ(harness_.run_op(name(id), Op::kFlush, 0, 0), BlkStatus::kOk);
    for (Cell& cell : model_[id]) {
      cell.perhaps.clear();
    }
  }
  void close() {
    for (const auto& [id, cells] : model_) {
      remove(name(id));
    }
    remove("pool");
  }
  void open() {
    ASSERT_TRUE(harness_.set_table("pool", pool_line(256, "128 0", meta_)).ok());
    for (const auto& [id, cells] : model_) {
      open_thin(name(id), id, kDeviceBlocks);
    }
  }
  void crash() {
    const std::string next = fmt::format("meta{}", ++crashes_);
    copy_metadata(meta_, next);
    fault_.crash();
    close();
    std::filesystem::remove_all(dir_ / meta_);
    meta_ = next;
    open();
    for (auto& [id, cells] : model_) {
      const fake::Bytes data = harness_.read(name(id), 0, kCells * kCellSectors);
      ASSERT_FALSE(data.empty());
      for (std::size_t i = 0; i < kCells; ++i) {
        adopt(id, i, cells[i], data);
      }
    }
  }
  // Finds out which of its possible states a cell has, sector by sector: a write may be torn.
  void adopt(unsigned id, std::size_t i, Cell& cell, const fake::Bytes& data) {
    std::set<unsigned> tags = cell.perhaps;
    tags.insert(cell.now);
    const auto at = data.begin() + static_cast<std::ptrdiff_t>(i * kCellSectors * kSectorBytes);
    fake::Bytes real(at, at + static_cast<std::ptrdiff_t>(kCellSectors * kSectorBytes));
    for (const unsigned tag : tags) {
      if (contents(tag) == real) {
        cell = Cell{tag, {}};
        return;
      }
    }
    for (std::size_t sector = 0; sector < kCellSectors; ++sector) {
      const auto same = [&](unsigned tag) {
        const fake::Bytes expected = contents(tag);
        const auto from = static_cast<std::ptrdiff_t>(sector * kSectorBytes);
        return std::equal(expected.begin() + from,
                          expected.begin() + from + std::ptrdiff_t{kSectorBytes},
                          real.begin() + from);
      };
      ASSERT_TRUE(std::any_of(tags.begin(), tags.end(), same))
          << "seed " << GetParam() << ": device " << id << " cell " << i << " sector " << sector
          << " holds what nobody wrote there: not " << fmt::format("{}", fmt::join(tags, " "));
    }
    // Torn: made whole again, since the model knows whole cells only.
    const fake::Bytes whole = contents(++tag_);
    ASSERT_EQ(harness_.write(name(id), i * kCellSectors, whole, kBioFua), BlkStatus::kOk);
    cell = Cell{tag_, {}};
  }
  void verify() {
    for (const auto& [id, cells] : model_) {
      const fake::Bytes data = harness_.read(name(id), 0, kCells * kCellSectors);
      fake::Bytes expected;
      for (const Cell& cell : cells) {
        const fake::Bytes one = contents(cell.now);
        expected.insert(expected.end(), one.begin(), one.end());
      }
      ASSERT_TRUE(data == expected) << "seed " << GetParam() << ": device " << id;
    }
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
      harness_.env().advance(kSecond);
    } else if (what < 90) {
      crash();
    } else if (what < 91) {
      close();
      committed();
      open();
    } else {
      verify();
    }
  }

  fake::FaultDev& fault_;
  std::mt19937_64 random_;
  Model model_;
  std::string meta_ = "meta";
  unsigned next_id_ = 0;
  unsigned tag_ = 0;
  unsigned crashes_ = 0;
};

TEST_P(ThinModel, NothingIsLostAndNothingIsForeign) {
  fault_.crash();
  fault_.sync();
  open();
  for (int i = 0; i < 600 && !HasFatalFailure(); ++i) {
    step();
  }
  verify();
  std::set<unsigned> ids;
  for (const auto& [id, cells] : model_) {
    ids.insert(id);
  }
  for (const unsigned id : ids) {
    remove(name(id));
    EXPECT_EQ(message_error(fmt::format("delete {}", id)), 0);
  }
  harness_.env().advance(2 * kSecond);
  EXPECT_EQ(used(), "0/256") << "a block is lost";
}

INSTANTIATE_TEST_SUITE_P(Seeds, ThinModel, testing::Range(1U, 7U));

}  // namespace

}  // namespace mapperfs::test
