// A pool of equal objects for one thread, to which other threads may give back.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

namespace mapperfs {

// T must be trivially destructible to be reused without being made anew; objects are
// value-initialised once. Threads: take() and give_back() by the owning thread; give_back_remote()
// by any other. Memory: grows by `chunk` objects when empty and keeps what it grew to: the most
// that were ever in flight at once.
template <typename T>
class Pool {
 public:
  explicit Pool(std::size_t chunk) : chunk_(chunk) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  T& take() noexcept {
    if (free_ == nullptr) [[unlikely]] {
      refill();
    }
    Node* node = free_;
    free_ = node->next;
    return node->object;
  }
  void give_back(T& object) noexcept {
    Node* node = node_of(object);
    node->next = free_;
    free_ = node;
  }
  void give_back_remote(T& object) noexcept {
    Node* node = node_of(object);
    Node* head = remote_.load(std::memory_order_relaxed);
    do {
      node->next = head;
    } while (!remote_.compare_exchange_weak(head, node, std::memory_order_release,
                                            std::memory_order_relaxed));
  }
  // Objects made so far.
  [[nodiscard]] std::size_t capacity() const { return chunks_.size() * chunk_; }

 private:
  struct Node {
    T object{};  // first: node_of() relies on it
    Node* next = nullptr;
  };
  static Node* node_of(T& object) noexcept { return reinterpret_cast<Node*>(&object); }

  void refill() noexcept {
    free_ = remote_.exchange(nullptr, std::memory_order_acquire);
    if (free_ != nullptr) {
      return;
    }
    chunks_.push_back(std::make_unique<Node[]>(chunk_));
    for (std::size_t i = 0; i < chunk_; ++i) {
      give_back(chunks_.back()[i].object);
    }
  }

  const std::size_t chunk_;
  Node* free_ = nullptr;
  std::vector<std::unique_ptr<Node[]>> chunks_;
  alignas(64) std::atomic<Node*> remote_{nullptr};
};

}  // namespace mapperfs
