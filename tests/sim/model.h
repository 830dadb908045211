// What a sector may hold: the plain model that the simulation is compared with.
//
// Every sector that is written gets a number of its own, which fills it. The model keeps, for each
// sector of a volume, which of these may be read now and which may be found after a power cut.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/types.h"

namespace mapperfs::sim {

// The contents that one write gave a sector. Ids grow with time.
struct Content {
  std::uint64_t id = 0;
  bool zero = true;  // discarded or zeroed: reads as zeroes; else every word is `id`
  bool operator==(const Content&) const = default;
};

// Fills a sector, or tells whether it holds exactly that.
void fill_sector(std::span<std::byte> sector, const Content& content);
bool holds(std::span<const std::byte> sector, const Content& content);
// For messages: "zeroes", "#17", "torn: #17 #18".
std::string describe_sector(std::span<const std::byte> sector);
std::string describe(const std::vector<Content>& contents);

// One sector of a volume.
class Sector {
 public:
  // A write is on its way: it may be seen from now on.
  void write_begins(const Content& content);
  // It succeeded, and nothing else can be read any more.
  void write_succeeded(const Content& content) { now_ = {content}; }
  // It succeeded and is on stable storage.
  void became_durable(const Content& content) { durable_ = {content}; }
  // A flush that began when the sector was `then` and when `last_id` was the newest id has
  // succeeded: what was older is gone.
  void flushed(const std::vector<Content>& then, std::uint64_t last_id);
  // The sector was found to hold this after a power cut, or was made anew.
  void reset(const Content& content);

  // Readers see what was readable at any time while they read.
  void read_begins();
  void read_ends();
  [[nodiscard]] const std::vector<Content>& now() const { return now_; }
  [[nodiscard]] const std::vector<Content>& durable() const { return durable_; }
  [[nodiscard]] const std::vector<Content>& readable() const {
    return readers_ > 0 ? readable_ : now_;
  }
  // One writer at a time: whose order of two writes at once would be right?
  bool lock();
  void unlock() { locked_ = false; }

 private:
  std::vector<Content> now_ = {{}};
  std::vector<Content> durable_ = {{}};
  std::vector<Content> readable_;  // while readers_ > 0
  int readers_ = 0;
  bool locked_ = false;
};

}  // namespace mapperfs::sim
