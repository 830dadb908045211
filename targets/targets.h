// The target types, one symbol a target, and the list of them. A new target adds its line here and
// in registry.cc; docs/writing-a-target.md is the guide.
#pragma once

#include "engine/target.h"

namespace mapperfs {

class TargetRegistry;

extern constinit const TargetType kDelayTarget;
extern constinit const TargetType kDustTarget;
extern constinit const TargetType kErrorTarget;
extern constinit const TargetType kFlakeyTarget;
extern constinit const TargetType kLinearTarget;
extern constinit const TargetType kLoopTarget;
extern constinit const TargetType kRamTarget;
extern constinit const TargetType kStripedTarget;
extern constinit const TargetType kSwitchTarget;
extern constinit const TargetType kThinPoolTarget;
extern constinit const TargetType kThinTarget;
extern constinit const TargetType kUnstripedTarget;
extern constinit const TargetType kZeroTarget;

// Adds every target type to an empty registry, in the order in which `targets` lists them (newest
// last). Control threads; once at start.
void register_targets(TargetRegistry& registry);

}  // namespace mapperfs
