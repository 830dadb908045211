#include "metadata/log_walk.h"

#include "engine/assert.h"
#include "metadata/crc32c.h"
#include "metadata/little_endian.h"

namespace mapperfs {
namespace {

constexpr std::size_t kHeaderBytes = 7;
constexpr unsigned kFull = 1;
constexpr unsigned kFirst = 2;
constexpr unsigned kMiddle = 3;
constexpr unsigned kLast = 4;

constexpr std::size_t kNumberBytes = 8;
constexpr std::size_t kCountBytes = 4;
constexpr std::size_t kBatchHeaderBytes = kNumberBytes + kCountBytes;
// No log has more changes: a number further on is chance.
constexpr std::uint64_t kMostChanges = std::uint64_t{1} << 32;

struct Piece {
  enum class State { kSound, kBad, kCutShort } state = State::kBad;
  unsigned type = 0;
  std::string_view payload{};
};

// The piece at `at` of a block that may lack its end.
Piece piece_at(std::string_view block, std::size_t at) {
  const std::string_view rest = block.substr(at);
  if (rest.size() < kHeaderBytes) {
    return {Piece::State::kCutShort};
  }
  const std::size_t length = little_endian(rest.substr(4, 2));
  if (at + kHeaderBytes + length > kLogBlockBytes) {
    return {Piece::State::kBad};
  }
  if (rest.size() < kHeaderBytes + length) {
    return {Piece::State::kCutShort};
  }
  const unsigned type = static_cast<unsigned char>(rest[6]);
  if (type < kFull || type > kLast) {
    return {Piece::State::kBad};
  }
  const std::uint32_t crc = crc32c(rest.substr(6, 1 + length));
  if ((crc >> 15 | crc << 17) + 0xa282ead8U != little_endian(rest.substr(0, 4))) {
    return {Piece::State::kBad};
  }
  return {Piece::State::kSound, type, rest.substr(kHeaderBytes, length)};
}

std::optional<std::uint64_t> number_of(const Piece& piece) {
  if ((piece.type != kFull && piece.type != kFirst) || piece.payload.size() < kBatchHeaderBytes) {
    return std::nullopt;
  }
  return little_endian(piece.payload.substr(0, kNumberBytes));
}

}  // namespace

bool LogWalk::block(std::string_view bytes) {
  MFS_ASSERT(bytes.size() <= kLogBlockBytes);
  std::size_t at = 0;
  if (!searching_ && !walk(bytes, at)) {
    if (!batches_) {
      return false;
    }
    searching_ = true;
    ++at;
  }
  if (searching_ && !search(bytes, at)) {
    return false;
  }
  before_ += kLogBlockBytes;
  return true;
}

// False: it ends at `at`, in damage or cut short.
bool LogWalk::walk(std::string_view bytes, std::size_t& at) {
  while (kLogBlockBytes - at >= kHeaderBytes) {
    const Piece piece = piece_at(bytes, at);
    const bool goes_on = piece.type == kMiddle || piece.type == kLast;
    if (piece.state != Piece::State::kSound || goes_on != in_record_) {
      damaged_ = piece.state != Piece::State::kCutShort;
      return false;
    }
    if (const std::optional<std::uint64_t> number = number_of(piece)) {
      number_ = number;
      changes_ = little_endian(piece.payload.substr(kNumberBytes, kCountBytes)) != 0;
    }
    at += kHeaderBytes + piece.payload.size();
    in_record_ = piece.type == kFirst || piece.type == kMiddle;
    if (!in_record_) {
      whole_ = before_ + at;
      has_changes_ = has_changes_ || changes_;
    }
  }
  return true;
}

// Where even the first record is damaged there is no number to compare with. A log is a new file
// each time, so what is found in it is its own.
bool LogWalk::is_later(std::uint64_t number) const {
  return number_.has_value() ? number > *number_ && number - *number_ < kMostChanges : number != 0;
}

// At every byte, since a length may be what is damaged. False: found.
bool LogWalk::search(std::string_view bytes, std::size_t at) {
  for (; at + kHeaderBytes + kBatchHeaderBytes <= bytes.size(); ++at) {
    const unsigned type = static_cast<unsigned char>(bytes[at + 6]);
    if (type != kFull && type != kFirst) {
      continue;
    }
    const Piece piece = piece_at(bytes, at);
    if (piece.state != Piece::State::kSound) {
      continue;
    }
    const std::optional<std::uint64_t> number = number_of(piece);
    if (number.has_value() && is_later(*number)) {
      later_batch_ = true;
      return false;
    }
  }
  return true;
}

}  // namespace mapperfs
