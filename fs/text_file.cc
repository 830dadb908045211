#include "fs/text_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fs/device_text.h"

namespace mapperfs {
namespace {

ControlSession::Kind session_kind(FileKind kind) {
  switch (kind) {
    case FileKind::kTable:
      return ControlSession::Kind::kTable;
    case FileKind::kInactive:
      return ControlSession::Kind::kInactive;
    default:
      return ControlSession::Kind::kControl;
  }
}

// A line that somebody typed: without what ends it.
std::string_view without_newline(std::string_view text) {
  return text.ends_with('\n') ? text.substr(0, text.size() - 1) : text;
}

}  // namespace

TextFile::TextFile(ControlExecutor& executor, const DeviceNotes& notes, FileKind kind,
                   std::shared_ptr<MappedDevice> device, Access access)
    : executor_(executor),
      notes_(notes),
      kind_(kind),
      device_(std::move(device)),
      access_(access),
      replies_(kind == FileKind::kMessage || (kind == FileKind::kControl && access.write)),
      session_(executor, session_kind(kind), device_) {
  if (device_ != nullptr) {
    event_seen_.store(device_->event_nr(), std::memory_order_relaxed);
  }
}

TextFile::~TextFile() { session_.close(); }

bool TextFile::event_came() const {
  return device_->event_nr() != event_seen_.load(std::memory_order_relaxed);
}

Result<std::string> TextFile::read(std::uint64_t offset, std::size_t size) {
  const std::lock_guard lock(mutex_);
  if (replies_) {
    if (offset == 0) {
      base_ = 0;
    } else if (!base_) {
      base_ = offset == reply_at_ ? offset : 0;
    }
  } else {
    base_ = 0;
    if (offset == 0 || !have_text_) {
      Result<std::string> text = make_text();
      if (!text.ok()) {
        return text.status();
      }
      text_ = text.take();
      have_text_ = true;
    }
  }
  const std::uint64_t from =
      std::min<std::uint64_t>(offset - std::min(offset, *base_), text_.size());
  return text_.substr(from, size);
}

Result<std::string> TextFile::make_text() {
  if (device_ != nullptr && device_->removed()) {
    return Status(ENXIO, "the device has been removed");
  }
  switch (kind_) {
    case FileKind::kControl:
      return backup_text(executor_.engine(), notes_);
    case FileKind::kVersion:
      return executor_.version_text();
    case FileKind::kTargets:
      return targets_text(executor_.engine().registry());
    case FileKind::kLog:
      return executor_.engine().log().text();
    case FileKind::kTable:
      return table_text(*device_, MappedDevice::Slot::kLive, false);
    case FileKind::kInactive:
      return table_text(*device_, MappedDevice::Slot::kInactive, false);
    case FileKind::kStatus:
      return status_text(*device_, MappedDevice::Slot::kLive, false);
    case FileKind::kInfo:
      return info_text(*device_);
    case FileKind::kDeps:
      return deps_text(*device_);
    case FileKind::kUuid:
      return device_->uuid() + "\n";
    case FileKind::kEvent: {
      const std::uint32_t number = device_->event_nr();
      event_seen_.store(number, std::memory_order_relaxed);
      return fmt::format("{}\n", number);
    }
    case FileKind::kStats:
      return stats_text(*device_);
    case FileKind::kServed:
      return served_text(*device_, notes_);
    default:
      return Status(EINVAL, "nothing to read here");
  }
}

Status TextFile::write(std::string_view data, std::uint64_t offset, bool cut,
                       const RunOptions& options) {
  const std::lock_guard lock(mutex_);
  RunOptions all = options;
  all.may_reply = access_.read;
  Outcome outcome = take(data, cut, all);
  // A failed write does not move the writer's position.
  const std::uint64_t next = outcome.status.ok() ? offset + data.size() : offset;
  return end_write(std::move(outcome), next);
}

Status TextFile::refuse(Status status, std::uint64_t offset) {
  const std::lock_guard lock(mutex_);
  Outcome outcome = session_.refuse(std::move(status));
  holds_.store(session_.holds(), std::memory_order_release);
  return end_write(std::move(outcome), offset);
}

Status TextFile::end_write(Outcome outcome, std::uint64_t next_offset) {
  if (replies_) {
    text_ = std::move(outcome.reply);
    reply_at_ = next_offset;
    base_.reset();
  } else {
    have_text_ = false;
  }
  return outcome.status;
}

Status TextFile::finish(const RunOptions& options) {
  const std::lock_guard lock(mutex_);
  Outcome outcome = session_.finish(options);
  holds_.store(session_.holds(), std::memory_order_release);
  have_text_ = false;
  return outcome.status;
}

Outcome TextFile::take(std::string_view data, bool cut, const RunOptions& options) {
  if (kind_ == FileKind::kControl || kind_ == FileKind::kTable || kind_ == FileKind::kInactive) {
    // Only one who waits for no replies is a program that copies, and hears of errors on closing.
    Outcome outcome =
        session_.write(data, ControlSession::rest_of(data, cut, !access_.read), options);
    holds_.store(session_.holds(), std::memory_order_release);
    return outcome;
  }
  Outcome outcome;
  if (device_->removed()) {
    outcome.status = Status(ENXIO, "the device has been removed");
  } else if (cut) {
    outcome.status = Status(EMSGSIZE, fmt::format("{}: {} bytes are too many for one write",
                                                  device_->name(), data.size()));
  } else if (kind_ == FileKind::kUuid) {
    outcome.status =
        executor_.engine().set_uuid(device_->name(), std::string(without_newline(data)));
  } else {
    Result<Command> command = parse_message(data);
    outcome.status = command.status().with_context(device_->name());
    if (command.ok() && options.crowded) {
      outcome.status = crowded_status(device_->name());
    } else if (command.ok()) {
      Result<std::string> answer =
          executor_.message(device_->name(), command->sector, command->operands);
      outcome.status = answer.status();
      outcome.reply = answer.ok() ? answer.take() : std::string();
    }
  }
  if (!outcome.status.ok()) {
    executor_.engine().log().add(outcome.status.message());
    outcome.reply = outcome.status.message() + "\n";
  }
  return outcome;
}

}  // namespace mapperfs
