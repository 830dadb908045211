// Random use of a pool against a plain model, and the checker's word at the end.
#include <gtest/gtest.h>

#include "tests/metadata/churn.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

void run_model(std::uint64_t seed) {
  SCOPED_TRACE(::testing::Message() << "MAPPERFS_SEED=" << seed);
  std::mt19937_64 random(seed);
  Pool pool(random() % 2 == 0 ? 3000 : 400);
  pool.close();
  pool.options.cache_bytes = random() % 2 == 0 ? 1 : 64 << 20;  // 1: as few as there can be
  pool.options.dirty_bytes = random() % 3 == 0 ? 200 << 10 : 32 << 20;
  pool.options.memtable_bytes = random() % 2 == 0 ? 64 << 10 : 32 << 20;
  pool.options.always_lend = random() % 2 == 0;
  pool.reopen();
  Churn churn(*pool, seed);
  churn.knows_commits = pool.options.dirty_bytes == 32 << 20;
  for (int i = 0; i < 400 && !::testing::Test::HasFailure(); ++i) {
    churn.step();
    ASSERT_TRUE(churn.failed.ok()) << churn.failed.message();
    churn.expect_lookups();
    if (random() % 50 == 0) {
      churn.expect_same();
      ASSERT_TRUE(churn.commit().ok());
      churn.close_devices();
      pool.reopen();
      churn.revert(*pool, churn.committed);
      churn.expect_same();
    } else if (random() % 60 == 0 && churn.knows_commits) {
      ASSERT_TRUE(pool->abort().ok());
      churn.close_devices();
      churn.revert(*pool, churn.committed);
      churn.expect_same();
    }
  }
  churn.expect_same();
  ASSERT_TRUE(churn.commit().ok());
  EXPECT_EQ(pool->status().used_data_blocks >= blocks_of(churn.model).size(), true);
  churn.close_devices();
  expect_clean(pool);
}

TEST(ThinMetadataModel, AgreesWithAPlainMap) {
  const std::uint64_t first = first_seed();
  for (std::uint64_t seed = first; seed < first + seed_count(30); ++seed) {
    run_model(seed);
    if (HasFailure()) {
      return;
    }
  }
}

}  // namespace
}  // namespace mapperfs::testing
