// Power cuts and errors of the file system below RocksDB, at every change in turn or at random:
// what is found afterwards is the state of the last commit that returned, or of the one under way,
// whole.
#include <gtest/gtest.h>

#include <cerrno>
#include <optional>

#include "tests/fake/sanitizer.h"
#include "tests/metadata/churn.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

// What must be there, or may be there too.
struct Expected {
  Picture committed;
  std::optional<Picture> under_way;
};

// Churns until the fault strikes, which it must within what it is armed for.
Expected churn_until_fault(Pool& pool, Churn& churn) {
  constexpr int kMostSteps = 5000;
  for (int i = 0; i < kMostSteps && churn.failed.ok() && !pool.fs().struck(); ++i) {
    churn.step();
  }
  EXPECT_TRUE(pool.fs().struck()) << "nothing was tested";
  if (churn.failed.ok()) {
    // Whatever the fault left undone must show here.
    churn.failed = churn.commit();
  }
  Expected expected{churn.committed, std::nullopt};
  if (!churn.failed.ok()) {
    expected.under_way = churn.model;
  }
  churn.close_devices();
  return expected;
}

void cut_once(std::uint64_t seed, std::uint64_t cut_at) {
  SCOPED_TRACE(::testing::Message() << "MAPPERFS_SEED=" << seed << ", cut at change " << cut_at);
  Pool pool(2000);
  pool.close();
  pool.options.memtable_bytes = seed % 3 == 0 ? 64 << 10 : 32 << 20;
  pool.options.always_lend = seed % 2 == 0;
  pool.reopen();
  Churn churn(*pool, seed);
  pool.fs().fail_after(cut_at, FaultFs::Fault::kCut);
  const Expected expected = churn_until_fault(pool, churn);
  pool.close();
  pool.fs().restore_power(seed);
  pool.reopen();
  if (::testing::Test::HasFailure()) {
    return;
  }
  const Picture found = picture_of(*pool);
  EXPECT_TRUE(found == expected.committed ||
              (expected.under_way.has_value() && found == *expected.under_way))
      << "neither the last commit nor the one under way";
  churn.revert(*pool, found);
  for (int i = 0; i < 20; ++i) {
    churn.step();
  }
  ASSERT_TRUE(churn.failed.ok()) << churn.failed.message();
  ASSERT_TRUE(churn.commit().ok());
  churn.expect_same();
  churn.close_devices();
  expect_clean(pool);
}

TEST(ThinMetadataPowerCut, LeavesAWholeCommit) {
  const std::uint64_t first = first_seed();
  for (std::uint64_t seed = first; seed < first + seed_count(60); ++seed) {
    std::mt19937_64 random(seed * 7919);
    cut_once(seed, 1 + random() % 120);
    if (HasFailure()) {
      return;
    }
  }
}

TEST(ThinMetadataPowerCut, LeavesAWholeCommitAtEveryChange) {
  constexpr std::uint64_t kStride = fake::kSanitized ? 3 : 1;
  for (std::uint64_t cut_at = 1; cut_at <= 40; cut_at += kStride) {
    cut_once(3, cut_at);  // with small memtables, so that files are flushed and switched too
    if (HasFailure()) {
      return;
    }
  }
}

TEST(ThinMetadataPowerCut, LeavesNothingOrAPoolWhileFormatting) {
  int struck = 0;
  for (std::uint64_t cut_at = 1; cut_at <= 30; ++cut_at) {
    SCOPED_TRACE(cut_at);
    Pool pool;
    ThinMetadataOptions options = pool.options;
    pool.fs().fail_after(cut_at, FaultFs::Fault::kCut);
    { const auto opened = ThinMetadata::open("/fresh", options); }
    struck += pool.fs().struck() ? 1 : 0;
    pool.close();
    pool.fs().restore_power(cut_at);
    auto opened = ThinMetadata::open("/fresh", options);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    EXPECT_TRUE((*opened)->devices().empty());
  }
  EXPECT_GE(struck, 20);
}

void fail_once(std::uint64_t seed, std::uint64_t at, FaultFs::Fault fault) {
  SCOPED_TRACE(::testing::Message() << "MAPPERFS_SEED=" << seed << ", error at change " << at);
  Pool pool(2000);
  pool.close();
  pool.options.memtable_bytes = seed % 2 == 0 ? 64 << 10 : 32 << 20;
  pool.reopen();
  Churn churn(*pool, seed);
  pool.fs().fail_after(at, fault, 1 + seed % 3);
  Expected expected = churn_until_fault(pool, churn);
  pool.fs().disarm();
  // What hit a flush in the background may show at a later commit.
  for (int round = 0; round == 0 || (!churn.failed.ok() && round < 3); ++round) {
    if (!churn.failed.ok()) {
      EXPECT_TRUE(churn.failed.error() == EIO || churn.failed.error() == ENOSPC)
          << churn.failed.message();
      EXPECT_EQ(pool->create_thin(99).error(), EIO);
      ASSERT_TRUE(pool->abort().ok());
      ASSERT_TRUE(pool->set_needs_check().ok());
    }
    const Picture found = picture_of(*pool);
    EXPECT_TRUE(found == expected.committed ||
                (expected.under_way.has_value() && found == *expected.under_way))
        << "neither the last commit nor the one that failed";
    churn.revert(*pool, found);
    for (int i = 0; i < 20 && churn.failed.ok(); ++i) {
      churn.step();
    }
    if (churn.failed.ok()) {
      churn.failed = churn.commit();
    }
    expected = {churn.committed, churn.model};
    churn.close_devices();
  }
  ASSERT_TRUE(churn.failed.ok()) << churn.failed.message();
  pool.reopen();
  churn.revert(*pool, churn.committed);
  churn.expect_same();
  expect_clean(pool);
}

TEST(ThinMetadataErrors, GoBackToACommitWithoutSpace) {
  for (std::uint64_t at = 1; at <= 30 && !HasFailure(); ++at) {
    fail_once(at % 4, at, FaultFs::Fault::kNoSpace);
  }
}

TEST(ThinMetadataErrors, GoBackToACommitAfterWriteErrors) {
  for (std::uint64_t at = 1; at <= 30 && !HasFailure(); ++at) {
    fail_once(at % 5, at, FaultFs::Fault::kIoError);
  }
}

}  // namespace
}  // namespace mapperfs::testing
