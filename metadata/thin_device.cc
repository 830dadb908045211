// One device's mapping: look-ups that take no shared lock, changes under the device's own.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "metadata/pool_metadata.h"

namespace mapperfs::thin {
namespace {

class ThinDeviceHandle final : public ThinDevice {
 public:
  ThinDeviceHandle(PoolMetadata& pool, std::shared_ptr<DeviceState> state)
      : pool_(pool), state_(std::move(state)) {}
  ~ThinDeviceHandle() override { pool_.close_device(*state_); }

  [[nodiscard]] std::uint32_t id() const noexcept override { return state_->id; }

  [[nodiscard]] std::optional<ThinMapping> lookup_cached(
      std::uint64_t virtual_block) const noexcept override {
    const Trees& trees = pool_.trees();
    for (int i = 0; i < kTries; ++i) {
      const std::uint64_t departures = trees.departures();
      const std::optional<std::uint64_t> word =
          trees.find_cached(Root{state_->root.load(std::memory_order_acquire)}, virtual_block);
      if (!word.has_value()) {
        break;
      }
      if (departures == trees.departures()) {
        // Looked at behind the root, which a device that is gone has lost.
        return state_->gone ? std::nullopt : std::optional<ThinMapping>(mapping_of(*word));
      }
    }
    return std::nullopt;
  }

  [[nodiscard]] Result<ThinMapping> lookup(std::uint64_t virtual_block) const override {
    auto word = retried([&](Root root) { return pool_.trees().find(root, virtual_block); });
    if (!word.ok()) {
      return word.status();
    }
    return mapping_of(*word);
  }

  Status insert(std::uint64_t virtual_block, std::uint64_t data_block) override {
    if (virtual_block >= kThinMaxVirtualBlocks) {
      return {EINVAL, fmt::format("thin device {}: block {} is past {}", id(), virtual_block,
                                  kThinMaxVirtualBlocks)};
    }
    return state_->held ? read_only() : pool_.insert(state_, virtual_block, data_block);
  }

  Result<std::uint64_t> allocate_data_block() override {
    return state_->held ? Result<std::uint64_t>(read_only()) : pool_.allocate_for(*state_);
  }

  std::optional<std::uint64_t> try_provision(std::uint64_t virtual_block) noexcept override {
    return state_->held ? std::nullopt : pool_.try_provision(state_, virtual_block);
  }

  Status remove(std::uint64_t begin, std::uint64_t end, std::vector<DataRun>* freed) override {
    return state_->held ? read_only() : pool_.remove(state_, begin, end, freed);
  }

  [[nodiscard]] std::uint64_t mapped_blocks() const noexcept override {
    return state_->mapped_blocks;
  }

  [[nodiscard]] Result<std::optional<std::uint64_t>> highest_mapped() const override {
    return retried([&](Root root) { return pool_.trees().highest(root); });
  }

  Status for_each_run(std::uint64_t begin, std::uint64_t end,
                      const std::function<bool(const ThinRun&)>& fn) const override;

  [[nodiscard]] bool changed() const noexcept override { return !pool_.in_last_commit(*state_); }

  [[nodiscard]] ThinDeviceDetails details() const noexcept override {
    return {id(), state_->mapped_blocks, state_->transaction_id, state_->creation_time,
            state_->snapshotted_time};
  }

 private:
  [[nodiscard]] ThinMapping mapping_of(std::uint64_t word) const noexcept {
    ThinMapping mapping;
    if (word != 0) {
      mapping.data_block = Leaf::data_block(word);
      mapping.time = Leaf::time(word);
      mapping.mapped = true;
      // Who finds it shared also sees what was announced before the snapshot was made.
      mapping.shared = state_->snapshotted_time.load(std::memory_order_acquire) > mapping.time;
    }
    return mapping;
  }

  [[nodiscard]] Status gone() const {
    return {ENODATA, fmt::format("thin device {}: is gone", id())};
  }
  [[nodiscard]] Status read_only() const {
    return {EROFS, fmt::format("thin device {}: part of a metadata snapshot", id())};
  }

  // A page that is missing was most likely replaced while we were on the way to it, and what was
  // read is worth nothing if a tree has left a page to others meanwhile. With changes and aborts
  // kept out the page must be there, and is ours.
  template <typename Read>
  auto retried(const Read& read) const -> decltype(read(Root{})) {
    const Trees& trees = pool_.trees();
    for (int i = 0; i < kTries; ++i) {
      const std::uint64_t departures = trees.departures();
      auto result = read(Root{state_->root.load(std::memory_order_acquire)});
      if (state_->gone) {  // looked at behind the root, which it has lost
        return gone();
      }
      if (!result.ok() && result.status().error() == ENOENT) {
        pool_.stand_at("reading: found nothing");
      } else if (departures == trees.departures()) {
        return result;
      }
    }
    const ShardedLock::ReadGuard inside(pool_.gate());
    const std::lock_guard<FairMutex> lock(state_->mutex);
    auto again = read(Root{state_->root.load(std::memory_order_acquire)});
    if (state_->gone) {
      return gone();
    }
    if (!again.ok() && again.status().error() == ENOENT) {
      return Status(EILSEQ, again.status().message());
    }
    return again;
  }

  // Looks without a lock before one is taken, or before the caller takes another way.
  static constexpr int kTries = 3;

  PoolMetadata& pool_;
  const std::shared_ptr<DeviceState> state_;
};

// The words of a leaf, as they were at one moment.
struct LeafWords {
  std::uint64_t base = 0;  // the block of the first
  std::array<std::uint64_t, kPageEntries> words{};
};

Result<std::optional<LeafWords>> words_of(const Result<std::optional<LeafView>>& leaf) {
  if (!leaf.ok()) {
    return leaf.status();
  }
  if (!leaf->has_value()) {
    return std::optional<LeafWords>();
  }
  LeafWords words;
  words.base = (*leaf)->base;
  for (unsigned i = 0; i < kPageEntries; ++i) {
    words.words[i] = (*leaf)->page->word(i);
  }
  return std::optional<LeafWords>(words);
}

Status ThinDeviceHandle::for_each_run(std::uint64_t begin, std::uint64_t end,
                                      const std::function<bool(const ThinRun&)>& fn) const {
  ThinRun run;
  bool more = true;
  for (std::uint64_t at = begin; more && at < end;) {
    const auto leaf =
        retried([&](Root root) { return words_of(pool_.trees().next_leaf(root, at)); });
    if (!leaf.ok()) {
      return leaf.status();
    }
    if (!leaf->has_value() || (*leaf)->base >= end) {
      break;
    }
    const LeafWords& view = **leaf;
    const std::uint64_t last = std::min(end, view.base + kPageEntries);
    for (at = std::max(at, view.base); more && at < last; ++at) {
      const std::uint64_t word = view.words[at - view.base];
      if (word == 0) {
        continue;
      }
      if (run.length != 0 && run.virtual_begin + run.length == at &&
          run.data_begin + run.length == Leaf::data_block(word) && run.time == Leaf::time(word)) {
        ++run.length;
        continue;
      }
      more = run.length == 0 || fn(run);
      run = {at, Leaf::data_block(word), 1, Leaf::time(word)};
    }
  }
  if (more && run.length != 0) {
    fn(run);
  }
  return {};
}

}  // namespace

std::unique_ptr<ThinDevice> make_thin_device(PoolMetadata& pool,
                                             std::shared_ptr<DeviceState> state) {
  return std::make_unique<ThinDeviceHandle>(pool, std::move(state));
}

Status PoolMetadata::insert(const std::shared_ptr<DeviceState>& device, std::uint64_t virtual_block,
                            std::uint64_t data_block) {
  if (Status s = make_room(); !s.ok()) {
    return s;
  }
  Loaded loaded;
  if (!trees_.put_reads_nothing(Root{device->root.load()}, virtual_block)) {
    loaded = trees_.load_for_put(Root{device->root.load()}, virtual_block);
  }
  const ShardedLock::ReadGuard inside(gate_);
  if (Status s = may_change(); !s.ok()) {
    return s;
  }
  const std::lock_guard<FairMutex> lock(device->mutex);
  if (device->gone) {
    return {ENODATA, fmt::format("thin device {}: is gone", device->id)};
  }
  if (used_metadata() >= metadata_blocks_) {
    return {ENOSPC, fmt::format("thin metadata: all {} blocks are used", metadata_blocks_.load())};
  }
  if (Status s = data_.take_reserved(*device->lot, data_block); !s.ok()) {
    return s;
  }
  note_change(device);
  // Most blocks are new ones, for which no shared count has to be pinned.
  const std::uint64_t word = Leaf::pack(data_block, time_);
  if (PagePin place = trees_.place_for_new(Root{device->root.load()}, virtual_block);
      place && trees_.put_new(device->root, std::move(place), virtual_block, word)) {
    device->mapped_blocks.fetch_add(1);
    return {};
  }
  auto before = trees_.put(device->root, virtual_block, word);
  if (!before.ok()) {
    data_.untake(data_block);
    return before.status();
  }
  if (*before == 0) {
    device->mapped_blocks.fetch_add(1);
  }
  return {};
}

// Locks that are held over reading are only tried; the others are held for moments.
std::optional<std::uint64_t> PoolMetadata::try_provision(const std::shared_ptr<DeviceState>& device,
                                                         std::uint64_t virtual_block) noexcept {
  if (cache_.dirty_bytes() >= options_.dirty_bytes) {
    return std::nullopt;  // a commit is to come first
  }
  const ShardedLock::TryReadGuard inside(gate_);
  if (!inside.owns_lock() || read_only_ || health_ != Health::kGood) {
    return std::nullopt;
  }
  const std::unique_lock<FairMutex> lock = try_lock_briefly(device->mutex);
  if (!lock.owns_lock() || device->gone || used_metadata() >= metadata_blocks_) {
    return std::nullopt;
  }
  PagePin place = trees_.place_for_new(Root{device->root.load()}, virtual_block);
  if (!place) {
    return std::nullopt;
  }
  const std::optional<std::uint64_t> block = data_.take_cached(device->lot);
  if (!block.has_value()) {
    return std::nullopt;
  }
  note_change(device);
  if (!trees_.put_new(device->root, std::move(place), virtual_block, Leaf::pack(*block, time_))) {
    data_.untake(*block);
    data_.cancel(*block);
    return std::nullopt;
  }
  device->mapped_blocks.fetch_add(1);
  return block;
}

Status PoolMetadata::remove(const std::shared_ptr<DeviceState>& device, std::uint64_t begin,
                            std::uint64_t end, std::vector<DataRun>* freed) {
  while (begin < end) {
    if (Status s = make_room(); !s.ok()) {
      return s;
    }
    const Loaded loaded = trees_.load_for_remove(Root{device->root.load()}, begin, end);
    const ShardedLock::ReadGuard inside(gate_);
    if (Status s = may_change(); !s.ok()) {
      return s;
    }
    const std::lock_guard<FairMutex> lock(device->mutex);
    if (device->gone) {
      return {ENODATA, fmt::format("thin device {}: is gone", device->id)};
    }
    auto step = trees_.remove_step(device->root, begin, end, freed);
    if (!step.ok()) {
      return step.status();
    }
    if (step->unmapped != 0) {
      device->mapped_blocks.fetch_sub(step->unmapped);
      note_change(device);
    }
    begin = step->done ? end : step->next;
  }
  return {};
}

}  // namespace mapperfs::thin
