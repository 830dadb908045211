#include "fs/crowd.h"

#include <gtest/gtest.h>

namespace mapperfs {
namespace {

TEST(Crowd, KeepsRoomForWhatEndsWaits) {
  Crowd crowd;
  for (std::size_t i = 0; i < Crowd::kMany; ++i) {
    ASSERT_EQ(crowd.enter(0, 0), Room::kAll) << i;
  }
  for (std::size_t i = 0; i < Crowd::kUrgentMore; ++i) {
    ASSERT_EQ(crowd.enter(0, 0), Room::kUrgent) << i;
  }
  EXPECT_EQ(crowd.enter(0, 0), Room::kNone);
  crowd.leave(0);
  EXPECT_EQ(crowd.enter(0, 0), Room::kUrgent);
  EXPECT_EQ(crowd.enter(0, 0), Room::kNone);
}

TEST(Crowd, LeavesPlacesFreeOnEachCoreByItself) {
  Crowd crowd;
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(crowd.enter(1, 4), Room::kAll);
  }
  EXPECT_EQ(crowd.enter(1, 4), Room::kUrgent);
  EXPECT_EQ(crowd.enter(1, 4), Room::kUrgent);
  EXPECT_EQ(crowd.enter(1, 4), Room::kNone);
  EXPECT_EQ(crowd.enter(2, 4), Room::kAll);
  crowd.leave(1);
  crowd.leave(1);
  crowd.leave(1);
  EXPECT_EQ(crowd.enter(1, 4), Room::kAll);
}

TEST(Crowd, HasRoomForOneUrgentCommandWherePlacesAreFew) {
  Crowd crowd;
  EXPECT_EQ(crowd.enter(0, 1), Room::kAll);
  EXPECT_EQ(crowd.enter(0, 1), Room::kUrgent);
  EXPECT_EQ(crowd.enter(0, 1), Room::kNone);
}

TEST(Crowd, CountsAllCoresTogether) {
  Crowd crowd;
  for (unsigned i = 0; i < Crowd::kMany; ++i) {
    ASSERT_EQ(crowd.enter(i, 4), Room::kAll);
  }
  EXPECT_EQ(crowd.enter(Crowd::kMany, 4), Room::kUrgent);
}

}  // namespace
}  // namespace mapperfs
