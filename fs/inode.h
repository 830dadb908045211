// Inode numbers: a device's serial and which of its files. Serials are never used twice, so no
// inode number ever means another file than it did before.
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
  std::uint64_t serial = 0;  // 0 for the mount's own files
  FileKind kind = FileKind::kNone;

  static constexpr unsigned kKindBits = 8;
  [[nodiscard]] constexpr std::uint64_t number() const {
    return serial << kKindBits | static_cast<std::uint64_t>(kind);
  }
  static constexpr Inode of(std::uint64_t number) {
    return {number >> kKindBits, static_cast<FileKind>(number & ((1U << kKindBits) - 1))};
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

}  // namespace mapperfs
