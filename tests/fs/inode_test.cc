#include "fs/inode.h"

#include <gtest/gtest.h>

namespace mapperfs {
namespace {

TEST(Inode, IsKnownFromItsNumber) {
  for (const std::uint64_t serial : {std::uint64_t{1}, (std::uint64_t{1} << 36) - 1}) {
    const Inode inode = Inode::of(Inode{serial, FileKind::kServed}.number());
    EXPECT_EQ(inode.serial, serial);
    EXPECT_EQ(inode.kind, FileKind::kServed);
  }
  const Inode log = Inode::of(Inode{0, FileKind::kLog}.number());
  EXPECT_EQ(log.serial, 0U);
  EXPECT_EQ(log.kind, FileKind::kLog);
}

TEST(Inode, IsKnownFromEachOfItsNodes) {
  for (const std::uint64_t visit :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 20, std::uint64_t{1} << 55}) {
    const Inode control = Inode::of(Inode{0, FileKind::kControl}.node(visit));
    EXPECT_EQ(control.serial, 0U) << visit;
    EXPECT_EQ(control.kind, FileKind::kControl) << visit;
    const Inode table = Inode::of(Inode{7, FileKind::kTable}.node(visit));
    EXPECT_EQ(table.serial, 7U) << visit;
    EXPECT_EQ(table.kind, FileKind::kTable) << visit;
  }
}

TEST(Inode, HasAnotherNodeForEachVisit) {
  const Inode control = {0, FileKind::kControl};
  EXPECT_NE(control.node(1), control.node(2));
  EXPECT_NE(control.node(1), control.node(1 + (std::uint64_t{1} << 20)));
  const Inode table = {7, FileKind::kTable};
  EXPECT_NE(table.node(1), table.node(2));
  EXPECT_NE(table.node(1), (Inode{8, FileKind::kTable}.node(1)));
}

TEST(Inode, NeedsNodesOnlyForTextsThatTakeCommands) {
  EXPECT_TRUE(has_node_per_visit(FileKind::kControl));
  EXPECT_TRUE(has_node_per_visit(FileKind::kMessage));
  EXPECT_TRUE(has_node_per_visit(FileKind::kUuid));
  EXPECT_FALSE(has_node_per_visit(FileKind::kDevice));
  EXPECT_FALSE(has_node_per_visit(FileKind::kStatus));
  EXPECT_FALSE(has_node_per_visit(FileKind::kSys));
}

}  // namespace
}  // namespace mapperfs
