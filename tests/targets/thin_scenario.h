// The life of a few thin devices in steps that are always the same: new blocks and shared ones,
// covered or in part, FUA, an external origin, discards, blocks used again. A test makes something
// go wrong at one step after the other. Whatever it was, each cell of each device holds what the
// last acknowledged write put there (where a write failed: its data, or what was there before), and
// the checker finds nothing.
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "metadata/thin_check.h"
#include "tests/targets/thin_support.h"

namespace mapperfs::test {

class ThinScenario : public ThinTest {
 protected:
  static constexpr sector_t kCellSectors = 8;
  static constexpr std::size_t kCellsPerBlock = kBlock / kCellSectors;
  static constexpr std::uint64_t kDeviceBlocks = 8;
  static constexpr std::size_t kCells = kDeviceBlocks * kCellsPerBlock;
  // Of the external origin: it ends in the middle of a block.
  static constexpr std::size_t kBaseCells = 2 * kCellsPerBlock + kCellsPerBlock / 2;
  static constexpr unsigned kBaseTag = 100'000;  // of its first cell
  // Data blocks that live() takes, if nothing goes wrong.
  static constexpr std::uint64_t kMostBlocks = 17;

  // Tags of writes; 0: zeroes.
  using Tags = std::set<unsigned>;
  struct Cell {
    Tags now{0};    // what it may hold
    Tags since{0};  // what it has held since the last commit: an abort goes back to one of these
  };
  struct Device {
    unsigned id;
    std::string origin;
    std::vector<Cell> cells;
  };

  ThinScenario()
      : fault_(harness_.add_fault_dev("data", 1024 * kBlock)),
        base_(harness_.add_fault_dev("base", kBaseCells * kCellSectors)) {
    for (unsigned i = 0; i < kBaseCells; ++i) {
      EXPECT_EQ(fake::write(base_, i * kCellSectors, contents(kBaseTag + i)), BlkStatus::kOk);
    }
  }

  // A bio waits, and nothing happens any more without the test: false gives it up.
  virtual bool stuck() { return false; }

  // Gives the pool and its devices up.
  void tear_down() {
    for (const auto& [name, device] : model_) {
      remove(name);
    }
    model_.clear();
    if (harness_.engine().find("pool").ok()) {
      remove("pool");
    }
  }
  // Again and again: the pool grows, the devices are new ones.
  void set_up(std::uint64_t blocks, const std::string& rest = "128 0") {
    for (const auto& [name, device] : model_) {
      remove(name);
      EXPECT_EQ(message_error(fmt::format("delete {}", device.id)), 0);
    }
    model_.clear();
    failures_.clear();
    aborted_ = false;
    blocks_ = blocks;
    rest_ = rest;
    make_pool(blocks, rest);
    harness_.env().advance(2 * kSecond);
    EXPECT_EQ(used(), fmt::format("0/{}", blocks)) << "a block is lost";
    make_thin("thin", 0, kDeviceBlocks);
    make_thin("ext", 2, kDeviceBlocks, "base");
    model_["thin"] = {0, "", std::vector<Cell>(kCells)};
    model_["ext"] = {2, "base", std::vector<Cell>(kCells)};
    for (unsigned i = 0; i < kBaseCells; ++i) {
      model_["ext"].cells[i] = {{kBaseTag + i}, {kBaseTag + i}};
    }
  }
  void live() {
    write("thin", 0, 3);    // part of a new block
    write("thin", 16, 16);  // a new block
    write("thin", 40, 32);  // half a block, a whole one, half a block
    flush("thin");
    snapshot();
    write("thin", 1, 2);             // part of a shared block
    write("thin", 16, 16);           // a shared block
    write("snap", 33, 4);            // the first of two that share
    write("thin", 34, 4);            // and the second
    write("thin", 48, 4, kBioFua);   // part of a shared block
    write("thin", 80, 3, kBioFua);   // of a new one
    write("thin", 96, 16, kBioFua);  // a new one
    write("thin", 2, 1, kBioFua);    // of its own
    read("ext");
    write("ext", 4, 2);    // copied from the origin
    write("ext", 37, 1);   // copied, and zeroed where the origin ends
    write("ext", 16, 16);  // covered
    write("ext", 60, 2);   // past the origin
    flush("ext");
    discard("thin", 1, 3);  // some shared, some its own
    discard("snap", 4, 1);
    discard("ext", 0, 1);
    write("thin", 17, 3);  // a block that was another's
    write("ext", 7, 1);
    read("ext");
    harness_.env().advance(2 * kSecond);  // commits by itself
    flush("thin");
  }

  // The steps.

  void write(const std::string& name, std::size_t first, std::size_t count,
             std::uint8_t flags = 0) {
    if (!model_.contains(name)) {
      return;
    }
    fake::Bytes data;
    for (std::size_t i = 0; i < count; ++i) {
      const fake::Bytes& cell = contents(tag_ + 1 + static_cast<unsigned>(i));
      data.insert(data.end(), cell.begin(), cell.end());
    }
    fake::AsyncBio bio(harness_.device(name), first * kCellSectors, data, flags);
    const BlkStatus status = finish(bio);
    for (std::size_t i = first; i < first + count; ++i) {
      Cell& cell = model_[name].cells[i];
      set(cell, ++tag_, status);
      if (status == BlkStatus::kOk && (flags & kBioFua) != 0) {
        cell.since = cell.now;
      }
    }
  }
  void discard(const std::string& name, std::size_t first_block, std::size_t blocks) {
    if (!model_.contains(name)) {
      return;
    }
    const bool changes = !aborted();
    fake::AsyncBio bio(harness_.device(name), Op::kDiscard, first_block * kBlock, blocks * kBlock);
    BlkStatus status = finish(bio);
    if (!changes) {
      return;  // a pool that cannot change does nothing, whatever it says
    }
    if (aborted()) {
      status = BlkStatus::kIoError;  // undone, or not
    }
    for (std::size_t i = first_block * kCellsPerBlock; i < (first_block + blocks) * kCellsPerBlock;
         ++i) {
      Device& device = model_[name];
      const bool below = !device.origin.empty() && i < kBaseCells;
      set(device.cells[i], below ? kBaseTag + static_cast<unsigned>(i) : 0, status);
    }
  }
  void flush(const std::string& name) {
    fake::AsyncBio bio(harness_.device(name), Op::kFlush, 0, 0);
    if (finish(bio) == BlkStatus::kOk) {
      committed(model_[name]);
    }
  }
  // Of "thin", as "snap". A snapshot whose commit failed is not there.
  void snapshot() {
    if (message_error("create_snap 1 0") != 0 || aborted()) {
      return;
    }
    for (auto& [name, device] : model_) {
      committed(device);
    }
    model_["snap"] = model_["thin"];
    model_["snap"].id = 1;
    open_thin("snap", 1, kDeviceBlocks);
  }
  void read(const std::string& name) {
    fake::AsyncBio bio(harness_.device(name), Op::kRead, 0, kCells * kCellSectors);
    if (finish(bio) == BlkStatus::kOk) {
      compare(name, model_[name], bio.data());
    }
  }

  // What is left in the end.

  // The pool went back to its last commit; perhaps it has failed altogether.
  [[nodiscard]] bool aborted() { return aborted_ || (aborted_ = mode() == "ro" || failed()); }
  [[nodiscard]] bool failed() { return word(harness_.status("pool"), 3) == "Fail"; }
  void verify() {
    for (const auto& [name, device] : model_) {
      const fake::Bytes data = harness_.read(name, 0, kCells * kCellSectors);
      ASSERT_FALSE(data.empty()) << name << " does not read";
      compare(name, device, data);
    }
  }
  // All that is there reads back and is sound, before and after the pool was taken down; then it
  // is as good as new.
  void expect_sound() {
    const bool flagged = aborted();
    const bool failed_pool = failed();
    if (!failed_pool) {
      verify();
    }
    harness_.env().advance(2 * kSecond);  // what is to be committed is
    const std::string in_use = used();
    for (const auto& [name, device] : model_) {
      remove(name);
    }
    remove("pool");
    check(flagged, failed_pool);
    make_pool(blocks_, rest_);
    EXPECT_TRUE(used() == in_use || flagged) << "a block was lost while the pool was there";
    EXPECT_EQ(mode(), "rw");
    for (const auto& [name, device] : model_) {
      open_thin(name, device.id, kDeviceBlocks, device.origin);
    }
    verify();
    for (const auto& [name, device] : model_) {
      EXPECT_EQ(harness_.run_op(name, Op::kFlush, 0, 0), BlkStatus::kOk) << name;
    }
  }

  fake::FaultDev& fault_;
  fake::FaultDev& base_;
  std::uint64_t blocks_ = 0;  // of the pool's table
  std::string rest_;
  std::map<std::string, Device> model_;
  std::vector<BlkStatus> failures_;  // of steps, in order
  bool flag_may_be_lost_ = false;    // the metadata may not take even the flag

 private:
  static constexpr int kMaxWaits = 100;

  const fake::Bytes& contents(unsigned tag) {
    fake::Bytes& cell = contents_[tag];
    if (cell.empty()) {
      cell = tag == 0 ? filled(kCellSectors, 0) : fake::pattern(kCellSectors, tag);
    }
    return cell;
  }
  static void set(Cell& cell, unsigned tag, BlkStatus status) {
    if (status == BlkStatus::kOk) {
      cell.now.clear();
    }
    cell.now.insert(tag);
    cell.since.insert(tag);
  }
  static void committed(Device& device) {
    for (Cell& cell : device.cells) {
      cell.since = cell.now;
    }
  }
  BlkStatus finish(fake::AsyncBio& bio) {
    bio.submit();
    harness_.env().run();
    for (int waits = 0; !bio.done(); ++waits) {
      if (waits == kMaxWaits || !stuck()) {
        ADD_FAILURE() << "a bio does not end";
        EXPECT_TRUE(harness_.device("pool").wipe_table({}).ok());  // and so it does
      }
      harness_.env().run();
    }
    if (bio.status() != BlkStatus::kOk) {
      failures_.push_back(bio.status());
    }
    return bio.status();
  }
  void compare(const std::string& name, const Device& device, const fake::Bytes& data) {
    constexpr std::size_t kBytes = kCellSectors << kSectorShift;
    for (std::size_t i = 0; i < kCells; ++i) {
      const auto at = data.begin() + static_cast<std::ptrdiff_t>(i * kBytes);
      const Tags& tags = aborted() ? device.cells[i].since : device.cells[i].now;
      const bool known = std::any_of(tags.begin(), tags.end(), [&](unsigned tag) {
        return std::equal(contents(tag).begin(), contents(tag).end(), at);
      });
      // Without zeroing, what nobody wrote may be anything.
      const bool anything =
          tags.contains(0) && rest_.find("skip_block_zeroing") != std::string::npos;
      ASSERT_TRUE(known || anything)
          << name << ": cell " << i << " holds none of " << fmt::format("{}", fmt::join(tags, " "));
    }
  }
  // `flagged`: the pool needs the check, which takes the flag away. One that has failed may not
  // have been able to say so.
  void check(bool flagged, bool failed_pool) {
    ThinCheckOptions options;
    options.env = thinp::pool_tuning().env;
    auto report = check_thin_metadata(dir_ / "meta", options);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_TRUE(report->clean()) << report->leaked_data_blocks << " blocks leak, "
                                 << fmt::format("{}", fmt::join(report->messages, "; "));
    EXPECT_TRUE(report->needs_check == flagged || failed_pool || (flagged && flag_may_be_lost_));
    if (report->needs_check) {
      options.clear_needs_check = true;
      report = check_thin_metadata(dir_ / "meta", options);
      ASSERT_TRUE(report.ok()) << report.status().message();
      EXPECT_FALSE(report->needs_check);
    }
  }

  std::map<unsigned, fake::Bytes> contents_;  // by tag
  unsigned tag_ = 0;
  bool aborted_ = false;
};

}  // namespace mapperfs::test
