#include "tests/tools/fake_mount.h"

#include <fmt/format.h>

#include <cerrno>
#include <sstream>

#include "tools/mapperctl_run.h"

namespace mapperctl {

class FakeMount::FakeTransport final : public Transport {
 public:
  explicit FakeTransport(FakeMount& mount) : mount_(mount) {}

  Reply connect() override { return {mount_.connect_err_, {}}; }

  Reply command(std::string_view lines) override {
    if (!lines.empty() && lines.back() == '\n') lines.remove_suffix(1);
    const std::string text(lines);
    mount_.commands_.push_back(text);
    const auto reply = mount_.replies_.find(text);
    if (reply != mount_.replies_.end()) return reply->second;
    return {EINVAL, fmt::format("the script has no reply to: {}", text)};
  }

  Reply read_file(const std::string& path) override {
    const auto file = mount_.files_.find(path);
    if (file == mount_.files_.end()) return {ENOENT, {}};
    std::vector<std::string>& texts = file->second;
    Reply reply{0, texts.front()};
    if (texts.size() > 1) texts.erase(texts.begin());
    return reply;
  }

  Reply wait_event(const std::string& name, unsigned long event_nr) override {
    if (mount_.device_lines_.count(name) == 0) return {ENXIO, {}};
    mount_.commands_.push_back(fmt::format("(wait {} {})", name, event_nr));
    return {};
  }

  std::string path_of(std::string_view name) const override {
    return name.empty() ? "/mnt/fake" : fmt::format("/mnt/fake/{}", name);
  }

 private:
  FakeMount& mount_;
};

void FakeMount::answer(const std::string& command, const std::string& text) {
  replies_[command] = {0, text};
}

void FakeMount::refuse(const std::string& command, int err, const std::string& sentence) {
  replies_[command] = {err, sentence};
}

void FakeMount::device(const std::string& name, const std::string& line) {
  device_lines_[name] = line;
  std::string all;
  for (const auto& [ignored, device_line] : device_lines_) all += device_line + "\n";
  answer("list", all);
  answer("list " + name, line + "\n");
}

FakeMount::Run FakeMount::run(std::initializer_list<const char*> words, const std::string& input) {
  std::vector<std::string> owned(words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : owned) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::istringstream in(input);
  std::ostringstream out;
  std::ostringstream err;
  const auto factory = [this](const std::string&, std::string&) -> std::unique_ptr<Transport> {
    return std::make_unique<FakeTransport>(*this);
  };
  Run run;
  run.status = run_mapperctl(static_cast<int>(owned.size()), argv.data(), {in, out, err}, factory);
  run.out = out.str();
  run.err = err.str();
  return run;
}

std::string list_line(const std::string& name, const std::string& uuid, int minor,
                      const std::string& attr, int open_count, int event_nr,
                      const std::string& deps, const std::string& flags, int targets) {
  return fmt::format("{}\t{}\t253\t{}\t{}\t{}\t{}\t{}\t256\t2048\t{}\t{}\t", name, uuid, minor,
                     attr, open_count, event_nr, targets, flags, deps);
}

}  // namespace mapperctl
