// Reading the XML of thin_dump into new metadata.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>
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
      if ((*tag)->name == "superblock" && (*tag)->closes) {
        break;
      }
      Status s = (*tag)->name == "device" && (*tag)->opens ? device(**tag)
                 : (*tag)->name == "def" && (*tag)->opens  ? definition(**tag)
                                                           : unexpected(**tag);
      if (!s.ok()) {
        return s;
      }
    }
    return pool_->finish_restore(transaction_id_, time_, needs_check_);
  }

 private:
  static Status unexpected(const XmlTag& tag) {
    return {EINVAL, fmt::format("line {}: <{}{}> is not expected here", tag.line,
                                tag.opens ? "" : "/", tag.name)};
  }

  Status begin(const XmlTag& tag) {
    Attributes attributes(tag);
    ThinMetadataOptions options;
    time_ = static_cast<std::uint32_t>(attributes.number("time", thin::kMaxTime));
    transaction_id_ = options_.transaction_id.value_or(attributes.number("transaction"));
    needs_check_ = (attributes.number_or("flags", 0) & 1U) != 0;
    if (const std::uint64_t version = attributes.number_or("version", 2); version > 2) {
      return {EINVAL, fmt::format("line {}: version {} is not known", tag.line, version)};
    }
    options.data_block_size = static_cast<std::uint32_t>(
        options_.data_block_size.value_or(attributes.number("data_block_size", UINT32_MAX)));
    options.nr_data_blocks = options_.nr_data_blocks.value_or(attributes.number("nr_data_blocks"));
    if (!attributes.status.ok()) {
      return attributes.status;
    }
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
    Status s = tag.closes ? Status() : mappings("device", [&](const ThinRun& run) {
      if (options_.progress) {
        options_.progress(fmt::format("device {}", details.id), restorer_->mapped(), mapped);
      }
      return restorer_->add(run);
    });
    return s.ok() ? restorer_->end_device() : s;
  }

  // A named piece of mapping, which devices refer to.
  Status definition(const XmlTag& tag) {
    const auto name = tag.attributes.find("name");
    if (name == tag.attributes.end()) {
      return {EINVAL, fmt::format("line {}: <def> has no name", tag.line)};
    }
    std::vector<ThinRun> runs;
    Status s = tag.closes ? Status() : mappings("def", [&runs](const ThinRun& run) {
      runs.push_back(run);
      return Status();
    });
    if (s.ok() && !definitions_.emplace(name->second, std::move(runs)).second) {
      return {EINVAL,
              fmt::format("line {}: <def name=\"{}\"> comes twice", tag.line, name->second)};
    }
    return s;
  }

  // The runs up to </parent>.
  Status mappings(std::string_view parent, const std::function<Status(const ThinRun&)>& add) {
    while (true) {
      auto next = reader_.next();
      if (!next.ok()) {
        return next.status();
      }
      if (!next->has_value()) {
        return {EINVAL, fmt::format("the XML ends before </{}>", parent)};
      }
      const XmlTag& tag = **next;
      if (tag.name == parent && !tag.opens) {
        return {};
      }
      if (!tag.opens) {
        continue;  // the end of an element that could have been empty
      }
      if (Status s = mapping(tag, add); !s.ok()) {
        return s.error() == EINVAL && s.message().starts_with("line")
                   ? s
                   : s.with_context(fmt::format("line {}", tag.line));
      }
    }
  }

  Status mapping(const XmlTag& tag, const std::function<Status(const ThinRun&)>& add) {
    Attributes attributes(tag);
    if (tag.name == "single_mapping") {
      const ThinRun run{attributes.number("origin_block"), attributes.number("data_block"), 1,
                        static_cast<std::uint32_t>(attributes.number("time", thin::kMaxTime))};
      return attributes.status.ok() ? add(run) : attributes.status;
    }
    if (tag.name == "range_mapping") {
      const ThinRun run{attributes.number("origin_begin"), attributes.number("data_begin"),
                        attributes.number("length"),
                        static_cast<std::uint32_t>(attributes.number("time", thin::kMaxTime))};
      return attributes.status.ok() ? add(run) : attributes.status;
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
    for (const ThinRun& run : definition->second) {
      if (Status s = add(run); !s.ok()) {
        return s;
      }
    }
    return {};
  }

  XmlReader reader_;
  const std::string dir_;
  const ThinRestoreOptions& options_;
  std::unique_ptr<thin::PoolMetadata> pool_;
  std::unique_ptr<thin::Restorer> restorer_;
  std::map<std::string, std::vector<ThinRun>> definitions_;
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
