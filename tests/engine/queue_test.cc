#include "engine/queue.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace mapperfs {
namespace {

class Nothing final : public Completion {
 public:
  void complete(Bio& bio) noexcept override { ends.push_back(&bio); }
  std::vector<Bio*> ends;
};

TEST(Queue, IsTheThreadsOwn) {
  Queue& mine = Queue::current();
  EXPECT_EQ(&Queue::current(), &mine);
  const Queue* other = nullptr;
  std::thread([&] { other = &Queue::current(); }).join();
  EXPECT_NE(other, &mine);
  EXPECT_LT(mine.index(), kMaxQueues);
}

TEST(Queue, GoesToTheNextThreadWhenItsOwnEnds) {
  std::set<const Queue*> queues;
  for (std::size_t i = 0; i < 2 * kMaxQueues; ++i) {
    std::thread([&] { queues.insert(&Queue::current()); }).join();
  }
  EXPECT_EQ(queues.size(), 1U);
}

TEST(Queue, ManyThreadsAtOnceHaveDifferentOnes) {
  constexpr std::size_t kThreads = 16;
  std::mutex mutex;
  std::condition_variable all_cv;
  std::set<std::size_t> indices;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      std::unique_lock<std::mutex> lock(mutex);
      indices.insert(Queue::current().index());
      all_cv.notify_all();
      all_cv.wait(lock, [&] { return indices.size() == kThreads; });
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(indices.size(), kThreads);
}

TEST(Queue, FramesGoHomeFromAnyThread) {
  Queue& home = Queue::current();
  Frame& frame = home.alloc_frame();
  EXPECT_EQ(frame.home, &home);
  const std::size_t made = Queue::pooled_objects();
  std::thread([&] { Queue::free_frame(frame); }).join();
  for (int i = 0; i < 1000; ++i) {
    Queue::free_frame(home.alloc_frame());
  }
  EXPECT_EQ(Queue::pooled_objects(), made);
}

TEST(Queue, BiosFromThePoolGoBackToIt) {
  Nothing nothing;
  Bio& first = alloc_bio(nothing);
  EXPECT_EQ(first.completion, &nothing);
  const std::size_t made = Queue::pooled_objects();
  std::thread([&] { free_bio(first); }).join();
  for (int i = 0; i < 1000; ++i) {
    free_bio(alloc_bio(nothing));
  }
  EXPECT_EQ(Queue::pooled_objects(), made);
}

TEST(Bio, WithoutAnyFrameItEndsAtItsOwner) {
  Nothing owner;
  Bio bio;
  bio.completion = &owner;
  bio.end_io(BlkStatus::kMedium);
  EXPECT_EQ(bio.status(), BlkStatus::kMedium);
  EXPECT_EQ(owner.ends, (std::vector<Bio*>{&bio}));
}

TEST(Bio, LengthsAndKinds) {
  Bio bio;
  bio.op = Op::kWriteZeroes;
  bio.sector = 8;
  bio.sectors = 3;
  EXPECT_EQ(bio.end_sector(), 11U);
  EXPECT_EQ(bio.len_bytes(), 3 * kSectorBytes);
  EXPECT_TRUE(bio.is_write());
  EXPECT_FALSE(bio.has_data());
  bio.op = Op::kRead;
  EXPECT_FALSE(bio.is_write());
  EXPECT_TRUE(bio.has_data());
}

TEST(BioList, KeepsOrderAtBothEnds) {
  Bio a;
  Bio b;
  Bio c;
  BioList list;
  EXPECT_TRUE(list.empty());
  list.push_back(a);
  list.push_back(b);
  list.push_front(c);
  BioList other;
  other.swap(list);
  EXPECT_TRUE(list.empty());
  EXPECT_EQ(other.pop_front(), &c);
  EXPECT_EQ(other.pop_front(), &a);
  EXPECT_EQ(other.pop_front(), &b);
  EXPECT_EQ(other.pop_front(), nullptr);
  other.push_front(b);
  other.push_back(a);
  EXPECT_EQ(other.pop_front(), &b);
  EXPECT_EQ(other.pop_front(), &a);
  EXPECT_TRUE(other.empty());
}

}  // namespace
}  // namespace mapperfs
