// Records byte by byte, as docs/formats/thin.md has them, and the packing of mapping pages: what is
// put is taken, in the smaller of the two ways.
#include "metadata/thin_format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <string>
#include <string_view>

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

// In hexadecimal.
std::string hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    text += kDigits[static_cast<unsigned char>(c) >> 4];
    text += kDigits[static_cast<unsigned char>(c) & 15U];
  }
  return text;
}
std::string repeat(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) {
    all += text;
  }
  return all;
}

Superblock some_superblock() {
  Superblock s;
  s.data_block_size = 128;
  s.nr_data_blocks = 0x0b'0a09'0807;
  s.transaction_id = 0x1817'1615'1413'1211;
  s.time = 0x23'2221;
  s.flags = Superblock::kIncomplete;
  s.next_page = 0x38'3736'3534'3332;
  s.tree_pages = 0x48'4746'4544'4342;
  s.next_dead = 0x5857'5655'5453'5251;
  s.held_root = 0x6867'6665'6463'6261;
  s.held_transaction_id = 0x7877'7675'7473'7271;
  s.held_time = 0x83'8281;
  return s;
}

// What is stored in one build is read by the next, so the bytes of all records stand here.

TEST(ThinFormat, ASuperblockHasItsBytes) {
  const std::string bytes = encode(some_superblock());
  EXPECT_EQ(hex(bytes),
            "01000000"
            "80000000"
            "0708090a0b000000"
            "1112131415161718"
            "21222300"
            "01000000"
            "3233343536373800"
            "4243444546474800"
            "5152535455565758"
            "6162636465666768"
            "7172737475767778"
            "81828300");
  const auto back = decode_superblock(bytes);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(encode(*back), bytes);
  EXPECT_EQ(decode_superblock(bytes + '\0').status().error(), EILSEQ);
  EXPECT_EQ(decode_superblock(bytes.substr(0, 75)).status().error(), EILSEQ);
}

TEST(ThinFormat, OfAnotherVersionNothingIsRead) {
  for (const std::uint32_t version : {0U, 2U, 0x0100'0001U}) {
    Superblock other = some_superblock();
    other.version = version;
    const Status refused = decode_superblock(encode(other) + "perhaps longer").status();
    EXPECT_EQ(refused.error(), EINVAL);
    EXPECT_NE(refused.message().find("only 1 is supported"), std::string::npos)
        << refused.message();
  }
}

TEST(ThinFormat, KeysHaveTheirBytes) {
  EXPECT_EQ(kSuperblockKey, "S");
  EXPECT_EQ(kNeedsCheckKey, "N");
  EXPECT_EQ(hex(number_key(kDevicePrefix, 0x102)), "440000000000000102");
  EXPECT_EQ(hex(number_key(kHeldPrefix, 1)), "480000000000000001");
  EXPECT_EQ(hex(number_key(kDeadPrefix, 1)), "580000000000000001");
  EXPECT_EQ(hex(number_key(kSummaryPrefix, 1)), "460000000000000001");
  EXPECT_EQ(hex(page_key(PageKey::of(PageKind::kTree, 0x1'0002))), "500000000000010002");
  EXPECT_EQ(hex(page_key(PageKey::of(PageKind::kPageRefs, 1))), "520000000000000001");
  EXPECT_EQ(hex(page_key(PageKey::of(PageKind::kDataRefs, 1))), "430000000000000001");
}

TEST(ThinFormat, DevicesAndRootsHaveTheirBytes) {
  DeviceRecord device;
  device.root = Root::of(0x1'0203, 3);
  device.mapped_blocks = 0x1817'1615'1413'1211;
  device.transaction_id = 0x2827'2625'2423'2221;
  device.creation_time = 0x33'3231;
  device.snapshotted_time = 0x43'4241;
  EXPECT_EQ(hex(encode(device)),
            "0302010000000003"
            "1112131415161718"
            "2122232425262728"
            "31323300"
            "41424300");
  EXPECT_EQ(encode(*decode_device(encode(device))), encode(device));
  EXPECT_EQ(hex(encode_dead(device.root)), "0302010000000003");
}

TEST(ThinFormat, PagesHaveTheirBytes) {
  PageWords words{};
  words[3] = Leaf::pack(0x5, 0x2'0100);
  words[4] = Leaf::pack(0x6, 0x2'0100);
  words[255] = Leaf::pack(0x1'0000'0000, 0);
  EXPECT_EQ(hex(encode_page(PageKind::kTree, 0, words)),
            "0100"
            "03010101020500000000"
            "ff000100000000000001");
  PageWords scattered{};
  for (unsigned i = 1; i < kPageEntries; i += 2) {
    scattered[i] = 7 * i;
  }
  const std::string plain = hex(encode_page(PageKind::kTree, 2, scattered));
  EXPECT_EQ(plain.substr(0, 2 * (2 + 32 + 16)),
            "0002" + repeat("aa", 32) + "07000000000000001500000000000000");
  EXPECT_EQ(plain.size(), 2 * (2 + 32 + 128 * 8U));
}

TEST(ThinFormat, CountsHaveTheirBytes) {
  PageWords words{};
  words[0] = 1 | std::uint64_t{2} << 32;  // counts 0 and 1
  words[1] = 3;
  EXPECT_EQ(hex(encode_page(PageKind::kDataRefs, 0, words)), "020039" + repeat("00", 127));
  words[255] = std::uint64_t{200} << 32;
  EXPECT_EQ(hex(encode_page(PageKind::kDataRefs, 0, words)),
            "0300010203" + repeat("00", 508) + "c8");
  words[255] = 0x0403'0201;
  EXPECT_EQ(hex(encode_page(PageKind::kPageRefs, 0, words)),
            "0400010000000200000003000000" + repeat("00", 2028) + "0102030400000000");
  Summary summary{};
  summary[1] = 0x102;
  EXPECT_EQ(hex(encode(summary)), "00000201" + repeat("00", 2044));
}

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
