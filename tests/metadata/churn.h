// Random use of a pool beside a plain model of it: whatever a thin pool does to its metadata, by
// seed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "tests/metadata/pool_fixture.h"

namespace mapperfs::testing {

// The model is a Picture kept by std::map. A step that the pool refuses for lack of space changes
// neither; any other error ends the churn: `failed`.
class Churn {
 public:
  Churn(ThinMetadata& pool, std::uint64_t seed);
  // One random step.
  void step();
  // Commits; on success the model's state is the committed one.
  Status commit();
  // The pool went back to `picture`.
  void revert(ThinMetadata& pool, const Picture& picture);
  // Opens no device any longer, as before closing the pool.
  void close_devices() { open_.clear(); }

  // Compares the pool with the model.
  void expect_same();
  // A few look-ups compared with the model.
  void expect_lookups();

  Picture model;
  Picture committed;
  Status failed;
  // Off if the pool commits of itself, so that `committed` may be behind.
  bool knows_commits = true;

 private:
  ThinDevice* some_device();
  void create();
  void snap();
  void remove_device();
  void insert();
  void insert_many();
  void discard();
  void held();
  void grow();
  bool check(const Status& status);
  std::uint64_t some_block();

  ThinMetadata* pool_;
  std::mt19937_64 random_;
  std::map<std::uint32_t, std::unique_ptr<ThinDevice>> open_;
};

}  // namespace mapperfs::testing
