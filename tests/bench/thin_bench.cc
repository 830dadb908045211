// What thin provisioning costs over what lies below it, without FUSE: ratios against linear on the
// same file, snapshots under load, and I/O beside the deletion of a large device. Not a test; the
// metadata alone are thin_metadata_bench's.
//   thin_bench DIR [--rounds N] [--blocks N] [--mappings N] [--only PART]
// DIR is made and removed; the metadata and the data file lie in it. Each ratio is of neighbouring
// runs, the median of N rounds (default 9). PART: steady, chains, first, snapshots, deletion.
// docs/performance.md says what the figures mean.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/backing.h"
#include "engine/engine.h"
#include "engine/target_args.h"
#include "metadata/thin_metadata.h"
#include "targets/targets.h"
#include "tests/bench/instant.h"

namespace mapperfs {
namespace {

constexpr sector_t kBlock = 128;
constexpr sector_t kSmall = 8;

struct Settings {
  std::string dir;
  std::uint64_t rounds = 9;
  std::uint64_t blocks = 1024;         // of the small volumes: 64 MiB
  std::uint64_t mappings = 1'000'000;  // of the large ones
  std::string only;                    // a part of the cases, by its name; empty: all
};

[[noreturn]] void give_up(const std::string& why) {
  fmt::print(stderr, "thin_bench: {}\n", why);
  std::exit(1);
}
void must(const Status& status) {
  if (!status.ok()) {
    give_up(status.message());
  }
}
template <typename T>
T must(Result<T> result) {
  must(result.status());
  return result.take();
}

double now_us() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}
double at_share(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values.empty()
             ? 0
             : values[std::min(values.size() - 1, static_cast<std::size_t>(
                                                      share * static_cast<double>(values.size())))];
}
double median(const std::vector<double>& values) { return at_share(values, 0.5); }

// Keeps up to kDepth bios of one device in flight. One thread.
class Load {
 public:
  static constexpr std::size_t kDepth = 16;

  explicit Load(std::shared_ptr<MappedDevice> device) : device_(std::move(device)) {
    for (Slot& slot : slots_) {
      slot.load = this;
      slot.data.resize(kBlock << kSectorShift, std::byte{7});
      free_.push_back(&slot);
    }
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;
  ~Load() { drain(); }

  void submit(Op op, sector_t sector, sector_t sectors) {
    Slot* slot = nullptr;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      ended_.wait(lock, [this] { return !free_.empty(); });
      slot = free_.back();
      free_.pop_back();
    }
    slot->bio.op = op;
    slot->bio.dev = device_.get();
    slot->bio.sector = sector;
    slot->bio.sectors = sectors;
    slot->bio.data = slot->data.data();
    slot->bio.completion = slot;
    submit_bio(slot->bio);
  }
  void drain() {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, [this] { return free_.size() == kDepth; });
    if (failed_ != 0) {
      give_up(fmt::format("{}: {} bios failed", device_->name(), failed_));
    }
  }

 private:
  struct Slot final : Completion {
    void complete(Bio& ended) noexcept override {
      const std::lock_guard<std::mutex> lock(load->mutex_);
      load->failed_ += ended.status() != BlkStatus::kOk ? 1U : 0U;
      load->free_.push_back(this);
      load->ended_.notify_one();
    }
    Load* load = nullptr;
    Bio bio;
    std::vector<std::byte> data;
  };
  const std::shared_ptr<MappedDevice> device_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::array<Slot, kDepth> slots_;
  std::vector<Slot*> free_;
  std::uint64_t failed_ = 0;
};

class Bench {
 public:
  explicit Bench(Settings settings) : set_(std::move(settings)) {
    register_targets(registry_);
    engine_ = std::make_unique<Engine>(*env_, registry_, opener_);
  }

  void run() {
    make_file();
    const auto wanted = [this](std::string_view name) {
      return set_.only.empty() || set_.only == name;
    };
    if (wanted("steady") || wanted("chains")) {
      bench_steady();
      if (wanted("chains")) {
        bench_chains();
      }
      end_small();
    }
    if (wanted("first")) {
      bench_first_writes();
    }
    if (wanted("snapshots") || wanted("deletion")) {
      bring_up_large();
      if (wanted("snapshots")) {
        bench_snapshots();
      }
      if (wanted("deletion")) {
        bench_deletion();
      }
    }
  }

 private:
  using Step = std::function<double()>;  // microseconds a bio

  void table(const std::string& name, sector_t len, std::string_view type,
             const std::string& args) {
    Result<std::shared_ptr<MappedDevice>> found = engine_->find(name);
    const std::shared_ptr<MappedDevice> md =
        found.ok() ? found.take() : must(engine_->create(name, {}));
    const TableLine line = {0, len, std::string(type), args};
    must(md->load({&line, 1}, DeviceMode::kReadWrite));
    must(md->resume({}));
  }
  void message(const std::string& pool, const std::string& text) {
    const std::vector<std::string> words = split_words(text);
    const std::vector<std::string_view> views(words.begin(), words.end());
    must(must(engine_->find(pool))->message(0, views).status());
  }
  // What the thin-pool `name` has of data blocks in use.
  std::uint64_t used(const std::string& name) {
    const auto lines = must(engine_->find(name))->status_lines(MappedDevice::Slot::kLive, true);
    const std::string word = split_words(lines.at(0).words).at(2);
    return std::strtoull(word.c_str(), nullptr, 10);
  }

  // Linear's and the pools' alike: nobody looks at what is in it, and what lies below is the same
  // for both. All of it is written, so that none pays for the file system's allocations.
  void make_file() {
    const int fd = ::open(file().c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    const std::vector<char> zeroes(kBlock << kSectorShift, 1);
    for (std::uint64_t i = 0; i < 8 * set_.blocks; ++i) {
      if (::write(fd, zeroes.data(), zeroes.size()) < 0) {
        give_up("writing the data file");
      }
    }
    ::close(fd);
    table("linear", set_.blocks * kBlock, "linear", file() + " 0");
  }
  [[nodiscard]] std::string file() const { return set_.dir + "/data"; }

  // `count` bios at random places of the small volumes, each place once if `each`.
  double pass(const std::string& device, Op op, sector_t sectors, std::uint64_t count,
              bool each = false) {
    std::vector<std::uint64_t> blocks(set_.blocks);
    for (std::uint64_t i = 0; i < blocks.size(); ++i) {
      blocks[i] = i;
    }
    std::shuffle(blocks.begin(), blocks.end(), random_);
    Load load(must(engine_->find(device)));
    const double begin = now_us();
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t inside = each ? 0 : i * 7919 % (kBlock / sectors) * sectors;
      load.submit(op, blocks[i % blocks.size()] * kBlock + inside, sectors);
    }
    load.drain();
    return (now_us() - begin) / static_cast<double>(count);
  }

  // Runs the two in turn; prints the medians and the median of the ratios, above 1 where `ours` is
  // faster.
  void compare(std::string_view what, const Step& theirs, const Step& ours,
               const std::function<void()>& prepare = {}) {
    std::vector<double> first;
    std::vector<double> second;
    std::vector<double> ratios;
    for (std::uint64_t round = 0; round < set_.rounds; ++round) {
      if (prepare) {
        prepare();
      }
      first.push_back(theirs());
      second.push_back(ours());
      ratios.push_back(first.back() / second.back());
    }
    fmt::print("{:<52} {:>8.2f} {:>8.2f} us   x {:.2f}\n", what, median(first), median(second),
               median(ratios));
    std::fflush(stdout);
  }

  void bench_steady() {
    table(
        "pool", 8 * set_.blocks * kBlock, "thin-pool",
        fmt::format("{}/meta {} 128 0 2 skip_block_zeroing no_discard_passdown", set_.dir, file()));
    message("pool", "create_thin 0");
    table("thin", set_.blocks * kBlock, "thin", "pool 0");
    pass("thin", Op::kWrite, kBlock, set_.blocks, true);
    const std::uint64_t count = 16 * set_.blocks;
    pass("thin", Op::kRead, kSmall, count);
    compare(
        "provisioned 4K random read, linear against thin",
        [&] { return pass("linear", Op::kRead, kSmall, count); },
        [&] { return pass("thin", Op::kRead, kSmall, count); });
    compare(
        "provisioned 4K random write, linear against thin",
        [&] { return pass("linear", Op::kWrite, kSmall, count); },
        [&] { return pass("thin", Op::kWrite, kSmall, count); });
  }

  // Device 0 is a volume of its own; kLast is the last of a thousand snapshots, each of the one
  // before.
  void bench_chains() {
    constexpr unsigned kFirst = 1000;
    constexpr unsigned kLast = kFirst + 1000;
    message("pool", fmt::format("create_thin {}", kFirst));
    table("chain", set_.blocks * kBlock, "thin", fmt::format("pool {}", kFirst));
    pass("chain", Op::kWrite, kBlock, set_.blocks, true);
    for (unsigned id = kFirst + 1; id <= kLast; ++id) {
      message("pool", fmt::format("create_snap {} {}", id, id - 1));
      table("chain", set_.blocks * kBlock, "thin", fmt::format("pool {}", id));
      pass("chain", Op::kWrite, kSmall, 2);  // so that each has blocks of its own
    }
    const std::uint64_t count = set_.blocks / 2;
    compare(
        "read of a volume against of the last of 1,000",
        [&] { return pass("thin", Op::kRead, kSmall, 16 * count); },
        [&] { return pass("chain", Op::kRead, kSmall, 16 * count); });
    compare(
        "first rewrite after 1 snapshot against after 1,000",
        [&] { return pass("thin", Op::kWrite, kSmall, count, true); },
        [&] { return pass("chain", Op::kWrite, kSmall, count, true); },
        [&, fresh = 0]() mutable {
          for (const unsigned device : {0U, kLast}) {
            const unsigned id = 10 + device;
            if (fresh > 1) {
              message("pool", fmt::format("delete {}", id));
            }
            message("pool", fmt::format("create_snap {} {}", id, device));
            ++fresh;
          }
        });
    compare(
        "rewrite of one's own blocks, the same",
        [&] { return pass("thin", Op::kWrite, kSmall, 16 * count); },
        [&] { return pass("chain", Op::kWrite, kSmall, 16 * count); });
    must(engine_->remove("chain", false));
  }
  void end_small() {
    must(engine_->remove("thin", false));
    must(engine_->remove("pool", false));
    std::filesystem::remove_all(set_.dir + "/meta");
  }

  void bench_first_writes() {
    table("pool", 8 * set_.blocks * kBlock, "thin-pool",
          fmt::format("{}/meta2 {} 128 0 2 skip_block_zeroing no_discard_passdown", set_.dir,
                      file()));
    bool made = false;
    const auto fresh = [&] {
      if (made) {
        must(engine_->remove("thin", false));
        message("pool", "delete 0");
        while (used("pool") != 0) {  // the old one's blocks are freed in the background
          wait_until_us(now_us() + 1000);
        }
      }
      made = true;
      message("pool", "create_thin 0");
      table("thin", set_.blocks * kBlock, "thin", "pool 0");
    };
    for (const sector_t sectors : {kSmall, kBlock}) {
      compare(
          fmt::format("{} KiB into each new block, linear against thin", sectors / 2),
          [&] { return pass("linear", Op::kWrite, sectors, set_.blocks, true); },
          [&] { return pass("thin", Op::kWrite, sectors, set_.blocks, true); }, fresh);
    }
    must(engine_->remove("thin", false));
    must(engine_->remove("pool", false));
  }

  // A pool whose device 0 has a mapping for each of the first `mappings` blocks, over "instant".
  void bring_up_large() {
    {
      ThinMetadataOptions options;
      options.data_block_size = kBlock;
      options.nr_data_blocks = large_blocks();
      options.cache_bytes = std::size_t{256} << 20;
      auto pool = must(ThinMetadata::open(set_.dir + "/large", options));
      must(pool->create_thin(0));
      const auto device = must(pool->open_device(0));
      for (std::uint64_t i = 0; i < set_.mappings; ++i) {
        must(device->insert(i, must(pool->allocate_data_block())));
      }
      must(pool->commit());
    }
    table("large", large_blocks() * kBlock, "thin-pool",
          fmt::format("{}/large instant 128 0 1 skip_block_zeroing", set_.dir));
    table("volume", set_.mappings * kBlock, "thin", "large 0");
  }
  [[nodiscard]] std::uint64_t large_blocks() const { return 8 * set_.mappings; }

  // What syncing 4 KiB to the metadata's file system takes: no commit takes less.
  void print_sync_floor() const {
    const std::string path = set_.dir + "/sync";
    const int fd = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    const std::vector<char> page(4096, 1);
    std::vector<double> took;
    for (int i = 0; i < 300; ++i) {
      const double begin = now_us();
      if (::pwrite(fd, page.data(), page.size(), i * 4096) < 0 || ::fdatasync(fd) != 0) {
        give_up("syncing");
      }
      took.push_back(now_us() - begin);
      std::this_thread::yield();
    }
    ::close(fd);
    fmt::print("  {:<50} p50 {:>6.2f} p99 {:>6.2f} ms\n", "a synced write of 4 KiB there",
               median(took) / 1000, at_share(took, 0.99) / 1000);
  }

  void bench_snapshots() {
    fmt::print("create_snap of {} mappings, 4K random I/O going on:\n", set_.mappings);
    print_sync_floor();
    std::uint32_t& id = next_snapshot_;
    for (const Beside& beside : kBeside) {
      std::atomic<bool> stop{false};
      std::uint64_t done = 0;
      std::thread load([&] { done = load_at(beside, stop); });
      std::vector<double> took;
      const double first = now_us();
      for (const std::uint32_t end = id + 300; id < end; ++id) {
        const double begin = now_us();
        message("large", fmt::format("create_snap {} 0", id));
        took.push_back(now_us() - begin);
        wait_until_us(begin + 20000);  // 50 a second
      }
      stop = true;
      load.join();
      fmt::print("  {:<50} p50 {:>6.2f} p99 {:>6.2f} ms, most {:.2f}; {:.0f} a second\n",
                 beside.what, median(took) / 1000, at_share(took, 0.99) / 1000,
                 at_share(took, 1) / 1000, static_cast<double>(done) * 1e6 / (now_us() - first));
      std::fflush(stdout);
    }
  }
  // I/O of 4 KiB at random places.
  struct Beside {
    std::string_view what;
    std::uint64_t per_second;
    unsigned reads;  // of ten
  };
  static constexpr std::array<Beside, 5> kBeside = {{
      {"nothing beside it", 0, 0},
      {"2,000 writes a second", 2000, 0},
      {"20,000 writes a second", 20000, 0},
      {"20,000 a second, half of them reads", 20000, 5},
      {"as many as it takes, half of them reads", 1'000'000'000, 5},
  }};
  // Waiting must cost no core: there are few, and the commit is what is measured.
  static void wait_until_us(double when) {
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock<std::mutex> lock(mutex);
    while (now_us() < when) {
      never.wait_for(lock, std::chrono::duration<double, std::micro>(when - now_us()));
    }
  }
  std::uint64_t load_at(const Beside& beside, const std::atomic<bool>& stop) {
    Load load(must(engine_->find("volume")));
    std::mt19937_64 random(3);
    const double begin = now_us();
    std::uint64_t done = 0;
    while (!stop) {
      const double due = (now_us() - begin) * static_cast<double>(beside.per_second) / 1e6;
      for (; !stop && static_cast<double>(done) < due; ++done) {
        const Op op = random() % 10 < beside.reads ? Op::kRead : Op::kWrite;
        load.submit(op, random() % set_.mappings * kBlock, kSmall);
      }
      wait_until_us(now_us() + 200);
    }
    return done;
  }

  // I/O on a second device while the first is deleted and its blocks are freed.
  void bench_deletion() {
    message("large", "create_thin 9000000");
    table("beside", set_.blocks * kBlock, "thin", "large 9000000");
    pass("beside", Op::kWrite, kBlock, set_.blocks, true);
    must(engine_->remove("volume", false));
    for (std::uint32_t id = 1; id < next_snapshot_; ++id) {
      message("large", fmt::format("delete {}", id));
    }
    wait_until_quiet();
    std::vector<double> before;
    std::vector<double> during;
    const auto window = [&] {
      return (pass("beside", Op::kWrite, kSmall, 20000) +
              pass("beside", Op::kRead, kSmall, 20000)) /
             2;
    };
    for (int i = 0; i < 40; ++i) {
      before.push_back(window());
    }
    const std::uint64_t full = used("large");
    const double begin = now_us();
    message("large", "delete 0");
    const double returned = now_us() - begin;
    while (used("large") > set_.blocks + 1) {
      during.push_back(window());
    }
    const double all = now_us() - begin;
    fmt::print(
        "deletion of {} mappings: returned after {:.2f} ms, {} blocks free after {:.0f} ms\n",
        set_.mappings, returned / 1000, full - used("large"), all / 1000);
    fmt::print("{:<52} {:>8.2f} {:>8.2f} us   x {:.2f} ({} windows)\n",
               "  4K random I/O beside it, before against during", median(before), median(during),
               median(before) / median(during), during.size());
  }
  void wait_until_quiet() {
    for (std::uint64_t last = 0, now = used("large"); now != last;) {
      last = now;
      pass("beside", Op::kRead, kSmall, 100000);
      now = used("large");
    }
  }

  const Settings set_;
  const std::unique_ptr<Env> env_ = make_real_env();
  TargetRegistry registry_;
  InstantOpener opener_{make_backing_opener(*env_, {})};
  std::unique_ptr<Engine> engine_;
  std::mt19937_64 random_{1};
  std::uint32_t next_snapshot_ = 1;  // of the large volume
};

}  // namespace
}  // namespace mapperfs

int main(int argc, char** argv) {
  mapperfs::Settings settings;
  bool good = argc >= 2 && argv[1][0] != '-';
  settings.dir = good ? argv[1] : "";
  for (int i = 2; good && i < argc; i += 2) {
    const std::string word = argv[i];
    if (word == "--only" && i + 1 < argc) {
      settings.only = argv[i + 1];
      continue;
    }
    std::uint64_t* const value = word == "--rounds"     ? &settings.rounds
                                 : word == "--blocks"   ? &settings.blocks
                                 : word == "--mappings" ? &settings.mappings
                                                        : nullptr;
    good = value != nullptr && i + 1 < argc && mapperfs::parse_decimal(argv[i + 1], *value) &&
           *value != 0;
  }
  if (!good) {
    fmt::print(stderr,
               "usage: thin_bench DIR [--rounds N] [--blocks N] [--mappings N] [--only PART]\n");
    return 2;
  }
  settings.dir = std::filesystem::absolute(settings.dir);
  std::filesystem::create_directories(settings.dir);
  { mapperfs::Bench(settings).run(); }
  std::filesystem::remove_all(settings.dir);
  return 0;
}
