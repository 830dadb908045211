// A count for each of many blocks, most of them small: a byte each, and a table for the rest. Only
// stretches of which a block was counted take memory, so that a vast pool that is hardly used costs
// what it uses.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace mapperfs::thin {

// A byte for each of `size` numbers, 0 until it is set.
class SparseBytes {
 public:
  explicit SparseBytes(std::uint64_t size)
      : size_(size), stretches_((size + kStretch - 1) / kStretch) {}
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] std::uint8_t at(std::uint64_t number) const {
    const auto& stretch = stretches_[number / kStretch];
    return stretch == nullptr ? std::uint8_t{0} : (*stretch)[number % kStretch];
  }
  std::uint8_t& operator[](std::uint64_t number) {
    auto& stretch = stretches_[number / kStretch];
    if (stretch == nullptr) {
      stretch = std::make_unique<Stretch>();  // all 0
    }
    return (*stretch)[number % kStretch];
  }
  // The first number at or after `number` that may not be 0; size() if there is none.
  [[nodiscard]] std::uint64_t next(std::uint64_t number) const {
    while (number < size_ && stretches_[number / kStretch] == nullptr) {
      number = (number / kStretch + 1) * kStretch;
    }
    return number < size_ ? number : size_;
  }

 private:
  static constexpr std::size_t kStretch = std::size_t{32} << 10;
  using Stretch = std::array<std::uint8_t, kStretch>;
  std::uint64_t size_;
  std::vector<std::unique_ptr<Stretch>> stretches_;
};

class BlockCounts {
 public:
  explicit BlockCounts(std::uint64_t blocks) : small_(blocks) {}
  [[nodiscard]] std::uint64_t size() const { return small_.size(); }
  void add(std::uint64_t block) {
    if (std::uint8_t& small = small_[block]; small < kLarge) {
      ++small;
    } else {
      ++large_[block];
    }
  }
  [[nodiscard]] std::uint32_t at(std::uint64_t block) const {
    const std::uint8_t small = small_.at(block);
    if (small < kLarge) {
      return small;
    }
    const auto it = large_.find(block);
    return kLarge + (it == large_.end() ? 0 : it->second);
  }
  // The first block at or after `block` that may have been counted; size() if there is none.
  [[nodiscard]] std::uint64_t next(std::uint64_t block) const { return small_.next(block); }

 private:
  static constexpr std::uint8_t kLarge = 255;
  SparseBytes small_;
  std::unordered_map<std::uint64_t, std::uint32_t> large_;  // what is above kLarge
};

}  // namespace mapperfs::thin
