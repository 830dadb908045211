// Reading the XML of thin_dump into new metadata.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "metadata/pool_metadata.h"
#include "metadata/restorer.h"
#include "metadata/store.h"
#include "metadata/thin_xml.h"

namespace mapperfs {
namespace {

// Collects the first of many possible errors while attributes are read.
class Attributes {
 public:
  explicit Attributes(const XmlTag& tag) : tag_(tag) {}
  std::uint64_t number(const std::string& name, std::uint64_t most = UINT64_MAX) {
    auto value = tag_.number(name);
    if (value.ok() && *value > most) {
      value = Status(EINVAL, fmt::format("line {}: <{}> has {}=\"{}\", the most is {}", tag_.line,
                                         tag_.name, name, *value, most));
    }
    if (!value.ok()) {
      if (status.ok()) {
        status = value.status();
      }
      return 0;
    }
    return *value;
  }
  std::uint64_t number_or(const std::string& name, std::uint64_t missing) {
    return tag_.has(name) ? number(name) : missing;
  }
  // What is given in its place is taken even where the attribute is missing.
  std::uint64_t number_unless(const std::optional<std::uint64_t>& given, const std::string& name) {
    return given.has_value() ? *given : number(name);
  }
  Status status;

 private:
  const XmlTag& tag_;
};

class Restore {
 public:
  Restore(const TextSource& xml, std::string dir, const ThinRestoreOptions& options)
      : reader_(xml), dir_(std::move(dir)), options_(options) {}

  Status run() {
    auto first = reader_.next();
    if (!first.ok()) {
      return first.status();
    }
    if (!first->has_value() || (*first)->name != "superblock" || !(*first)->opens) {
      return {EINVAL, "the XML does not begin with <superblock>"};
    }
    if (Status s = begin(**first); !s.ok()) {
      return s;
    }
    const bool empty = (*first)->closes;
    while (!empty) {
      auto tag = reader_.next();
      if (!tag.ok()) {
        return tag.status();
      }
      if (!tag->has_value()) {
        return {EINVAL, "the XML ends before </superblock>"};
      }
      if ((*tag)->name == "superblock" && !(*tag)->opens) {
        break;
      }
      Status s = (*tag)->name == "device" && (*tag)->opens ? device(**tag)
                 : (*tag)->name == "def" && (*tag)->opens  ? definition(**tag)
                                                           : unexpected(**tag);
      if (!s.ok()) {
        return s;
      }
    }
    auto rest = reader_.next();
    if (!rest.ok()) {
      return rest.status();
    }
    return rest->has_value() ? unexpected(**rest)
                             : pool_->finish_restore(transaction_id_, time_, needs_check_);
  }

 private:
  // What a <def> has: runs, and uses of definitions before it, in the order of virtual blocks. Uses
  // are not replaced by what they stand for: definitions of definitions would grow without bound.
  // As they are in order, none can be in another twice, and so an expansion is no longer than the
  // XML.
  struct Definition {
    struct Part {
      ThinRun run;
      const Definition* use = nullptr;  // in place of a run
    };
    std::vector<Part> parts;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;  // begin where it maps nothing

    [[nodiscard]] bool append(Part part, std::uint64_t first, std::uint64_t past) {
      if (!parts.empty() && first < end) {
        return false;
      }
      begin = parts.empty() ? first : begin;
      end = past;
      parts.push_back(part);
      return true;
    }
  };

  // Where the mappings of an element go.
  struct Sink {
    std::function<Status(const ThinRun&)> run;
    std::function<Status(const Definition&)> use;
  };

  static Status unexpected(const XmlTag& tag) {
    return {EINVAL, fmt::format("line {}: <{}{}> is not expected here", tag.line,
                                tag.opens ? "" : "/", tag.name)};
  }

  Status begin(const XmlTag& tag) {
    Attributes attributes(tag);
    ThinMetadataOptions options;
    time_ = static_cast<std::uint32_t>(attributes.number("time", thin::kMaxTime));
    transaction_id_ = attributes.number_unless(options_.transaction_id, "transaction");
    needs_check_ = (attributes.number_or("flags", 0) & 1U) != 0;
    if (const std::uint64_t version = attributes.number_or("version", 2); version > 2) {
      return {EINVAL, fmt::format("line {}: version {} is not known", tag.line, version)};
    }
    const std::uint64_t block_size =
        attributes.number_unless(options_.data_block_size, "data_block_size");
    options.nr_data_blocks = attributes.number_unless(options_.nr_data_blocks, "nr_data_blocks");
    if (!attributes.status.ok()) {
      return attributes.status;
    }
    // Before anything is made.
    if (block_size == 0 || block_size % kThinBlockSizeStep != 0 || block_size > kThinMaxBlockSize) {
      return {EINVAL,
              fmt::format("a data block size of {} sectors is not a multiple of {} up to {}",
                          block_size, kThinBlockSizeStep, kThinMaxBlockSize)};
    }
    if (options.nr_data_blocks > kThinMaxDataBlocks) {
      return {EINVAL, fmt::format("{} data blocks are more than {}, the most there can be",
                                  options.nr_data_blocks, kThinMaxDataBlocks)};
    }
    options.data_block_size = static_cast<std::uint32_t>(block_size);
    StoreOptions store_options;
    store_options.env = options_.env;
    auto store = open_rocks_store(dir_, store_options);
    if (!store.ok()) {
      return store.status();
    }
    pool_ = std::make_unique<thin::PoolMetadata>(store.take(), options);
    restorer_ = std::make_unique<thin::Restorer>(*pool_, time_);
    Status started = pool_->start_restore();
    return started.ok() ? started : started.with_context(dir_);
  }

  Status device(const XmlTag& tag) {
    Attributes attributes(tag);
    ThinDeviceDetails details;
    details.id = static_cast<std::uint32_t>(attributes.number("dev_id", kThinMaxDeviceId));
    const std::uint64_t mapped = attributes.number("mapped_blocks");
    details.transaction_id = attributes.number("transaction");
    details.creation_time =
        static_cast<std::uint32_t>(attributes.number("creation_time", thin::kMaxTime));
    details.snapshotted_time =
        static_cast<std::uint32_t>(attributes.number("snap_time", thin::kMaxTime));
    if (!attributes.status.ok()) {
      return attributes.status;
    }
    if (Status s = restorer_->begin_device(details); !s.ok()) {
      return s.with_context(fmt::format("line {}", tag.line));
    }
    const auto add = [&](const ThinRun& run) {
      Status added = restorer_->add(run);
      if (options_.progress) {
        options_.progress(fmt::format("device {}", details.id), restorer_->mapped(), mapped);
      }
      return added;
    };
    const Sink sink{add, [&add](const Definition& use) { return expand(use, add); }};
    Status s = tag.closes ? Status() : mappings("device", sink);
    return s.ok() ? restorer_->end_device() : s;
  }

  // A named piece of mapping, which devices refer to.
  Status definition(const XmlTag& tag) {
    const auto name = tag.attributes.find("name");
    if (name == tag.attributes.end()) {
      return {EINVAL, fmt::format("line {}: <def> has no name", tag.line)};
    }
    Definition made;
    const auto in_order = [&made](Definition::Part part, std::uint64_t begin, std::uint64_t end) {
      return made.append(part, begin, end)
                 ? Status()
                 : Status(EINVAL, fmt::format("block {} of a <def> is out of order", begin));
    };
    const Sink sink{
        [&in_order](const ThinRun& run) {
          return run.length == 0 || run.virtual_begin >= kThinMaxVirtualBlocks ||
                         run.length > kThinMaxVirtualBlocks - run.virtual_begin
                     ? Status(EINVAL, fmt::format("{} blocks at {} are out of range", run.length,
                                                  run.virtual_begin))
                     : in_order({run}, run.virtual_begin, run.virtual_begin + run.length);
        },
        [&in_order](const Definition& use) {
          return use.parts.empty() ? Status() : in_order({{}, &use}, use.begin, use.end);
        }};
    Status s = tag.closes ? Status() : mappings("def", sink);
    if (s.ok() && !definitions_.emplace(name->second, std::move(made)).second) {
      return {EINVAL,
              fmt::format("line {}: <def name=\"{}\"> comes twice", tag.line, name->second)};
    }
    return s;
  }

  // The runs of a definition; no recursion, whose depth the XML would choose.
  static Status expand(const Definition& definition,
                       const std::function<Status(const ThinRun&)>& add) {
    std::vector<std::pair<const Definition*, std::size_t>> open = {{&definition, 0}};
    while (!open.empty()) {
      auto& [at, next] = open.back();
      if (next == at->parts.size()) {
        open.pop_back();
        continue;
      }
      const Definition::Part& part = at->parts[next++];
      if (part.use != nullptr) {
        open.emplace_back(part.use, 0);
      } else if (Status s = add(part.run); !s.ok()) {
        return s;
      }
    }
    return {};
  }

  // What there is up to </parent>.
  Status mappings(std::string_view parent, const Sink& sink) {
    std::string open;  // an element that could have been empty, and has not ended yet
    while (true) {
      auto next = reader_.next();
      if (!next.ok()) {
        return next.status();
      }
      if (!next->has_value()) {
        return {EINVAL, fmt::format("the XML ends before </{}>", parent)};
      }
      const XmlTag& tag = **next;
      if (!open.empty() || !tag.opens) {
        if (tag.opens || tag.name != (open.empty() ? parent : open)) {
          return unexpected(tag);
        }
        if (open.empty()) {
          return {};
        }
        open.clear();
        continue;
      }
      if (Status s = mapping(tag, sink); !s.ok()) {
        return s.error() == EINVAL && s.message().starts_with("line")
                   ? s
                   : s.with_context(fmt::format("line {}", tag.line));
      }
      open = tag.closes ? "" : tag.name;
    }
  }

  Status mapping(const XmlTag& tag, const Sink& sink) {
    Attributes attributes(tag);
    if (tag.name == "single_mapping") {
      const ThinRun run{attributes.number("origin_block"), attributes.number("data_block"), 1,
                        static_cast<std::uint32_t>(attributes.number("time", thin::kMaxTime))};
      return attributes.status.ok() ? sink.run(run) : attributes.status;
    }
    if (tag.name == "range_mapping") {
      const ThinRun run{attributes.number("origin_begin"), attributes.number("data_begin"),
                        attributes.number("length"),
                        static_cast<std::uint32_t>(attributes.number("time", thin::kMaxTime))};
      return attributes.status.ok() ? sink.run(run) : attributes.status;
    }
    if (tag.name != "ref") {
      return unexpected(tag);
    }
    const auto name = tag.attributes.find("name");
    const auto definition =
        name == tag.attributes.end() ? definitions_.end() : definitions_.find(name->second);
    if (definition == definitions_.end()) {
      return {EINVAL, fmt::format("line {}: <ref> names no <def> before it", tag.line)};
    }
    return sink.use(definition->second);
  }

  XmlReader reader_;
  const std::string dir_;
  const ThinRestoreOptions& options_;
  std::unique_ptr<thin::PoolMetadata> pool_;
  std::unique_ptr<thin::Restorer> restorer_;
  std::map<std::string, Definition> definitions_;  // which stay where they are
  std::uint64_t transaction_id_ = 0;
  std::uint32_t time_ = 0;
  bool needs_check_ = false;
};

}  // namespace

Status restore_thin_metadata(const TextSource& xml, const std::string& dir,
                             const ThinRestoreOptions& options) {
  return Restore(xml, dir, options).run();
}

}  // namespace mapperfs
