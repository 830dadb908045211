#include "metadata/thin_query.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <tuple>

#include "metadata/block_counts.h"

namespace mapperfs {
namespace {

Result<std::vector<ThinDeviceDetails>> devices_of(ThinMetadata& pool, ThinView view) {
  if (view == ThinView::kPool) {
    return pool.devices();
  }
  auto held = pool.held_snapshot();
  if (!held.ok()) {
    return held.status();
  }
  return held->devices;
}

Result<std::unique_ptr<ThinDevice>> open_in(ThinMetadata& pool, ThinView view, std::uint32_t id) {
  return view == ThinView::kPool ? pool.open_device(id) : pool.open_held(id);
}

// Calls fn(device, run) for everything that all devices of a view map.
template <typename Fn>
Status each_run(ThinMetadata& pool, ThinView view, std::string_view stage,
                const ThinProgress& progress, const Fn& fn) {
  auto devices = devices_of(pool, view);
  if (!devices.ok()) {
    return devices.status();
  }
  std::uint64_t total = 0;
  for (const ThinDeviceDetails& details : *devices) {
    total += details.mapped_blocks;
  }
  std::uint64_t done = 0;
  const auto show = [&] {
    if (progress) {
      progress(stage, done, total);
    }
  };
  show();
  for (const ThinDeviceDetails& details : *devices) {
    auto device = open_in(pool, view, details.id);
    if (!device.ok()) {
      return device.status();
    }
    Status s = (*device)->for_each_run(0, kThinMaxVirtualBlocks, [&](const ThinRun& run) {
      fn(details, run);
      done += run.length;
      show();
      return true;
    });
    if (!s.ok()) {
      return s;
    }
  }
  return {};
}

// Walks a device's runs one after another, some at a time.
class RunCursor {
 public:
  explicit RunCursor(const ThinDevice& device) : device_(device) {}

  // The run that covers or follows where the cursor is; nullptr at the end, or upon an error, which
  // status() tells.
  const ThinRun* peek() {
    while (at_ == runs_.size() && !ended_) {
      fill();
    }
    return at_ < runs_.size() ? &runs_[at_] : nullptr;
  }
  // Forgets the first `blocks` blocks of the run.
  void skip(std::uint64_t blocks) {
    ThinRun& run = runs_[at_];
    run.virtual_begin += blocks;
    run.data_begin += blocks;
    run.length -= blocks;
    at_ += run.length == 0 ? 1 : 0;
  }
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  static constexpr std::size_t kRuns = 1024;

  void fill() {
    runs_.clear();
    at_ = 0;
    status_ = device_.for_each_run(next_, kThinMaxVirtualBlocks, [this](const ThinRun& run) {
      runs_.push_back(run);
      next_ = run.virtual_begin + run.length;
      return runs_.size() < kRuns;
    });
    ended_ = !status_.ok() || runs_.size() < kRuns;
  }

  const ThinDevice& device_;
  std::vector<ThinRun> runs_;
  std::size_t at_ = 0;
  std::uint64_t next_ = 0;
  bool ended_ = false;
  Status status_;
};

ThinDifference next_difference(const ThinRun* left, const ThinRun* right) {
  using Kind = ThinDifference::Kind;
  if (right == nullptr || (left != nullptr && left->virtual_begin < right->virtual_begin)) {
    const std::uint64_t end = left->virtual_begin + left->length;
    const std::uint64_t stop = right == nullptr ? end : std::min(end, right->virtual_begin);
    return {Kind::kLeftOnly, left->virtual_begin, stop - left->virtual_begin, left->data_begin, 0};
  }
  if (left == nullptr || right->virtual_begin < left->virtual_begin) {
    const std::uint64_t end = right->virtual_begin + right->length;
    const std::uint64_t stop = left == nullptr ? end : std::min(end, left->virtual_begin);
    return {Kind::kRightOnly, right->virtual_begin, stop - right->virtual_begin, 0,
            right->data_begin};
  }
  return {left->data_begin == right->data_begin ? Kind::kSame : Kind::kDifferent,
          left->virtual_begin, std::min(left->length, right->length), left->data_begin,
          right->data_begin};
}

}  // namespace

Result<std::vector<ThinUsage>> list_thin_usage(ThinMetadata& pool, ThinView view,
                                               const ThinProgress& progress) {
  thin::BlockCounts counts(pool.status().total_data_blocks);
  Status s = each_run(pool, view, "counting", progress, [&](const auto&, const ThinRun& run) {
    for (std::uint64_t i = 0; i < run.length && run.data_begin + i < counts.size(); ++i) {
      counts.add(run.data_begin + i);
    }
  });
  if (!s.ok()) {
    return s;
  }
  std::vector<ThinUsage> all;
  auto devices = devices_of(pool, view);
  if (!devices.ok()) {
    return devices.status();
  }
  for (const ThinDeviceDetails& details : *devices) {
    all.push_back({details, 0, 0, 0});
  }
  std::size_t at = 0;
  s = each_run(pool, view, "listing", progress,
               [&](const ThinDeviceDetails& device, const ThinRun& run) {
                 while (at < all.size() && all[at].details.id < device.id) {
                   ++at;
                 }
                 if (at == all.size() || all[at].details.id != device.id) {
                   return;  // made since
                 }
                 ThinUsage& usage = all[at];
                 for (std::uint64_t i = 0; i < run.length; ++i) {
                   const std::uint64_t block = run.data_begin + i;
                   const bool alone = block >= counts.size() || counts.at(block) <= 1;
                   ++(alone ? usage.exclusive_blocks : usage.shared_blocks);
                 }
                 usage.highest_block = run.virtual_begin + run.length - 1;
               });
  if (!s.ok()) {
    return s;
  }
  return all;
}

Status compare_thin_devices(ThinMetadata& pool, ThinView view, std::uint32_t left,
                            std::uint32_t right,
                            const std::function<bool(const ThinDifference&)>& fn,
                            const ThinProgress& progress) {
  auto left_device = open_in(pool, view, left);
  auto right_device = open_in(pool, view, right);
  if (!left_device.ok() || !right_device.ok()) {
    return left_device.ok() ? right_device.status() : left_device.status();
  }
  RunCursor left_runs(**left_device);
  RunCursor right_runs(**right_device);
  const std::uint64_t total = (*left_device)->mapped_blocks() + (*right_device)->mapped_blocks();
  std::uint64_t done = 0;
  while (true) {
    if (progress) {
      progress("comparing", done, total);
    }
    const ThinRun* l = left_runs.peek();
    const ThinRun* r = right_runs.peek();
    if (!left_runs.status().ok() || !right_runs.status().ok()) {
      return left_runs.status().ok() ? right_runs.status() : left_runs.status();
    }
    if (l == nullptr && r == nullptr) {
      return {};
    }
    const ThinDifference difference = next_difference(l, r);
    if (difference.kind != ThinDifference::Kind::kRightOnly) {
      left_runs.skip(difference.length);
      done += difference.length;
    }
    if (difference.kind != ThinDifference::Kind::kLeftOnly) {
      right_runs.skip(difference.length);
      done += difference.length;
    }
    if (!fn(difference)) {
      return {};
    }
  }
}

Result<std::vector<ThinReverseRun>> reverse_thin_map(ThinMetadata& pool, ThinView view,
                                                     const std::vector<DataRun>& regions,
                                                     const ThinProgress& progress) {
  std::vector<ThinReverseRun> found;
  Status s = each_run(
      pool, view, "searching", progress, [&](const ThinDeviceDetails& device, const ThinRun& run) {
        for (const DataRun& region : regions) {
          const std::uint64_t begin = std::max(run.data_begin, region.begin);
          const std::uint64_t end =
              std::min(run.data_begin + run.length, region.begin + region.length);
          if (begin < end) {
            found.push_back(
                {begin, end - begin, device.id, run.virtual_begin + (begin - run.data_begin)});
          }
        }
      });
  if (!s.ok()) {
    return s;
  }
  // Mappings of different times that follow one another are one run here.
  const auto by_device = [](const ThinReverseRun& r) {
    return std::tuple(r.device_id, r.data_begin, r.virtual_begin);
  };
  std::sort(found.begin(), found.end(), [&](const ThinReverseRun& a, const ThinReverseRun& b) {
    return by_device(a) < by_device(b);
  });
  std::vector<ThinReverseRun> merged;
  for (const ThinReverseRun& run : found) {
    if (!merged.empty() && merged.back().device_id == run.device_id &&
        merged.back().data_begin + merged.back().length == run.data_begin &&
        merged.back().virtual_begin + merged.back().length == run.virtual_begin) {
      merged.back().length += run.length;
    } else {
      merged.push_back(run);
    }
  }
  std::stable_sort(
      merged.begin(), merged.end(),
      [](const ThinReverseRun& a, const ThinReverseRun& b) { return a.data_begin < b.data_begin; });
  return merged;
}

}  // namespace mapperfs
