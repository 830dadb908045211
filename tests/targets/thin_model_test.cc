// Random life of a pool against a plain model, the daemon dying now and then.
#include "tests/targets/thin_model.h"

#include "tests/fake/sanitizer.h"

namespace mapperfs::test {

namespace {

TEST_P(ThinModel, NothingIsLostAndNothingIsForeign) {
  constexpr std::uint64_t kHour = 3600 * kSecond;
  fault_.crash();
  fault_.sync();
  open();
  const std::uint64_t began = harness_.env().now_ns();
  for (int i = 0; i < 600 && !HasFatalFailure(); ++i) {
    step();
  }
  EXPECT_GE(harness_.env().now_ns() - began, 2 * kHour);
  verify();
  expect_nothing_leaks();
}

INSTANTIATE_TEST_SUITE_P(Seeds, ThinModel, seeds(fake::kSanitized ? 3 : 6));

}  // namespace

}  // namespace mapperfs::test
