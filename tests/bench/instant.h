// A device that ends every bio at once and touches nothing, so that what a bench measures is what
// lies above it, and an opener that knows it as "instant".
#pragma once

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "engine/backing.h"
#include "engine/engine.h"

namespace mapperfs {

class InstantDevice final : public BlockDevice {
 public:
  void submit(Bio& bio) noexcept override { bio.end_io(BlkStatus::kOk); }
  [[nodiscard]] sector_t size_sectors() const override { return sector_t{1} << 40; }
  [[nodiscard]] QueueLimits limits() const override { return {}; }
  [[nodiscard]] std::string table_name() const override { return "instant"; }
};

// Any other word is opened by `others`, or unknown where there is none.
class InstantOpener final : public BackingOpener {
 public:
  explicit InstantOpener(std::unique_ptr<BackingOpener> others = nullptr)
      : others_(std::move(others)) {}
  Result<DevRef> open(const std::string& word, DeviceMode mode) override {
    if (word == "instant") {
      return DevRef(std::make_shared<Holder>(device_));
    }
    return others_ != nullptr ? others_->open(word, mode) : Result<DevRef>(Status(ENOENT, word));
  }
  [[nodiscard]] std::string own_mount_name(const std::string& path) const override {
    static_cast<void>(path);
    return {};
  }

 private:
  class Holder final : public DevRef::Holder {
   public:
    explicit Holder(BlockDevice& device) : device_(device) {}
    [[nodiscard]] BlockDevice& device() const override { return device_; }

   private:
    BlockDevice& device_;
  };

  const std::unique_ptr<BackingOpener> others_;
  InstantDevice device_;
};

}  // namespace mapperfs
