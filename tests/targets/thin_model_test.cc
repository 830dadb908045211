// Random life of a pool against a plain model, the daemon dying now and then.
#include "tests/targets/thin_model.h"

namespace mapperfs::test {

namespace {

TEST_P(ThinModel, NothingIsLostAndNothingIsForeign) {
  fault_.crash();
  fault_.sync();
  open();
  for (int i = 0; i < 600 && !HasFatalFailure(); ++i) {
    step();
  }
  verify();
  expect_nothing_leaks();
}

INSTANTIATE_TEST_SUITE_P(Seeds, ThinModel, ::testing::Range(1U, 7U));

}  // namespace

}  // namespace mapperfs::test
