// thin-ls: a table of the thin devices, its columns as thin_ls aligns them.
#include <fmt/ostream.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tools/thin_tool.h"

namespace mapperthin {
namespace {

using mapperfs::Result;
using mapperfs::Status;
using mapperfs::ThinUsage;

struct Column {
  std::string_view name;
  bool needs_walk;  // of all mappings, which the others do without
  std::string (*cell)(const ThinUsage& usage, std::uint64_t block_sectors);
};

std::uint64_t mapped(const ThinUsage& usage) { return usage.details.mapped_blocks; }
std::uint64_t exclusive(const ThinUsage& usage) { return usage.exclusive_blocks; }
std::uint64_t shared(const ThinUsage& usage) { return usage.shared_blocks; }

template <auto kCount, std::uint64_t kPerSector>
std::string plain(const ThinUsage& usage, std::uint64_t block_sectors) {
  return fmt::format("{}", kCount(usage) * (kPerSector == 0 ? 1 : block_sectors * kPerSector));
}

// As thin_ls rounds: to the first unit in which the number is at most 8192, halves up.
template <auto kCount>
std::string with_unit(const ThinUsage& usage, std::uint64_t block_sectors) {
  constexpr std::array<std::string_view, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  constexpr std::uint64_t kMost = 8192;
  std::uint64_t size = kCount(usage) * block_sectors / 2;
  if (size == 0) {
    return "0";
  }
  std::size_t unit = 0;
  while (size > kMost && unit + 1 < kUnits.size()) {
    size = (size + 512) / 1024;
    ++unit;
  }
  return fmt::format("{}{}", size, kUnits.at(unit));
}

std::string highest(const ThinUsage& usage, std::uint64_t) {
  return mapped(usage) == 0 ? "-" : fmt::format("{}", usage.highest_block);
}
// Blocks up to and with the highest one that is mapped.
std::uint64_t reach(const ThinUsage& usage) {
  return mapped(usage) == 0 ? 0 : usage.highest_block + 1;
}
template <std::uint64_t kPerSector>
std::string highest_unit(const ThinUsage& usage, std::uint64_t block_sectors) {
  return reach(usage) == 0 ? "-" : fmt::format("{}", reach(usage) * block_sectors * kPerSector - 1);
}
std::string device(const ThinUsage& usage, std::uint64_t) {
  return fmt::format("{}", usage.details.id);
}
std::string transaction(const ThinUsage& usage, std::uint64_t) {
  return fmt::format("{}", usage.details.transaction_id);
}
std::string create_time(const ThinUsage& usage, std::uint64_t) {
  return fmt::format("{}", usage.details.creation_time);
}
std::string snap_time(const ThinUsage& usage, std::uint64_t) {
  return fmt::format("{}", usage.details.snapshotted_time);
}

constexpr std::array<Column, 20> kColumns = {{
    {"DEV", false, device},
    {"MAPPED_BLOCKS", false, plain<mapped, 0>},
    {"EXCLUSIVE_BLOCKS", true, plain<exclusive, 0>},
    {"SHARED_BLOCKS", true, plain<shared, 0>},
    {"HIGHEST_BLOCK", true, highest},
    {"MAPPED_SECTORS", false, plain<mapped, 1>},
    {"EXCLUSIVE_SECTORS", true, plain<exclusive, 1>},
    {"SHARED_SECTORS", true, plain<shared, 1>},
    {"HIGHEST_SECTOR", true, highest_unit<1>},
    {"MAPPED_BYTES", false, plain<mapped, 512>},
    {"EXCLUSIVE_BYTES", true, plain<exclusive, 512>},
    {"SHARED_BYTES", true, plain<shared, 512>},
    {"HIGHEST_BYTE", true, highest_unit<512>},
    {"MAPPED", false, with_unit<mapped>},
    {"EXCLUSIVE", true, with_unit<exclusive>},
    {"SHARED", true, with_unit<shared>},
    {"HIGHEST_MAPPED", true, with_unit<reach>},
    {"TRANSACTION", false, transaction},
    {"CREATE_TIME", false, create_time},
    {"SNAP_TIME", false, snap_time},
}};

Result<std::vector<const Column*>> read_columns(std::string_view fields) {
  std::vector<const Column*> columns;
  for (std::size_t at = 0; at <= fields.size();) {
    const std::size_t comma = std::min(fields.find(',', at), fields.size());
    const std::string_view name = fields.substr(at, comma - at);
    const auto found = std::find_if(kColumns.begin(), kColumns.end(),
                                    [name](const Column& column) { return column.name == name; });
    if (found == kColumns.end()) {
      std::vector<std::string_view> names;
      for (const Column& column : kColumns) {
        names.push_back(column.name);
      }
      return Status(
          EINVAL, fmt::format("unknown field \"{}\"; there are {}", name, fmt::join(names, ", ")));
    }
    columns.push_back(&*found);
    at = comma + 1;
  }
  return columns;
}

Result<std::vector<ThinUsage>> usage_of(const ThinRunContext& run, mapperfs::ThinMetadata& pool,
                                        bool walk) {
  if (walk) {
    return list_thin_usage(pool, run.view(), run.progress());
  }
  const auto state = state_of(pool, run.view());
  if (!state.ok()) {
    return state.status();
  }
  std::vector<ThinUsage> all;
  for (const mapperfs::ThinDeviceDetails& details : state->devices) {
    all.push_back({details, 0, 0, 0});
  }
  return all;
}

void print_rows(std::ostream& out, const std::vector<std::string>& cells, std::size_t columns) {
  std::vector<std::size_t> widths(columns, 0);
  for (std::size_t i = 0; i < cells.size(); ++i) {
    widths[i % columns] = std::max(widths[i % columns], cells[i].size());
  }
  for (std::size_t i = 0; i < cells.size(); ++i) {
    fmt::print(out, "{:>{}} {}", cells[i], widths[i % columns], (i + 1) % columns == 0 ? "\n" : "");
  }
}

}  // namespace

int run_ls(const ThinRunContext& run) {
  const auto columns = read_columns(run.args.fields);
  if (!columns.ok()) {
    return run.fail(columns.status());
  }
  auto pool = run.open();
  if (!pool.ok()) {
    return run.fail(pool.status());
  }
  const bool walk = std::any_of(columns->begin(), columns->end(),
                                [](const Column* column) { return column->needs_walk; });
  const auto devices = usage_of(run, **pool, walk);
  if (!devices.ok()) {
    return run.fail(devices.status());
  }
  std::vector<std::string> cells;  // row by row
  for (std::size_t i = 0; i < columns->size() && !run.args.no_headers; ++i) {
    cells.emplace_back((*columns)[i]->name);
  }
  for (const ThinUsage& usage : *devices) {
    for (const Column* column : *columns) {
      cells.push_back(column->cell(usage, (*pool)->data_block_size()));
    }
  }
  print_rows(run.console.out, cells, columns->size());
  return 0;
}

}  // namespace mapperthin
