#include "engine/engine.h"

namespace mapperfs {

void EngineLog::add(std::string_view text) {
  const std::string sentence = printable(text);
  std::function<void(const std::string&)> sink;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    bytes_ += sentence.size() + 1;
    sentences_.push_back(sentence);
    while (bytes_ > kMaxBytes && sentences_.size() > 1) {
      bytes_ -= sentences_.front().size() + 1;
      sentences_.pop_front();
    }
    sink = sink_;
  }
  if (sink) {
    sink(sentence);
  }
}

std::string EngineLog::text() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text;
  text.reserve(bytes_);
  for (const std::string& sentence : sentences_) {
    text += sentence;
    text += '\n';
  }
  return text;
}

void EngineLog::set_sink(std::function<void(const std::string&)> sink) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sink_ = std::move(sink);
}

}  // namespace mapperfs
