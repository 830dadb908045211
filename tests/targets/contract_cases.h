// What the contract test has to know about each target type to exercise it. A new target adds its
// case to contract_cases.cc; the contract test fails for a registered type without one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/bio.h"
#include "engine/types.h"

namespace mapperfs::test {

// How a whole device of the type answers an operation.
enum class Answer { kDone, kFails, kUnsupported };

// Arguments may name the devices leg0, leg1, leg2 of kLegSectors each; "nosuch" does not exist.
// DIR is an empty directory of the test's own. Where the case asks for it there is a thin pool
// "pool" over leg0, in blocks of kPoolBlockSectors, with the devices 0 and 1.
inline constexpr sector_t kLegSectors = 16384;
inline constexpr sector_t kPoolBlockSectors = 128;
inline constexpr sector_t kCaseSectors = 64;

struct ContractCase {
  std::string_view type;
  // Arguments that a table of kCaseSectors takes. The first is the one that I/O is tested with.
  std::vector<std::string_view> good;
  // Arguments that it refuses: too few, too many, wrong numbers. "nosuch" is refused too.
  std::vector<std::string_view> bad;
  unsigned legs = 0;           // devices that the first good arguments use
  bool keeps_data = true;      // what was written reads back
  bool areas_cover_io = true;  // iterate_devices() covers all I/O
  bool checks_areas = true;    // a table that passes the end of a leg is refused
  bool discards_whole = true;  // every part of a discarded range is discarded on its own device
  bool needs_pool = false;     // "pool" has to be there
  sector_t discard_unit = 1;   // sectors: what a discard works on whole ones of
  unsigned flushes = 0;        // that reach the legs for one flush of the device
  Answer discard = Answer::kUnsupported;
  Answer secure_erase = Answer::kUnsupported;
  Answer write_zeroes = Answer::kUnsupported;
};

// Null: none for that type.
const ContractCase* find_contract_case(std::string_view type);
const std::vector<ContractCase>& contract_cases();

}  // namespace mapperfs::test
