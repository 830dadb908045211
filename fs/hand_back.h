// A list that any thread gives to and one thread takes from, without a lock.
#pragma once

#include <atomic>

namespace mapperfs {

// T has a member `T* next_handed` that belongs to the list while the object is in it.
template <typename T>
class HandBack {
 public:
  // Any thread. True where the list was empty: its taker may sleep and has to be told. The object
  // is the taker's from here on.
  bool give(T& object) noexcept {
    T* head = head_.load(std::memory_order_relaxed);
    do {
      object.next_handed = head;
    } while (!head_.compare_exchange_weak(head, &object, std::memory_order_release,
                                          std::memory_order_relaxed));
    return head == nullptr;
  }
  // The taker: all of it, in the order in which it was given, linked by next_handed; or null.
  T* take_all() noexcept {
    if (head_.load(std::memory_order_relaxed) == nullptr) {
      return nullptr;
    }
    T* head = head_.exchange(nullptr, std::memory_order_acquire);
    T* in_order = nullptr;
    while (head != nullptr) {
      T* next = head->next_handed;
      head->next_handed = in_order;
      in_order = head;
      head = next;
    }
    return in_order;
  }

 private:
  alignas(64) std::atomic<T*> head_{nullptr};
};

}  // namespace mapperfs
