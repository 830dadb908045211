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

}  // namespace
}  // namespace mapperfs
