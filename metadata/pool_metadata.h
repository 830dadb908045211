// ThinMetadata behind its interface. metadata/pool_metadata.cc opens and loads, pool_devices.cc has
// the device table, pool_commit.cc the transactions, thin_device.cc one device's mapping.
//
// Locks, outermost first:
//   control_mutex_   one change of the device table at a time
//   (the commit turn: committing_)
//   gate_            for reading: inside the open transaction; for writing: between transactions
//   DeviceState::mutex or dead_mutex_   the tree's changes
//   state_mutex_     the tables and the small records that changed
//   then those of DataMap and PageCache
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "metadata/data_map.h"
#include "metadata/page_cache.h"
#include "metadata/sharded_lock.h"
#include "metadata/store.h"
#include "metadata/thin_format.h"
#include "metadata/thin_metadata.h"
#include "metadata/thin_tree.h"

namespace mapperfs::thin {

// A device in memory, for as long as it exists or is open. What is atomic is changed under `mutex`
// inside the gate, or with the gate held for writing.
struct alignas(kCacheLineBytes) DeviceState {
  explicit DeviceState(std::uint32_t device_id, bool is_held) : id(device_id), held(is_held) {}
  const std::uint32_t id;
  const bool held;  // of the metadata snapshot: never changes
  FairMutex mutex;  // a snapshot must not starve beside a busy writer
  std::atomic<std::uint64_t> root{0};
  std::atomic<std::uint64_t> mapped_blocks{0};
  std::atomic<std::uint64_t> transaction_id{0};
  std::atomic<std::uint32_t> creation_time{0};
  std::atomic<std::uint32_t> snapshotted_time{0};
  std::atomic<std::uint64_t> changed_in{0};  // the last transaction that changed it
  std::atomic<bool> listed{false};           // among the changed devices
  std::atomic<bool> gone{false};             // deleted, or reverted to not existing
  const std::shared_ptr<DataLot> lot = std::make_shared<DataLot>();  // DataMap's
  unsigned opens = 0;                                                // guarded by state_mutex_
};

class PoolMetadata final : public ThinMetadata {
 public:
  PoolMetadata(std::unique_ptr<Store> store, const ThinMetadataOptions& options);
  ~PoolMetadata() override;
  // Formats an empty store, loads one that is not.
  Status start();
  // For a restore into an empty store: formats it so that nobody opens it before finish_restore().
  Status start_restore();
  Status finish_restore(std::uint64_t transaction_id, std::uint32_t time, bool needs_check);

  Status create_thin(std::uint32_t id) override;
  Status create_snap(std::uint32_t id, std::uint32_t origin) override;
  Status delete_device(std::uint32_t id) override;
  Result<std::unique_ptr<ThinDevice>> open_device(std::uint32_t id) override;
  Result<bool> reclaim(std::size_t max_pages) override;
  [[nodiscard]] std::vector<ThinDeviceDetails> devices() const override;
  Status set_transaction_id(std::uint64_t current, std::uint64_t next) override;
  Status reserve_metadata_snap() override;
  Status release_metadata_snap() override;
  [[nodiscard]] Result<ThinHeldSnapshot> held_snapshot() const override;
  Result<std::unique_ptr<ThinDevice>> open_held(std::uint32_t id) override;

  Result<std::uint64_t> allocate_data_block() override;
  Result<std::uint64_t> allocate_for(const DeviceState& device);
  void cancel_allocation(std::uint64_t data_block) override;
  void release_data(const std::vector<DataRun>& runs) override;
  [[nodiscard]] Result<std::uint32_t> data_references(std::uint64_t data_block) override;
  Status resize_data(std::uint64_t nr_blocks) override;
  Status resize_metadata(std::uint64_t nr_blocks) override;

  void set_pre_commit(std::function<Status()> flush_data) override;
  Status commit() override;
  Status abort() override;
  [[nodiscard]] bool changed() const noexcept override;
  [[nodiscard]] bool commit_due() const noexcept override;

  [[nodiscard]] ThinPoolStatus status() const noexcept override;
  [[nodiscard]] std::uint64_t free_data_blocks() const noexcept override;
  [[nodiscard]] bool free_data_blocks_exceed(std::uint64_t blocks) const noexcept override;
  void set_read_only(bool on) noexcept override;
  Status set_needs_check() override;
  Status clear_needs_check() override;
  [[nodiscard]] std::uint32_t data_block_size() const noexcept override;
  [[nodiscard]] std::size_t cached_bytes() const noexcept override;

  // For ThinDevice and the restorer.
  Status insert(const std::shared_ptr<DeviceState>& device, std::uint64_t virtual_block,
                std::uint64_t data_block);
  std::optional<std::uint64_t> try_provision(const std::shared_ptr<DeviceState>& device,
                                             std::uint64_t virtual_block) noexcept;
  Status remove(const std::shared_ptr<DeviceState>& device, std::uint64_t begin, std::uint64_t end,
                std::vector<DataRun>* freed);
  [[nodiscard]] bool in_last_commit(const DeviceState& device) const noexcept {
    return device.changed_in.load() <= committed_.load();
  }
  void close_device(DeviceState& device);
  [[nodiscard]] const Trees& trees() const { return trees_; }
  [[nodiscard]] ShardedLock& gate() { return gate_; }
  void stand_at(std::string_view place) const {
    if (options_.at_place) {
      options_.at_place(place);
    }
  }

 private:
  friend class Restorer;
  enum class Health { kGood, kFailed, kLost };
  static constexpr std::size_t kInlineReclaim = 64;  // pages that a deletion frees itself

  Status format(std::uint32_t flags);
  Status load();
  Status load_devices(char prefix, std::map<std::uint32_t, DeviceRecord>& records);
  Status load_dead();
  Status load_data_map();
  void adopt(std::map<std::uint32_t, std::shared_ptr<DeviceState>>& table,
             const std::map<std::uint32_t, DeviceRecord>& records, bool held);

  Status may_change() const;
  Status make_room();
  [[nodiscard]] std::uint64_t used_metadata() const noexcept;
  [[nodiscard]] std::uint64_t metadata_reserve() const noexcept;
  void note_change(const std::shared_ptr<DeviceState>& device);
  void note_record(std::string key, std::optional<std::string> value);
  std::shared_ptr<DeviceState> find_device(std::uint32_t id) const;
  Status check_new_id(std::uint32_t id) const;
  std::shared_ptr<DeviceState> add_device(std::uint32_t id, const DeviceRecord& record);
  void bury(Root root);
  void reclaim_at_once();
  Root first_dead();
  Status reclaim_one();
  [[nodiscard]] std::vector<std::uint64_t> roots() const;

  [[nodiscard]] bool open_has_changes() const noexcept;
  [[nodiscard]] std::uint64_t last_change() const noexcept;
  Status run_commit();
  void learn_due(std::size_t pages, std::chrono::nanoseconds took, std::chrono::nanoseconds worked);
  std::unique_ptr<StoreBatch> seal();
  Status write_needs_check(bool on);

  const ThinMetadataOptions options_;
  const std::unique_ptr<Store> store_;
  mutable PageCache cache_;
  DataMap data_;
  PageIds ids_;
  Trees trees_;
  std::function<Status()> flush_data_;

  std::mutex control_mutex_;
  ShardedLock gate_;

  mutable std::mutex state_mutex_;
  std::map<std::uint32_t, std::shared_ptr<DeviceState>> devices_;
  std::map<std::uint32_t, std::shared_ptr<DeviceState>> held_;
  std::vector<std::shared_ptr<DeviceState>> changed_devices_;
  std::vector<std::pair<std::string, std::optional<std::string>>> changed_records_;

  std::mutex dead_mutex_;
  std::map<std::uint64_t, std::atomic<std::uint64_t>> dead_;  // number to root
  std::atomic<std::size_t> dead_count_{0};

  // What the superblock says, as far as it is not in data_ and ids_. Changed inside the gate.
  std::atomic<std::uint32_t> data_block_size_{0};
  std::atomic<std::uint32_t> flags_{0};
  std::atomic<std::uint64_t> transaction_id_{0};
  std::atomic<std::uint32_t> time_{0};
  std::atomic<std::uint64_t> next_dead_{1};
  std::atomic<std::uint64_t> held_root_{0};
  std::atomic<std::uint64_t> held_transaction_id_{0};
  std::atomic<std::uint32_t> held_time_{0};
  std::atomic<bool> needs_check_{false};

  std::atomic<std::uint64_t> metadata_blocks_;
  std::atomic<std::size_t> device_count_{0};  // held ones too
  std::atomic<bool> read_only_;
  bool restoring_ = false;                  // before it is shared
  std::atomic<bool> small_changes_{false};  // in the tables or the superblock
  std::atomic<Health> health_{Health::kGood};

  std::atomic<std::uint64_t> open_{1};       // the number of the open transaction
  std::atomic<std::uint64_t> committed_{0};  // of the last one on stable storage
  std::mutex commit_mutex_;
  std::condition_variable commit_done_;
  bool committing_ = false;   // guarded by commit_mutex_
  std::uint64_t aborts_ = 0;  // guarded by commit_mutex_

  static constexpr std::size_t kDueLeast = 192;    // pages
  std::atomic<std::size_t> due_pages_{kDueLeast};  // so many changed pages are worth a commit
  std::chrono::nanoseconds waiting_{0};            // of a commit; by the thread whose turn it is
};

// The handle of thin_device.cc.
std::unique_ptr<ThinDevice> make_thin_device(PoolMetadata& pool,
                                             std::shared_ptr<DeviceState> state);

}  // namespace mapperfs::thin
