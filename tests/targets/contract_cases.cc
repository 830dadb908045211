#include "tests/targets/contract_cases.h"

#include <algorithm>

namespace mapperfs::test {

namespace {

constexpr Answer kDone = Answer::kDone;
constexpr Answer kFails = Answer::kFails;

std::vector<ContractCase> make_cases() {
  std::vector<ContractCase> cases(13);
  std::size_t i = 0;

  cases[i++] = {
      .type = "linear",
      .good = {"leg0 8", "leg0 0"},
      .bad = {"", "leg0", "leg0 0 0", "leg0 x", "leg0 -1", "leg0 +0", "leg0 8k", "nosuch 0"},
      .legs = 1,
      .flushes = 1,
      .discard = kDone,
      .secure_erase = kDone,
      .write_zeroes = kDone};
  cases[i++] = {.type = "loop",
                .good = {"leg0 8", "leg0"},
                .bad = {"", "leg0 0 0", "leg0 x", "leg0 -1", "nosuch"},
                .legs = 1,
                .flushes = 1,
                .discard = kDone,
                .secure_erase = kDone,
                .write_zeroes = kDone};
  cases[i++] = {
      .type = "striped",
      .good = {"2 8 leg0 0 leg1 16", "1 64 leg0 0", "2 4 leg0 0 leg0 512", "+2 +8 leg0 0 leg1 0"},
      .bad = {"", "2", "2 8", "0 8", "x 8 leg0 0 leg1 0", "2 0 leg0 0 leg1 0", "2 x leg0 0 leg1 0",
              "2 8 leg0 0", "2 8 leg0 0 leg1 0 leg2 0", "3 8 leg0 0 leg1 0 leg2 0",
              "2 5 leg0 0 leg1 0", "2 8 leg0 0 nosuch 0", "2 8 leg0 0 leg1 x", "2 8 leg0 +0 leg1 0",
              "++2 8 leg0 0 leg1 0"},
      .legs = 2,
      .flushes = 2,
      .discard = kDone,
      .secure_erase = kDone,
      .write_zeroes = kDone};
  cases[i++] = {
      .type = "zero", .good = {""}, .bad = {"1", "leg0 0"}, .keeps_data = false, .discard = kDone};
  cases[i++] = {.type = "error",
                .good = {"", "leg0 0", "leg0", "foo bar baz"},
                .bad = {"nosuch 0", "leg0 x"},
                .keeps_data = false,
                .discard = kFails};
  cases[i++] = {
      .type = "ram", .good = {""}, .bad = {"1", "leg0"}, .discard = kDone, .write_zeroes = kDone};
  cases[i++] = {
      .type = "unstriped",
      .good = {"2 8 1 leg0 16", "1 8 0 leg0 0", "2 8 2 leg0 0", "+2 +8 +0 leg0 0"},
      .bad = {"", "2 8 0 leg0", "2 8 0 leg0 0 0", "0 8 0 leg0 0", "2 0 0 leg0 0", "2 8 x leg0 0",
              "2 8 3 leg0 0", "2 8 0 leg0 x", "2 8 0 leg0 +0", "2 8 0 nosuch 0", "2 5 0 leg0 0"},
      .legs = 1,
      .areas_cover_io = false};
  cases[i++] = {
      .type = "switch",
      .good = {"2 16 0 leg0 0 leg1 8", "1 100 0 leg0 0", "3 7 0 leg0 0 leg1 0 leg2 0",
               "1 8 0 leg0 +0"},
      .bad = {"", "2", "2 16", "0 16 0", "2 0 0 leg0 0 leg1 0", "2 16 1 x leg0 0 leg1 0",
              "2 16 0 leg0 0", "2 16 0 leg0 0 leg1 0 leg2 0", "2 16 0 leg0 x leg1 0",
              "2 16 0 leg0 0 nosuch 0", "+1 8 0 leg0 0", "1 +8 0 leg0 0", "1 8 +0 leg0 0"},
      .legs = 2,
      .discards_whole = false,
      .discard = kDone};
  cases[i++] = {.type = "delay",
                .good = {"leg0 8 5", "leg0 0 0 leg1 8 10", "leg0 0 1 leg1 0 2 leg2 0 3"},
                .bad = {"", "leg0 0", "leg0 0 1 leg1", "leg0 0 1 leg1 0", "leg0 0 1 leg1 0 1 leg2",
                        "leg0 0 -5", "leg0 0 x", "leg0 x 5", "leg0 +0 5", "leg0 0 +5", "nosuch 0 5",
                        "leg0 0 1 leg1 0 1 leg2 0 1 1"},
                .legs = 1,
                .flushes = 1,
                .discard = kDone};
  cases[i++] = {.type = "flakey",
                .good = {"leg0 8 60 0", "leg0 0 60 1 0", "leg0 0 1 1 1 drop_writes",
                         "leg0 0 1 1 5 corrupt_bio_byte 32 r 1 0",
                         "leg0 0 0 60 3 error_reads random_write_corrupt 5"},
                .bad = {"", "leg0 0 1", "leg0 x 1 1", "leg0 0 x 1", "leg0 0 1 x", "leg0 0 0 0",
                        "leg0 0 4294967295 2", "leg0 +0 1 0", "leg0 0 +1 0", "leg0 0 1 +0",
                        "leg0 0 1 1 12", "leg0 0 1 1 1", "leg0 0 1 1 1 foo", "nosuch 0 1 1"},
                .legs = 1,
                .flushes = 1,
                .discard = kDone};
  cases[i++] = {.type = "dust",
                .good = {"leg0 8 4096", "leg0 0 512", "leg0 0 +512"},
                .bad = {"", "leg0 0", "leg0 0 512 1", "leg0 0 0", "leg0 0 256", "leg0 0 768",
                        "leg0 0 65536", "leg0 x 512", "leg0 +0 512", "leg0 0 x", "nosuch 0 512"},
                .legs = 1,
                .flushes = 1,
                .discard = kDone};
  // The good ones are loaded one after the other: only what a reload may change may differ.
  cases[i++] = {
      .type = "thin-pool",
      .good = {"DIR/meta leg0 128 0", "DIR/meta leg0 128 7 1 skip_block_zeroing",
               "DIR/meta leg0 128 0 2 error_if_no_space no_discard_passdown",
               "DIR/meta leg0 128 0 1 read_only", "DIR/meta leg0 +128 +4", "DIR/meta leg0 128 0 0"},
      .bad = {"", "DIR/meta", "DIR/meta leg0 128", "leg0 leg0 128 0", "DIR/meta leg0 127 0",
              "DIR/meta leg0 200 0", "DIR/meta leg0 0 0", "DIR/meta leg0 x 0",
              "DIR/meta leg0 2097280 0", "DIR/meta leg0 128 x", "DIR/meta leg0 128 -1",
              "DIR/meta leg0 128 0 x", "DIR/meta leg0 128 0 1", "DIR/meta leg0 128 0 1 foo",
              "DIR/meta leg0 128 0 5 a b c d e", "DIR/meta leg0 ++128 0", "DIR/meta leg0 128 0 +0",
              "DIR/a/b leg0 128 0", "DIR/meta nosuch 128 0"},
      .legs = 1,
      .flushes = 1,
      .discard = kDone};
  // The area of a thin device is the whole pool, which is as long as the pool's table says: what
  // its bios go to is the pool's data device, and no length of its own can be too long for that.
  cases[i++] = {.type = "thin",
                .good = {"pool 0", "pool 1 leg1", "pool +1"},
                .bad = {"", "pool", "pool 0 leg1 x", "pool x", "pool -1", "pool +", "pool 16777216",
                        "pool 0 pool", "pool 0 nosuch", "leg1 0", "nosuch 0"},
                .legs = 1,
                .areas_cover_io = false,
                .checks_areas = false,
                .needs_pool = true,
                .discard_unit = kPoolBlockSectors,
                .flushes = 1,
                .discard = kDone};
  return cases;
}

}  // namespace

const std::vector<ContractCase>& contract_cases() {
  static const std::vector<ContractCase> cases = make_cases();
  return cases;
}

const ContractCase* find_contract_case(std::string_view type) {
  const std::vector<ContractCase>& cases = contract_cases();
  const auto it = std::find_if(cases.begin(), cases.end(),
                               [&](const ContractCase& each) { return each.type == type; });
  return it != cases.end() ? &*it : nullptr;
}

}  // namespace mapperfs::test
