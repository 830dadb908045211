// `top`: what goes through each device, as rates between two readings of sys/NAME/stats. Those are
// the 17 fields of /sys/block/*/stat: reads, merged, sectors, ms; the same of writes; in flight, ms
// busy.
#include <fmt/ostream.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <sstream>
#include <thread>

#include "tools/mapperctl_json.h"
#include "tools/mapperctl_verbs.h"

namespace mapperctl {
namespace {

constexpr size_t kFields = 17;
constexpr size_t kReads = 0;
constexpr size_t kReadSectors = 2;
constexpr size_t kReadMs = 3;
constexpr size_t kWrites = 4;
constexpr size_t kWriteSectors = 6;
constexpr size_t kWriteMs = 7;
constexpr size_t kInFlight = 8;
constexpr size_t kBusyMs = 9;
constexpr double kSectorsPerMiB = 2048;

using Counters = std::array<uint64_t, kFields>;
using Clock = std::chrono::steady_clock;

struct Sample {
  Clock::time_point when;
  std::map<std::string, Counters> devices;
};

struct Rates {
  std::string name;
  double reads = 0;  // a second
  double writes = 0;
  double read_mib = 0;
  double write_mib = 0;
  double read_wait_ms = 0;  // of one I/O
  double write_wait_ms = 0;
  double busy_percent = 0;
  uint64_t in_flight = 0;
};

std::optional<Sample> take_sample(Session& session, Client& client) {
  const auto devices = client.list();
  if (!devices.ok()) {
    session.ioctl_failed("names", {}, devices.reply);
    return std::nullopt;
  }
  Sample sample{Clock::now(), {}};
  for (const Device& device : devices.value) {
    const Reply reply = client.transport().read_file("sys/" + device.name + "/stats");
    if (!reply.ok()) continue;  // it went away since the list was read
    std::istringstream words(reply.text);
    Counters counters{};
    for (uint64_t& counter : counters) words >> counter;
    sample.devices[device.name] = counters;
  }
  return sample;
}

Rates rates_between(const std::string& name, const Counters& before, const Counters& after,
                    double seconds) {
  const auto grown = [&](size_t i) {
    return after[i] > before[i] ? static_cast<double>(after[i] - before[i]) : 0.0;
  };
  const auto per_io = [&](size_t ms, size_t ios) {
    return grown(ios) > 0 ? grown(ms) / grown(ios) : 0.0;
  };
  Rates rates;
  rates.name = name;
  rates.reads = grown(kReads) / seconds;
  rates.writes = grown(kWrites) / seconds;
  rates.read_mib = grown(kReadSectors) / kSectorsPerMiB / seconds;
  rates.write_mib = grown(kWriteSectors) / kSectorsPerMiB / seconds;
  rates.read_wait_ms = per_io(kReadMs, kReads);
  rates.write_wait_ms = per_io(kWriteMs, kWrites);
  rates.busy_percent = std::min(100.0, grown(kBusyMs) / (seconds * 10));
  rates.in_flight = after[kInFlight];
  return rates;
}

// The busiest first.
std::vector<Rates> all_rates(const Sample& before, const Sample& after) {
  const double seconds =
      std::max(0.001, std::chrono::duration<double>(after.when - before.when).count());
  std::vector<Rates> rates;
  for (const auto& [name, counters] : after.devices) {
    const auto old = before.devices.find(name);
    rates.push_back(rates_between(name, old == before.devices.end() ? counters : old->second,
                                  counters, seconds));
  }
  std::stable_sort(rates.begin(), rates.end(), [](const Rates& a, const Rates& b) {
    return a.read_mib + a.write_mib > b.read_mib + b.write_mib;
  });
  return rates;
}

void print_table(Session& session, const std::vector<Rates>& all) {
  std::ostream& out = session.out();
  fmt::print(out, "{:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6}\n", "Name", "r/s", "w/s",
             "rMiB/s", "wMiB/s", "r_ms", "w_ms", "InFl", "Busy%");
  for (const Rates& rates : all) {
    fmt::print(out, "{:<16} {:>9.0f} {:>9.0f} {:>9.1f} {:>9.1f} {:>9.2f} {:>9.2f} {:>6} {:>6.1f}\n",
               session.shown(rates.name), rates.reads, rates.writes, rates.read_mib,
               rates.write_mib, rates.read_wait_ms, rates.write_wait_ms, rates.in_flight,
               rates.busy_percent);
  }
  out.flush();
}

void print_json(Session& session, const std::vector<Rates>& all) {
  JsonWriter json(session.out());
  json.begin_array();
  for (const Rates& rates : all) {
    json.begin_object();
    json.field("name", session.shown(rates.name));
    const auto real = [&json](std::string_view key, double value) {
      json.key(key), json.real(value);
    };
    real("reads_per_second", rates.reads);
    real("writes_per_second", rates.writes);
    real("read_mib_per_second", rates.read_mib);
    real("write_mib_per_second", rates.write_mib);
    real("read_wait_ms", rates.read_wait_ms);
    real("write_wait_ms", rates.write_wait_ms);
    real("busy_percent", rates.busy_percent);
    json.key("in_flight"), json.unsigned_number(rates.in_flight);
    json.end_object();
  }
  json.end_array();
  json.finish();
  session.out().flush();
}

}  // namespace

bool verb_top(Session& session, const TopOptions& options) {
  Client* const client = session.client();
  if (client == nullptr) return false;
  const bool terminal = ::isatty(STDOUT_FILENO) == 1 && !options.once && !session.opt().json;
  auto before = take_sample(session, *client);
  if (!before) return false;
  for (;;) {
    std::this_thread::sleep_for(std::chrono::duration<double>(options.interval_seconds));
    auto after = take_sample(session, *client);
    if (!after) return false;
    if (terminal) fmt::print(session.out(), "\033[H\033[2J");
    const auto rates = all_rates(*before, *after);
    session.opt().json ? print_json(session, rates) : print_table(session, rates);
    if (options.once) return true;
    before = std::move(after);
  }
}

}  // namespace mapperctl
