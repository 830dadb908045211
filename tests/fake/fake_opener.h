// An opener over a map of words to fake devices.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "engine/engine.h"
#include "tests/fake/mem_dev.h"

namespace mapperfs::fake {

// Any thread. Words of "/mnt/own/NAME" stand for mapped devices of the own mount.
class FakeOpener final : public BackingOpener {
 public:
  // A word that opens as `device`, which outlives every table.
  void add(const std::string& word, BlockDevice& device);
  // A MemDev of the opener's own, under its word.
  MemDev& add_mem(const std::string& word, sector_t sectors);
  MemDev& add_mem(const std::string& word, sector_t sectors, const QueueLimits& limits);
  // Every word that nobody added opens as a MemDev of this size, made then.
  void add_any(sector_t sectors);
  // Opening the word fails so, from here on.
  void add_error(const std::string& word, int error);

  // ENOENT for words that nobody added, unless add_any() was called.
  Result<DevRef> open(const std::string& word, DeviceMode mode) override;
  [[nodiscard]] std::string own_mount_name(const std::string& path) const override;

  // How many references to devices are out: 0 after every table has gone.
  [[nodiscard]] int open_count() const { return *open_count_; }

 private:
  class Holder;

  mutable std::mutex mutex_;
  std::map<std::string, BlockDevice*> devices_;         // mutex_
  sector_t any_sectors_ = 0;                            // mutex_; 0: unknown words fail
  std::map<std::string, int> errors_;                   // mutex_
  std::map<std::string, std::unique_ptr<MemDev>> own_;  // mutex_
  const std::shared_ptr<std::atomic<int>> open_count_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace mapperfs::fake
