#include "tools/mapperctl_session.h"

#include <fmt/ostream.h>

#include <cerrno>
#include <cstring>

namespace mapperctl {

std::string ioctl_error(std::string_view verb, const DeviceIdent& ident, int err) {
  std::string number;
  if (ident.major && *ident.major > 0) {
    number = fmt::format("({}:{})", *ident.major, ident.minor.value_or(0));
  }
  return fmt::format("device-mapper: {} ioctl on {} {}{} failed: {}", verb, ident.name, ident.uuid,
                     number, std::strerror(err));
}

Client* Session::client() {
  if (client_) return &*client_;
  std::string error;
  transport_ = factory_(opt_.mount, error);
  if (!transport_) {
    fmt::print(err(), "mapperctl: {}\n", error);
    return nullptr;
  }
  if (const Reply reply = transport_->connect(); !reply.ok()) {
    say_no_mount(reply);
    return nullptr;
  }
  client_.emplace(*transport_);
  return &*client_;
}

void Session::say_no_mount(const Reply& reply) {
  fmt::print(err(), "{}: open failed: {}\n", transport_->path_of("control"),
             std::strerror(reply.err));
  fmt::print(err(), "Failure to communicate with mapperfs.\n");
  const std::string place = transport_->path_of("");
  if (!reply.text.empty()) {
    fmt::print(err(), "mapperctl: {}\n", reply.text);
  } else if (reply.err == ENOENT) {
    fmt::print(err(), "Check that a mapperfs is mounted on {}.\n", place);
  } else if (reply.err == ENOTCONN) {
    fmt::print(err(), "The daemon of this mount is gone: fusermount3 -u {} takes it away.\n",
               place);
  }
}

bool Session::fail(std::string_view sentence) {
  fmt::print(err(), "{}\n", sentence);
  return false;
}

bool Session::ioctl_failed(std::string_view verb, const DeviceIdent& ident, const Reply& reply) {
  out().flush();
  fmt::print(err(), "{}\n", ioctl_error(verb, ident, reply.err));
  if (!quiet_ && !reply.text.empty()) refused(reply);
  return false;
}

bool Session::refused(const Reply& reply) {
  std::string_view sentence = reply.text;
  while (!sentence.empty() && sentence.back() == '\n') sentence.remove_suffix(1);
  return fail(fmt::format("mapperctl: {}", sentence.empty() ? std::strerror(reply.err) : sentence));
}

std::optional<std::string_view> Session::strip_directory(std::string_view word) {
  const size_t slash = word.rfind('/');
  if (slash == std::string_view::npos) return word;
  const std::string_view directory = word.substr(0, slash);
  bool ours = directory == "/dev/mapper";
  if (!ours && client() != nullptr) ours = directory == transport_->path_of("");
  if (ours) return word.substr(slash + 1);
  fail(word.front() == '/' ? fmt::format("Device {} not found", word)
                           : fmt::format("Name \"{}\" invalid. It contains \"/\".", word));
  return std::nullopt;
}

std::optional<std::string> Session::device_name(std::string_view word) {
  const auto name = strip_directory(word);
  if (!name) return std::nullopt;
  if (name->size() > kMaxNameBytes) {
    fail(fmt::format("Name \"{}\" too long.", *name));
    return std::nullopt;
  }
  Mangled mangled = mangle(*name, "name", kMaxNameBytes, opt_.mangling);
  if (mangled.error.empty()) return std::move(mangled.text);
  fail(mangled.error);
  fail(fmt::format("Failed to mangle device name \"{}\".", *name));
  return std::nullopt;
}

std::optional<std::string> Session::device_uuid(std::string_view word) {
  Mangled mangled = mangle(word, "UUID", kMaxUuidBytes, opt_.mangling);
  if (mangled.error.empty()) return std::move(mangled.text);
  fail(mangled.error);
  fail(fmt::format("Failed to mangle device uuid \"{}\".", word));
  return std::nullopt;
}

std::string Session::shown(std::string_view mangled) const {
  return opt_.mangling == Mangling::kNone ? std::string(mangled) : unmangle(mangled);
}

std::optional<Selected> Session::select(const std::string* word, std::string_view verb) {
  if (word == nullptr && !selects_by_number_or_uuid()) {
    fail("No device specified.");
    return std::nullopt;
  }
  if (client() == nullptr) return std::nullopt;
  return word != nullptr ? select_by_name(*word) : select_from_list(verb);
}

std::optional<Selected> Session::select_by_name(const std::string& word) {
  auto name = device_name(word);
  if (!name) return std::nullopt;
  const std::string plain(word.substr(word.rfind('/') + 1));
  // Names written to the control file are not mangled: where only that one exists, it is meant.
  const bool may_be_plain = opt_.mangling == Mangling::kAuto && *name != plain;
  if (may_be_plain && !client_->device(*name).ok() && client_->device(plain).ok()) name = plain;
  return Selected{std::move(*name), {plain, {}, {}, {}}};
}

std::optional<Selected> Session::missing(std::string_view verb, const DeviceIdent& ident) {
  if (verb.empty()) {
    fail("Device does not exist.");
  } else {
    const std::string what =
        ident.major ? fmt::format("the number {}:{}", *ident.major, ident.minor.value_or(0))
                    : fmt::format("the UUID \"{}\"", ident.uuid);
    ioctl_failed(verb, ident, {ENXIO, fmt::format("there is no mapped device with {}", what)});
  }
  return std::nullopt;
}

std::optional<Selected> Session::select_from_list(std::string_view verb) {
  DeviceIdent ident{{}, opt_.uuid.value_or(""), {}, {}};
  std::optional<std::string> uuid;
  if (opt_.uuid) {
    uuid = device_uuid(*opt_.uuid);
    if (!uuid) return std::nullopt;
  } else {
    ident.major = opt_.major;
    ident.minor = opt_.minor;
  }
  const auto devices = client_->list();
  if (!devices.ok()) {
    ioctl_failed(verb.empty() ? "info" : verb, ident, devices.reply);
    return std::nullopt;
  }
  for (const Device& device : devices.value) {
    const bool hit = uuid ? device.uuid == *uuid || device.uuid == *opt_.uuid
                          : device.major == *opt_.major && device.minor == *opt_.minor;
    if (hit) return Selected{device.name, ident};
  }
  return missing(verb, ident);
}

}  // namespace mapperctl
