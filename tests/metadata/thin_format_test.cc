// The packing of mapping pages: what is put is taken, in the smaller of the two ways.
#include "metadata/thin_format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

namespace mapperfs::thin {
namespace {

constexpr std::size_t kHead = 2;
constexpr std::size_t kBitmap = kPageEntries / 8;
constexpr std::size_t kRun = 10;

// The bytes of the page, which must come back as it was.
std::size_t packed_size(unsigned level, const PageWords& words) {
  const std::string packed = encode_page(PageKind::kTree, level, words);
  DecodedPage page;
  const Status s = decode_page(PageKind::kTree, packed, page);
  EXPECT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(page.level, level);
  EXPECT_EQ(page.words, words);
  return packed.size();
}

std::uint64_t leaf_word(std::uint64_t block) { return Leaf::pack(block, 3); }

TEST(ThinFormat, PacksConsecutiveBlocksAsOneRun) {
  PageWords words{};
  EXPECT_EQ(packed_size(0, words), kHead) << "nothing is mapped";
  for (unsigned i = 0; i < kPageEntries; ++i) {
    words[i] = leaf_word(1000 + i);
  }
  EXPECT_EQ(packed_size(0, words), kHead + kRun);
  words[100] = 0;
  EXPECT_EQ(packed_size(0, words), kHead + 2 * kRun) << "with a gap";
  words[0] = Leaf::pack(1000, 4);
  EXPECT_EQ(packed_size(0, words), kHead + 3 * kRun) << "with a block of another time";
}

TEST(ThinFormat, PacksPagesAboveLeavesByTheirIds) {
  PageWords words{};
  for (unsigned i = 10; i < 30; ++i) {
    words[i] = 500 + i;
  }
  EXPECT_EQ(packed_size(1, words), kHead + kRun);
  EXPECT_EQ(packed_size(0, words), kHead + kBitmap + 20 * 8U) << "no run of a leaf";
}

TEST(ThinFormat, PacksScatteredBlocksOneByOne) {
  PageWords words{};
  for (unsigned i = 0; i < kPageEntries; ++i) {
    words[i] = leaf_word(7919 * (i + 1));
  }
  EXPECT_EQ(packed_size(0, words), kHead + kBitmap + 8U * kPageEntries);
}

TEST(ThinFormat, TakesTheSmallerPacking) {
  for (unsigned scattered = 0; scattered <= kPageEntries; ++scattered) {
    PageWords words{};
    for (unsigned i = 0; i < scattered; ++i) {
      words[i] = leaf_word(7919 * (i + 1));
    }
    const std::size_t runs = kRun * scattered;
    const std::size_t plain = kBitmap + std::size_t{8} * scattered;
    ASSERT_EQ(packed_size(0, words), kHead + std::min(runs, plain)) << scattered;
  }
}

TEST(ThinFormat, GivesBackWhateverItIsGiven) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 500; ++round) {
    PageWords words{};
    std::uint64_t block = random() % 1000;
    for (std::uint64_t& word : words) {
      block = random() % 4 == 0 ? random() % (std::uint64_t{1} << 36) : block + 1;
      word = random() % 5 == 0 ? 0 : Leaf::pack(block, static_cast<std::uint32_t>(random() % 2));
    }
    packed_size(0, words);
    if (HasFailure()) {
      return;
    }
  }
}

}  // namespace
}  // namespace mapperfs::thin
