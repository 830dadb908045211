#include "fs/edge_writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/assert.h"
#include "engine/bio.h"
#include "engine/mapped_device.h"
#include "fs/io_request.h"

namespace mapperfs {
namespace {

BlkStatus transfer(MappedDevice& device, Op op, std::uint64_t offset_bytes, std::byte* data,
                   std::size_t len_bytes, std::uint8_t flags) {
  Bio bio;
  bio.dev = &device;
  bio.op = op;
  bio.sector = offset_bytes >> kSectorShift;
  bio.sectors = len_bytes >> kSectorShift;
  bio.data = data;
  bio.flags = static_cast<std::uint8_t>(flags | kBioInternal);
  return submit_bio_and_wait(bio);
}

}  // namespace

BlkStatus write_unaligned(MappedDevice& device, std::uint32_t block_bytes,
                          std::uint64_t offset_bytes, std::span<const std::byte> data,
                          std::uint8_t flags) {
  MFS_ASSERT(block_bytes >= kSectorBytes && (block_bytes & (block_bytes - 1)) == 0);
  const std::uint64_t mask = block_bytes - 1;
  const std::uint64_t end = offset_bytes + data.size();
  const std::uint64_t from = offset_bytes & ~mask;
  // A device need not be a multiple of its block: what is beyond its end does not exist.
  const std::uint64_t to =
      std::max(end, std::min((end + mask) & ~mask, device.size_sectors() << kSectorShift));
  const auto span = static_cast<std::size_t>(((to - from) + 511) & ~std::uint64_t{511});
  const AlignedBuffer buffer = make_aligned_buffer(span);
  // Called anew where a suspend pushed its bios back: it reads again, since the table may be
  // another by then.
  const auto change = [&] {
    BlkStatus status = BlkStatus::kOk;
    const std::size_t block = std::min<std::size_t>(block_bytes, span);
    if (offset_bytes != from) {
      status = transfer(device, Op::kRead, from, buffer.get(), block, 0);
    }
    // Where head and tail lie in one block, the head's read has brought it.
    const std::uint64_t tail = (end & ~mask);
    if (status == BlkStatus::kOk && end != from + span && (tail != from || offset_bytes == from)) {
      status = transfer(device, Op::kRead, tail, buffer.get() + (tail - from),
                        span - static_cast<std::size_t>(tail - from), 0);
    }
    if (status == BlkStatus::kOk) {
      std::memcpy(buffer.get() + (offset_bytes - from), data.data(), data.size());
      status = transfer(device, Op::kWrite, from, buffer.get(), span, flags);
    }
    return status;
  };
  return device.run_exclusive(from >> kSectorShift, span >> kSectorShift, change);
}

void run_in_order(ThreadPool& pool, const std::shared_ptr<SharedDevice>& shared,
                  std::function<void()> job) {
  const std::lock_guard lock(shared->edge_mutex);
  shared->edge_jobs.push_back(std::move(job));
  if (std::exchange(shared->edge_running, true)) {
    return;
  }
  pool.post([shared] {
    std::unique_lock running(shared->edge_mutex);
    while (!shared->edge_jobs.empty()) {
      std::function<void()> next = std::move(shared->edge_jobs.front());
      shared->edge_jobs.pop_front();
      running.unlock();
      next();
      running.lock();
    }
    shared->edge_running = false;
  });
}

}  // namespace mapperfs
