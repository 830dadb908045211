// A tree that leaves a page to others, step by step: at each place between the steps other threads
// do what they like, and nobody must be told another device's block. The rule is in thin_tree.h.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <string>
#include <thread>

#include "metadata/sharded_lock.h"
#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

// The calling thread may be held inside a ShardedLock, where one of another slot still gets in.
void run_aside(const std::function<void()>& work) {
  ShardedLock probe;
  const ShardedLock::ReadGuard here(probe);
  for (bool done = false; !done;) {
    std::thread thread([&] {
      if (ShardedLock::TryReadGuard(probe).owns_lock()) {
        work();
        done = true;
      }
    });
    thread.join();
  }
}

// A pool whose threads can be held at a place. What is to be done there is set while only one
// thread uses the pool.
class Leaving : public ::testing::Test {
 protected:
  Leaving() {
    pool_.close();
    pool_.options.at_place = [this](std::string_view place) {
      if (place == place_ && ++visits_ == visit_) {
        const std::function<void()> there = there_;  // which may say where to be next
        there();
      }
    };
    pool_.reopen();
    EXPECT_TRUE(pool_->create_thin(0).ok());
    first_ = must_open(*pool_, 0);
  }

  // Does `work` at the `visit`-th coming by of anybody at `place`; 1 is the next.
  void at(std::string place, int visit, std::function<void()> work) {
    place_ = std::move(place);
    visit_ = visit;
    visits_ = 0;
    there_ = std::move(work);
  }
  void snapshot() {
    ASSERT_TRUE(pool_->create_snap(1, 0).ok());
    second_ = must_open(*pool_, 1);
    ASSERT_TRUE(pool_->commit().ok());
  }
  [[nodiscard]] bool was_there() const { return visits_ >= visit_; }
  void expect_at_rest() {
    first_.reset();
    second_.reset();
    ASSERT_TRUE(pool_->commit().ok());
    expect_clean(pool_);
  }

  std::string place_;
  int visit_ = 0;
  std::atomic<int> visits_{0};
  std::function<void()> there_;
  Pool pool_{5000};
  std::unique_ptr<ThinDevice> first_;
  std::unique_ptr<ThinDevice> second_;
};

class LeavingAt : public Leaving, public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(Places, LeavingAt,
                         ::testing::Values("leaving a page: copied",
                                           "leaving a page: pointed elsewhere",
                                           "leaving a page: departed", "leaving a page: let go"),
                         [](const auto& place) { return "At" + std::to_string(place.index); });

// The page is a leaf and the root of both.
TEST_P(LeavingAt, AReaderSeesItsOwnWhileTheOtherWrites) {
  for (std::uint64_t block = 0; block < 10; ++block) {
    provision(*pool_, *first_, block);
  }
  snapshot();
  const std::uint64_t mine = first_->lookup(5)->data_block;
  std::uint64_t others = 0;
  std::optional<ThinMapping> cached;
  Result<ThinMapping> looked_up = ThinMapping();
  at(GetParam(), 1, [&] {
    run_aside([&] {
      others = provision(*pool_, *second_, 5);
      cached = first_->lookup_cached(5);
      looked_up = first_->lookup(5);
    });
  });
  provision(*pool_, *first_, 3);
  ASSERT_TRUE(was_there());
  ASSERT_NE(others, mine);
  EXPECT_TRUE(!cached.has_value() || cached->data_block == mine) << "it is the other's";
  ASSERT_TRUE(looked_up.ok());
  EXPECT_EQ(looked_up->data_block, mine);
  EXPECT_EQ(second_->lookup(5)->data_block, others);
  EXPECT_NE(second_->lookup(3)->data_block, first_->lookup(3)->data_block);
  expect_at_rest();
}

// The same of every page of a path of three; the other one leaves by deleting what it shared.
TEST_P(LeavingAt, InnerPagesAreLeftLikeLeaves) {
  for (int visit = 1; visit <= 3; ++visit) {
    SCOPED_TRACE(visit);
    for (const std::uint64_t block : {70000U, 70001U, 70300U, 1U}) {
      provision(*pool_, *first_, block);
    }
    snapshot();
    const std::uint64_t mine = first_->lookup(70001)->data_block;
    std::uint64_t others = 0;
    Result<ThinMapping> looked_up = ThinMapping();
    at(GetParam(), visit, [&] {
      run_aside([&] {
        others = provision(*pool_, *second_, 70001);
        EXPECT_TRUE(second_->remove(70256, 70512, nullptr).ok());
        looked_up = first_->lookup(70001);
      });
    });
    provision(*pool_, *first_, 70000);
    ASSERT_TRUE(was_there());
    ASSERT_TRUE(looked_up.ok());
    EXPECT_EQ(looked_up->data_block, mine);
    EXPECT_EQ(second_->lookup(70001)->data_block, others);
    EXPECT_TRUE(first_->lookup(70300)->mapped);
    EXPECT_FALSE(second_->lookup(70300)->mapped);
    second_.reset();
    ASSERT_TRUE(pool_->delete_device(1).ok());
    ASSERT_TRUE(pool_->commit().ok());
  }
  expect_at_rest();
}

// The other owner goes while the page is being copied, so that the copy was needless.
TEST_P(LeavingAt, TheOtherMayGoMeanwhile) {
  for (const std::uint64_t block : {70000U, 70001U, 70300U}) {
    provision(*pool_, *first_, block);
  }
  snapshot();
  const std::uint64_t mine = first_->lookup(70001)->data_block;
  second_.reset();
  Result<ThinMapping> looked_up = ThinMapping();
  at(GetParam(), 1, [&] {
    run_aside([&] {
      EXPECT_TRUE(pool_->delete_device(1).ok());
      looked_up = first_->lookup(70001);
    });
  });
  provision(*pool_, *first_, 70000);
  ASSERT_TRUE(was_there());
  ASSERT_TRUE(looked_up.ok());
  EXPECT_EQ(looked_up->data_block, mine);
  EXPECT_EQ(pool_->status().used_data_blocks, 3U);
  expect_at_rest();
}

// A reader who knows a page's number, and is held before it gets there.
TEST_F(Leaving, AReaderOnItsWayBelievesNothingOfThePageItComesTo) {
  for (const std::uint64_t block : {70000U, 70001U, 1U}) {
    provision(*pool_, *first_, block);
  }
  snapshot();
  for (int visit = 1; visit <= 3; ++visit) {  // below the root, below its child, below the leaf
    SCOPED_TRACE(visit);
    const std::uint64_t mine = first_->lookup(70001)->data_block;
    std::uint64_t others = 0;
    at("reading: knows what is below", visit, [&] {
      run_aside([&] {
        provision(*pool_, *first_, 70000);
        others = provision(*pool_, *second_, 70001);
      });
    });
    const auto looked_up = first_->lookup(70001);
    ASSERT_TRUE(was_there());
    ASSERT_TRUE(looked_up.ok());
    EXPECT_EQ(looked_up->data_block, mine);
    EXPECT_NE(others, mine);
    second_.reset();
    ASSERT_TRUE(pool_->delete_device(1).ok());
    snapshot();
  }
  expect_at_rest();
}

// A page that is freed must be in memory for as long as a reader may come that does not know it:
// the store still has it as it was at the last commit, pointing to what is another's by now.
TEST_F(Leaving, APageOfTheLastCommitIsNotReadAgain) {
  for (const std::uint64_t block : {70000U, 1U}) {
    provision(*pool_, *first_, block);
  }
  snapshot();
  provision(*pool_, *second_, 70300);  // has parents of its own now, and the leaf in common
  ASSERT_TRUE(pool_->commit().ok());
  const std::uint64_t mine = provision(*pool_, *first_, 70000);
  const std::uint64_t others = provision(*pool_, *second_, 70000);
  std::promise<void> unlinked;
  std::promise<void> looked_up;
  std::thread remover;
  at("reading: knows what is below", 1, [&] {
    at("leaving a page: pointed elsewhere", 1, [&] {
      unlinked.set_value();
      looked_up.get_future().wait();
    });
    remover = std::thread([&] { EXPECT_TRUE(first_->remove(70000, 70256, nullptr).ok()); });
    unlinked.get_future().wait();
  });
  const auto found = first_->lookup(70000);
  looked_up.set_value();
  remover.join();
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_TRUE(!found->mapped || found->data_block == mine) << "it is " << others << " of the other";
  EXPECT_FALSE(first_->lookup(70000)->mapped);
  EXPECT_EQ(second_->lookup(70000)->data_block, others);
  expect_at_rest();
}

// What was read before an abort is not believed after it.
TEST_F(Leaving, AnAbortIsADepartureToo) {
  for (const std::uint64_t block : {70000U, 1U}) {
    provision(*pool_, *first_, block);
  }
  snapshot();
  const std::uint64_t mine = first_->lookup(70000)->data_block;
  const std::uint64_t reverted = provision(*pool_, *first_, 70000);
  ASSERT_NE(reverted, mine);
  at("reading: knows what is below", 3,
     [&] { run_aside([&] { EXPECT_TRUE(pool_->abort().ok()); }); });
  const auto found = first_->lookup(70000);
  ASSERT_TRUE(was_there());
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_EQ(found->data_block, mine) << reverted << " is anybody's";
  expect_at_rest();
}

// Reverted pages are looked for in vain until the roots are back, and nothing is damaged.
TEST_F(Leaving, ReadersThatFindNothingWaitForTheAbort) {
  provision(*pool_, *first_, 70000);
  snapshot();
  const std::uint64_t mine = first_->lookup(70000)->data_block;
  provision(*pool_, *first_, 70000);
  Result<ThinMapping> found = ThinMapping();
  std::thread reader;
  at("aborting: pages forgotten", 1, [&] {
    std::promise<void> gave_up;
    at("reading: found nothing", 3, [&] { gave_up.set_value(); });
    reader = std::thread([&] { found = first_->lookup(70000); });
    gave_up.get_future().wait();
  });
  ASSERT_TRUE(pool_->abort().ok());
  reader.join();
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_EQ(found->data_block, mine);
  expect_at_rest();
}

// A device that an abort took away is not an empty one.
TEST_F(Leaving, ADeviceThatIsGoneHasNoMappings) {
  ASSERT_TRUE(pool_->commit().ok());
  ASSERT_TRUE(pool_->create_snap(1, 0).ok());
  second_ = must_open(*pool_, 1);
  provision(*pool_, *second_, 7);
  ASSERT_TRUE(second_->lookup_cached(7).has_value());
  ASSERT_TRUE(pool_->abort().ok());
  EXPECT_FALSE(second_->lookup_cached(7).has_value());
  EXPECT_EQ(second_->lookup(7).status().error(), ENODATA);
}

}  // namespace
}  // namespace mapperfs::testing
