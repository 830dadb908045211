// Inode numbers: a device's serial and which of its files. Serials are never used twice, so no
// inode number ever means another file than it did before.
//
// Node numbers are what the kernel and we call a file by. For most they are the inode numbers. A
// text that takes commands has a new one for each look-up: the kernel holds a lock of its node over
// a write, a truncation and a close, and a command that waits must not keep out the one that ends
// its wait. What programs see of such a file is the inode number, always the same.
//
//   bits 63..28 serial   27..8 visit   7..0 kind      a device's files
//   bits                 63..8 visit   7..0 kind      the mount's own files
//
// Visits wrap around: two look-ups that far apart share a node, and would wait for each other.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace mapperfs {

enum class FileKind : std::uint8_t {
  kNone,
  // The mount's own; their inode numbers are these values.
  kRoot,  // as FUSE wants it: 1
  kControl,
  kSys,
  kVersion,
  kTargets,
  kLog,
  // Each device's.
  kDevice,  // the device itself
  kDir,     // sys/NAME
  kTable,
  kInactive,
  kStatus,
  kInfo,
  kDeps,
  kUuid,
  kMessage,
  kEvent,
  kStats,
  kServed,
};

struct Inode {
  std::uint64_t serial = 0;  // 0 for the mount's own files; below 2^kSerialBits
  FileKind kind = FileKind::kNone;

  static constexpr unsigned kKindBits = 8;
  static constexpr unsigned kVisitBits = 20;
  static constexpr unsigned kSerialBits = 64 - kVisitBits - kKindBits;
  static constexpr unsigned kSerialAt = kVisitBits + kKindBits;
  // The inode number, and the node number of files whose nodes stay.
  [[nodiscard]] constexpr std::uint64_t number() const {
    return serial << kSerialAt | static_cast<std::uint64_t>(kind);
  }
  // A node number that stands for this visit to the file.
  [[nodiscard]] constexpr std::uint64_t node(std::uint64_t visit) const {
    const std::uint64_t bits = serial == 0 ? visit : visit & ((1ULL << kVisitBits) - 1);
    return number() | bits << kKindBits;
  }
  // The file that a node number or an inode number stands for.
  static constexpr Inode of(std::uint64_t node) {
    const auto kind = static_cast<FileKind>(node & ((1U << kKindBits) - 1));
    return {kind < FileKind::kDevice ? 0 : node >> kSerialAt, kind};
  }
};
static_assert(Inode{0, FileKind::kRoot}.number() == 1);

struct NamedFile {
  std::string_view name;
  FileKind kind;
  bool writable;
};

inline constexpr std::array<NamedFile, 3> kSysFiles = {{{"version", FileKind::kVersion, false},
                                                        {"targets", FileKind::kTargets, false},
                                                        {"log", FileKind::kLog, false}}};
inline constexpr std::array<NamedFile, 10> kDeviceFiles = {{{"table", FileKind::kTable, true},
                                                            {"inactive", FileKind::kInactive, true},
                                                            {"status", FileKind::kStatus, false},
                                                            {"info", FileKind::kInfo, false},
                                                            {"deps", FileKind::kDeps, false},
                                                            {"uuid", FileKind::kUuid, true},
                                                            {"message", FileKind::kMessage, true},
                                                            {"event", FileKind::kEvent, false},
                                                            {"stats", FileKind::kStats, false},
                                                            {"served", FileKind::kServed, false}}};

constexpr bool is_directory(FileKind kind) {
  return kind == FileKind::kRoot || kind == FileKind::kSys || kind == FileKind::kDir;
}
// True for files whose content is a text that we make.
constexpr bool is_text(FileKind kind) {
  return !is_directory(kind) && kind != FileKind::kDevice && kind != FileKind::kNone;
}
constexpr bool is_writable_text(FileKind kind) {
  if (kind == FileKind::kControl) {
    return true;
  }
  for (const NamedFile& file : kDeviceFiles) {
    if (file.kind == kind) {
      return file.writable;
    }
  }
  return false;
}

// Whether each look-up gives the file a node of its own.
constexpr bool has_node_per_visit(FileKind kind) { return is_writable_text(kind); }

}  // namespace mapperfs
