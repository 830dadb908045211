// The devices that reports have rows of and that -S chooses from: what is known of each, and who
// uses it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/mapperctl_select.h"
#include "tools/mapperctl_verbs.h"

namespace mapperctl {

// The mapped devices of one moment, as rows of a report.
class DeviceRows {
 public:
  // Nothing after an error, which was printed as one of the ioctl `verb`.
  static std::optional<DeviceRows> fetch(Session& session, std::string_view verb);

  const std::vector<Device>& devices() const { return devices_; }
  // Null when there is none.
  const Device* find(std::string_view name) const;
  // With --inactive the targets that are counted are those of the inactive tables. False: not
  // known, and that was said.
  bool count_inactive_targets(Session& session);
  // A column of `info -c`, of a device that need not be as it was when the rows were fetched: who
  // uses it is answered from then. The columns of statistics are empty.
  Cell cell(const Session& session, const Device& device, const Field& field) const;

 private:
  std::optional<Cell> users_cell(const Session& session, const Device& device,
                                 std::string_view id) const;

  std::vector<Device> devices_;
  std::map<std::string, std::vector<size_t>, std::less<>> users_;  // by name: places in devices_
};

// True when some field of the selection is one of statistics, and that was said. A device has no
// value of them, and of an unknown value nothing is to be concluded, least of all which devices go.
bool refuse_statistics(Session& session, const ParsedSelection& selection);

// What -S lets through; without -S, everything.
class Choice {
 public:
  // Whether the act of a verb changes devices. If it does, each is looked at right before its turn,
  // so that a selection sees what the turns before have done, as it does in dmsetup.
  enum class Act { kReads, kChanges };

  // Nothing after an error, which was printed; where an ioctl failed, as one of `verb`.
  static std::optional<Choice> create(Session& session, std::string_view verb, Act act);

  // Calls `act` for the devices that the words or options name, up to the first that is missing or
  // fails; or for all, whatever fails. False: something did, and that was said.
  bool for_each(const Args& args, const std::function<bool(const Device&)>& act);

 private:
  Choice(Session& session, Act act, DeviceRows rows)
      : session_(&session), act_(act), rows_(std::move(rows)) {}

  bool counts_inactive() const;
  std::optional<Device> look(const std::string& name, const Device* known);
  bool passes(const Device& device) const;

  Session* session_;
  Act act_;
  DeviceRows rows_;
  ParsedSelection parsed_;
};

}  // namespace mapperctl
