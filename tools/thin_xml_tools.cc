// thin-dump and thin-restore: metadata as text, both ways.
#include <fmt/ostream.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "metadata/thin_xml.h"
#include "tools/thin_tool.h"

namespace mapperthin {

using mapperfs::Result;
using mapperfs::Status;

int run_dump(const ThinRunContext& run) {
  const ThinArgs& args = run.args;
  auto pool = run.open();
  if (!pool.ok()) {
    return run.fail(pool.status());
  }
  mapperfs::ThinDumpOptions options;
  options.format = args.human_readable ? mapperfs::ThinDumpOptions::Format::kHumanReadable
                                       : mapperfs::ThinDumpOptions::Format::kXml;
  options.metadata_snap = args.metadata_snap;
  options.skip_mappings = args.skip_mappings;
  options.device_id = args.device_id;
  options.transaction_id = args.transaction_id;
  options.data_block_size = args.data_block_size;
  options.nr_data_blocks = args.nr_data_blocks;
  options.progress = run.progress();
  std::ofstream file;
  if (!args.output.empty()) {
    file.open(args.output, std::ios::binary | std::ios::trunc);
    if (!file) {
      const int error = errno != 0 ? errno : EIO;
      return run.fail({error, fmt::format("{}: {}", args.output, std::strerror(error))});
    }
  }
  std::ostream& out = args.output.empty() ? run.console.out : file;
  Status status = dump_thin_metadata(**pool, options, [&](std::string_view piece) {
    errno = 0;
    out.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    out.flush();
    const int error = errno != 0 ? errno : EIO;
    return out ? Status()
               : Status(error,
                        fmt::format("{}: {}", args.output.empty() ? "standard output" : args.output,
                                    std::strerror(error)));
  });
  return status.ok() ? 0 : run.fail(status);
}

int run_restore(const ThinRunContext& run) {
  const ThinArgs& args = run.args;
  std::ifstream file;
  if (args.input != "-") {
    file.open(args.input, std::ios::binary);
    if (!file) {
      const int error = errno != 0 ? errno : EIO;
      return run.fail({error, fmt::format("{}: {}", args.input, std::strerror(error))});
    }
  }
  std::istream& in = args.input == "-" ? run.console.in : file;
  mapperfs::ThinRestoreOptions options;
  options.transaction_id = args.transaction_id;
  options.data_block_size = args.data_block_size;
  options.nr_data_blocks = args.nr_data_blocks;
  options.progress = run.progress();
  const Status status = restore_thin_metadata(
      [&](char* buffer, std::size_t size) -> Result<std::size_t> {
        in.read(buffer, static_cast<std::streamsize>(size));
        if (in.bad()) {
          return Status(EIO, fmt::format("{}: cannot be read", args.input));
        }
        return static_cast<std::size_t>(in.gcount());
      },
      args.metadata, options);
  return status.ok() ? 0 : run.fail(status);
}

}  // namespace mapperthin
