// CRC-32C (Castagnoli), as RocksDB's logs use it.
#pragma once

#include <cstdint>
#include <string_view>

namespace mapperfs {

// Any thread. About a byte a nanosecond: for what is read once, when a store is opened.
std::uint32_t crc32c(std::string_view data) noexcept;

}  // namespace mapperfs
