// Bios of files and disks that the kernel would not take without waiting (EAGAIN of RWF_NOWAIT),
// kept by whoever carries them (AioContext, RingAio) until a transfer of the same device is over
// and has made room.
//
// Why a transfer is refused is not told: the disk's queue may be full, or the file system has to
// allocate blocks, or the disk would have to cut the transfer, which it will not do for as long as
// it may not wait. Hence a bio is tried kMaxRefusals times, and is kept only while something of its
// device is under way: else it is for a thread that may wait.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include "engine/bio.h"

namespace mapperfs {

class AioDevice;

// No lock of its own. Memory grows to what was ever kept at once.
class KeptBios {
 public:
  static constexpr unsigned kMaxRefusals = 3;
  // Below this many transfers of a device under way, each that ends brings on two: the queue that
  // was full is not so any more.
  static constexpr std::size_t kFewUnderWay = 16;

  struct Kept {
    Bio* bio;
    const AioDevice* device;
    unsigned refusals;  // how often the kernel said no
  };

  [[nodiscard]] bool empty() const { return kept_.empty(); }
  [[nodiscard]] std::size_t size() const { return kept_.size(); }
  void keep(const Kept& bio) { kept_.push_back(bio); }
  // The oldest of the device.
  std::optional<Kept> take(const AioDevice& device) {
    const auto at = std::find_if(kept_.begin(), kept_.end(),
                                 [&](const Kept& kept) { return kept.device == &device; });
    if (at == kept_.end()) {
      return std::nullopt;
    }
    const Kept taken = *at;
    kept_.erase(at);
    return taken;
  }
  // All of the device, in order.
  BioList take_all(const AioDevice& device) {
    BioList bios;
    while (const auto kept = take(device)) {
      bios.push_back(*kept->bio);
    }
    return bios;
  }

 private:
  std::vector<Kept> kept_;
};

}  // namespace mapperfs
