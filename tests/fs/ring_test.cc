#include "fs/ring.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include "engine/unique_fd.h"
#include "fs/fuse_abi.h"

namespace mapperfs {
namespace {

// Nothing comes: no kernel hands requests to these rings.
class NoRequests final : public RequestHandler {
 public:
  void serve_io(IoRequest&, const IoCall&) noexcept override { ADD_FAILURE(); }
  bool serve_message(std::span<std::byte>) override {
    ADD_FAILURE();
    return true;
  }
};

struct NoRing {
  NoRequests handler;
  MessageRouter router{handler};
};

constexpr std::size_t kPayloadBytes = 8192;

// A place whose ring was never started: what it answers stays in its memory.
class RingPlaceTest : public testing::Test {
 protected:
  // The kernel hands the place a request.
  void hand(std::uint64_t unique, std::uint64_t commit_id) {
    fuse_in_header header{};
    header.unique = unique;
    header.opcode = FUSE_GETATTR;
    std::memcpy(head().in_out, &header, sizeof(header));
    head().ent_in_out.commit_id = commit_id;
    head().ent_in_out.payload_bytes = kUntouched;
    place_.accept();
  }
  ssize_t reply(std::uint64_t unique, const std::string& data, int error = 0) {
    fuse_out_header header{};
    header.len = static_cast<std::uint32_t>(sizeof(header) + data.size());
    header.unique = unique;
    header.error = error;
    std::string copy = data;
    const std::array<iovec, 2> pieces = {{{&header, sizeof(header)}, {copy.data(), copy.size()}}};
    return place_.reply(std::span(pieces).first(data.empty() ? 1 : 2));
  }
  fuse_abi::UringHead& head() { return *reinterpret_cast<fuse_abi::UringHead*>(memory_.get()); }
  [[nodiscard]] bool answered() { return head().ent_in_out.payload_bytes != kUntouched; }
  fuse_out_header answer() {
    fuse_out_header header{};
    std::memcpy(&header, head().in_out, sizeof(header));
    return header;
  }
  std::string payload() {
    return {reinterpret_cast<const char*>(place_.data()), head().ent_in_out.payload_bytes};
  }

  static constexpr std::uint32_t kUntouched = 77;
  NoRing none_;
  Ring ring_{none_.handler, none_.router, Ring::Options{-1, 0, 4, kPayloadBytes}};
  AlignedBuffer memory_ = make_aligned_buffer(kBufferAlignment + IoRequest::kRoomBytes);
  RingPlace place_{ring_, memory_.get()};
};

TEST_F(RingPlaceTest, AnAnswerLiesWhereTheKernelTakesIt) {
  hand(42, 9);
  EXPECT_EQ(reply(42, "attributes"), static_cast<ssize_t>(sizeof(fuse_out_header) + 10));
  ASSERT_TRUE(answered());
  EXPECT_EQ(answer().unique, 42U);
  EXPECT_EQ(answer().error, 0);
  EXPECT_EQ(answer().len, sizeof(fuse_out_header) + 10);
  EXPECT_EQ(payload(), "attributes");
  EXPECT_EQ(head().ent_in_out.commit_id, 9U);
}

TEST_F(RingPlaceTest, AnAnswerToAnotherRequestIsNotTaken) {
  hand(42, 9);
  EXPECT_EQ(reply(43, "", -EAGAIN), static_cast<ssize_t>(sizeof(fuse_out_header)));
  EXPECT_EQ(reply(40, "late"), static_cast<ssize_t>(sizeof(fuse_out_header) + 4));
  EXPECT_FALSE(answered());
  reply(42, "", -ENOENT);
  ASSERT_TRUE(answered());
  EXPECT_EQ(answer().unique, 42U);
  EXPECT_EQ(answer().error, -ENOENT);
}

TEST_F(RingPlaceTest, AnAnswerOfTheRequestBeforeIsNotTakenForTheNext) {
  hand(42, 9);
  hand(44, 10);
  reply(42, "of the first");
  EXPECT_FALSE(answered());
}

TEST_F(RingPlaceTest, MoreThanTheKernelAskedForIsAnError) {
  hand(42, 9);
  reply(42, std::string(kPayloadBytes + 1, 'x'));
  ASSERT_TRUE(answered());
  EXPECT_EQ(answer().error, -EIO);
  EXPECT_EQ(head().ent_in_out.payload_bytes, 0U);
}

TEST_F(RingPlaceTest, AWriteIsAnsweredInItsOwnData) {
  hand(42, 9);
  std::memset(place_.data(), 0x55, 4096);
  place_.answer_written(4096);
  ASSERT_TRUE(answered());
  EXPECT_EQ(answer().unique, 42U);
  fuse_write_out out{};
  ASSERT_EQ(payload().size(), sizeof(out));
  std::memcpy(&out, payload().data(), sizeof(out));
  EXPECT_EQ(out.size, 4096U);
}

TEST_F(RingPlaceTest, KeepsASmallPartOfWhatLargeRequestsTouched) {
  hand(42, 9);
  std::memset(place_.data(), 0x55, IoRequest::kRoomBytes);
  place_.trim();
  const auto is = [this](std::size_t at, int value) {
    return place_.data()[at] == static_cast<std::byte>(value);
  };
  EXPECT_TRUE(is(0, 0x55) && is(RingPlace::kSmallBytes - 1, 0x55));
  EXPECT_TRUE(is(RingPlace::kSmallBytes, 0) && is(IoRequest::kRoomBytes - 1, 0));
  EXPECT_EQ(head().ent_in_out.commit_id, 9U);
}

TEST(Ring, AFileThatIsNotFuseRefusesItsPlaces) {
  NoRing none;
  const UniqueFd file(::eventfd(0, EFD_CLOEXEC));
  Ring ring(none.handler, none.router, Ring::Options{file.get(), 0, 4, kPayloadBytes});
  if (const int error = ring.start(); error != 0) {
    GTEST_SKIP() << "io_uring is not to be had here: " << std::strerror(error);
  }
  EXPECT_FALSE(ring.refused()) << "not asked yet";
  ring.go();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!ring.refused() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(ring.refused());
  ring.close();
  ring.await_closed();
  ring.end();
}

TEST(Ring, WhatWasNeverAskedForEnds) {
  NoRing none;
  const UniqueFd file(::eventfd(0, EFD_CLOEXEC));
  Ring ring(none.handler, none.router, Ring::Options{file.get(), 0, 4, kPayloadBytes});
  if (const int error = ring.start(); error != 0) {
    GTEST_SKIP() << "io_uring is not to be had here: " << std::strerror(error);
  }
  ring.end();
  EXPECT_FALSE(ring.refused());
}

}  // namespace
}  // namespace mapperfs
