// A pool's metadata as the XML of thin-provisioning-tools, both ways, so that a pool can move
// between a kernel's metadata device and a directory of ours.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "engine/status.h"
#include "metadata/thin_check.h"
#include "metadata/thin_metadata.h"
#include "metadata/xml_reader.h"

namespace mapperfs {

// Takes the next piece of text; an error ends the work.
using TextSink = std::function<Status(std::string_view)>;

struct ThinDumpOptions {
  enum class Format { kXml, kHumanReadable };
  Format format = Format::kXml;
  // As thin_dump 0.9 writes it; off as 1.x does, where the flags are 0.
  bool flags_attribute = true;
  bool metadata_snap = false;  // what the metadata snapshot holds
  bool skip_mappings = false;
  std::optional<std::uint32_t> device_id;
  // Put in the place of the pool's own.
  std::optional<std::uint64_t> transaction_id;
  std::optional<std::uint64_t> data_block_size;
  std::optional<std::uint64_t> nr_data_blocks;
  ThinProgress progress;
};

// ENODATA: no such device or no metadata snapshot; the sink's or reading's error.
Status dump_thin_metadata(ThinMetadata& pool, const ThinDumpOptions& options, const TextSink& sink);

struct ThinRestoreOptions {
  std::optional<std::uint64_t> transaction_id;
  std::optional<std::uint64_t> data_block_size;
  std::optional<std::uint64_t> nr_data_blocks;
  ThinProgress progress;
  rocksdb::Env* env = nullptr;  // for tests
};

// Makes metadata in `dir`, missing or empty, from XML. Devices that map alike share pages again.
// EEXIST: there is metadata; EINVAL: bad XML, with its line, a mapping past the data device, or a
// time past the pool's. A restore that did not finish leaves a directory that nothing opens.
Status restore_thin_metadata(const TextSource& xml, const std::string& dir,
                             const ThinRestoreOptions& options);

}  // namespace mapperfs
