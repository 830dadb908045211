// Unaligned writes: what they change, what they ask of the device, and that nothing is lost beside
// others.
#include "fs/edge_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "targets/targets.h"
#include "tests/fake/fake_opener.h"
#include "tests/fake/fault_dev.h"
#include "tests/fake/io.h"
#include "tests/fake/sim_env.h"

namespace mapperfs {
namespace {

using fake::AsyncBio;
using fake::Bytes;
using fake::SeenBio;

class EdgeWriterTest : public ::testing::Test {
 protected:
  EdgeWriterTest() {
    registry_.add(kLinearTarget);
    registry_.add(kRamTarget);
  }
  ~EdgeWriterTest() override { engine_.shut_down(); }

  std::shared_ptr<MappedDevice> bring_up(const std::string& name, sector_t sectors,
                                         const std::string& type, const std::string& args = "") {
    std::shared_ptr<MappedDevice> device = engine_.create(name, {}).take();
    const TableLine line = {0, sectors, type, args};
    EXPECT_TRUE(device->load({&line, 1}, DeviceMode::kReadWrite).ok());
    EXPECT_TRUE(device->resume({}).ok());
    return device;
  }
  static BlkStatus write(MappedDevice& device, std::uint64_t offset, const Bytes& data,
                         std::uint32_t block_bytes = 512, std::uint8_t flags = 0) {
    return write_unaligned(device, block_bytes, offset, data, flags);
  }
  static Bytes filled(std::size_t bytes, unsigned value) {
    return Bytes(bytes, static_cast<std::byte>(value));
  }

  fake::SimEnv env_;
  fake::FakeOpener opener_;
  TargetRegistry registry_;
  Engine engine_{env_, registry_, opener_};
};

// One by one -------------------------------------------------------------------------------------

// 20 sectors: the last block of 4096 bytes is a short one.
TEST_F(EdgeWriterTest, ChangesItsBytesAndNoOthers) {
  fake::MemDev& disk = opener_.add_mem("/disk", 20);
  const auto device = bring_up("device", 20, "linear", "/disk 0");
  struct Piece {
    std::uint32_t block;
    std::uint64_t offset;
    std::size_t bytes;
  };
  const std::vector<Piece> pieces = {
      {512, 100, 50},     {512, 0, 1},        {512, 511, 1},    {512, 511, 2},   {512, 512, 700},
      {512, 700, 324},    {512, 100, 5000},   {4096, 512, 512}, {4096, 4095, 2}, {4096, 1, 8191},
      {4096, 8192, 1000}, {4096, 9000, 1240}, {4096, 3, 10237}, {512, 10239, 1}};
  for (const Piece& piece : pieces) {
    Bytes expected = fake::pattern(20, piece.offset + piece.bytes);
    disk.poke(0, expected);
    const Bytes data = filled(piece.bytes, 0xee);
    EXPECT_EQ(write(*device, piece.offset, data, piece.block), BlkStatus::kOk);
    std::copy(data.begin(), data.end(),
              expected.begin() + static_cast<std::ptrdiff_t>(piece.offset));
    EXPECT_EQ(disk.peek(0, 20), expected)
        << piece.bytes << " at " << piece.offset << ", blocks of " << piece.block;
  }
}

TEST_F(EdgeWriterTest, ReadsTheEdgesAloneAndWritesOnce) {
  fake::MemDev& disk = opener_.add_mem("/disk", 100);
  const auto device = bring_up("device", 100, "linear", "/disk 0");
  const auto seen_by = [&](std::uint64_t offset, std::size_t bytes) {
    disk.take_seen();
    EXPECT_EQ(write(*device, offset, filled(bytes, 1), 512, kBioFua), BlkStatus::kOk);
    std::vector<SeenBio> seen = disk.take_seen();
    for (SeenBio& bio : seen) {
      bio.flags &= static_cast<std::uint8_t>(~kBioInternal);
    }
    return seen;
  };
  using Seen = std::vector<SeenBio>;
  EXPECT_EQ(seen_by(100, 1500),
            (Seen{{Op::kRead, 0, 1, 0}, {Op::kRead, 3, 1, 0}, {Op::kWrite, 0, 4, kBioFua}}));
  EXPECT_EQ(seen_by(600, 50), (Seen{{Op::kRead, 1, 1, 0}, {Op::kWrite, 1, 1, kBioFua}}));
  EXPECT_EQ(seen_by(512, 50), (Seen{{Op::kRead, 1, 1, 0}, {Op::kWrite, 1, 1, kBioFua}}));
  EXPECT_EQ(seen_by(500, 524), (Seen{{Op::kRead, 0, 1, 0}, {Op::kWrite, 0, 2, kBioFua}}));
}

TEST_F(EdgeWriterTest, AReadThatFailsChangesNothing) {
  fake::FaultDev disk("disk", 100, env_);
  opener_.add("/disk", disk);
  const auto device = bring_up("device", 100, "linear", "/disk 0");
  const Bytes before = disk.peek(0, 100);
  disk.add_fault({Op::kRead, 3, 4, BlkStatus::kMedium, 1, 0});
  EXPECT_EQ(write(*device, 100, filled(1500, 1)), BlkStatus::kMedium);
  EXPECT_EQ(disk.peek(0, 100), before);
  EXPECT_EQ(write(*device, 100, filled(1500, 1)), BlkStatus::kOk);
  disk.add_fault({Op::kWrite, 0, 100, BlkStatus::kNoSpace, 1, 0});
  EXPECT_EQ(write(*device, 100, filled(1500, 1)), BlkStatus::kNoSpace);
  engine_.shut_down();
}

TEST_F(EdgeWriterTest, OutsideTheDeviceIsAnIoError) {
  const auto device = bring_up("device", 100, "ram");
  EXPECT_EQ(write(*device, 100 * 512 - 10, filled(20, 1)), BlkStatus::kIoError);
  EXPECT_EQ(write(*device, 100 * 512 + 10, filled(20, 1)), BlkStatus::kIoError);
  EXPECT_TRUE(engine_.remove("device", false).ok());
  EXPECT_EQ(write(*device, 10, filled(20, 1)), BlkStatus::kIoError);
}

// Beside others ----------------------------------------------------------------------------------

// While an unaligned write waits for a slow disk, other blocks are read and written.
TEST_F(EdgeWriterTest, HoldsUpItsOwnBlocksAlone) {
  fake::FaultDev disk("disk", 100, env_);
  opener_.add("/disk", disk);
  const auto device = bring_up("device", 100, "linear", "/disk 0");
  disk.hold();
  std::thread writer([&] { EXPECT_EQ(write(*device, 5, filled(4, 0x77)), BlkStatus::kOk); });
  while (disk.waiting() == 0) {
    std::this_thread::yield();
  }
  AsyncBio same(*device, 0, filled(512, 0x11));
  AsyncBio next(*device, 1, filled(512, 0x22));
  AsyncBio read(*device, Op::kRead, 50, 8);
  AsyncBio flush(*device, Op::kFlush, 0, 0);
  same.submit();
  next.submit();
  read.submit();
  flush.submit();
  EXPECT_EQ(disk.waiting(), 4U);  // all but the one of the same block
  disk.release();
  writer.join();
  EXPECT_EQ(same.wait(), BlkStatus::kOk);
  EXPECT_EQ(next.wait(), BlkStatus::kOk);
  EXPECT_EQ(read.wait(), BlkStatus::kOk);
  EXPECT_EQ(flush.wait(), BlkStatus::kOk);
  EXPECT_EQ(disk.peek(0, 1), filled(512, 0x11));
  engine_.shut_down();
}

// Parts of sector 1, each of one writer. What lies between them is nobody's.
struct Part {
  std::size_t from, bytes;
};
constexpr Part kParts[] = {{10, 100}, {150, 150}, {350, 150}};
constexpr int kRounds = 300;

bool all_are(const Bytes& sector, std::size_t from, std::size_t to, std::byte value) {
  return std::all_of(sector.begin() + static_cast<std::ptrdiff_t>(from),
                     sector.begin() + static_cast<std::ptrdiff_t>(to),
                     [value](std::byte byte) { return byte == value; });
}

TEST_F(EdgeWriterTest, NeighboursInOneSectorLoseNothing) {
  const auto device = bring_up("device", 100, "ram");
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (const Part& part : kParts) {
    threads.emplace_back([&] {
      for (unsigned i = 1; i <= kRounds; ++i) {
        const Bytes mine = filled(part.bytes, i);
        lost += write(*device, 512 + part.from, mine) != BlkStatus::kOk ? 1 : 0;
        const Bytes sector = fake::read_back(*device, 1, 1);
        lost += !all_are(sector, part.from, part.from + part.bytes, mine.front()) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(lost.load(), 0);
}

// The one who writes the whole sector must find its last bytes wherever nobody wrote after it: an
// unaligned write that had read the sector before would bring back older ones.
TEST_F(EdgeWriterTest, WholeSectorsBetweenThemLoseNothing) {
  const auto device = bring_up("device", 100, "ram");
  std::atomic<int> lost{0};
  std::atomic<int> changed{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (const Part& part : kParts) {
    threads.emplace_back([&] {
      for (unsigned i = 0; !stop.load(); ++i) {
        const Bytes mine = filled(part.bytes, i & 0x7f);
        lost += write(*device, 512 + part.from, mine) != BlkStatus::kOk ? 1 : 0;
        ++changed;
      }
    });
  }
  for (unsigned i = 0; changed.load() < 3 * kRounds; ++i) {
    const std::byte whole{static_cast<unsigned char>(0x80 | (i & 0x7f))};
    EXPECT_EQ(fake::write(*device, 1, Bytes(512, whole)), BlkStatus::kOk);
    const Bytes sector = fake::read_back(*device, 1, 1);
    std::size_t end_of_last = 0;
    for (const Part& part : kParts) {
      lost += all_are(sector, end_of_last, part.from, whole) ? 0 : 1;
      end_of_last = part.from + part.bytes;
      const std::byte first = sector[part.from];
      const bool old = (first & std::byte{0x80}) != std::byte{0} && first != whole;
      lost += old || !all_are(sector, part.from, end_of_last, first) ? 1 : 0;
    }
    lost += all_are(sector, end_of_last, 512, whole) ? 0 : 1;
  }
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(lost.load(), 0);
}

// In order ---------------------------------------------------------------------------------------

TEST(EdgeJobs, OfADeviceRunOneAfterTheOtherInOrder) {
  ThreadPool pool("test", 4);
  const auto shared = std::make_shared<SharedDevice>();
  std::vector<int> order;  // no lock: one job at a time
  for (int i = 0; i < 1000; ++i) {
    run_in_order(pool, shared, [&order, i] { order.push_back(i); });
  }
  pool.stop();
  ASSERT_EQ(order.size(), 1000U);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_FALSE(shared->edge_running);
}

TEST(EdgeJobs, OfOneDeviceDoNotWaitForThoseOfAnother) {
  ThreadPool pool("test", 2);
  const auto one = std::make_shared<SharedDevice>();
  const auto other = std::make_shared<SharedDevice>();
  std::atomic<bool> other_ran{false};
  run_in_order(pool, one, [&] { other_ran.wait(false); });
  run_in_order(pool, other, [&] {
    other_ran = true;
    other_ran.notify_all();
  });
  pool.stop();
  EXPECT_TRUE(other_ran.load());
}

}  // namespace
}  // namespace mapperfs
