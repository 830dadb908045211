#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/engine.h"

namespace mapperfs {
namespace {

TEST(EngineLog, KeepsSentencesInOrder) {
  EngineLog log;
  EXPECT_EQ(log.text(), "");
  log.add("first");
  log.add("second");
  EXPECT_EQ(log.text(), "first\nsecond\n");
}

TEST(EngineLog, ShowsControlCharacters) {
  EngineLog log;
  log.add("a\rb\nc\x1b[2Jd\te\x7f \xc3\xa4");
  EXPECT_EQ(log.text(), "a\\rb\\nc\\x1b[2Jd\\te\\x7f \xc3\xa4\n");
}

TEST(EngineLog, ForgetsTheOldestWhenItIsFull) {
  EngineLog log;
  const std::string sentence(1023, 'x');
  for (int i = 0; i < 100; ++i) {
    log.add(sentence);
  }
  log.add("newest");
  const std::string text = log.text();
  EXPECT_LE(text.size(), 64U * 1024);
  EXPECT_GT(text.size(), 62U * 1024);
  EXPECT_TRUE(text.ends_with("\nnewest\n"));
}

TEST(EngineLog, KeepsASentenceThatIsTooLongByItself) {
  EngineLog log;
  log.add("short");
  log.add(std::string(100000, 'y'));
  EXPECT_EQ(log.text(), std::string(100000, 'y') + "\n");
}

TEST(EngineLog, PassesEverySentenceOn) {
  EngineLog log;
  std::vector<std::string> heard;
  log.add("before");
  log.set_sink([&](const std::string& sentence) { heard.push_back(sentence); });
  log.add("one");
  log.add("two");
  log.set_sink(nullptr);
  log.add("after");
  EXPECT_EQ(heard, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(log.text(), "before\none\ntwo\nafter\n");
}

}  // namespace
}  // namespace mapperfs
