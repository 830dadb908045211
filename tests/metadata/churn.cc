#include "tests/metadata/churn.h"

#include <cerrno>
#include <iterator>

namespace mapperfs::testing {

Churn::Churn(ThinMetadata& pool, std::uint64_t seed)
    : model(picture_of(pool)), committed(model), pool_(&pool), random_(seed) {}

void Churn::revert(ThinMetadata& pool, const Picture& picture) {
  pool_ = &pool;
  model = picture;
  committed = picture;
  failed = Status();
}

bool Churn::check(const Status& status) {
  if (!status.ok() && status.error() != ENOSPC && failed.ok()) {
    failed = status;
  }
  return status.ok();
}

// Most in a few leaves, some far away, so that pages are shared, split and emptied.
std::uint64_t Churn::some_block() {
  switch (random_() % 8) {
    case 0:
      return random_() % (std::uint64_t{1} << 20);
    case 1:
      return (std::uint64_t{1} << 40) + random_() % 100;
    default:
      return random_() % 700;
  }
}

ThinDevice* Churn::some_device() {
  if (model.devices.empty()) {
    return nullptr;
  }
  const std::uint32_t id = std::next(model.devices.begin(),
                                     static_cast<std::ptrdiff_t>(random_() % model.devices.size()))
                               ->first;
  std::unique_ptr<ThinDevice>& device = open_[id];
  if (device == nullptr) {
    device = must_open(*pool_, id);
  }
  return device.get();
}

void Churn::create() {
  const auto id = static_cast<std::uint32_t>(random_() % 12);
  const Status s = pool_->create_thin(id);
  if (model.devices.contains(id)) {
    if (s.error() != EIO) {
      EXPECT_EQ(s.error(), EEXIST);
      return;
    }
  }
  if (check(s)) {
    model.devices[id] = {0, model.transaction_id, model.time, model.time, {}};
  }
}

void Churn::snap() {
  ThinDevice* origin = some_device();
  const auto id = static_cast<std::uint32_t>(random_() % 12);
  if (origin == nullptr || model.devices.contains(id) ||
      !check(pool_->create_snap(id, origin->id()))) {
    return;
  }
  Picture::Device& from = model.devices[origin->id()];
  from.snapshotted_time = ++model.time;
  Picture::Device copy = from;
  copy.transaction_id = model.transaction_id;
  copy.creation_time = model.time;
  model.devices[id] = std::move(copy);
}

void Churn::remove_device() {
  ThinDevice* device = some_device();
  if (device == nullptr) {
    return;
  }
  const std::uint32_t id = device->id();
  open_.erase(id);
  const Status s = pool_->delete_device(id);
  // It is deleted even if freeing its pages fails after that; then the whole transaction is lost.
  if (check(s)) {
    model.devices.erase(id);
  }
}

void Churn::insert() {
  ThinDevice* device = some_device();
  if (device == nullptr) {
    return;
  }
  const std::uint64_t at = some_block();
  const auto expect_unused = [this](std::uint64_t given) {
    EXPECT_FALSE(blocks_of(knows_commits ? committed : model).contains(given))
        << "block " << given << " is in use";
  };
  Picture::Device& picture = model.devices[device->id()];
  if (const auto at_once = random_() % 2 == 0 ? device->try_provision(at) : std::nullopt) {
    expect_unused(*at_once);
    EXPECT_FALSE(picture.map.contains(at));
    picture.map[at] = {*at_once, model.time};
    picture.mapped_blocks = picture.map.size();
    return;
  }
  auto block = random_() % 4 == 0 ? pool_->allocate_data_block() : device->allocate_data_block();
  if (!check(block.status())) {
    return;
  }
  expect_unused(*block);
  if (random_() % 20 == 0) {
    pool_->cancel_allocation(*block);
    return;
  }
  if (!check(device->insert(at, *block))) {
    pool_->cancel_allocation(*block);
    return;
  }
  picture.map[at] = {*block, model.time};
  picture.mapped_blocks = picture.map.size();
}

void Churn::insert_many() {
  for (std::uint64_t i = 0, count = random_() % 40; i < count && failed.ok(); ++i) {
    insert();
  }
}

void Churn::discard() {
  ThinDevice* device = some_device();
  if (device == nullptr) {
    return;
  }
  const std::uint64_t begin = some_block();
  const std::uint64_t length = random_() % 4 == 0 ? kThinMaxVirtualBlocks - begin : random_() % 300;
  std::vector<DataRun> freed;
  const bool passdown = random_() % 2 == 0;
  if (!check(device->remove(begin, begin + length, passdown ? &freed : nullptr))) {
    return;
  }
  Picture::Device& picture = model.devices[device->id()];
  picture.map.erase(picture.map.lower_bound(begin), picture.map.lower_bound(begin + length));
  picture.mapped_blocks = picture.map.size();
  const std::set<std::uint64_t> used = blocks_of(model);
  for (const DataRun& run : freed) {
    for (std::uint64_t block = run.begin; block < run.begin + run.length; ++block) {
      EXPECT_FALSE(used.contains(block)) << "block " << block << " was freed while in use";
    }
  }
  pool_->release_data(freed);
}

void Churn::held() {
  if (model.has_held) {
    if (check(pool_->release_metadata_snap())) {
      model.has_held = false;
      model.held.clear();
    }
  } else if (check(pool_->reserve_metadata_snap())) {
    model.has_held = true;
    model.held = model.devices;
  }
}

void Churn::grow() {
  const std::uint64_t size = model.nr_data_blocks + random_() % 50;
  if (check(pool_->resize_data(size))) {
    model.nr_data_blocks = size;
  }
}

void Churn::step() {
  switch (random_() % 24) {
    case 0:
      return create();
    case 1:
    case 2:
      return snap();
    case 3:
      return remove_device();
    case 4:
    case 5:
    case 6:
      return discard();
    case 7:
      return random_() % 4 == 0 ? held() : grow();
    case 8:
      check(pool_->reclaim(1 + random_() % 10).status());
      return;
    case 9:
      if (check(pool_->set_transaction_id(model.transaction_id, model.transaction_id + 1))) {
        ++model.transaction_id;
      }
      return;
    case 10:
    case 11:
      check(commit());
      return;
    case 12:
    case 13:
      return insert_many();
    default:
      return insert();
  }
}

Status Churn::commit() {
  Status s = pool_->commit();
  if (s.ok()) {
    committed = model;
  }
  return s;
}

void Churn::expect_lookups() {
  ThinDevice* device = some_device();
  if (device == nullptr) {
    return;
  }
  const Picture::Device& picture = model.devices[device->id()];
  for (int i = 0; i < 20; ++i) {
    const std::uint64_t at = some_block();
    auto mapping = device->lookup(at);
    ASSERT_TRUE(mapping.ok()) << mapping.status().message();
    const auto it = picture.map.find(at);
    ASSERT_EQ(mapping->mapped, it != picture.map.end()) << "block " << at;
    if (mapping->mapped) {
      EXPECT_EQ(mapping->data_block, it->second.first);
      EXPECT_EQ(mapping->shared, picture.snapshotted_time > it->second.second);
    }
  }
}

void Churn::expect_same() { EXPECT_TRUE(picture_of(*pool_) == model); }

}  // namespace mapperfs::testing
