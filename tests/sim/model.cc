#include "tests/sim/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace mapperfs::sim {

namespace {

constexpr std::size_t kWords = kSectorBytes / sizeof(std::uint64_t);

std::uint64_t word_of(const Content& content) { return content.zero ? 0 : content.id; }

std::uint64_t word_at(std::span<const std::byte> sector, std::size_t i) {
  std::uint64_t word = 0;
  std::memcpy(&word, sector.data() + i * sizeof word, sizeof word);
  return word;
}

void add(std::vector<Content>& contents, const Content& content) {
  if (std::find(contents.begin(), contents.end(), content) == contents.end()) {
    contents.push_back(content);
  }
}

}  // namespace

void fill_sector(std::span<std::byte> sector, const Content& content) {
  const std::uint64_t word = word_of(content);
  for (std::size_t i = 0; i < kWords; ++i) {
    std::memcpy(sector.data() + i * sizeof word, &word, sizeof word);
  }
}

bool holds(std::span<const std::byte> sector, const Content& content) {
  for (std::size_t i = 0; i < kWords; ++i) {
    if (word_at(sector, i) != word_of(content)) {
      return false;
    }
  }
  return true;
}

std::string describe_sector(std::span<const std::byte> sector) {
  const std::uint64_t first = word_at(sector, 0);
  for (std::size_t i = 1; i < kWords; ++i) {
    if (word_at(sector, i) != first) {
      return fmt::format("torn: #{} #{}", first, word_at(sector, i));
    }
  }
  return first == 0 ? "zeroes" : fmt::format("#{}", first);
}

std::string describe(const std::vector<Content>& contents) {
  std::string text;
  for (const Content& content : contents) {
    text += content.zero ? fmt::format(" zeroes({})", content.id) : fmt::format(" #{}", content.id);
  }
  return text;
}

void Sector::write_begins(const Content& content) {
  add(now_, content);
  add(durable_, content);
  if (readers_ > 0) {
    add(readable_, content);
  }
}

void Sector::flushed(const std::vector<Content>& then, std::uint64_t last_id) {
  std::vector<Content> left = then;
  for (const Content& content : durable_) {
    if (content.id > last_id) {
      add(left, content);
    }
  }
  durable_ = left;
}

void Sector::reset(const Content& content) {
  now_ = {content};
  durable_ = {content};
}

void Sector::read_begins() {
  if (readers_++ == 0) {
    readable_.clear();
  }
  for (const Content& content : now_) {
    add(readable_, content);
  }
}

void Sector::read_ends() { --readers_; }

bool Sector::lock() {
  if (locked_) {
    return false;
  }
  locked_ = true;
  return true;
}

}  // namespace mapperfs::sim
