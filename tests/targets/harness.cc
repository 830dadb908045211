#include "tests/targets/harness.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <sstream>

#include "targets/targets.h"

namespace mapperfs::test {

namespace {

// Opens for tables that belong to no device.
class BackingOnlyOpener final : public DeviceOpener {
 public:
  explicit BackingOnlyOpener(BackingOpener& backing) : backing_(backing) {}
  Result<DevRef> open(const std::string& word, DeviceMode mode) override {
    return backing_.open(word, mode);
  }

 private:
  BackingOpener& backing_;
};

std::string join(const std::vector<MappedDevice::StatusLine>& lines) {
  std::string text;
  for (const MappedDevice::StatusLine& line : lines) {
    text += fmt::format("{}{} {} {} {}", text.empty() ? "" : "\n", line.start, line.len, line.type,
                        line.words);
  }
  return text;
}

}  // namespace

std::vector<TableLine> parse_lines(std::string_view text) {
  std::vector<TableLine> lines;
  std::istringstream stream{std::string(text)};
  for (std::string line; std::getline(stream, line);) {
    Result<TableLine> parsed = parse_table_line(line);
    EXPECT_TRUE(parsed.ok()) << line << ": " << parsed.status().message();
    if (parsed.ok()) {
      lines.push_back(parsed.take());
    }
  }
  return lines;
}

fake::Bytes filled(sector_t sectors, int value) {
  return fake::Bytes(sectors << kSectorShift, static_cast<std::byte>(value));
}

Harness::Harness(std::uint64_t seed) : env_(seed), engine_(env_, registry_, opener_) {
  register_targets(registry_);
}

fake::FaultDev& Harness::add_fault_dev(const std::string& word, sector_t sectors) {
  fault_devs_.push_back(std::make_unique<fake::FaultDev>(word, sectors, env_));
  opener_.add(word, *fault_devs_.back());
  return *fault_devs_.back();
}

void Harness::add_rams() {
  for (const char* word : {"ram0", "ram1", "ram2"}) {
    opener_.add_mem(word, 32768);
  }
}

MappedDevice& Harness::device(const std::string& name) {
  if (const auto found = engine_.find(name); found.ok()) {
    return **found;
  }
  const auto made = engine_.create(name, {});
  EXPECT_TRUE(made.ok()) << made.status().message();
  return **made;
}

Status Harness::set_table(const std::string& name, std::string_view text, DeviceMode mode) {
  MappedDevice& md = device(name);
  if (Status status = md.load(parse_lines(text), mode); !status.ok()) {
    return status;
  }
  return md.resume({});
}

Status Harness::try_table(std::string_view text) {
  MappedDevice& md = device("try");
  Status status = md.load(parse_lines(text), DeviceMode::kReadWrite);
  EXPECT_TRUE(md.clear().ok());
  return status;
}

std::string Harness::table(const std::string& name) {
  return join(device(name).table_lines(MappedDevice::Slot::kLive, false));
}

std::string Harness::status(const std::string& name) {
  return join(device(name).status_lines(MappedDevice::Slot::kLive, true));
}

Result<std::string> Harness::message(const std::string& name, std::string_view text) {
  const std::vector<std::string> words = split_words(text);
  const std::vector<std::string_view> argv(words.begin(), words.end());
  return device(name).message(0, argv);
}

Result<std::unique_ptr<Table>> Harness::make_table(const std::string& name, std::string_view text) {
  BackingOnlyOpener opener(opener_);
  Table::Options options;
  options.host = &device(name);
  options.env = &env_;
  options.registry = &registry_;
  options.opener = &opener;
  return Table::load(parse_lines(text), options);
}

BlkStatus Harness::finish(fake::AsyncBio& bio) {
  bio.submit();
  while (!bio.done() && (env_.run() != 0 || env_.advance_to_next_timer())) {
  }
  return bio.wait();
}

BlkStatus Harness::write(const std::string& name, sector_t sector, const fake::Bytes& data,
                         std::uint8_t flags) {
  fake::AsyncBio bio(device(name), sector, data, flags);
  return finish(bio);
}

BlkStatus Harness::read(const std::string& name, sector_t sector, sector_t sectors,
                        fake::Bytes& data) {
  fake::AsyncBio bio(device(name), Op::kRead, sector, sectors);
  const BlkStatus status = finish(bio);
  data = bio.data();
  return status;
}

fake::Bytes Harness::read(const std::string& name, sector_t sector, sector_t sectors) {
  fake::Bytes data;
  return read(name, sector, sectors, data) == BlkStatus::kOk ? data : fake::Bytes();
}

BlkStatus Harness::run_op(const std::string& name, Op op, sector_t sector, sector_t sectors,
                          std::uint8_t flags) {
  fake::AsyncBio bio(device(name), op, sector, sectors, flags);
  return finish(bio);
}

}  // namespace mapperfs::test
