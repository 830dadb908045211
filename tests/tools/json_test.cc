#include <gtest/gtest.h>

#include <sstream>

#include "tools/mapperctl_json.h"

namespace mapperctl {
namespace {

TEST(JsonQuote, EscapesWhatJsonReserves) {
  EXPECT_EQ(json_quote("a\"b\\c\nd\te\x01"), "\"a\\\"b\\\\c\\nd\\te\\u0001\"");
}

TEST(JsonQuote, KeepsUtf8AndReplacesWhatIsNone) {
  EXPECT_EQ(json_quote("\xc3\xa4"), "\"\xc3\xa4\"");
  EXPECT_EQ(json_quote("a\xff"
                       "b"),
            "\"a\\ufffdb\"");
  EXPECT_EQ(json_quote("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");
  EXPECT_EQ(json_quote("\xc0\x80"), "\"\\ufffd\\ufffd\"");
  EXPECT_EQ(json_quote("\xe2\x82"), "\"\\ufffd\\ufffd\"");
}

TEST(JsonWriter, NestsWithCommasAndLines) {
  std::ostringstream out;
  JsonWriter json(out);
  json.begin_array();
  json.begin_object();
  json.field("name", "a");
  json.field("n", -1);
  json.key("empty"), json.begin_array(), json.end_array();
  json.end_object();
  json.begin_object();
  json.end_object();
  json.end_array();
  json.finish();
  EXPECT_EQ(out.str(),
            "[\n  {\n    \"name\": \"a\",\n    \"n\": -1,\n    \"empty\": []\n  },\n  {}\n]\n");
}

TEST(JsonWriter, HasNoWordForInfinity) {
  std::ostringstream out;
  JsonWriter json(out);
  json.begin_array();
  json.real(1.0 / 0.0);
  json.end_array();
  EXPECT_EQ(out.str(), "[\n  null\n]");
}

}  // namespace
}  // namespace mapperctl
