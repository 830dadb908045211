// The store on a file system that loses power in the middle of changes to RocksDB's own list of
// files, and whose files rot.
#include <gtest/gtest.h>
#include <rocksdb/env.h>

#include <cerrno>
#include <string>
#include <vector>

#include "metadata/store.h"
#include "tests/metadata/fault_fs.h"

namespace mapperfs::testing {
namespace {

// Long keys, which a record of the list of files repeats: it gets longer than a sector.
std::string key(int number) { return std::string(300, 'k') + std::to_string(1000 + number); }

class RocksStore : public ::testing::Test {
 protected:
  RocksStore() : fs_(std::make_shared<FaultFs>()), env_(rocksdb::NewCompositeEnv(fs_)) {}

  Result<std::unique_ptr<Store>> open(StoreMode mode = StoreMode::kReadWrite) {
    StoreOptions options;
    options.env = env_.get();
    options.mode = mode;
    options.memtable_bytes = memtable_bytes_;
    return open_rocks_store(kDir, options);
  }
  // Writes batches until there are `count` or one fails; what is acknowledged counts on.
  void fill(Store& store, int count) {
    for (int i = 0; i < count; ++i) {
      const auto batch = store.new_batch();
      batch->put(key(acknowledged_), std::string(value_bytes_, 'x'));
      if (!store.write(*batch).ok()) {
        return;
      }
      ++acknowledged_;
    }
  }
  // Every opening writes what the log has to a file.
  void fill_and_reopen(int times) {
    for (int i = 0; i < times; ++i) {
      auto store = open();
      ASSERT_TRUE(store.ok()) << store.status().message();
      fill(**store, 5);
    }
  }
  void expect_all(StoreMode mode) {
    auto store = open(mode);
    ASSERT_TRUE(store.ok()) << store.status().message();
    for (int i = 0; i < acknowledged_; ++i) {
      const auto value = (*store)->get(key(i));
      ASSERT_TRUE(value.ok()) << value.status().message();
      ASSERT_TRUE(value->has_value()) << "batch " << i << " of " << acknowledged_ << " is gone";
    }
  }
  std::vector<std::string> files(std::string_view prefix) {
    std::vector<std::string> names;
    std::vector<std::string> found;
    EXPECT_TRUE(fs_->GetChildren(kDir, {}, &names, nullptr).ok());
    for (const std::string& name : names) {
      if (name.starts_with(prefix)) {
        found.push_back(name);
      }
    }
    return found;
  }
  // The list of files that is in use.
  std::string manifest() {
    std::string name;
    EXPECT_TRUE(rocksdb::ReadFileToString(env_.get(), std::string(kDir) + "/CURRENT", &name).ok());
    return std::string(kDir) + "/" + name.substr(0, name.find('\n'));
  }
  std::uint64_t size_of(const std::string& name) {
    std::uint64_t bytes = 0;
    EXPECT_TRUE(fs_->GetFileSize(name, {}, &bytes, nullptr).ok());
    return bytes;
  }

  static constexpr const char* kDir = "/db";
  std::size_t memtable_bytes_ = std::size_t{1} << 20;
  std::size_t value_bytes_ = 300;
  int acknowledged_ = 0;
  const std::shared_ptr<FaultFs> fs_;
  const std::unique_ptr<rocksdb::Env> env_;
};

// Seeds choose what a cut leaves of the sectors under way.
class RocksStoreCut : public RocksStore, public ::testing::WithParamInterface<unsigned> {};

TEST_P(RocksStoreCut, OpensAfterACutAtAnySyncOfTheListOfFiles) {
  std::uint64_t cut = 1;
  for (bool struck = true; struck && !HasFailure(); ++cut) {
    SCOPED_TRACE(cut);
    fill_and_reopen(2);
    fs_->cut_at_sync("MANIFEST-", cut);
    if (auto store = open(); store.ok()) {
      fill(**store, 5);
    }
    struck = fs_->struck();
    fs_->restore_power(GetParam() * 977 + cut);
    for (const StoreMode mode : {StoreMode::kLive, StoreMode::kReadOnly, StoreMode::kReadWrite}) {
      expect_all(mode);
    }
  }
  EXPECT_GT(cut, 3U) << "opening syncs a new list and its mark";
}

TEST_P(RocksStoreCut, OpensAfterACutWhileLogsAreSwitched) {
  memtable_bytes_ = std::size_t{64} << 10;
  value_bytes_ = 8000;
  fill_and_reopen(5);
  fs_->cut_at_sync("MANIFEST-", 4 + GetParam() * 3);
  {
    auto store = open();
    ASSERT_TRUE(store.ok()) << store.status().message();
    fill(**store, 200);
  }
  EXPECT_TRUE(fs_->struck());
  fs_->restore_power(GetParam());
  for (const StoreMode mode : {StoreMode::kLive, StoreMode::kReadOnly, StoreMode::kReadWrite}) {
    expect_all(mode);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RocksStoreCut, ::testing::Range(1U, 9U));

// What was synced and has rotted since is never taken for what a cut left: the last record may be
// all that knows of data whose log is gone.
TEST_F(RocksStore, RefusesARottenListOfFiles) {
  memtable_bytes_ = std::size_t{64} << 10;
  value_bytes_ = 8000;
  {
    auto store = open();
    ASSERT_TRUE(store.ok()) << store.status().message();
    fill(**store, 60);
  }
  const std::string name = manifest();
  const std::uint64_t bytes = size_of(name);
  ASSERT_GT(bytes, 1200U) << "several flushes are in it";
  for (std::uint64_t at = 0; at < bytes; at += at + 400 < bytes ? 61 : 1) {
    fs_->flip_bit(name, at);
    EXPECT_EQ(open(StoreMode::kReadOnly).status().error(), EILSEQ) << at << " of " << bytes;
    fs_->flip_bit(name, at);
  }
  fs_->flip_bit(name, bytes - 1);
  EXPECT_EQ(open().status().error(), EILSEQ);
  EXPECT_EQ(open(StoreMode::kLive).status().error(), EILSEQ);
  fs_->flip_bit(name, bytes - 1);
  expect_all(StoreMode::kReadWrite);
}

// Every batch is synced before the next is written: one that is sound after one that is not says
// that the latter has rotted. Only the last of all may have been torn.
TEST_F(RocksStore, RefusesARottenLog) {
  fill_and_reopen(1);
  {
    auto store = open();
    ASSERT_TRUE(store.ok()) << store.status().message();
    fill(**store, 120);  // more than two blocks of the log
  }
  const std::vector<std::string> logs = files("0");
  std::string name;
  for (const std::string& file : logs) {
    name = file.ends_with(".log") ? std::string(kDir) + "/" + file : name;
  }
  const std::uint64_t bytes = size_of(name);
  const std::uint64_t last = bytes - 700;  // at or after the start of the last batch
  ASSERT_GT(bytes, 70'000U);
  for (std::uint64_t at = 0; at < last - 700; at += 1009) {
    fs_->flip_bit(name, at);
    for (const StoreMode mode : {StoreMode::kReadOnly, StoreMode::kLive}) {
      EXPECT_EQ(open(mode).status().error(), EILSEQ) << at << " of " << bytes;
    }
    fs_->flip_bit(name, at);
  }
  fs_->flip_bit(name, 1);
  EXPECT_EQ(open().status().error(), EILSEQ);
  fs_->flip_bit(name, 1);
  fs_->flip_bit(name, bytes - 100);
  --acknowledged_;
  expect_all(StoreMode::kReadOnly);
  fs_->flip_bit(name, bytes - 100);
  ++acknowledged_;
  expect_all(StoreMode::kReadWrite);
}

// The torn list is never appended to, and goes with its marks.
TEST_F(RocksStore, BeginsANewListOfFilesWheneverItIsOpened) {
  std::string before;
  for (int i = 0; i < 4; ++i) {
    auto store = open();
    ASSERT_TRUE(store.ok()) << store.status().message();
    fill(**store, 3);
    EXPECT_NE(manifest(), before);
    before = manifest();
    store->reset();
    const std::string name = before.substr(before.rfind('/') + 1);
    EXPECT_EQ(files("MANIFEST-"), (std::vector<std::string>{name, name + ".synced"}));
  }
}

}  // namespace
}  // namespace mapperfs::testing
