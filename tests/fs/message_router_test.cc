#include "fs/message_router.h"

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/fs/fuse_messages.h"

namespace mapperfs {
namespace {

using fuse_test::Message;

// Remembers what came.
class FakePlace final : public ReplyPlace {
 public:
  ssize_t reply(std::span<const iovec> pieces) noexcept override {
    std::string bytes;
    for (const iovec& piece : pieces) {
      bytes.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
    }
    answers.push_back(bytes);
    return static_cast<ssize_t>(bytes.size());
  }
  template <typename Body>
  [[nodiscard]] Body body(std::size_t nr) const {
    Body value{};
    EXPECT_EQ(answers.at(nr).size(), sizeof(fuse_out_header) + sizeof(Body));
    std::memcpy(&value, answers.at(nr).data() + sizeof(fuse_out_header), sizeof(Body));
    return value;
  }
  std::vector<std::string> answers;
};

class FakeLibfuse final : public RequestHandler {
 public:
  void serve_io(IoRequest&, const IoCall&) noexcept override { ADD_FAILURE(); }
  bool serve_message(std::span<std::byte> message) override {
    messages.emplace_back(message.begin(), message.end());
    if (meanwhile != nullptr) {
      std::exchange(meanwhile, nullptr)();
    }
    return true;
  }
  // Which request the message with that number interrupts; 0: none.
  [[nodiscard]] std::uint64_t interrupted_by(std::size_t nr) const {
    const Message& message = messages.at(nr);
    fuse_in_header header{};
    fuse_interrupt_in in{};
    std::memcpy(&header, message.data(), sizeof(header));
    if (header.opcode != FUSE_INTERRUPT || message.size() != sizeof(header) + sizeof(in)) {
      return 0;
    }
    EXPECT_EQ(header.len, message.size());
    std::memcpy(&in, message.data() + sizeof(header), sizeof(in));
    EXPECT_EQ(header.unique, in.unique | fuse_abi::kInterruptBit);
    return in.unique;
  }
  std::vector<Message> messages;
  std::function<void()> meanwhile;  // what another thread does during the next message
};

class MessageRouterTest : public testing::Test {
 protected:
  MessageRouterTest() {
    router_.set_up(
        notices_,
        [this](fuse_init_out& answer, std::uint64_t offered) {
          offered_ = offered;
          answer.flags2 |= 1;
        },
        [this] { ++after_init_; });
  }
  void hand_on(Message message, ReplyPlace& place) { EXPECT_TRUE(router_.hand_on(message, place)); }
  void interrupt(std::uint64_t unique) {
    fuse_interrupt_in in{};
    in.unique = unique;
    hand_on(fuse_test::make_message(FUSE_INTERRUPT, unique | fuse_abi::kInterruptBit, 0, in),
            descriptor_);
  }
  void get_attributes(std::uint64_t unique, ReplyPlace& place) {
    hand_on(fuse_test::make_message(FUSE_GETATTR, unique, 1, fuse_getattr_in{}), place);
  }
  ssize_t answer(std::uint64_t unique, int error = 0) {
    fuse_out_header header{};
    header.len = sizeof(header);
    header.unique = unique;
    header.error = error;
    const std::array<iovec, 1> pieces = {{{&header, sizeof(header)}}};
    return router_.reply(pieces);
  }
  template <typename Body>
  ssize_t answer_with(std::uint64_t unique, Body body) {
    fuse_out_header header{};
    header.unique = unique;
    const std::array<iovec, 2> pieces = {{{&header, sizeof(header)}, {&body, sizeof(body)}}};
    return router_.reply(pieces);
  }

  FakeLibfuse libfuse_;
  FakePlace notices_;
  FakePlace descriptor_;  // of INTERRUPTs
  MessageRouter router_{libfuse_};
  std::optional<std::uint64_t> offered_;
  int after_init_ = 0;
};

TEST_F(MessageRouterTest, AnswersGoToWhereTheRequestCameFrom) {
  FakePlace first;
  FakePlace second;
  const fuse_getattr_in in{};
  hand_on(fuse_test::make_message(FUSE_GETATTR, 2, 1, in), first);
  hand_on(fuse_test::make_message(FUSE_GETATTR, 4, 1, in), second);
  EXPECT_EQ(libfuse_.messages.size(), 2U);
  EXPECT_EQ(answer(4), static_cast<ssize_t>(sizeof(fuse_out_header)));
  EXPECT_TRUE(first.answers.empty());
  EXPECT_EQ(second.answers.size(), 1U);
  answer(2, -ENOENT);
  EXPECT_EQ(first.answers.size(), 1U);
  answer(2);
  EXPECT_EQ(first.answers.size(), 1U) << "answered once";
}

TEST_F(MessageRouterTest, NoticesAnswerNoRequest) {
  answer(0);
  EXPECT_EQ(notices_.answers.size(), 1U);
}

TEST_F(MessageRouterTest, ChangesTheAnswerToInit) {
  FakePlace place;
  fuse_init_in in{};
  in.flags = 1U << 30 | 5;
  in.flags2 = 0x200;
  hand_on(fuse_test::make_message(FUSE_INIT, 2, 0, in), place);
  answer_with(2, fuse_init_out{});
  EXPECT_EQ(offered_, 0x200'4000'0005ULL);
  EXPECT_EQ(after_init_, 1);
  EXPECT_EQ(place.body<fuse_init_out>(0).flags2, 1U);
}

TEST_F(MessageRouterTest, LetsDirectWritesOfOneDeviceGoSideBySide) {
  FakePlace place;
  const fuse_open_in in{};
  fuse_open_out direct{};
  direct.open_flags = fuse_abi::kOpenDirectIo;
  hand_on(fuse_test::make_message(FUSE_OPEN, 2, fuse_test::kDeviceNode, in), place);
  answer_with(2, direct);
  EXPECT_EQ(place.body<fuse_open_out>(0).open_flags,
            fuse_abi::kOpenDirectIo | fuse_abi::kOpenParallelDirectWrites);
  hand_on(fuse_test::make_message(FUSE_OPEN, 4, fuse_test::kDeviceNode, in), place);
  answer_with(4, fuse_open_out{});
  EXPECT_EQ(place.body<fuse_open_out>(1).open_flags, 0U) << "cached, or passed through";
  hand_on(fuse_test::make_message(FUSE_OPEN, 6, fuse_test::kControlNode, in), place);
  answer_with(6, direct);
  EXPECT_EQ(place.body<fuse_open_out>(2).open_flags, fuse_abi::kOpenDirectIo);
  hand_on(fuse_test::make_message(FUSE_OPEN, 8, fuse_test::kDeviceNode, in), place);
  answer(8, -EBUSY);
  EXPECT_EQ(place.answers.at(3).size(), sizeof(fuse_out_header));
}

TEST_F(MessageRouterTest, AnInterruptOfAKnownRequestGoesOn) {
  FakePlace place;
  get_attributes(2, place);
  interrupt(2);
  ASSERT_EQ(libfuse_.messages.size(), 2U);
  EXPECT_EQ(libfuse_.interrupted_by(1), 2U);
  answer(2, -EINTR);
  EXPECT_EQ(place.answers.size(), 1U);
}

// The place is another request's as soon as it was answered: what libfuse says of an interrupt must
// not get there.
TEST_F(MessageRouterTest, AnAnswerToAnInterruptIsNoRequests) {
  FakePlace place;
  get_attributes(2, place);
  EXPECT_EQ(answer(3, -EAGAIN), static_cast<ssize_t>(sizeof(fuse_out_header)));
  EXPECT_TRUE(place.answers.empty());
  answer(2);
  EXPECT_EQ(place.answers.size(), 1U);
  EXPECT_GT(answer(3, -EAGAIN), 0) << "long answered: nobody wants it";
  EXPECT_EQ(place.answers.size(), 1U);
  EXPECT_TRUE(descriptor_.answers.empty());
}

TEST_F(MessageRouterTest, AnInterruptThatOvertakesItsRequestIsNotLost) {
  FakePlace place;
  interrupt(2);
  EXPECT_TRUE(libfuse_.messages.empty()) << "libfuse does not know it yet";
  get_attributes(4, place);
  EXPECT_EQ(libfuse_.messages.size(), 1U) << "meant for another";
  get_attributes(2, place);
  ASSERT_EQ(libfuse_.messages.size(), 3U);
  EXPECT_EQ(libfuse_.interrupted_by(2), 2U);
  get_attributes(6, place);
  EXPECT_EQ(libfuse_.messages.size(), 4U) << "once";
}

TEST_F(MessageRouterTest, AnInterruptDuringTheHandOverComesBehindIt) {
  FakePlace place;
  libfuse_.meanwhile = [this] { interrupt(2); };
  get_attributes(2, place);
  ASSERT_EQ(libfuse_.messages.size(), 2U);
  EXPECT_EQ(libfuse_.interrupted_by(1), 2U);
  libfuse_.meanwhile = [this] {
    interrupt(4);
    answer(4);
  };
  get_attributes(4, place);
  EXPECT_EQ(libfuse_.messages.size(), 3U) << "answered at once: nothing to interrupt";
}

TEST_F(MessageRouterTest, InterruptsOfReadsAndWritesAreForgottenInTime) {
  FakePlace place;
  for (std::uint64_t unique = 2; unique <= 2000; unique += 2) {
    interrupt(unique);  // these requests went past libfuse
  }
  interrupt(2002);
  get_attributes(2002, place);
  ASSERT_EQ(libfuse_.messages.size(), 2U);
  EXPECT_EQ(libfuse_.interrupted_by(1), 2002U);
  get_attributes(2, place);
  EXPECT_EQ(libfuse_.messages.size(), 3U);
}

TEST_F(MessageRouterTest, ForgetsWhatHasNoAnswer) {
  FakePlace place;
  hand_on(fuse_test::make_message(FUSE_FORGET, 2, 1, fuse_forget_in{}), place);
  EXPECT_EQ(libfuse_.messages.size(), 1U);
  answer(2);
  EXPECT_TRUE(place.answers.empty());
}

}  // namespace
}  // namespace mapperfs
