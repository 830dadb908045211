// Any bytes as a table of the real targets over fake devices: refused with a sentence, or loaded
// and printed as a table that loads again.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/assert.h"
#include "engine/engine.h"
#include "fs/control_parser.h"
#include "fs/device_text.h"
#include "targets/targets.h"
#include "tests/fake/fake_opener.h"
#include "tests/fake/sim_env.h"

namespace {

// Made once: what a table leaves behind in it would be a bug that the next run finds.
struct World {
  World() {
    register_targets(registry);
    opener.add_any(1U << 16);
  }
  mapperfs::fake::SimEnv env;
  mapperfs::fake::FakeOpener opener;
  mapperfs::TargetRegistry registry;
};

// A pool makes its metadata where its table says, with the rights of who runs this. So no pool is
// made here: its other arguments are looked at first, and then nothing can be made below a device.
void keep_pools_out(std::vector<mapperfs::TableLine>& lines) {
  for (mapperfs::TableLine& line : lines) {
    if (line.type == "thin-pool" && !line.args.empty()) {
      line.args.replace(0, std::min(line.args.find(' '), line.args.size()), "/dev/null/metadata");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mapperfs;  // NOLINT(google-build-using-namespace): a main of sorts
  static World world;
  Result<std::vector<TableLine>> lines =
      parse_bare_table({reinterpret_cast<const char*>(data), size});
  if (!lines.ok()) {
    MFS_ASSERT(!lines.status().message().empty());
    return 0;
  }
  keep_pools_out(*lines);
  {
    Engine engine(world.env, world.registry, world.opener);
    Result<std::shared_ptr<MappedDevice>> device = engine.create("fuzz", {});
    MFS_ASSERT(device.ok());
    Status status = (*device)->load(*lines, DeviceMode::kReadWrite);
    if (status.ok()) {
      const std::string printed = table_text(**device, MappedDevice::Slot::kInactive, true);
      const Result<std::vector<TableLine>> again = parse_bare_table(printed);
      MFS_ASSERT(again.ok());
      MFS_ASSERT((*device)->load(*again, DeviceMode::kReadWrite).ok());
      MFS_ASSERT(table_text(**device, MappedDevice::Slot::kInactive, true) == printed);
    } else {
      MFS_ASSERT(!status.message().empty());
    }
    engine.shut_down();
  }
  world.env.run();
  MFS_ASSERT(world.opener.open_count() == 0);
  return 0;
}
