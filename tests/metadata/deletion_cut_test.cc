// Power cuts while large deleted devices are being taken apart, and beside threads that go on
// changing what a commit is just writing.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

constexpr std::uint32_t kDoomed = 5;
constexpr std::uint32_t kLiving = 100;

// A chain of snapshots of a volume with trees of three levels, each of which has pages of its own,
// shared ones, and ones that it shares with the device that stays; then all but that are deleted.
void make_doomed(Pool& pool) {
  ASSERT_TRUE(pool->create_thin(0).ok());
  for (std::uint64_t leaf = 0; leaf < 120; ++leaf) {
    provision(*pool, *must_open(*pool, 0), leaf * 2311);
  }
  for (std::uint32_t id = 1; id < kDoomed; ++id) {
    ASSERT_TRUE(pool->create_snap(id, id - 1).ok());
    for (std::uint64_t leaf = 0; leaf < 120; leaf += 2) {
      provision(*pool, *must_open(*pool, id), leaf * 2311 + id % 2);
    }
  }
  ASSERT_TRUE(pool->create_snap(kLiving, 2).ok());
  ASSERT_TRUE(pool->commit().ok());
}

// Deletes, reclaims and commits, and changes the device that stays in between, to the end or until
// something fails.
class Deletion {
 public:
  explicit Deletion(Pool& pool)
      : living_(must_open(*pool, kLiving)), committed(picture_of(*pool)), pool_(pool) {}

  void run(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (std::uint32_t id = 0; id < kDoomed; ++id) {
      if (!pool_->delete_device(id).ok() || (random() % 2 == 0 && !commit())) {
        return;
      }
    }
    while (commit() && pool_->status().reclaim_pending) {
      auto block = pool_->allocate_data_block();
      if (!block.ok() || !living_->insert(random() % 120 * 2311, *block).ok() ||
          !pool_->reclaim(1 + random() % 24).ok()) {
        return;
      }
    }
  }

  std::unique_ptr<ThinDevice> living_;
  Picture committed;
  std::optional<Picture> under_way;
  int amid = 0;  // commits that left something to be taken apart

 private:
  bool commit() {
    under_way = picture_of(*pool_);
    if (!pool_->commit().ok()) {
      return false;
    }
    committed = *under_way;
    under_way.reset();
    amid += pool_->status().reclaim_pending ? 1 : 0;
    return true;
  }

  Pool& pool_;
};

// Devices to delete, in a store that is large or small by the seed.
void prepare(Pool& pool, std::uint64_t seed) {
  pool.close();
  pool.options.memtable_bytes = seed % 3 == 0 ? 64 << 10 : 32 << 20;
  pool.options.always_lend = seed % 4 < 2;
  pool.options.cache_bytes = seed % 2 == 0 ? 1 : 64 << 20;
  pool.reopen();
  make_doomed(pool);
}

// Returns whether the cut left deleted devices behind.
bool cut_deletion(std::uint64_t seed, std::uint64_t cut_at) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed << ", cut at change " << cut_at);
  Pool pool(20000);
  prepare(pool, seed);
  Picture committed;
  std::optional<Picture> under_way;
  {
    Deletion deletion(pool);
    pool.fs().fail_after(cut_at, FaultFs::Fault::kCut);
    deletion.run(seed);
    committed = deletion.committed;
    under_way = deletion.under_way;
  }
  // The database's own threads write beside it, now before the end and now after: a run may be over
  // before the cut. Who counts what was left behind sees that most are not.
  pool.close();
  pool.fs().restore_power(seed);
  pool.reopen();
  if (::testing::Test::HasFailure()) {
    return false;
  }
  const Picture found = picture_of(*pool);
  EXPECT_TRUE(found == committed || (under_way.has_value() && found == *under_way))
      << "neither the last commit nor the one under way";
  const bool pending = pool->status().reclaim_pending;
  for (Result<bool> more = true; more.ok() && *more;) {
    more = pool->reclaim(50);
    EXPECT_TRUE(more.ok()) << more.status().message();
  }
  EXPECT_EQ(picture_of(*pool), found);
  EXPECT_EQ(pool->status().used_data_blocks, blocks_of(found).size());
  EXPECT_TRUE(pool->commit().ok());
  expect_clean(pool);
  return pending;
}

TEST(ThinMetadataPowerCut, LosesNothingOfADeletionUnderWay) {
  const std::uint64_t first = first_seed();
  int pending = 0;
  int cuts = 0;
  for (std::uint64_t seed = first; seed < first + seed_count(25) && !HasFailure(); ++seed) {
    std::uint64_t changes = 0;  // to files, in an undisturbed run
    {
      Pool pool(20000);
      prepare(pool, seed);
      Deletion deletion(pool);
      const std::uint64_t before = pool.fs().changes();
      deletion.run(seed);
      changes = pool.fs().changes() - before;
      ASSERT_FALSE(deletion.under_way.has_value());
      ASSERT_FALSE(pool->status().reclaim_pending);
      // How many commits a run takes is the seed's choice. Each appends to a file and syncs it.
      ASSERT_GT(deletion.amid, 1) << "no cut can leave anything behind";
      ASSERT_GE(changes, 2U * static_cast<unsigned>(deletion.amid));
    }
    std::mt19937_64 random(seed);
    // Flushes of the memtable are another thread's, so that the number differs a little.
    pending += cut_deletion(seed, 1 + random() % (changes * 9 / 10)) ? 1 : 0;
    ++cuts;
  }
  EXPECT_GT(2 * pending, cuts) << "too few cuts fell into a deletion";
}

// A thread changes two devices in turn, in the same way, while another commits. What is found of
// them must be what they were after some step, at or after the last commit, both alike.
class Twins {
 public:
  explicit Twins(Pool& pool) : pool_(pool) {
    for (std::uint32_t id = 0; id < 2; ++id) {
      EXPECT_TRUE(pool->create_thin(id).ok());
    }
    EXPECT_TRUE(pool->commit().ok());
  }
  // Until the power is gone, never far ahead of the commits.
  void change() {
    std::unique_ptr<ThinDevice> devices[] = {must_open(*pool_, 0), must_open(*pool_, 1)};
    for (std::uint64_t step = 0; may_go(step); ++step) {
      for (const auto& device : devices) {
        auto block = pool_->allocate_data_block();
        if (!block.ok() || !device->insert(place_of(step), *block).ok()) {
          return;
        }
      }
      steps_ = step + 1;
    }
  }
  void commit() {
    for (bool going = true; going;) {
      const std::uint64_t steps = steps_;
      going = pool_->commit().ok();
      const std::lock_guard<std::mutex> lock(mutex_);
      durable_ = going ? steps : durable_;
      off_ = !going;
      committed_.notify_one();
    }
  }
  // Until some steps more are done, or none is for long.
  void wait_for_changes() const {
    const std::uint64_t before = steps_;
    for (int i = 0; i < 2000 && steps_ < before + 20; ++i) {
      std::this_thread::yield();
    }
  }
  // Which places are mapped after `steps`.
  static std::set<std::uint64_t> places_after(std::uint64_t steps) {
    std::set<std::uint64_t> places;
    for (std::uint64_t step = 0; step < steps; ++step) {
      places.insert(place_of(step));
    }
    return places;
  }
  [[nodiscard]] std::uint64_t durable() const { return durable_; }

 private:
  bool may_go(std::uint64_t step) {
    std::unique_lock<std::mutex> lock(mutex_);
    committed_.wait(lock, [&] { return off_ || step < durable_ + kAhead; });
    return !off_;
  }
  static constexpr std::uint64_t kAhead = 500;
  static std::uint64_t place_of(std::uint64_t step) {
    return step % 7 == 0 ? (std::uint64_t{1} << 20) + step * 3 : step * 5;
  }

  Pool& pool_;
  std::atomic<std::uint64_t> steps_{0};
  std::mutex mutex_;
  std::condition_variable committed_;
  std::uint64_t durable_ = 0;
  bool off_ = false;
};

TEST(ThinMetadataPowerCut, LeavesAWholeCommitBesideChanges) {
  const std::uint64_t first = first_seed();
  for (std::uint64_t seed = first; seed < first + seed_count(12) && !HasFailure(); ++seed) {
    SCOPED_TRACE(::testing::Message() << "MAPPERFS_SEED=" << seed);
    Pool pool(100000);
    pool.close();
    pool.options.memtable_bytes = seed % 3 == 0 ? 64 << 10 : 32 << 20;
    pool.options.always_lend = seed % 4 < 2;
    // What is sealed and not packed yet is changed meanwhile.
    std::function<void()> let_change;
    pool.options.at_place = [&](std::string_view place) {
      if (place == "committing: to be packed" && let_change) {
        let_change();
      }
    };
    pool.reopen();
    Twins twins(pool);
    let_change = [&] { twins.wait_for_changes(); };
    std::mt19937_64 random(seed);
    pool.fs().fail_after(2 + random() % 60, FaultFs::Fault::kCut);
    std::thread changer([&] { twins.change(); });
    twins.commit();
    changer.join();
    ASSERT_TRUE(pool.fs().struck()) << "nothing was tested";
    pool.close();
    pool.fs().restore_power(seed);
    pool.reopen();
    const Picture found = picture_of(*pool);
    const auto& older = found.devices.at(0).map;
    const auto& younger = found.devices.at(1).map;
    EXPECT_GE(younger.size(), twins.durable());
    EXPECT_TRUE(older.size() == younger.size() || older.size() == younger.size() + 1)
        << older.size() << " and " << younger.size();
    for (const auto* map : {&older, &younger}) {
      std::set<std::uint64_t> places;
      for (const auto& [place, mapping] : *map) {
        places.insert(place);
      }
      EXPECT_EQ(places, Twins::places_after(places.size()));
    }
    EXPECT_EQ(blocks_of(found).size(), older.size() + younger.size());
    expect_clean(pool);
  }
}

}  // namespace
}  // namespace mapperfs::testing
