#include "tests/metadata/pool_fixture.h"

#include <cstdlib>

#include "metadata/thin_check.h"
#include "tests/fake/sanitizer.h"

namespace mapperfs::testing {

Pool::Pool(std::uint64_t nr_data_blocks)
    : fs_(std::make_shared<FaultFs>()), env_(rocksdb::NewCompositeEnv(fs_)) {
  options.data_block_size = 128;
  options.nr_data_blocks = nr_data_blocks;
  options.env = env_.get();
  const Status s = open();
  EXPECT_TRUE(s.ok()) << s.message();
}

Status Pool::open() {
  auto opened = ThinMetadata::open(kDir, options);
  if (!opened.ok()) {
    return opened.status();
  }
  metadata_ = opened.take();
  return {};
}

void Pool::reopen() {
  close();
  const Status s = open();
  ASSERT_TRUE(s.ok()) << s.message();
}

std::uint64_t provision(ThinMetadata& pool, ThinDevice& device, std::uint64_t virtual_block) {
  auto block = pool.allocate_data_block();
  EXPECT_TRUE(block.ok()) << block.status().message();
  const Status s = device.insert(virtual_block, *block);
  EXPECT_TRUE(s.ok()) << s.message();
  return *block;
}

std::unique_ptr<ThinDevice> must_open(ThinMetadata& pool, std::uint32_t id) {
  auto device = pool.open_device(id);
  EXPECT_TRUE(device.ok()) << device.status().message();
  return device.take();
}

void expect_clean(Pool& pool) {
  pool.close();
  expect_clean(pool.env(), Pool::kDir);
}

void expect_clean(rocksdb::Env* env, const std::string& dir) {
  ThinCheckOptions options;
  options.env = env;
  auto report = check_thin_metadata(dir, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->clean()) << report->leaked_data_blocks << " data blocks and "
                               << report->leaked_pages << " pages leaked; "
                               << (report->messages.empty() ? "" : report->messages.front());
}

namespace {

Picture::Device picture_device(ThinDevice& device) {
  const ThinDeviceDetails details = device.details();
  Picture::Device picture{details.mapped_blocks,
                          details.transaction_id,
                          details.creation_time,
                          details.snapshotted_time,
                          {}};
  const Status s = device.for_each_run(0, kThinMaxVirtualBlocks, [&](const ThinRun& run) {
    for (std::uint64_t i = 0; i < run.length; ++i) {
      picture.map[run.virtual_begin + i] = {run.data_begin + i, run.time};
    }
    return true;
  });
  EXPECT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(picture.map.size(), picture.mapped_blocks);
  return picture;
}

}  // namespace

Picture picture_of(ThinMetadata& pool) {
  Picture picture;
  const ThinPoolStatus status = pool.status();
  picture.transaction_id = status.transaction_id;
  picture.time = status.time;
  picture.nr_data_blocks = status.total_data_blocks;
  picture.has_held = status.held_root != 0;
  for (const ThinDeviceDetails& details : pool.devices()) {
    picture.devices[details.id] = picture_device(*must_open(pool, details.id));
  }
  if (picture.has_held) {
    auto held = pool.held_snapshot();
    EXPECT_TRUE(held.ok());
    for (const ThinDeviceDetails& details : held->devices) {
      auto device = pool.open_held(details.id);
      EXPECT_TRUE(device.ok());
      picture.held[details.id] = picture_device(**device);
    }
  }
  return picture;
}

std::set<std::uint64_t> blocks_of(const Picture& picture) {
  std::set<std::uint64_t> blocks;
  for (const auto* table : {&picture.devices, &picture.held}) {
    for (const auto& [id, device] : *table) {
      for (const auto& [virtual_block, mapping] : device.map) {
        blocks.insert(mapping.first);
      }
    }
  }
  return blocks;
}

std::uint64_t first_seed() {
  const char* seed = std::getenv("MAPPERFS_SEED");
  return seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10);
}

std::uint64_t seed_count(std::uint64_t runs) {
  if (const char* seed = std::getenv("MAPPERFS_SEED")) {
    char* end = nullptr;
    const std::uint64_t first = std::strtoull(seed, &end, 10);
    return *end == '-' ? std::strtoull(end + 1, nullptr, 10) - first + 1 : 1;
  }
  const char* text = std::getenv("MAPPERFS_LONG");
  const bool many = text != nullptr && std::strtoul(text, nullptr, 10) != 0;
  constexpr std::uint64_t kShare = fake::kThreadSanitizer ? 8 : fake::kAddressSanitizer ? 4 : 1;
  return many ? runs * 100 : (runs + kShare - 1) / kShare;
}

}  // namespace mapperfs::testing
