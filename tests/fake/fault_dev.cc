#include "tests/fake/fault_dev.h"

#include <algorithm>

#include "tests/fake/mem_dev.h"

namespace mapperfs::fake {

FaultDev::Options::Options() : limits(MemDev::default_limits()) {
  limits.write_cache = true;
  limits.fua = true;
}

FaultDev::FaultDev(std::string name, sector_t sectors, Env& env, Options options)
    : name_(std::move(name)), sectors_(sectors), env_(env), options_(options), rng_(options.seed) {}

FaultDev::~FaultDev() {
  env_.cancel(*this);
  MFS_ASSERT(held_.empty() && delayed_.empty());
}

std::uint64_t FaultDev::random(std::uint64_t below) { return below == 0 ? 0 : rng_() % below; }

// The transfer happens when the bio comes, its end when the device says so.
void FaultDev::submit(Bio& bio) noexcept {
  BlkStatus status = BlkStatus::kOk;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (holding_) {
      held_.push_back(&bio);
      return;
    }
    if (options_.max_delay_ns != 0) {
      const std::uint64_t spread = options_.max_delay_ns - options_.min_delay_ns;
      const std::uint64_t when_ns = env_.now_ns() + options_.min_delay_ns + random(spread + 1);
      delayed_.emplace(when_ns, &bio);
      env_.arm(*this, delayed_.begin()->first);
      return;
    }
    status = handle(bio);
  }
  bio.end_io(status);
}

void FaultDev::fire() noexcept {
  while (true) {
    Bio* bio = nullptr;
    BlkStatus status = BlkStatus::kOk;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (delayed_.empty()) {
        return;
      }
      const auto first = delayed_.begin();
      if (first->first > env_.now_ns()) {
        env_.arm(*this, first->first);
        return;
      }
      bio = first->second;
      delayed_.erase(first);
      status = handle(*bio);
    }
    bio->end_io(status);
  }
}

BlkStatus FaultDev::injected(const Bio& bio) {
  for (Fault& fault : faults_) {
    const bool touches =
        bio.op == Op::kFlush || (bio.sector < fault.end && bio.sector + bio.sectors > fault.first);
    if (fault.op != bio.op || !touches || fault.times == 0) {
      continue;
    }
    if (fault.skip != 0) {
      --fault.skip;
    } else {
      --fault.times;
      ++struck_;
      return fault.status;
    }
  }
  const std::uint32_t ppm = bio.is_write() ? options_.write_error_ppm : options_.read_error_ppm;
  return ppm != 0 && random(1'000'000) < ppm ? BlkStatus::kIoError : BlkStatus::kOk;
}

BlkStatus FaultDev::handle(Bio& bio) {
  if (const BlkStatus status = injected(bio); status != BlkStatus::kOk) {
    return status;
  }
  if ((bio.op == Op::kFlush || (bio.flags & kBioPreflush) != 0) && !unflushed_.empty()) {
    for (const Unflushed& write : unflushed_) {
      apply(durable_, write, write.sectors);
    }
    unflushed_.clear();
  }
  if (bio.op == Op::kFlush) {
    return BlkStatus::kOk;
  }
  if (bio.sector > sectors_ || bio.sectors > sectors_ - bio.sector) {
    return BlkStatus::kIoError;
  }
  if (bio.op == Op::kRead) {
    now_.read(bio.sector, bio.sectors, bio.data);
    return BlkStatus::kOk;
  }
  Unflushed write = {bio.op, (bio.flags & kBioFua) != 0, bio.sector, bio.sectors, {}};
  if (bio.op == Op::kWrite) {
    write.data.assign(bio.data, bio.data + bio.len_bytes());
  }
  apply(now_, write, write.sectors);
  unflushed_.push_back(std::move(write));
  return BlkStatus::kOk;
}

void FaultDev::apply(SectorMap& map, const Unflushed& write, sector_t sectors) {
  if (write.op == Op::kWrite) {
    map.write(write.sector, sectors, write.data.data());
  } else {
    map.punch(write.sector, sectors);
  }
}

void FaultDev::add_fault(const Fault& fault) {
  const std::lock_guard<std::mutex> lock(mutex_);
  faults_.push_back(fault);
}

void FaultDev::clear_faults() {
  const std::lock_guard<std::mutex> lock(mutex_);
  faults_.clear();
}

std::uint64_t FaultDev::struck() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return struck_;
}

void FaultDev::hold() {
  const std::lock_guard<std::mutex> lock(mutex_);
  holding_ = true;
}

void FaultDev::release(bool reverse) {
  std::vector<Bio*> bios;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    holding_ = false;
    bios.swap(held_);
  }
  if (reverse) {
    std::reverse(bios.begin(), bios.end());
  }
  for (Bio* bio : bios) {
    submit(*bio);
  }
}

std::size_t FaultDev::waiting() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return delayed_.size() + held_.size();
}

void FaultDev::crash() {
  const std::lock_guard<std::mutex> lock(mutex_);
  MFS_ASSERT(held_.empty() && delayed_.empty());
  for (const Unflushed& write : unflushed_) {
    switch (write.fua ? 1 : random(3)) {
      case 0:
        break;
      case 1:
        apply(durable_, write, write.sectors);
        break;
      default:
        apply(durable_, write, random(write.sectors + 1));
        break;
    }
  }
  unflushed_.clear();
  now_ = durable_;
}

void FaultDev::sync() {
  const std::lock_guard<std::mutex> lock(mutex_);
  durable_ = now_;
  unflushed_.clear();
}

std::vector<std::byte> FaultDev::peek(sector_t sector, sector_t sectors) const {
  std::vector<std::byte> bytes(sectors << kSectorShift);
  const std::lock_guard<std::mutex> lock(mutex_);
  now_.read(sector, sectors, bytes.data());
  return bytes;
}

}  // namespace mapperfs::fake
