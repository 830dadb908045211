#include "fs/rings.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "fs/io_request.h"

namespace mapperfs {
namespace {

unsigned cores_in(const std::string& text) {
  std::istringstream list(text);
  return Rings::count_cores(list);
}

TEST(Rings, CountsTheCoresOfAKernelsList) {
  EXPECT_EQ(cores_in("0\n"), 1U);
  EXPECT_EQ(cores_in("0-1\n"), 2U);
  EXPECT_EQ(cores_in("0-239\n"), 240U);
  EXPECT_EQ(cores_in("0-1,4-5,9\n"), 5U);
  EXPECT_EQ(cores_in(""), 0U);
  EXPECT_EQ(cores_in("3-1\n"), 0U);
}

// Virtual machines often may have 240 or 256 cores, of which few are there.
TEST(Rings, AreRefusedToMoreCoresThanThreadsMakeSenseFor) {
  for (const unsigned cores : {1U, 240U, 256U, Rings::kMaxRings}) {
    EXPECT_EQ(Rings::too_many(cores), "");
  }
  EXPECT_EQ(Rings::too_many(Rings::kMaxRings + 1), "513 possible cores are more than 512 rings");
}

TEST(Rings, DepthIsWhatAGibibyteHasRoomFor) {
  constexpr std::uint32_t kMib = 1U << 20;
  constexpr std::uint64_t kRoom = IoRequest::kRoomBytes + kBufferAlignment;
  EXPECT_EQ(Rings::default_depth(kMib, 1), 256U);
  EXPECT_EQ(Rings::default_depth(kMib, 2), 256U);
  for (const unsigned cores : {4U, 8U, 16U, 32U, 56U}) {
    const std::uint64_t depth = Rings::default_depth(kMib, cores);
    EXPECT_LE(depth * cores * kRoom, 1ULL << 30) << cores;
    EXPECT_GT((depth + 1) * cores * kRoom, 1ULL << 30) << cores;
  }
  EXPECT_EQ(Rings::default_depth(kMib, 57), 16U);
  EXPECT_EQ(Rings::default_depth(kMib, 256), 16U);
  EXPECT_EQ(Rings::default_depth(132U << 10, 8), 256U) << "small requests";
  EXPECT_EQ(Rings::default_depth(kMib, 0), 256U) << "nobody knows how many";
}

}  // namespace
}  // namespace mapperfs
