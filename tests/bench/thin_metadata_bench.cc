// What thin metadata costs: nanoseconds per look-up and per insert, provisioning by one thread and
// by two, snapshots beside inserts, opening a big pool, memory per mapping, and reading at the end
// of a chain of snapshots. Not a test.
//   thin_metadata_bench DIR [MAPPINGS | provisioning]
// DIR is made and removed; its file system is what commits are synced to. MAPPINGS is 16 million
// for the big pool unless given; "provisioning" does only that.
#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "metadata/thin_metadata.h"

namespace mapperfs {
namespace {

constexpr std::uint64_t kMillion = 1000000;
constexpr std::uint64_t kSnapshotEvery = 20000000;  // ns
constexpr int kLookups = 2000000;

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch() /
                                    std::chrono::nanoseconds(1));
}

[[noreturn]] void give_up(const Status& status) {
  fmt::print(stderr, "thin_metadata_bench: {}\n", status.message());
  std::exit(1);
}

void must(const Status& status) {
  if (!status.ok()) {
    give_up(status);
  }
}

template <typename T>
T must(Result<T> result) {
  if (!result.ok()) {
    give_up(result.status());
  }
  return result.take();
}

std::unique_ptr<ThinMetadata> open_pool(const std::string& dir, std::uint64_t blocks,
                                        std::size_t cache_bytes) {
  ThinMetadataOptions options;
  options.data_block_size = 128;
  options.nr_data_blocks = blocks;
  options.cache_bytes = cache_bytes;
  return must(ThinMetadata::open(dir, options));
}

void provision(ThinDevice& device, std::uint64_t virtual_block) {
  must(device.insert(virtual_block, must(device.allocate_data_block())));
}

// Maps [0, count); the time for one in nanoseconds, commits included.
double fill(ThinMetadata& pool, ThinDevice& device, std::uint64_t count) {
  const std::uint64_t begin = now_ns();
  for (std::uint64_t block = 0; block < count; ++block) {
    provision(device, block);
  }
  must(pool.commit());
  return static_cast<double>(now_ns() - begin) / static_cast<double>(count);
}

// Of this thread, so that a busy machine does not count.
std::uint64_t cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1000000000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

double lookup_ns(const ThinDevice& device, std::uint64_t blocks, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint64_t> at(1 << 16);
  std::generate(at.begin(), at.end(), [&] { return random() % blocks; });
  for (const std::uint64_t block : at) {
    must(device.lookup(block));
  }
  std::uint64_t misses = 0;
  const std::uint64_t begin = cpu_ns();
  for (int i = 0; i < kLookups; ++i) {
    misses += device.lookup_cached(at[static_cast<std::size_t>(i) & 0xFFFF]).has_value() ? 0 : 1;
  }
  const double ns = static_cast<double>(cpu_ns() - begin) / kLookups;
  if (misses != 0) {
    fmt::print("  ({} of {} look-ups missed the cache)\n", misses, kLookups);
  }
  return ns;
}

// Snapshots of a volume that is written all over, at so many new blocks a second (0: as many as
// go).
void bench_snapshots(ThinMetadata& pool, ThinDevice& device, std::uint64_t per_second,
                     std::uint32_t first_id) {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> inserts{0};
  const std::uint64_t start = now_ns();
  std::thread writer([&] {
    std::mt19937_64 random(5);
    while (!stop) {
      if (per_second == 0 || inserts * 1000000000 / per_second < now_ns() - start) {
        provision(device, random() % kMillion);
        ++inserts;
      } else {
        std::this_thread::yield();
      }
    }
  });
  std::vector<double> create_us;
  std::vector<double> with_commit_us;
  for (std::uint32_t id = first_id; id < first_id + 300; ++id) {
    const std::uint64_t begin = now_ns();
    must(pool.create_snap(id, 0));
    create_us.push_back(static_cast<double>(now_ns() - begin) / 1000);
    must(pool.commit());
    with_commit_us.push_back(static_cast<double>(now_ns() - begin) / 1000);
    while (now_ns() - begin < kSnapshotEvery) {
      std::this_thread::yield();  // so that there are inserts between
    }
  }
  stop = true;
  writer.join();
  const double seconds = static_cast<double>(now_ns() - start) / 1e9;
  fmt::print("create_snap beside {:.0f} inserts a second:\n",
             static_cast<double>(inserts.load()) / seconds);
  for (auto* times : {&create_us, &with_commit_us}) {
    std::sort(times->begin(), times->end());
    fmt::print("  {:36}p50 {:.0f} us, p99 {:.0f} us\n",
               times == &create_us ? "alone" : "and committed", (*times)[times->size() / 2],
               (*times)[times->size() * 99 / 100]);
  }
}

void bench_million(const std::string& dir) {
  auto pool = open_pool(dir, 20 * kMillion, std::size_t{256} << 20);
  must(pool->create_thin(0));
  auto device = must(pool->open_device(0));
  fmt::print("insert, in order, with commits        {:8.0f} ns\n", fill(*pool, *device, kMillion));
  fmt::print("bytes per mapping, all hot            {:8.1f}\n",
             static_cast<double>(pool->cached_bytes()) / kMillion);
  fmt::print("look-up, 1 thread, random             {:8.0f} ns\n", lookup_ns(*device, kMillion, 1));
  std::vector<double> both(2);
  std::thread other([&] { both[0] = lookup_ns(*device, kMillion, 2); });
  both[1] = lookup_ns(*device, kMillion, 3);
  other.join();
  fmt::print("look-up, 2 threads on one device      {:8.0f} ns\n", (both[0] + both[1]) / 2);
  for (std::uint32_t id = 1; id <= 1000; ++id) {
    must(pool->create_snap(id, id - 1));
  }
  must(pool->commit());
  auto last = must(pool->open_device(1000));
  fmt::print("look-up, after 1,000 snapshots        {:8.0f} ns\n", lookup_ns(*last, kMillion, 4));

  bench_snapshots(*pool, *device, 20000, 2000);
  bench_snapshots(*pool, *device, 0, 3000);
  last.reset();
  must(pool->delete_device(1000));

  device.reset();
  const std::uint64_t begin = now_ns();
  must(pool->delete_device(0));
  fmt::print("delete of a million mappings returns  {:8.0f} us\n",
             static_cast<double>(now_ns() - begin) / 1000);
}

// Each thread to a core of its own: else the scheduler has both on one for much of a round.
void stay_on_core(unsigned core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core % std::max(std::thread::hardware_concurrency(), 1U), &cores);
  if (::pthread_setaffinity_np(::pthread_self(), sizeof(cores), &cores) != 0) {
    fmt::print(stderr, "thread {} is on any core\n", core);
  }
}

struct Provisioned {
  double per_second = 0;
  double cpu_ns = 0;  // of one mapping
};

// `threads` threads map the next `count` blocks of each of `devices`, which they share out.
Provisioned provision_all(std::vector<std::unique_ptr<ThinDevice>>& devices, unsigned threads,
                          std::uint64_t count, bool at_once) {
  std::atomic<std::uint64_t> cpu{0};
  const auto work = [&](unsigned thread) {
    stay_on_core(thread);
    const std::uint64_t cpu_begin = cpu_ns();
    for (std::uint64_t i = 0; i < count; ++i) {
      for (std::size_t d = thread; d < devices.size(); d += threads) {
        ThinDevice& device = *devices[d];
        const std::uint64_t next = device.mapped_blocks();
        if (!at_once || !device.try_provision(next).has_value()) {
          provision(device, next);
        }
      }
    }
    cpu += cpu_ns() - cpu_begin;
  };
  const std::uint64_t begin = now_ns();
  std::vector<std::thread> workers;
  for (unsigned thread = 0; thread < threads; ++thread) {
    workers.emplace_back(work, thread);
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  const auto mapped = static_cast<double>(count * devices.size());
  return {mapped * 1e9 / static_cast<double>(now_ns() - begin),
          static_cast<double>(cpu.load()) / mapped};
}

// New blocks of several devices, by one thread and by two, in turn: medians. What is committed in
// between is not counted.
void bench_provisioning(const std::string& dir) {
  constexpr std::uint64_t kCount =
      100000;  // of each device a round: a thread needs time to get a core
  constexpr int kRounds = 11;
  ThinMetadataOptions options;
  options.data_block_size = 128;
  options.nr_data_blocks = 20 * kMillion;
  options.dirty_bytes = std::size_t{256} << 20;
  auto pool = must(ThinMetadata::open(dir, options));
  std::vector<std::unique_ptr<ThinDevice>> devices;
  for (std::uint32_t id = 0; id < 4; ++id) {
    must(pool->create_thin(id));
    devices.push_back(must(pool->open_device(id)));
  }
  for (const bool at_once : {false, true}) {
    std::vector<double> ratios;
    std::vector<double> rates[2];
    std::vector<double> cpu[2];
    for (int round = 0; round < kRounds; ++round) {
      for (unsigned threads = 1; threads <= 2; ++threads) {
        const Provisioned result = provision_all(devices, threads, kCount, at_once);
        rates[threads - 1].push_back(result.per_second);
        cpu[threads - 1].push_back(result.cpu_ns);
        must(pool->commit());
      }
      ratios.push_back(rates[1].back() / rates[0].back());
    }
    const auto median = [](std::vector<double>& values) {
      std::sort(values.begin(), values.end());
      return values[values.size() / 2];
    };
    fmt::print("new blocks of 4 devices, {}:\n", at_once ? "try_provision" : "allocate and insert");
    for (int i = 0; i < 2; ++i) {
      fmt::print("  {} thread{}                           {:8.0f} k/s, {:.0f} ns of CPU each\n",
                 i + 1, i == 0 ? " " : "s", median(rates[i]) / 1000, median(cpu[i]));
    }
    const double ratio = median(ratios);
    fmt::print("  2 threads against 1                 {:8.2f} ({:.2f} to {:.2f})\n", ratio,
               ratios.front(), ratios.back());
  }
}

void bench_open(const std::string& dir, std::uint64_t mappings) {
  {
    auto pool = open_pool(dir, mappings + kMillion, std::size_t{256} << 20);
    must(pool->create_thin(0));
    fill(*pool, *must(pool->open_device(0)), mappings);
  }
  const std::uint64_t begin = now_ns();
  auto pool = open_pool(dir, mappings + kMillion, std::size_t{256} << 20);
  fmt::print("open with {:3} million mappings        {:8.0f} ms\n", mappings / kMillion,
             static_cast<double>(now_ns() - begin) / 1e6);
  auto device = must(pool->open_device(0));
  const std::uint64_t first = now_ns();
  must(device->lookup(mappings / 2));
  fmt::print("first look-up after it                {:8.0f} us\n",
             static_cast<double>(now_ns() - first) / 1000);
}

}  // namespace
}  // namespace mapperfs

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: thin_metadata_bench DIR [MAPPINGS | provisioning]\n");
    return 2;
  }
  const std::string dir = argv[1];
  const std::uint64_t mappings =
      argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 16 * mapperfs::kMillion;
  std::filesystem::create_directories(dir);
  mapperfs::bench_provisioning(dir + "/provisioning");
  if (argc > 2 && std::strcmp(argv[2], "provisioning") == 0) {
    std::filesystem::remove_all(dir);
    return 0;
  }
  mapperfs::bench_million(dir + "/million");
  mapperfs::bench_open(dir + "/big", mappings);
  std::filesystem::remove_all(dir);
  return 0;
}
