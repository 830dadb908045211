// Commits and aborts of several threads: who may return when, and with what.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <functional>
#include <future>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {
namespace {

class ThinCommit : public ::testing::Test {
 protected:
  ThinCommit() {
    pool_.close();
    pool_.options.at_place = [this](std::string_view place) {
      if (at_place_) {
        at_place_(place);
      }
    };
    pool_.reopen();
  }

  // Set while one thread uses the pool.
  std::function<void(std::string_view)> at_place_;
  Pool pool_;
};

// The changes of the first are taken out of the open transaction, and are nowhere else yet.
TEST_F(ThinCommit, DoesNotReturnWhileAnotherHasJustSealed) {
  ASSERT_TRUE(pool_->create_thin(0).ok());
  std::promise<void> waits;
  Status second;
  std::thread thread;
  at_place_ = [&](std::string_view place) {
    if (place == "committing: sealed" && !thread.joinable()) {
      std::promise<void> returned;
      std::future<void> has_returned = returned.get_future();
      thread = std::thread([&, done = std::move(returned)]() mutable {
        second = pool_->commit();
        done.set_value();
      });
      std::future<void> is_waiting = waits.get_future();
      while (is_waiting.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready &&
             has_returned.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
      }
      pool_.fs().fail_after(1, FaultFs::Fault::kCut);
    } else if (place == "committing: waits for another") {
      waits.set_value();
    }
  };
  EXPECT_FALSE(pool_->commit().ok());
  thread.join();
  EXPECT_FALSE(second.ok()) << "the device of before the call is not on stable storage";
  pool_.close();
  pool_.fs().restore_power(4);
  at_place_ = nullptr;
  pool_.reopen();
  EXPECT_TRUE(pool_->devices().empty() || pool_->devices().size() == 1U);
}

// One waits for a commit, which fails; it gets its core back only when all has been aborted.
TEST_F(ThinCommit, DoesNotTakeAnAbortForACommit) {
  std::promise<void> in_commit;
  std::promise<void> waits;
  std::promise<void> aborted;
  bool fail = true;
  pool_->set_pre_commit([&]() -> Status {
    if (!fail) {
      return {};
    }
    in_commit.set_value();
    waits.get_future().wait();
    return {EIO, "the data device is broken"};
  });
  at_place_ = [&](std::string_view place) {
    if (place == "committing: waits for another") {
      waits.set_value();
    } else if (place == "committing: woken") {
      aborted.get_future().wait();
    }
  };
  ASSERT_TRUE(pool_->create_thin(0).ok());
  Status first;
  Status second;
  std::thread committer([&] { first = pool_->commit(); });
  in_commit.get_future().wait();
  ASSERT_TRUE(pool_->create_thin(7).ok());
  std::thread waiter([&] { second = pool_->commit(); });
  committer.join();
  EXPECT_EQ(first.error(), EIO);
  fail = false;
  ASSERT_TRUE(pool_->abort().ok());
  aborted.set_value();
  waiter.join();
  EXPECT_EQ(second.error(), EIO) << "of device 7 nothing is left";
  EXPECT_TRUE(pool_->devices().empty());
  EXPECT_TRUE(pool_->create_thin(7).ok());
  EXPECT_TRUE(pool_->commit().ok());
}

// A commit that is called while an abort takes its changes away.
TEST_F(ThinCommit, FailsBesideAnAbort) {
  ASSERT_TRUE(pool_->create_thin(0).ok());
  std::promise<void> waits;
  Status status;
  std::thread committer;
  at_place_ = [&](std::string_view place) {
    if (place == "aborting: pages forgotten") {
      committer = std::thread([&] { status = pool_->commit(); });
      waits.get_future().wait();
    } else if (place == "committing: waits for another") {
      waits.set_value();
    }
  };
  ASSERT_TRUE(pool_->abort().ok());
  committer.join();
  EXPECT_EQ(status.error(), EIO);
}

// All who come while a commit is under way are served by one more; and who has changed nothing
// since that one began waits for it and for no other.
TEST_F(ThinCommit, IsSharedByAllThatCameMeanwhile) {
  constexpr unsigned kCommitters = 6;
  std::atomic<unsigned> waiting{0};
  std::promise<void> all_wait;
  std::promise<void> in_commit;
  std::atomic<int> flushes{0};
  pool_->set_pre_commit([&]() -> Status {
    if (++flushes == 1) {
      in_commit.set_value();
      all_wait.get_future().wait();
    }
    return {};
  });
  at_place_ = [&](std::string_view place) {
    if (place == "committing: waits for another" && ++waiting == kCommitters) {
      all_wait.set_value();
    }
  };
  for (int round = 0; round < 2; ++round) {
    const bool with_changes = round == 1;
    flushes = 0;
    waiting = 0;
    all_wait = {};
    in_commit = {};
    ASSERT_TRUE(pool_->create_thin(static_cast<std::uint32_t>(100 + round)).ok());
    std::vector<std::thread> threads;
    threads.emplace_back([&] { EXPECT_TRUE(pool_->commit().ok()); });
    in_commit.get_future().wait();
    for (std::uint32_t id = 0; id < kCommitters; ++id) {
      threads.emplace_back([&, id] {
        if (with_changes) {
          EXPECT_TRUE(pool_->create_thin(id).ok());
        }
        EXPECT_TRUE(pool_->commit().ok());
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    EXPECT_EQ(flushes, with_changes ? 2 : 1);
    EXPECT_FALSE(pool_->changed());
  }
  pool_->set_pre_commit(nullptr);
  at_place_ = nullptr;
  pool_.reopen();
  EXPECT_EQ(pool_->devices().size(), kCommitters + 2);
}

}  // namespace
}  // namespace mapperfs::testing
