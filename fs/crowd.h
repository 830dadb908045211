// How many commands may be under way at once. Each keeps a thread until it ends and, with FUSE over
// io_uring, one of the places of the core that it came from; a command that waits for I/O keeps
// them for as long as that takes. Silence would be the worst answer to one more: so beyond a limit
// what is likely to wait, too, is refused with EAGAIN and a sentence, and what may end the others'
// waits (a resume above all) still has some room of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace mapperfs {

// What there is room for.
enum class Room : std::uint8_t {
  kAll,
  kUrgent,  // commands that do not wait, and those that may end waits
  kNone,
};

// Any thread.
class Crowd {
 public:
  // Commands of the whole mount, and the room kept for urgent ones beyond.
  static constexpr std::size_t kMany = 512;
  static constexpr std::size_t kUrgentMore = 64;
  static constexpr std::size_t kMost = kMany + kUrgentMore;

  // One command comes; it counts until leave(), unless there is no room for it. `places`: how many
  // may wait that came from `core`, 0 for any number; half as many urgent ones have room beyond.
  Room enter(unsigned core, std::size_t places);
  void leave(unsigned core);

 private:
  static Room room_for(std::size_t under_way, std::size_t many, std::size_t urgent_more);

  std::mutex mutex_;
  std::size_t all_ = 0;                                // mutex_
  std::unordered_map<unsigned, std::size_t> of_core_;  // mutex_
};

}  // namespace mapperfs
