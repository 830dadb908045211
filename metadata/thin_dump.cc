// Writing a pool as thin_dump does, in both of its formats.
#include <fmt/format.h>

#include <cerrno>

#include "metadata/thin_xml.h"

namespace mapperfs {
namespace {

class Dumper {
 public:
  Dumper(ThinMetadata& pool, const ThinDumpOptions& options, const TextSink& sink)
      : pool_(pool), options_(options), sink_(sink) {}

  Status run() {
    const ThinPoolStatus status = pool_.status();
    std::vector<ThinDeviceDetails> devices = pool_.devices();
    std::uint64_t transaction_id = status.transaction_id;
    std::uint32_t time = status.time;
    if (options_.metadata_snap) {
      auto held = pool_.held_snapshot();
      if (!held.ok()) {
        return held.status();
      }
      devices = held->devices;
      transaction_id = held->transaction_id;
      time = held->time;
    }
    begin_superblock(status, options_.transaction_id.value_or(transaction_id), time);
    bool found = !options_.device_id.has_value();
    for (const ThinDeviceDetails& device : devices) {
      if (!options_.device_id.has_value() || *options_.device_id == device.id) {
        found = true;
        if (Status s = dump_device(device); !s.ok()) {
          return s;
        }
      }
    }
    if (!found) {
      return {ENODATA, fmt::format("there is no device {}", *options_.device_id)};
    }
    put("{}", human() ? "end superblock\n" : "</superblock>\n");
    return flush();
  }

 private:
  static constexpr std::size_t kBufferBytes = 64 << 10;

  [[nodiscard]] bool human() const {
    return options_.format == ThinDumpOptions::Format::kHumanReadable;
  }

  template <typename... Args>
  void put(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(buffer_), format, std::forward<Args>(args)...);
  }

  Status flush() {
    Status s = sink_(buffer_);
    buffer_.clear();
    return s;
  }

  void begin_superblock(const ThinPoolStatus& status, std::uint64_t transaction_id,
                        std::uint32_t time) {
    const std::uint64_t block_size = options_.data_block_size.value_or(pool_.data_block_size());
    const std::uint64_t blocks = options_.nr_data_blocks.value_or(status.total_data_blocks);
    const int flags = status.needs_check ? 1 : 0;
    if (human()) {
      put("begin superblock: \"\", {}, {}, {}, 2, {}, {}", time, transaction_id, flags, block_size,
          blocks);
      if (status.held_root != 0) {
        put(", {}", status.held_root);
      }
      put("\n");
      return;
    }
    put("<superblock uuid=\"\" time=\"{}\" transaction=\"{}\"", time, transaction_id);
    if (options_.flags_attribute || flags != 0) {
      put(" flags=\"{}\"", flags);
    }
    put(" version=\"2\" data_block_size=\"{}\" nr_data_blocks=\"{}\"", block_size, blocks);
    if (status.held_root != 0) {
      put(" metadata_snap=\"{}\"", status.held_root);
    }
    put(">\n");
  }

  Status dump_device(const ThinDeviceDetails& details) {
    if (human()) {
      put("device: {}\nmapped_blocks: {}\ntransaction: {}\ncreation time: {}\nsnap time: {}\n",
          details.id, details.mapped_blocks, details.transaction_id, details.creation_time,
          details.snapshotted_time);
    } else {
      put("  <device dev_id=\"{}\" mapped_blocks=\"{}\" transaction=\"{}\" creation_time=\"{}\" "
          "snap_time=\"{}\">\n",
          details.id, details.mapped_blocks, details.transaction_id, details.creation_time,
          details.snapshotted_time);
    }
    if (!options_.skip_mappings) {
      if (Status s = dump_mappings(details); !s.ok()) {
        return s;
      }
    }
    put("{}", human() ? "\n" : "  </device>\n");
    return flush();
  }

  Status dump_mappings(const ThinDeviceDetails& details) {
    auto device =
        options_.metadata_snap ? pool_.open_held(details.id) : pool_.open_device(details.id);
    if (!device.ok()) {
      return device.status();
    }
    Status written;
    std::uint64_t done = 0;
    const auto show = [&] {
      if (options_.progress && details.mapped_blocks != 0) {  // else there is no part of it
        options_.progress(fmt::format("device {}", details.id), done, details.mapped_blocks);
      }
    };
    Status read = (*device)->for_each_run(0, kThinMaxVirtualBlocks, [&](const ThinRun& run) {
      if (human()) {
        put_human(run);
      } else {
        put_xml(run);
      }
      done += run.length;
      if (buffer_.size() >= kBufferBytes) {
        written = flush();
        show();
      }
      return written.ok();
    });
    show();
    return read.ok() ? written : read;
  }

  void put_xml(const ThinRun& run) {
    if (run.length == 1) {
      put("    <single_mapping origin_block=\"{}\" data_block=\"{}\" time=\"{}\"/>\n",
          run.virtual_begin, run.data_begin, run.time);
    } else {
      put("    <range_mapping origin_begin=\"{}\" data_begin=\"{}\" length=\"{}\" time=\"{}\"/>\n",
          run.virtual_begin, run.data_begin, run.length, run.time);
    }
  }

  void put_human(const ThinRun& run) {
    if (run.length == 1) {
      put("    {} -> {}, {}\n", run.virtual_begin, run.data_begin, run.time);
    } else {
      put("    ({}..{}) -> ({}..{}), {}\n", run.virtual_begin, run.virtual_begin + run.length - 1,
          run.data_begin, run.data_begin + run.length - 1, run.time);
    }
  }

  ThinMetadata& pool_;
  const ThinDumpOptions& options_;
  const TextSink& sink_;
  std::string buffer_;
};

}  // namespace

Status dump_thin_metadata(ThinMetadata& pool, const ThinDumpOptions& options,
                          const TextSink& sink) {
  return Dumper(pool, options, sink).run();
}

}  // namespace mapperfs
