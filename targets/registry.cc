#include "engine/table.h"
#include "targets/targets.h"

namespace mapperfs {

void register_targets(TargetRegistry& registry) {
  // The order of registration is what `targets` and `dmsetup targets` go by: the kernel's built-in
  // ones first, ours at the end.
  for (const TargetType* type :
       {&kErrorTarget, &kLinearTarget, &kStripedTarget, &kFlakeyTarget, &kDelayTarget, &kDustTarget,
        &kUnstripedTarget, &kSwitchTarget, &kZeroTarget, &kLoopTarget, &kRamTarget,
        &kThinPoolTarget, &kThinTarget}) {
    registry.add(*type);
  }
}

}  // namespace mapperfs
