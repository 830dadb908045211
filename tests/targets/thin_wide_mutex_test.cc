// WideSharedMutex: many slots are one mutex.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "targets/thin/fair_shared_mutex.h"

namespace mapperfs::test {
namespace {

using thinp::WideSharedMutex;

TEST(ThinWideMutex, KeepsAWriterApartFromReadersOfEverySlot) {
  constexpr int kReaders = 20;  // more than there are slots
  constexpr std::uint64_t kChanges = 2000;
  WideSharedMutex mutex;
  std::uint64_t one = 0;  // both changed by the writer alone, and always together
  std::uint64_t other = 0;
  std::atomic<std::uint64_t> seen_apart{0};
  std::vector<std::thread> readers;
  std::atomic<bool> stop{false};
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const std::shared_lock<WideSharedMutex> lock(mutex);
        seen_apart += one == other ? 0 : 1;
      }
    });
  }
  for (std::uint64_t i = 0; i < kChanges; ++i) {
    const std::unique_lock<WideSharedMutex> lock(mutex);
    ++one;
    ++other;
  }
  stop = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(seen_apart, 0U);
  EXPECT_EQ(one, kChanges);
}

TEST(ThinWideMutex, LetsNoNewReaderInBeforeAWriterThatWaits) {
  WideSharedMutex mutex;
  mutex.lock_shared();
  std::atomic<bool> written{false};
  std::thread writer([&] {
    const std::unique_lock<WideSharedMutex> lock(mutex);
    written = true;
  });
  // From another thread, and so by another slot than the one that is held.
  bool shut_out = false;
  std::thread reader([&] {
    while (!shut_out) {
      shut_out = !mutex.try_lock_shared();
      if (!shut_out) {
        mutex.unlock_shared();
      }
    }
  });
  reader.join();
  EXPECT_FALSE(written);
  mutex.unlock_shared();
  writer.join();
  EXPECT_TRUE(written);
  EXPECT_TRUE(mutex.try_lock_shared());
  mutex.unlock_shared();
}

}  // namespace
}  // namespace mapperfs::test
