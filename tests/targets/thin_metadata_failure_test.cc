// The file system of the metadata fails one change after the other, as a disk does that is full
// or broken, once or for longer.
#include <cerrno>

#include "tests/targets/thin_support.h"

namespace mapperfs::test {

namespace {

TEST_F(ThinTest, AReadOnlyPoolIsNotMadeInAnEmptyDirectory) {
  std::filesystem::create_directory(dir_ / "empty");
  for (const char* meta : {"empty", "missing"}) {
    const Status status = harness_.set_table("pool", pool_line(16, "128 0 1 read_only", meta));
    EXPECT_EQ(status.error(), EPERM) << meta;
    EXPECT_NE(status.message().find("Error creating metadata object"), std::string::npos)
        << status.message();
    EXPECT_NE(status.message().find("read_only forbids"), std::string::npos) << status.message();
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / "empty"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "missing"));
}

}  // namespace

}  // namespace mapperfs::test
