// Logs below RocksDB: records written here, byte by byte.
#include "metadata/guarded_logs.h"

#include <gtest/gtest.h>
#include <rocksdb/file_system.h>

#include <cstdint>
#include <string>
#include <vector>

#include "metadata/crc32c.h"
#include "tests/metadata/fault_fs.h"

namespace mapperfs::testing {
namespace {

using rocksdb::FileOptions;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

constexpr std::size_t kBlock = 32768;

TEST(Crc32c, IsCastagnolis) {
  EXPECT_EQ(crc32c(""), 0U);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
}

// A record of RocksDB's log format, in one piece.
std::string piece(char type, const std::string& payload) {
  const std::uint32_t crc = crc32c(type + payload);
  const std::uint32_t masked = (crc >> 15 | crc << 17) + 0xa282ead8U;
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) {
    bytes.push_back(static_cast<char>(masked >> shift));
  }
  bytes.push_back(static_cast<char>(payload.size()));
  bytes.push_back(static_cast<char>(payload.size() >> 8));
  return bytes + type + payload;
}
std::string record(std::size_t payload_bytes) { return piece(1, std::string(payload_bytes, 'p')); }

class GuardedManifest : public ::testing::Test {
 protected:
  GuardedManifest() : below_(std::make_shared<FaultFs>()), fs_(make_guarded_logs_fs(below_)) {
    EXPECT_TRUE(fs_->NewWritableFile(kName, FileOptions(), &file_, nullptr).ok());
  }
  void append(const std::string& bytes) {
    ASSERT_TRUE(file_->Append(bytes, IOOptions(), nullptr).ok());
  }
  void append_synced(const std::string& bytes) {
    append(bytes);
    ASSERT_TRUE(file_->Sync(IOOptions(), nullptr).ok());
    synced_ += bytes;
  }
  // The whole file, as who reads it now has it.
  IOStatus read(std::string& bytes) {
    bytes.clear();
    std::unique_ptr<rocksdb::FSSequentialFile> file;
    IOStatus s = fs_->NewSequentialFile(kName, FileOptions(), &file, nullptr);
    return s.ok() ? read_on(*file, bytes) : s;
  }
  static IOStatus read_on(rocksdb::FSSequentialFile& file, std::string& bytes) {
    std::vector<char> buffer(kBlock);
    while (true) {
      rocksdb::Slice got;
      IOStatus s = file.Read(buffer.size(), IOOptions(), &got, buffer.data(), nullptr);
      if (!s.ok() || got.empty()) {
        return s;
      }
      bytes.append(got.data(), got.size());
    }
  }
  void expect_read(const std::string& want) {
    std::string bytes;
    const IOStatus s = read(bytes);
    ASSERT_TRUE(s.ok()) << s.ToString();
    EXPECT_EQ(bytes.size(), want.size());
    EXPECT_TRUE(bytes == want);
  }

  static constexpr const char* kName = "/db/MANIFEST-000007";
  const std::shared_ptr<FaultFs> below_;
  const std::shared_ptr<rocksdb::FileSystem> fs_;
  std::unique_ptr<rocksdb::FSWritableFile> file_;
  std::string synced_;
};

TEST_F(GuardedManifest, EndsBeforeARecordThatWasNeverSyncedAndIsBad) {
  append_synced(record(700) + record(10));
  append(record(2000));
  const std::string whole = synced_ + record(2000);
  append(record(100));  // sound, but what comes before it is not
  for (const std::size_t at : {std::size_t{0}, std::size_t{6}, std::size_t{7}, std::size_t{2006}}) {
    below_->flip_bit(kName, synced_.size() + at);
    expect_read(synced_);
    below_->flip_bit(kName, synced_.size() + at);
  }
  below_->flip_bit(kName, whole.size() + 50);
  expect_read(whole);
}

TEST_F(GuardedManifest, RefusesDamageOfWhatWasSynced) {
  append_synced(record(100));
  append_synced(record(100) + record(30));
  append(record(100));
  std::string bytes;
  for (std::size_t at = 0; at < synced_.size(); ++at) {
    below_->flip_bit(kName, at);
    EXPECT_TRUE(read(bytes).IsCorruption()) << at;
    below_->flip_bit(kName, at);
  }
  expect_read(synced_ + record(100));
}

TEST_F(GuardedManifest, RefusesAFileThatLacksWhatWasSynced) {
  append_synced(record(100));
  append_synced(record(100));
  ASSERT_TRUE(file_->Truncate(synced_.size() - 1, IOOptions(), nullptr).ok());
  std::string bytes;
  EXPECT_TRUE(read(bytes).IsCorruption());
}

TEST_F(GuardedManifest, LeavesARecordThatIsBeingWrittenToItsReader) {
  append_synced(record(100));
  const std::string next = record(300);
  append(next.substr(0, 120));
  std::unique_ptr<rocksdb::FSSequentialFile> reader;
  ASSERT_TRUE(fs_->NewSequentialFile(kName, FileOptions(), &reader, nullptr).ok());
  std::string bytes;
  ASSERT_TRUE(read_on(*reader, bytes).ok());
  EXPECT_EQ(bytes, synced_ + next.substr(0, 120));
  append(next.substr(120));
  ASSERT_TRUE(read_on(*reader, bytes).ok());
  EXPECT_EQ(bytes, synced_ + next);
}

TEST_F(GuardedManifest, FollowsRecordsFromBlockToBlock) {
  // The second block begins with the end of a record; the third after a gap too short for a header.
  const std::string first = piece(2, std::string(kBlock - 7, 'a'));
  const std::string last = piece(4, std::string(1000, 'b'));
  const std::string filler = record(kBlock - last.size() - 7 - 3) + std::string(3, '\0');
  append_synced(first + last + filler + record(50));
  expect_read(synced_);
  append(piece(2, std::string(kBlock - 57 - 7, 'c')) + piece(3, std::string(200, 'd')));
  below_->flip_bit(kName, synced_.size() + kBlock);
  expect_read(synced_);  // not half of a record
}

TEST_F(GuardedManifest, TrustsNoRecordWhoseKindDoesNotFit) {
  append_synced(record(50));
  append(piece(4, "the end of nothing"));
  expect_read(synced_);
}

TEST_F(GuardedManifest, LeavesAFileWithoutMarksAlone) {
  append_synced(record(100));
  append(record(100));
  below_->flip_bit(kName, 150);
  ASSERT_TRUE(below_->DeleteFile(std::string(kName) + ".synced", IOOptions(), nullptr).ok());
  std::string bytes;
  ASSERT_TRUE(read(bytes).ok());
  EXPECT_EQ(bytes.size(), 2 * record(100).size());
}

TEST_F(GuardedManifest, ForgetsTheMarksOfAnOlderFile) {
  append_synced(record(1000));
  ASSERT_TRUE(fs_->NewWritableFile(kName, FileOptions(), &file_, nullptr).ok());
  synced_.clear();
  append_synced(record(10));
  expect_read(synced_);
}

TEST_F(GuardedManifest, VouchesForNothingAfterAnError) {
  append_synced(record(100));
  append(record(40));
  below_->fail_after(1, FaultFs::Fault::kIoError);
  EXPECT_FALSE(file_->Sync(IOOptions(), nullptr).ok());
  append(record(40));
  EXPECT_TRUE(file_->Sync(IOOptions(), nullptr).ok());
  below_->flip_bit(kName, synced_.size() + 10);
  expect_read(synced_);
}

TEST_F(GuardedManifest, FailsASyncWhoseMarkFails) {
  for (const std::uint64_t step : {2U, 3U}) {  // the mark's writing and its sync
    ASSERT_TRUE(fs_->NewWritableFile(kName, FileOptions(), &file_, nullptr).ok());
    append(record(100));
    below_->fail_after(step, FaultFs::Fault::kNoSpace);
    EXPECT_TRUE(file_->Sync(IOOptions(), nullptr).IsNoSpace());
  }
}

TEST_F(GuardedManifest, RemovesTheMarksWithTheFile) {
  append_synced(record(100));
  ASSERT_TRUE(fs_->DeleteFile(kName, IOOptions(), nullptr).ok());
  std::vector<std::string> names;
  ASSERT_TRUE(below_->GetChildren("/db", IOOptions(), &names, nullptr).ok());
  EXPECT_TRUE(names.empty());
}

// A log of batches: its records begin with a number (8 bytes) and a count (4).
class GuardedBatches : public GuardedManifest {
 protected:
  static std::string batch(std::uint64_t number, std::size_t bytes, char changes = 1) {
    std::string payload(12 + bytes, 'b');
    payload.replace(8, 4, std::string{changes, 0, 0, 0});
    for (std::size_t i = 0; i < 8; ++i) {
      payload[i] = static_cast<char>(number >> (8 * i));
    }
    return piece(1, payload);
  }
  static constexpr const char* kLog = "/db/000012.log";

  void put(const char* name, const std::string& bytes) {
    std::unique_ptr<rocksdb::FSWritableFile> log;
    EXPECT_TRUE(fs_->NewWritableFile(name, FileOptions(), &log, nullptr).ok());
    EXPECT_TRUE(log->Append(bytes, IOOptions(), nullptr).ok());
  }
  // What opening a log with these bytes gives.
  IOStatus open(const std::string& bytes) {
    put(kLog, bytes);
    std::unique_ptr<rocksdb::FSSequentialFile> file;
    IOStatus s = fs_->NewSequentialFile(kLog, FileOptions(), &file, nullptr);
    if (s.ok()) {
      std::string all;
      EXPECT_TRUE(read_on(*file, all).ok());
      EXPECT_TRUE(all == bytes) << "RocksDB finds the end by itself";
    }
    return s;
  }
};

TEST_F(GuardedBatches, RefusesDamageBeforeABatchThatIsSound) {
  const std::string log = batch(5, 100) + batch(6, 3000) + batch(9, 50);
  const std::size_t last = log.size() - batch(9, 50).size();
  EXPECT_TRUE(open(log).ok());
  for (std::size_t at = 0; at < last; at += at < 130 ? 1 : 100) {
    std::string rotten = log;
    rotten[at] = static_cast<char>(rotten[at] ^ 0x40);
    EXPECT_TRUE(open(rotten).IsCorruption()) << at;
  }
}

TEST_F(GuardedBatches, LeavesATornLastBatchToRocksDb) {
  const std::string before = batch(5, 100);
  const std::string log = before + batch(6, 3000);
  for (std::size_t at = before.size(); at < log.size(); at += at < before.size() + 20 ? 1 : 100) {
    std::string torn = log;
    torn[at] = static_cast<char>(torn[at] ^ 0x40);
    EXPECT_TRUE(open(torn).ok()) << at;
    EXPECT_TRUE(open(log.substr(0, at)).ok()) << at;
  }
  EXPECT_TRUE(open("").ok());
}

// A batch whose end landed and whose beginning did not.
TEST_F(GuardedBatches, TakesTheEndOfATornBatchForNoOther) {
  std::string log = batch(5, 100);
  const std::string first = piece(2, std::string(kBlock - 7 - log.size(), 'a'));
  log += first + piece(4, std::string(1000, 'b'));
  log[500] = static_cast<char>(log[500] ^ 0x40);
  EXPECT_TRUE(open(log).ok());
}

// What was left on the disk by a file that is gone.
TEST_F(GuardedBatches, TakesAnOlderBatchForNone) {
  const std::string old = batch(700, 200);
  std::string log = batch(1000, 100) + batch(1001, 300);
  log[200] = static_cast<char>(log[200] ^ 0x40);
  EXPECT_TRUE(open(log + old).ok());
  EXPECT_TRUE(open(log + batch(std::uint64_t{1} << 50, 200)).ok());
  EXPECT_TRUE(open(log + batch(1002, 200)).IsCorruption());
}

TEST_F(GuardedBatches, FindsALaterBatchBlocksAway) {
  std::string log = batch(5, 100) + batch(6, 20'000);
  log.resize(kBlock * 3, '\0');
  log[300] = static_cast<char>(log[300] ^ 0x40);
  EXPECT_TRUE(open(log).ok());
  EXPECT_TRUE(open(log + batch(7, 0)).IsCorruption());
}

// Numbers are those of a pool's whole life.
TEST_F(GuardedBatches, RefusesARottenFirstBatchWhateverItsNumber) {
  for (const std::uint64_t number : {std::uint64_t{1}, std::uint64_t{1} << 40}) {
    const std::string first = batch(number, 100);
    std::string log = first + batch(number + 1, 100);
    EXPECT_TRUE(open(log).ok());
    for (std::size_t at = 0; at < first.size(); ++at) {
      log[at] = static_cast<char>(log[at] ^ 0x40);
      EXPECT_TRUE(open(log).IsCorruption()) << at;
      log[at] = static_cast<char>(log[at] ^ 0x40);
    }
  }
}

// A log is begun when all before it is synced: a batch in the next one says that the last one of
// this log was not torn.
TEST_F(GuardedBatches, RefusesARottenEndIfTheNextLogHasABatch) {
  const std::string before = batch(5, 100);
  const std::string log = before + batch(6, 300);
  std::string rotten = log;
  rotten[before.size() + 50] = static_cast<char>(rotten[before.size() + 50] ^ 0x40);
  const std::string cut = log.substr(0, log.size() - 5);
  put("/db/000011.log", batch(1, 10));
  put("/db/000013.sst", batch(9, 10));
  EXPECT_TRUE(open(rotten).ok()) << "an older log and another kind of file";
  put("/db/000013.log", "");
  EXPECT_TRUE(open(rotten).ok());
  // Opening writes an empty batch into a new log before the old one is done with.
  put("/db/000013.log", batch(6, 0, 0));
  EXPECT_TRUE(open(rotten).ok());
  EXPECT_TRUE(open(cut).ok());
  put("/db/000013.log", batch(6, 0, 0) + batch(7, 10));
  for (const std::string& ending : {rotten, cut}) {
    EXPECT_TRUE(open(ending).IsCorruption());
  }
  EXPECT_TRUE(open(log).ok());
  put("/db/000013.log", "torn");
  EXPECT_TRUE(open(rotten).ok());
  put("/db/000100.log", batch(8, 7000));
  EXPECT_TRUE(open(rotten).IsCorruption()) << "any log with a higher number";
}

// The first batch of the next log may have rotted too.
TEST_F(GuardedBatches, FindsABatchBehindARottenOneInTheNextLog) {
  std::string next = batch(7, 100) + batch(8, 100);
  next[50] = static_cast<char>(next[50] ^ 0x40);
  put("/db/000013.log", next);
  EXPECT_TRUE(open(batch(5, 100) + batch(6, 300).substr(0, 200)).IsCorruption());
}

}  // namespace
}  // namespace mapperfs::testing
