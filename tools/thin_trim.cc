// thin-trim: gives the space of free data blocks back, as a discard of each would. Of a pool at
// rest only: a block that is free here may be handed out the next moment by a pool that runs.
#include <fcntl.h>
#include <fmt/ostream.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/unique_fd.h"
#include "tools/thin_tool.h"

namespace mapperthin {
namespace {

using mapperfs::Result;
using mapperfs::Status;
using mapperfs::ThinMetadata;
using mapperfs::ThinMetadataOptions;
using mapperfs::UniqueFd;

constexpr std::uint64_t kSectorBytes = 512;
// One discard's most: what a device does at once must not keep it from others for long.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;
// Blocks from one report to the next, where none is free for long.
constexpr std::uint64_t kProgressEvery = 4096;

// The data device or file, which takes discards.
class DataFile {
 public:
  static Result<DataFile> open(const std::string& path, std::uint64_t need_bytes) {
    DataFile file;
    file.path_ = path;
    file.fd_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_EXCL));
    struct stat st = {};
    if (!file.fd_ || ::fstat(file.fd_.get(), &st) != 0) {
      return file.failed(errno);
    }
    file.is_block_ = S_ISBLK(st.st_mode);
    std::uint64_t bytes = static_cast<std::uint64_t>(st.st_size);
    if (file.is_block_ && ::ioctl(file.fd_.get(), BLKGETSIZE64, &bytes) != 0) {
      return file.failed(errno);
    }
    if (!file.is_block_ && !S_ISREG(st.st_mode)) {
      return file.failed(ENOTBLK);
    }
    if (bytes < need_bytes) {
      return Status(EINVAL, fmt::format("{} has {} bytes, the pool's blocks are {}: it is not its "
                                        "data device",
                                        path, bytes, need_bytes));
    }
    return file;
  }

  Status discard(std::uint64_t begin, std::uint64_t length) const {
    while (length != 0) {
      const std::uint64_t piece = std::min(length, kMostBytes);
      std::uint64_t range[2] = {begin, piece};
      const int result = is_block_
                             ? ::ioctl(fd_.get(), BLKDISCARD, range)
                             : ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                           static_cast<off_t>(begin), static_cast<off_t>(piece));
      if (result != 0) {
        return failed(errno);
      }
      begin += piece;
      length -= piece;
    }
    return {};
  }

 private:
  Status failed(int error) const {
    return {error, fmt::format("{}: {}", path_, std::strerror(error))};
  }

  std::string path_;
  UniqueFd fd_;
  bool is_block_ = false;
};

}  // namespace

int run_trim(const ThinRunContext& run) {
  // For writing, though nothing is written: only that is refused to everyone but one.
  ThinMetadataOptions options;
  options.may_format = false;
  auto pool = ThinMetadata::open(run.args.metadata, options);
  if (!pool.ok()) {
    return run.fail(pool.status());
  }
  const std::uint64_t block_bytes = (*pool)->data_block_size() * kSectorBytes;
  const std::uint64_t total = (*pool)->status().total_data_blocks;
  auto data = DataFile::open(run.args.data_device, total * block_bytes);
  if (!data.ok()) {
    return run.fail(data.status());
  }
  std::uint64_t trimmed = 0;
  std::uint64_t free_begin = 0;  // of the free blocks that end at `block`
  const auto progress = run.progress();
  for (std::uint64_t block = 0; block <= total; ++block) {
    if (block % kProgressEvery == 0) {
      progress("discarding", free_begin, total);
    }
    if (block < total) {
      const auto references = (*pool)->data_references(block);
      if (!references.ok()) {
        return run.fail(references.status());
      }
      if (*references == 0) {
        continue;
      }
    }
    if (free_begin < block) {
      progress("discarding", free_begin, total);
      const Status s = data->discard(free_begin * block_bytes, (block - free_begin) * block_bytes);
      if (!s.ok()) {
        return run.fail(s);
      }
      trimmed += block - free_begin;
    }
    free_begin = block + 1;
  }
  progress("discarding", total, total);
  if (!run.args.quiet) {
    fmt::print(run.console.out, "{} of {} blocks were free and are discarded\n", trimmed, total);
  }
  return 0;
}

}  // namespace mapperthin
