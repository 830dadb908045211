// A pool and thin devices over fake devices, with real metadata in a directory of its own.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>

#include "metadata/thin_check.h"
#include "targets/thin/pool_table.h"
#include "tests/targets/harness.h"
#include "tests/targets/temp_dir.h"

namespace mapperfs::test {

// Blocks of 128 sectors. The data device is "data": in memory unless a test says otherwise.
class ThinTest : public ::testing::Test {
 protected:
  static constexpr sector_t kBlock = 128;

  ThinTest() { data_ = &harness_.opener().add_mem("data", 1024 * kBlock); }
  ~ThinTest() override { thinp::set_pool_tuning({}); }

  [[nodiscard]] std::string pool_line(std::uint64_t blocks, std::string_view rest = "128 0",
                                      std::string_view meta = "meta") const {
    return fmt::format("0 {} thin-pool {} data {}", blocks * kBlock, dir_ / meta, rest);
  }
  void make_pool(std::uint64_t blocks, std::string_view rest = "128 0") {
    const Status status = harness_.set_table("pool", pool_line(blocks, rest));
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // A new thin device `id` of the pool as mapped device `name`.
  void make_thin(const std::string& name, unsigned id, std::uint64_t blocks,
                 std::string_view origin = "") {
    ASSERT_TRUE(harness_.message("pool", fmt::format("create_thin {}", id)).ok());
    open_thin(name, id, blocks, origin);
  }
  void open_thin(const std::string& name, unsigned id, std::uint64_t blocks,
                 std::string_view origin = "") {
    const Status status =
        harness_.set_table(name, fmt::format("0 {} thin pool {}{}{}", blocks * kBlock, id,
                                             origin.empty() ? "" : " ", origin));
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void snap(unsigned id, unsigned origin) {
    const auto reply = harness_.message("pool", fmt::format("create_snap {} {}", id, origin));
    ASSERT_TRUE(reply.ok()) << reply.status().message();
  }
  void remove(const std::string& name) {
    const Status status = harness_.engine().remove(name, false);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  int message_error(std::string_view text) {
    const auto reply = harness_.message("pool", text);
    return reply.ok() ? 0 : reply.status().error();
  }
  // "used/total" of the pool's data blocks.
  std::string used() { return word(harness_.status("pool"), 5); }
  std::string mode() { return word(harness_.status("pool"), 7); }
  static std::string word(const std::string& line, std::size_t index) {
    const auto words = split_words(line);
    return index < words.size() ? words[index] : "";
  }
  // What a crash at this moment leaves of a metadata directory in use. The database's own threads
  // write and remove files now and then: a copy that they got into has files of several moments,
  // and is made again.
  void copy_metadata(std::string_view from, std::string_view to) const {
    for (int tries = 0; tries < 1000; ++tries) {
      const auto before = files_of(from);
      std::error_code error;
      std::filesystem::remove_all(dir_ / to);
      std::filesystem::copy(dir_ / from, dir_ / to, std::filesystem::copy_options::recursive,
                            error);
      if (!error && files_of(from) == before) {
        return;
      }
    }
    FAIL() << "the database does not come to rest";
  }
  using File = std::pair<std::uintmax_t, std::filesystem::file_time_type>;  // size, last write
  [[nodiscard]] std::map<std::string, File> files_of(std::string_view name) const {
    std::map<std::string, File> files;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / name)) {
      std::error_code gone;  // what is not there any more has the values of that
      const std::uintmax_t size = entry.file_size(gone);
      files[entry.path().filename()] = {size, entry.last_write_time(gone)};
    }
    return files;
  }
  // As an administrator does who finds nothing wrong; the pool is down.
  void clear_needs_check(rocksdb::Env* env) {
    ThinCheckOptions options;
    options.env = env;
    options.clear_needs_check = true;
    const auto report = check_thin_metadata(dir_ / "meta", options);
    ASSERT_TRUE(report.ok()) << report.status().message();
    EXPECT_TRUE(report->clean());
  }
  std::uint32_t events() { return harness_.device("pool").event_nr(); }

  TempDir dir_;
  Harness harness_;
  fake::MemDev* data_;
};

}  // namespace mapperfs::test
