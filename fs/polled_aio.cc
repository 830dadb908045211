#include "fs/polled_aio.h"

#include "engine/aio_context.h"
#include "engine/queue.h"

namespace mapperfs {

PolledAio::~PolledAio() { stop(); }

void PolledAio::take_over() noexcept {
  context_ = &Queue::current().aio();
  context_->set_polled(true);
  notify_fd_ = context_->notify_fd();
  if (notify_fd_ < 0) {
    context_->set_polled(false);  // nothing to wait on: it reaps itself
  }
}

void PolledAio::stop() noexcept {
  if (context_ != nullptr && notify_fd_ >= 0) {
    context_->set_polled(false);
  }
  context_ = nullptr;
  notify_fd_ = -1;
}

void PolledAio::clear_notify() noexcept { context_->clear_notify(); }

void PolledAio::reap() noexcept {
  while (notify_fd_ >= 0 && context_->reap(false) > 0) {
  }
}

bool PolledAio::busy() const noexcept { return notify_fd_ >= 0 && context_->in_flight() > 0; }

void PolledAio::plug() noexcept { context_->plug(); }

void PolledAio::unplug() noexcept { context_->unplug(); }

}  // namespace mapperfs
