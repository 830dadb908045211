// A count for each of many blocks, most of them small: a byte each, and a table for the rest.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace mapperfs::thin {

class BlockCounts {
 public:
  explicit BlockCounts(std::uint64_t blocks) : small_(blocks, 0) {}
  [[nodiscard]] std::uint64_t size() const { return small_.size(); }
  void add(std::uint64_t block) {
    if (small_[block] < kLarge) {
      ++small_[block];
    } else {
      ++large_[block];
    }
  }
  [[nodiscard]] std::uint32_t at(std::uint64_t block) const {
    if (small_[block] < kLarge) {
      return small_[block];
    }
    const auto it = large_.find(block);
    return kLarge + (it == large_.end() ? 0 : it->second);
  }

 private:
  static constexpr std::uint8_t kLarge = 255;
  std::vector<std::uint8_t> small_;
  std::unordered_map<std::uint64_t, std::uint32_t> large_;  // what is above kLarge
};

}  // namespace mapperfs::thin
