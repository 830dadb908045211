#include "tests/fake/fake_opener.h"

#include <cerrno>

namespace mapperfs::fake {

class FakeOpener::Holder final : public DevRef::Holder {
 public:
  Holder(BlockDevice& device, std::shared_ptr<std::atomic<int>> open_count)
      : device_(device), open_count_(std::move(open_count)) {
    open_count_->fetch_add(1);
  }
  ~Holder() override { open_count_->fetch_sub(1); }
  [[nodiscard]] BlockDevice& device() const override { return device_; }

 private:
  BlockDevice& device_;
  const std::shared_ptr<std::atomic<int>> open_count_;
};

void FakeOpener::add(const std::string& word, BlockDevice& device) {
  const std::lock_guard<std::mutex> lock(mutex_);
  devices_[word] = &device;
}

MemDev& FakeOpener::add_mem(const std::string& word, sector_t sectors) {
  return add_mem(word, sectors, MemDev::default_limits());
}

MemDev& FakeOpener::add_mem(const std::string& word, sector_t sectors, const QueueLimits& limits) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::unique_ptr<MemDev>& device = own_[word];
  device = std::make_unique<MemDev>(word, sectors, limits);
  devices_[word] = device.get();
  return *device;
}

void FakeOpener::add_any(sector_t sectors) {
  const std::lock_guard<std::mutex> lock(mutex_);
  any_sectors_ = sectors;
}

void FakeOpener::add_error(const std::string& word, int error) {
  const std::lock_guard<std::mutex> lock(mutex_);
  errors_[word] = error;
}

Result<DevRef> FakeOpener::open(const std::string& word, DeviceMode mode) {
  static_cast<void>(mode);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const auto error = errors_.find(word); error != errors_.end()) {
    return Status(error->second, word + " does not open");
  }
  auto device = devices_.find(word);
  if (device == devices_.end() && any_sectors_ != 0) {
    own_[word] = std::make_unique<MemDev>(word, any_sectors_);
    device = devices_.emplace(word, own_[word].get()).first;
  }
  if (device == devices_.end()) {
    return Status(ENOENT, word + " does not exist");
  }
  return DevRef(std::make_shared<Holder>(*device->second, open_count_));
}

std::string FakeOpener::own_mount_name(const std::string& path) const {
  static constexpr std::string_view kMount = "/mnt/own/";
  return path.starts_with(kMount) ? path.substr(kMount.size()) : std::string();
}

}  // namespace mapperfs::fake
