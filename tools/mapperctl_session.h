// One run of mapperctl: its options, its streams, the mount, and the ways in which dmsetup names
// devices and words errors.
#pragma once

#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "tools/mapperctl_client.h"
#include "tools/mapperctl_options.h"

namespace mapperctl {

struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
};

// Finds and opens the mount; null after an error, which it stores.
using TransportFactory =
    std::function<std::unique_ptr<Transport>(const std::string& option, std::string& error)>;

// How an error names a device: dmsetup prints what it was given, not what it looked up.
struct DeviceIdent {
  std::string name;
  std::string uuid;
  std::optional<int> major;
  std::optional<int> minor;
};

// `device-mapper: VERB ioctl on NAME UUID(MAJ:MIN) failed: STRERROR`
std::string ioctl_error(std::string_view verb, const DeviceIdent& ident, int err);

// A device that a command is for.
struct Selected {
  std::string name;  // as the daemon has it
  DeviceIdent ident;
};

class Session {
 public:
  // With `quiet`, the daemon's sentence is left out of errors, as dmsetup has none.
  Session(const Options& options, Console console, TransportFactory factory, bool quiet)
      : opt_(options), console_(console), factory_(std::move(factory)), quiet_(quiet) {}

  const Options& opt() const { return opt_; }
  std::istream& in() { return console_.in; }
  std::ostream& out() { return console_.out; }
  std::ostream& err() { return console_.err; }
  bool quiet() const { return quiet_; }

  // The mount, opened on first use. Null: there is none to talk to, and that was said.
  Client* client();

  // All print and return false, for `return session.fail(...)`.
  bool fail(std::string_view sentence);
  bool refused(const Reply& reply);  // what the daemon said, or what its errno means
  bool ioctl_failed(std::string_view verb, const DeviceIdent& ident, const Reply& reply);

  // The run fails without the last line "Command failed.", as it does when a report cannot be made.
  bool fail_silently() {
    silent_ = true;
    return false;
  }
  bool failed_silently() const { return silent_; }

  // A name as the user wrote it, without a path before it and mangled. Nothing after an error.
  std::optional<std::string> device_name(std::string_view word);
  std::optional<std::string> device_uuid(std::string_view word);
  // A name or UUID of the daemon as the user wants to see it.
  std::string shown(std::string_view mangled) const;

  bool selects_by_number_or_uuid() const { return opt_.uuid || opt_.major; }
  // The device of a command: by -u, by -j and -m, or by `word`. Errors are printed as those of the
  // ioctl `verb`; with an empty verb a missing device is reported as info does.
  std::optional<Selected> select(const std::string* word, std::string_view verb);

 private:
  // Why `transport_` did not connect, and what to do about it.
  void say_no_mount(const Reply& reply);
  // A path's last part when it stands for a device; nothing after an error.
  std::optional<std::string_view> strip_directory(std::string_view word);
  std::optional<Selected> select_from_list(std::string_view verb);
  std::optional<Selected> select_by_name(const std::string& word);
  std::optional<Selected> missing(std::string_view verb, const DeviceIdent& ident);

  const Options& opt_;
  Console console_;
  TransportFactory factory_;
  bool quiet_;
  bool silent_ = false;
  std::unique_ptr<Transport> transport_;
  std::optional<Client> client_;
};

}  // namespace mapperctl
