#include "fs/crowd.h"

#include <algorithm>

#include "engine/assert.h"

namespace mapperfs {

Room Crowd::room_for(std::size_t under_way, std::size_t many, std::size_t urgent_more) {
  if (under_way < many) {
    return Room::kAll;
  }
  return under_way < many + urgent_more ? Room::kUrgent : Room::kNone;
}

Room Crowd::enter(unsigned core, std::size_t places) {
  const std::lock_guard lock(mutex_);
  std::size_t& of_core = of_core_[core];
  Room room = room_for(all_, kMany, kUrgentMore);
  if (places > 0) {
    room = std::max(room, room_for(of_core, places, std::max<std::size_t>(places / 2, 1)));
  }
  if (room != Room::kNone) {
    ++all_;
    ++of_core;
  }
  return room;
}

void Crowd::leave(unsigned core) {
  const std::lock_guard lock(mutex_);
  std::size_t& of_core = of_core_[core];
  MFS_ASSERT(all_ > 0 && of_core > 0);
  --all_;
  --of_core;
}

}  // namespace mapperfs
