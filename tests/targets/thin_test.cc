#include <cerrno>
#include <set>
#include <string>
#include <vector>

#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

class ThinTarget : public ThinTest {
 protected:
  void expect_refused(std::string_view args, int error, std::string_view text) {
    const Status status = harness_.try_table(fmt::format("0 1024 thin {}", args));
    ASSERT_FALSE(status.ok()) << args;
    EXPECT_EQ(status.error(), error) << args;
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
  }
  // Operations that the data device saw since the last call.
  std::size_t seen(Op op) {
    std::size_t count = 0;
    for (const fake::SeenBio& bio : data_->take_seen()) {
      count += bio.op == op ? 1 : 0;
    }
    return count;
  }
};

TEST_F(ThinTarget, RefusesBadTablesAsTheKernelDoes) {
  harness_.add_rams();
  make_pool(16);
  ASSERT_EQ(message_error("create_thin 0"), 0);
  expect_refused("pool", EINVAL, "Invalid argument count");
  expect_refused("pool 0 ram0 x", EINVAL, "Invalid argument count");
  expect_refused("pool 0 pool", EINVAL, "Error setting origin device");
  expect_refused("pool 0 nosuch", ENOENT, "Error opening origin device");
  expect_refused("nosuch 0", ENOENT, "Error opening pool device");
  expect_refused("pool x", EINVAL, "Invalid device id");
  expect_refused("pool 16777216", EINVAL, "Invalid device id");
  expect_refused("ram0 0", EINVAL, "Couldn't get pool mapped device");
  ASSERT_TRUE(harness_.set_table("lin", "0 8 linear ram0 0").ok());
  expect_refused("lin 0", EINVAL, "Couldn't find pool object");
  expect_refused("pool 5", ENODATA, "Couldn't open thin internal device");
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  expect_refused("pool 0", EINVAL, "Unable to activate thin device while pool is suspended");
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
}

TEST_F(ThinTarget, PrintsItsTableAndStatus) {
  harness_.add_rams();
  make_pool(16);
  make_thin("thin", 0, 64);
  EXPECT_EQ(harness_.table("thin"), "0 8192 thin pool 0");
  EXPECT_EQ(harness_.status("thin"), "0 8192 thin 0 -");
  make_thin("ext", 1, 64, "ram0");
  EXPECT_EQ(harness_.table("ext"), "0 8192 thin pool 1 ram0");
  EXPECT_FALSE(harness_.message("thin", "hi").ok());
}

TEST_F(ThinTarget, GivesBlocksToWritesAndZeroesToReads) {
  make_pool(128);
  make_thin("thin", 0, 64);
  EXPECT_EQ(harness_.read("thin", 0, 2048), filled(2048, 0));
  EXPECT_EQ(used(), "0/128");
  EXPECT_EQ(harness_.write("thin", 0, fake::pattern(8, 1)), BlkStatus::kOk);
  EXPECT_EQ(harness_.status("thin"), "0 8192 thin 128 127");
  EXPECT_EQ(harness_.write("thin", 130, fake::pattern(300, 2)), BlkStatus::kOk);
  EXPECT_EQ(harness_.status("thin"), "0 8192 thin 512 511");
  EXPECT_EQ(used(), "4/128");
  EXPECT_EQ(harness_.read("thin", 0, 8), fake::pattern(8, 1));
  EXPECT_EQ(harness_.read("thin", 8, 122), filled(122, 0));
  EXPECT_EQ(harness_.read("thin", 130, 300), fake::pattern(300, 2));
  EXPECT_EQ(harness_.read("thin", 430, 82), filled(82, 0));
}

TEST_F(ThinTarget, ZeroesABlockUnlessToldNotToOrCovered) {
  data_->poke(0, filled(1024, 0x55));
  make_pool(128);
  make_thin("thin", 0, 64);
  ASSERT_EQ(harness_.write("thin", 4, fake::pattern(1, 1)), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 5, 123), filled(123, 0));
  data_->take_seen();
  ASSERT_EQ(harness_.write("thin", kBlock, fake::pattern(kBlock, 2)), BlkStatus::kOk);
  EXPECT_EQ(seen(Op::kWrite), 1U);
  ASSERT_TRUE(harness_.set_table("pool", pool_line(128, "128 0 1 skip_block_zeroing")).ok());
  ASSERT_EQ(harness_.write("thin", 2 * kBlock, fake::pattern(1, 3)), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("thin", 2 * kBlock + 1, 127), filled(127, 0x55));
}

TEST_F(ThinTarget, ASnapshotKeepsWhatWasThere) {
  make_pool(128);
  make_thin("thin", 0, 64);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(512, 1)), BlkStatus::kOk);
  snap(3, 0);
  open_thin("snap", 3, 64);
  EXPECT_EQ(harness_.status("snap"), "0 8192 thin 512 511");
  EXPECT_EQ(used(), "4/128");
  ASSERT_EQ(harness_.write("snap", 3, fake::pattern(2, 2)), BlkStatus::kOk);
  ASSERT_EQ(harness_.write("thin", kBlock, fake::pattern(kBlock, 3)), BlkStatus::kOk);
  EXPECT_EQ(used(), "6/128");
  const fake::Bytes first = fake::pattern(512, 1);
  EXPECT_EQ(harness_.read("thin", 0, kBlock), fake::Bytes(first.begin(), first.begin() + 65536));
  EXPECT_EQ(harness_.read("thin", kBlock, kBlock), fake::pattern(kBlock, 3));
  EXPECT_EQ(harness_.read("snap", 3, 2), fake::pattern(2, 2));
  EXPECT_EQ(harness_.read("snap", 5, 507), fake::Bytes(first.begin() + 5 * 512, first.end()));
}

// Each of a chain of snapshots, one of the other, has one more block; whichever goes, the rest keep
// what they had.
TEST_F(ThinTarget, AChainOfSnapshotsIsDeletedInAnyOrder) {
  constexpr unsigned kChain = 8;
  std::vector<fake::Bytes> contents;
  for (unsigned i = 0; i < kChain; ++i) {
    contents.push_back(fake::pattern(kBlock, 100 + i));
  }
  const fake::Bytes zeroes = filled(kBlock, 0);
  for (const unsigned step : {1U, 3U, 7U}) {  // from the first on, to and fro, from the last
    SCOPED_TRACE(step);
    make_pool(512);
    make_thin("0", 0, kChain);
    for (unsigned i = 0; i < kChain; ++i) {
      const std::string name = fmt::format("{}", i);
      ASSERT_EQ(harness_.write(name, i * kBlock, contents[i]), BlkStatus::kOk);
      if (i + 1 < kChain) {
        snap(i + 1, i);
        open_thin(fmt::format("{}", i + 1), i + 1, kChain);
      }
    }
    EXPECT_EQ(used(), fmt::format("{}/512", kChain)) << "all of it is shared";
    std::set<unsigned> left;
    for (unsigned i = 0; i < kChain; ++i) {
      left.insert(i);
    }
    for (unsigned i = 0; i < kChain; ++i) {
      const unsigned id = (i + 1) * step % kChain;
      remove(fmt::format("{}", id));
      EXPECT_EQ(message_error(fmt::format("delete {}", id)), 0);
      left.erase(id);
      for (const unsigned other : left) {
        for (unsigned block = 0; block < kChain; ++block) {
          const fake::Bytes data = harness_.read(fmt::format("{}", other), block * kBlock, kBlock);
          EXPECT_TRUE(data == (block <= other ? contents[block] : zeroes))
              << "block " << block << " of " << other << " without " << id;
        }
      }
      harness_.env().run();
      EXPECT_EQ(used(), fmt::format("{}/512", left.empty() ? 0 : *left.rbegin() + 1));
    }
  }
}

TEST_F(ThinTarget, AnExternalOriginIsReadUntilItIsWritten) {
  fake::MemDev& origin = harness_.opener().add_mem("base", 300);
  origin.poke(0, fake::pattern(300, 9));
  make_pool(128);
  make_thin("thin", 0, 64, "base");
  const fake::Bytes base = fake::pattern(300, 9);
  fake::Bytes expected = base;
  expected.resize(512 * 512);
  EXPECT_EQ(harness_.read("thin", 0, 512), expected);
  EXPECT_EQ(used(), "0/128");
  // In the block where the origin ends, and in one that it fills.
  ASSERT_EQ(harness_.write("thin", 280, fake::pattern(4, 5)), BlkStatus::kOk);
  ASSERT_EQ(harness_.write("thin", 130, fake::pattern(1, 6)), BlkStatus::kOk);
  const auto put = [&](sector_t at, const fake::Bytes& bytes) {
    std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<std::ptrdiff_t>(at * 512));
  };
  put(280, fake::pattern(4, 5));
  put(130, fake::pattern(1, 6));
  EXPECT_EQ(harness_.read("thin", 0, 512), expected);
  EXPECT_EQ(used(), "2/128");
  EXPECT_EQ(origin.peek(0, 300), base);
}

TEST_F(ThinTarget, TheExternalOriginMayBeAThinDeviceOfTheSamePool) {
  make_pool(128);
  make_thin("base", 0, 8);
  ASSERT_EQ(harness_.write("base", 0, fake::pattern(2 * kBlock, 1)), BlkStatus::kOk);
  make_thin("thin", 1, 16, "base");
  ASSERT_EQ(harness_.write("thin", 3, fake::pattern(1, 2)), BlkStatus::kOk);
  ASSERT_TRUE(harness_.device("pool").suspend({}).ok());
  ASSERT_TRUE(harness_.device("pool").resume({}).ok());
  fake::Bytes expected = fake::pattern(2 * kBlock, 1);
  const fake::Bytes one = fake::pattern(1, 2);
  std::copy(one.begin(), one.end(), expected.begin() + 3 * 512);
  EXPECT_EQ(harness_.read("thin", 0, 2 * kBlock), expected);
  EXPECT_EQ(harness_.read("base", 0, 2 * kBlock), fake::pattern(2 * kBlock, 1));
}

TEST_F(ThinTarget, DiscardsWholeBlocksAndPassesThemDown) {
  make_pool(128);
  make_thin("thin", 0, 64);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(512, 1)), BlkStatus::kOk);
  data_->take_seen();
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 100, 200), BlkStatus::kOk);
  EXPECT_EQ(harness_.status("thin"), "0 8192 thin 384 511");
  EXPECT_EQ(harness_.read("thin", kBlock, kBlock), filled(kBlock, 0));
  std::size_t discards = 0;
  for (const fake::SeenBio& bio : data_->take_seen()) {
    discards += bio.op == Op::kDiscard && bio.sectors == kBlock ? 1 : 0;
  }
  EXPECT_EQ(discards, 1U);
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 10, 100), BlkStatus::kOk);
  EXPECT_EQ(harness_.status("thin"), "0 8192 thin 384 511");
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, 8192), BlkStatus::kOk);
  EXPECT_EQ(harness_.status("thin"), "0 8192 thin 0 -");
  harness_.env().advance(2 * kSecond);
  EXPECT_EQ(used(), "0/128");
}

TEST_F(ThinTarget, DoesNotPassDownWhatASnapshotHas) {
  make_pool(128);
  make_thin("thin", 0, 64);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(kBlock, 1)), BlkStatus::kOk);
  snap(1, 0);
  open_thin("snap", 1, 64);
  data_->take_seen();
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, 8192), BlkStatus::kOk);
  EXPECT_EQ(seen(Op::kDiscard), 0U);
  EXPECT_EQ(harness_.read("thin", 0, kBlock), filled(kBlock, 0));
  EXPECT_EQ(harness_.read("snap", 0, kBlock), fake::pattern(kBlock, 1));
}

TEST_F(ThinTarget, IgnoresDiscardsWhereThePoolDoes) {
  make_pool(16, "128 0 1 ignore_discard");
  make_thin("thin", 0, 16);
  EXPECT_EQ(harness_.run_op("thin", Op::kDiscard, 0, 1024), BlkStatus::kNotSupported);
  EXPECT_EQ(word(harness_.status("pool"), 8), "ignore_discard");
}

TEST_F(ThinTarget, ShowsHolesAndData) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_EQ(harness_.write("thin", 2 * kBlock, fake::pattern(2 * kBlock, 1)), BlkStatus::kOk);
  const auto at = [&](sector_t sector) {
    return harness_.device("thin").extent(sector, 2048 - sector);
  };
  EXPECT_TRUE(at(0).hole);
  EXPECT_EQ(at(0).sectors, 256U);
  EXPECT_EQ(at(10).sectors, 246U);
  EXPECT_FALSE(at(300).hole);
  EXPECT_EQ(at(300).sectors, 212U);
  EXPECT_TRUE(at(512).hole);
  EXPECT_EQ(at(512).sectors, 1536U);
}

// What the origin has is data, its own holes and all past its end are holes.
TEST_F(ThinTarget, ShowsTheOriginsDataBehindItsHoles) {
  fake::MemDev& base = harness_.opener().add_mem("base", 300);
  base.poke(104, fake::pattern(40, 1));
  make_pool(16);
  make_thin("thin", 0, 16, "base");
  ASSERT_EQ(harness_.write("thin", 4 * kBlock, fake::pattern(kBlock, 2)), BlkStatus::kOk);
  std::vector<sector_t> borders;
  bool hole = true;
  for (sector_t at = 0; at < 2048;) {
    const Extent extent = harness_.device("thin").extent(at, 2048 - at);
    if (at == 0 || extent.hole != hole) {
      borders.push_back(at);
    }
    hole = extent.hole;
    at += extent.sectors;
  }
  EXPECT_TRUE(hole);
  EXPECT_EQ(borders, (std::vector<sector_t>{0, 104, 144, 4 * kBlock, 5 * kBlock}));
  // A copied block is data as a whole.
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(1, 3)), BlkStatus::kOk);
  EXPECT_FALSE(harness_.device("thin").extent(0, 2048).hole);
  EXPECT_EQ(harness_.device("thin").extent(0, 2048).sectors, kBlock);
}

TEST_F(ThinTarget, AFlushCommitsAndFlushesTheDataDevice) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8, 1)), BlkStatus::kOk);
  data_->take_seen();
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(seen(Op::kFlush), 1U);
  EXPECT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  EXPECT_EQ(seen(Op::kFlush), 1U) << "there was nothing to commit, but perhaps data";
}

TEST_F(ThinTarget, WhatWasFlushedIsThereAfterACrash) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8, 1)), BlkStatus::kOk);
  ASSERT_EQ(harness_.run_op("thin", Op::kFlush, 0, 0), BlkStatus::kOk);
  ASSERT_EQ(harness_.write("thin", kBlock, fake::pattern(8, 2), kBioFua), BlkStatus::kOk);
  ASSERT_EQ(harness_.write("thin", 2 * kBlock, fake::pattern(kBlock, 3), kBioFua), BlkStatus::kOk);
  ASSERT_EQ(harness_.write("thin", 3 * kBlock, fake::pattern(8, 4)), BlkStatus::kOk);
  // The metadata as a crash now would leave it, as the metadata of another pool.
  copy_metadata("meta", "copy");
  ASSERT_TRUE(harness_.set_table("pool2", pool_line(16, "128 0", "copy")).ok());
  ASSERT_TRUE(harness_.set_table("after", "0 2048 thin pool2 0").ok());
  EXPECT_EQ(harness_.read("after", 0, 8), fake::pattern(8, 1));
  EXPECT_EQ(harness_.read("after", kBlock, 8), fake::pattern(8, 2));
  EXPECT_EQ(harness_.read("after", 2 * kBlock, kBlock), fake::pattern(kBlock, 3));
  EXPECT_EQ(harness_.read("after", 3 * kBlock, 8), filled(8, 0)) << "nobody asked for it";
}

TEST_F(ThinTarget, CommitsByItselfAfterASecond) {
  make_pool(16);
  make_thin("thin", 0, 16);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8, 1)), BlkStatus::kOk);
  data_->take_seen();
  harness_.env().advance(kSecond / 2);
  EXPECT_EQ(seen(Op::kFlush), 0U);
  harness_.env().advance(kSecond);
  EXPECT_EQ(seen(Op::kFlush), 1U);
  EXPECT_EQ(harness_.env().armed_timers(), 0U);
}

TEST_F(ThinTarget, SeveralTablesMayOpenOneDevice) {
  make_pool(16);
  make_thin("a", 0, 16);
  open_thin("b", 0, 8);
  ASSERT_EQ(harness_.write("a", 5, fake::pattern(3, 1)), BlkStatus::kOk);
  EXPECT_EQ(harness_.read("b", 5, 3), fake::pattern(3, 1));
  remove("a");
  EXPECT_EQ(message_error("delete 0"), EBUSY);
}

TEST_F(ThinTarget, IsNotHeldByItsPoolAndHoldsIt) {
  make_pool(16);
  make_thin("thin", 0, 16);
  EXPECT_EQ(harness_.engine().remove("pool", false).error(), EBUSY);
  remove("thin");
  remove("pool");
  EXPECT_EQ(harness_.opener().open_count(), 0);
}

TEST_F(ThinTarget, GrowsUnderItsUsers) {
  make_pool(128);
  make_thin("thin", 0, 8);
  ASSERT_EQ(harness_.write("thin", 0, fake::pattern(8 * kBlock, 1)), BlkStatus::kOk);
  open_thin("thin", 0, 16);
  EXPECT_EQ(harness_.read("thin", 0, 8 * kBlock), fake::pattern(8 * kBlock, 1));
  EXPECT_EQ(harness_.write("thin", 15 * kBlock, fake::pattern(8, 2)), BlkStatus::kOk);
  EXPECT_EQ(harness_.status("thin"), "0 2048 thin 1152 2047");
}

}  // namespace

}  // namespace mapperfs::test
