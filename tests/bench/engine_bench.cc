// The engine alone: what a bio costs without FUSE and without a disk.
//
//   engine_bench [--json] [--bios N] [--rounds N]
//
// Prints one table, or JSON with --json. Each case runs N bios of 4 KiB (default 2 million) on one
// thread, N rounds (default 5), the cases taking turns; the figure is the median round.
// "allocations" are calls of operator new per bio, counted in this program alone.
// docs/performance.md says what the figures mean.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "targets/targets.h"
#include "tests/bench/instant.h"

namespace {
std::atomic<std::uint64_t> g_allocations{0};
}  // namespace

// Not inlined, or the compiler sees that what new gives is freed by free(). Counts; the bench is
// single-threaded, so the count belongs to the case that runs.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* at = std::malloc(bytes)) {  // NOLINT: this is operator new
    return at;
  }
  std::abort();
}
// The standard library's sorts ask this way; unless it is ours too, a sanitizer's gives what our
// delete cannot take.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return operator new(bytes);
}
[[gnu::noinline]] void operator delete(void* at) noexcept { std::free(at); }               // NOLINT
[[gnu::noinline]] void operator delete(void* at, std::size_t) noexcept { std::free(at); }  // NOLINT

namespace mapperfs {
namespace {

constexpr sector_t kBlock = 8;  // 4 KiB
constexpr std::size_t kPlaces = 1 << 16;
constexpr std::size_t kPage = 4096;

class Count final : public Completion {
 public:
  void complete(Bio& bio) noexcept override { failed += bio.status() != BlkStatus::kOk ? 1U : 0U; }
  std::uint64_t failed = 0;
};

struct Case {
  std::string name;
  std::string device;  // submits go here
  sector_t span = 0;   // in sectors; bios lie at random places of it
  sector_t sectors = kBlock;
  Op op = Op::kRead;
  std::vector<double> ns;  // per bio, one a round
  double allocations = 0;  // per bio, over all rounds
};

// What this thread has had of a processor: a busy machine does not count.
double cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

class Bench {
 public:
  Bench(std::uint64_t bios, unsigned rounds) : bios_(bios), rounds_(rounds) {
    register_targets(registry_);
    engine_ = std::make_unique<Engine>(*env_, registry_, opener_);
    make_places();
    make_cases();
  }

  void run() {
    for (Case& one : cases_) {
      one.ns.reserve(rounds_);
      pass(one, std::min<std::uint64_t>(bios_, 100000));  // warms pools and caches
    }
    for (unsigned round = 0; round < rounds_; ++round) {
      for (Case& one : cases_) {
        const std::uint64_t before = g_allocations.load();
        one.ns.push_back(pass(one, bios_));
        one.allocations += static_cast<double>(g_allocations.load() - before) /
                           static_cast<double>(bios_) / rounds_;
      }
    }
  }

  void print_table() const {
    fmt::print("{:<34} {:>9} {:>11} {:>12}\n", "case", "ns/bio", "M bios/s", "allocations");
    for (const Case& one : cases_) {
      const double ns = median(one.ns);
      fmt::print("{:<34} {:>9.1f} {:>11.2f} {:>12.3f}\n", one.name, ns, 1000 / ns, one.allocations);
    }
    fmt::print("\n{:<34} {:>9.1f}\n", "per further stacked linear", per_further_linear());
  }

  void print_json() const {
    fmt::print("{{\n  \"bios\": {}, \"rounds\": {},\n  \"ns_per_further_linear\": {:.2f},\n", bios_,
               rounds_, per_further_linear());
    fmt::print("  \"cases\": [\n");
    for (std::size_t i = 0; i < cases_.size(); ++i) {
      const Case& one = cases_[i];
      const double ns = median(one.ns);
      fmt::print(
          "    {{\"name\": \"{}\", \"ns_per_bio\": {:.2f}, \"bios_per_s\": {:.0f}, "
          "\"allocations_per_bio\": {:.4f}}}{}\n",
          one.name, ns, 1e9 / ns, one.allocations, i + 1 < cases_.size() ? "," : "");
    }
    fmt::print("  ]\n}}\n");
  }

 private:
  // The same random places for every case, made beforehand: the generator is not measured.
  void make_places() {
    std::mt19937_64 random(1);
    places_.resize(kPlaces);
    for (std::uint64_t& place : places_) {
      place = random() >> 32;
    }
  }

  void bring_up(const std::string& name, const std::vector<TableLine>& lines) {
    Result<std::shared_ptr<MappedDevice>> md = engine_->create(name, {});
    Status status = md.ok() ? (*md)->load(lines, DeviceMode::kReadWrite) : md.status();
    if (status.ok()) {
      status = (*md)->resume({});
    }
    if (!status.ok()) {
      fmt::print(stderr, "engine_bench: {}: {}\n", name, status.message());
      std::exit(1);
    }
  }

  void add(std::string name, std::string device, sector_t span, Op op = Op::kRead,
           sector_t sectors = kBlock) {
    Case& one = cases_.emplace_back();
    one.name = std::move(name);
    one.device = std::move(device);
    one.span = span;
    one.op = op;
    one.sectors = sectors;
  }

  void make_cases() {
    constexpr sector_t kSpan = sector_t{1} << 30;
    bring_up("linear1", {{0, kSpan, "linear", "instant 0"}});
    add("linear over an instant device", "linear1", kSpan);
    for (int depth = 2; depth <= 8; ++depth) {
      bring_up(fmt::format("linear{}", depth),
               {{0, kSpan, "linear", fmt::format("linear{} 0", depth - 1)}});
      add(fmt::format("linear, stacked {}", depth), fmt::format("linear{}", depth), kSpan);
    }
    bring_up("striped", {{0, kSpan, "striped", "2 128 instant 0 instant 1073741824"}});
    add("striped, 2 stripes of 64 KiB", "striped", kSpan);
    add("striped, 128 KiB cut in two", "striped", kSpan, Op::kRead, 256);
    std::vector<TableLine> lines;
    constexpr sector_t kLine = 8192;
    for (sector_t i = 0; i < 100000; ++i) {
      lines.push_back({i * kLine, kLine, "linear", fmt::format("instant {}", i * kLine)});
    }
    bring_up("lines", lines);
    add("100,000 lines of linear", "lines", 100000 * kLine);
    make_cold_cases();
    constexpr sector_t kMemory = 16 * 1024 * 1024 / kSectorBytes;
    bring_up("ram", {{0, kMemory, "ram", ""}});
    bring_up("linear-ram", {{0, kMemory, "linear", "ram 0"}});
    for (const Op op : {Op::kWrite, Op::kRead}) {
      const char* verb = op == Op::kRead ? "read" : "write";
      add(fmt::format("ram 16 MiB, random {}", verb), "ram", kMemory, op);
      add(fmt::format("linear over ram, random {}", verb), "linear-ram", kMemory, op);
    }
  }

  // Random pages of a memory that no cache holds, found through one line and through 100,000 in
  // disorder: what a table costs between copies that drive it out of the caches.
  void make_cold_cases() {
    constexpr sector_t kLines = 100000;
    bring_up("cold", {{0, kLines * kBlock, "ram", ""}});
    fill("cold", kLines * kBlock);
    bring_up("cold-one", {{0, kLines * kBlock, "linear", "cold 0"}});
    std::vector<sector_t> order(kLines);
    std::iota(order.begin(), order.end(), sector_t{0});
    std::shuffle(order.begin(), order.end(), std::mt19937_64(2));
    std::vector<TableLine> lines;
    for (sector_t i = 0; i < kLines; ++i) {
      lines.push_back({i * kBlock, kBlock, "linear", fmt::format("cold {}", order[i] * kBlock)});
    }
    bring_up("cold-lines", lines);
    add("cold ram through one line", "cold-one", kLines * kBlock);
    add("cold ram through 100,000 lines", "cold-lines", kLines * kBlock);
  }

  // Writes every sector once: a hole would be answered without its memory.
  void fill(const std::string& name, sector_t sectors) {
    const std::shared_ptr<MappedDevice> md = engine_->find(name).take();
    Count count;
    Bio bio;
    bio.op = Op::kWrite;
    bio.completion = &count;
    bio.data = aligned_data();
    for (sector_t sector = 0; sector < sectors; sector += kBlock) {
      bio.dev = md.get();
      bio.sector = sector;
      bio.sectors = kBlock;
      submit_bio(bio);
    }
  }

  // Nanoseconds per bio.
  double pass(const Case& one, std::uint64_t bios) {
    const std::shared_ptr<MappedDevice> md = engine_->find(one.device).take();
    const sector_t places = one.span / one.sectors;
    Count count;
    Bio bio;
    bio.op = one.op;
    bio.completion = &count;
    bio.data = aligned_data();
    const double start_ns = cpu_ns();
    for (std::uint64_t i = 0; i < bios; ++i) {
      bio.dev = md.get();
      bio.sector = (places_[i % kPlaces] * places >> 32) * one.sectors;  // no division
      bio.sectors = one.sectors;
      submit_bio(bio);
    }
    const double took_ns = cpu_ns() - start_ns;
    if (count.failed != 0) {
      fmt::print(stderr, "engine_bench: {}: {} bios failed\n", one.name, count.failed);
      std::exit(1);
    }
    return took_ns / static_cast<double>(bios);
  }

  // A page's beginning, as every buffer of fs/ is. A copy of 4 KiB to a place 16 bytes behind one
  // takes twice as long: each load then seems to depend on the store before it, whose address
  // differs from its own by a multiple of 4 KiB and those few bytes.
  std::byte* aligned_data() {
    const auto at = reinterpret_cast<std::uintptr_t>(data_.data());
    return data_.data() + (kPage - at % kPage) % kPage;
  }

  [[nodiscard]] double per_further_linear() const {
    return (median(cases_[7].ns) - median(cases_[0].ns)) / 7;
  }

  const std::uint64_t bios_;
  const unsigned rounds_;
  const std::unique_ptr<Env> env_ = make_real_env();
  TargetRegistry registry_;
  InstantOpener opener_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::uint64_t> places_;
  std::vector<std::byte> data_ = std::vector<std::byte>(256 * kSectorBytes + kPage);
  std::vector<Case> cases_;
};

}  // namespace
}  // namespace mapperfs

int main(int argc, char** argv) {
  bool json = false;
  std::uint64_t bios = 2'000'000;
  std::uint64_t rounds = 5;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--json") {
      json = true;
    } else if (word == "--bios" && i + 1 < argc && mapperfs::parse_decimal(argv[i + 1], bios)) {
      ++i;
    } else if (word == "--rounds" && i + 1 < argc && mapperfs::parse_decimal(argv[i + 1], rounds)) {
      ++i;
    } else {
      fmt::print(stderr, "usage: engine_bench [--json] [--bios N] [--rounds N]\n");
      return 2;
    }
  }
  mapperfs::Bench bench(std::max<std::uint64_t>(bios, 1),
                        static_cast<unsigned>(std::clamp<std::uint64_t>(rounds, 1, 1000)));
  bench.run();
  json ? bench.print_json() : bench.print_table();
  return 0;
}
