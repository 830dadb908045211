#include "tools/mapperctl_paths.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace mapperctl {
namespace {

constexpr std::string_view kMapperFolder = "/dev/mapper/";

bool is_blank(char c) { return c == ' ' || c == '\t'; }

// "0", "8.5": what a keyword's value may look like.
bool is_number(std::string_view word) {
  return word.find_first_not_of("0123456789.") == std::string_view::npos;
}

// Without the ./ at its front, which says only that it is a path.
std::string below(const std::string& folder, std::string_view path) {
  while (path.starts_with("./")) {
    path.remove_prefix(2);
    while (path.starts_with("/")) path.remove_prefix(1);
  }
  return folder == "/" ? folder + std::string(path) : folder + "/" + std::string(path);
}

bool is_relative_path(const std::string& word, const PathWorld& world) {
  const size_t slash = word.find('/');
  if (slash == 0 || word.empty()) return false;
  if (word.starts_with("./") || word.starts_with("../")) return true;
  if (slash != std::string::npos) {
    if (word.find(':') < slash) return false;
    const std::string path = below(world.folder, word);
    return world.exists(path) || world.is_directory(path.substr(0, path.rfind('/')));
  }
  return word.find('.') != std::string::npos && !is_number(word) &&
         world.exists(below(world.folder, word)) && !world.is_device(word);
}

bool stat_file(const std::string& path, struct stat& file) {
  return ::stat(path.c_str(), &file) == 0;
}

}  // namespace

std::optional<std::string> replace_path(const std::string& word, const PathWorld& world) {
  if (word.starts_with(kMapperFolder)) {
    std::string name = word.substr(kMapperFolder.size());
    if (world.is_device(name)) return name;
    return std::nullopt;
  }
  if (world.folder.empty() || !is_relative_path(word, world)) return std::nullopt;
  return below(world.folder, word);
}

std::string replace_paths(std::string_view params, const PathWorld& world) {
  std::string replaced;
  while (!params.empty()) {
    size_t end = 0;
    if (is_blank(params.front())) {
      while (end < params.size() && is_blank(params[end])) ++end;
      replaced += params.substr(0, end);
    } else {
      while (end < params.size() && !is_blank(params[end])) end += params[end] == '\\' ? 2 : 1;
      end = std::min(end, params.size());
      const std::string_view raw = params.substr(0, end);
      const auto path = replace_path(unescape_word(raw), world);
      replaced += path ? escape_word(*path) : std::string(raw);
    }
    params.remove_prefix(end);
  }
  return replaced;
}

void replace_paths(Client& client, std::vector<TableLine>& table) {
  std::optional<std::vector<Device>> devices;
  PathWorld world;
  std::error_code error;
  world.folder = std::filesystem::current_path(error).string();
  world.is_device = [&](const std::string& name) {
    if (!devices) devices = client.list().value;
    return std::any_of(devices->begin(), devices->end(),
                       [&name](const Device& device) { return device.name == name; });
  };
  world.exists = [](const std::string& path) {
    struct stat file {};
    return stat_file(path, file);
  };
  world.is_directory = [](const std::string& path) {
    struct stat file {};
    return stat_file(path, file) && S_ISDIR(file.st_mode);
  };
  for (TableLine& line : table) line.params = replace_paths(line.params, world);
}

}  // namespace mapperctl
