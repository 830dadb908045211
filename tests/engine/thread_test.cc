#include "engine/thread.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <latch>
#include <string>
#include <vector>

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

cpu_set_t cores_of_this_thread() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  EXPECT_EQ(::sched_getaffinity(0, sizeof(cores), &cores), 0);
  return cores;
}

// What somebody has the whole process keep to, as taskset(1) does.
TEST(StartThread, KeepsToTheCoresOfTheMainThread) {
  const cpu_set_t all = cores_of_this_thread();
  if (CPU_COUNT(&all) < 2) {
    GTEST_SKIP() << "one core";
  }
  cpu_set_t most = all;
  for (int core = 0; CPU_EQUAL(&most, &all); ++core) {
    CPU_CLR(core, &most);
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof(most), &most), 0);
  cpu_set_t child;
  start_thread("child", [&] { child = cores_of_this_thread(); }).join();
  EXPECT_TRUE(CPU_EQUAL(&child, &most)) << CPU_COUNT(&child) << " cores";
  ASSERT_EQ(::sched_setaffinity(0, sizeof(all), &all), 0);
}

// The process in a cpuset of its own; cgroups of version 1.
class Cpuset {
 public:
  explicit Cpuset(const std::string& cpus) {
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
      if (const std::size_t at = line.find(":cpuset:"); at != std::string::npos) {
        home_ = "/sys/fs/cgroup/cpuset" + line.substr(at + 8);
      }
    }
    std::string mems;
    std::getline(std::ifstream(home_ + "/cpuset.mems"), mems);
    own_ = home_ + "/mapperfs-test-" + std::to_string(::getpid());
    std::error_code error;
    inside_ = std::filesystem::create_directory(own_, error) && put("cpuset.mems", mems) &&
              put("cpuset.cpus", cpus) && enter(own_);
  }
  ~Cpuset() {
    enter(home_);
    std::error_code error;
    std::filesystem::remove(own_, error);
  }
  Cpuset(const Cpuset&) = delete;
  Cpuset& operator=(const Cpuset&) = delete;

  [[nodiscard]] bool inside() const { return inside_; }
  [[nodiscard]] bool put(const std::string& file, const std::string& text) const {
    return static_cast<bool>(std::ofstream(own_ + "/" + file) << text << std::flush);
  }

 private:
  static bool enter(const std::string& group) {
    return static_cast<bool>(std::ofstream(group + "/cgroup.procs") << ::getpid() << std::flush);
  }

  std::string home_;
  std::string own_;
  bool inside_ = false;
};

TEST(StartThread, RunsOnCoresThatTheProcessGetsLater) {
  const cpu_set_t all = cores_of_this_thread();
  std::vector<std::string> numbers;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &all)) {
      numbers.push_back(std::to_string(core));
    }
  }
  if (numbers.size() < 2) {
    GTEST_SKIP() << "one core";
  }
  const Cpuset cpuset(numbers[0]);
  if (!cpuset.inside()) {
    GTEST_SKIP() << "no cpuset of ours";
  }
  std::latch started{1};
  std::latch more{1};
  int few = 0;
  int many = 0;
  std::thread thread = start_thread("child", [&] {
    const cpu_set_t before = cores_of_this_thread();
    started.count_down();
    more.wait();
    const cpu_set_t after = cores_of_this_thread();
    few = CPU_COUNT(&before);
    many = CPU_COUNT(&after);
  });
  started.wait();
  EXPECT_TRUE(cpuset.put("cpuset.cpus", numbers[0] + "," + numbers[1]));
  more.count_down();
  thread.join();
  EXPECT_EQ(few, 1);
  EXPECT_EQ(many, 2);
}

}  // namespace
}  // namespace mapperfs
