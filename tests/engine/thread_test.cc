#include "engine/thread.h"

#include <gtest/gtest.h>
#include <sched.h>

namespace mapperfs {
namespace {

// A ring's thread is, and starts threads of pools, which start those of databases.
TEST(StartThread, DoesNotInheritTheCoreOfItsParent) {
  cpu_set_t all;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(all), &all), 0);
  cpu_set_t child;
  CPU_ZERO(&child);
  std::thread parent = start_thread("parent", [&] {
    int core = 0;
    while (!CPU_ISSET(core, &all)) {
      ++core;
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
    std::thread thread =
        start_thread("child", [&] { ASSERT_EQ(::sched_getaffinity(0, sizeof(child), &child), 0); });
    ASSERT_TRUE(thread.joinable());
    thread.join();
  });
  ASSERT_TRUE(parent.joinable());
  parent.join();
  EXPECT_TRUE(CPU_EQUAL(&child, &all)) << CPU_COUNT(&child) << " cores of " << CPU_COUNT(&all);
}

}  // namespace
}  // namespace mapperfs
