#include "options.h"

#include <locale.h>
#include <stdlib.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "operator.h"

namespace cvops::operators {

const std::string* Options::find(const char* name) {
  known_.push_back(name);
  auto found = given_.find(name);
  return found == given_.end() ? nullptr : &found->second;
}

Options& Options::required(const char* name) {
  if (!described_ && !given_.count(name)) {
    throw Refused(std::string(name) + ": expected a value, got none");
  }
  required_ = true;
  return *this;
}

bool Options::describe(const char* type, const std::string& fallback) {
  const std::string name = known_.back(), schema = std::string(type) + " " + name;
  const bool required = required_;
  described_->push_back({name, required ? schema : schema + "=" + fallback});
  required_ = false;
  return required;
}

// A call with placeholders for the required options.
std::unique_ptr<Call> describe(const OperatorType& type, std::vector<Option>* described) {
  static const Attributes none;
  Options options(none, true);
  options.described_ = described;
  return type.make(options);
}

std::vector<Option> options_of(const OperatorType& type) {
  std::vector<Option> found;
  describe(type, &found);
  return found;
}

int num_outputs(const OperatorType& type) {
  std::vector<Option> found;
  return describe(type, &found)->outputs();
}

void Options::finish() const {
  for (const auto& [name, value] : given_) {
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    if (name.compare(0, 2, "__") == 0) continue;
    throw Refused("options: expected some of " + list_of(known_) + ", got " + name);
  }
}

static const char* const kSpaces = " \t\n\v\f\r";

static std::string trimmed(const std::string& s) {
  const size_t first = s.find_first_not_of(kSpaces), last = s.find_last_not_of(kSpaces);
  return first == std::string::npos ? "" : s.substr(first, last - first + 1);
}

static std::string lower(std::string s) {
  for (char& c : s) c = (char)std::tolower((unsigned char)c);
  return s;
}

static locale_t classic() {
  static const locale_t made = newlocale(LC_ALL_MASK, "C", nullptr);
  return made;
}

// Parses a number, independent of the locale; NaN is rejected. MXNet has the options parsed several
// times per call, so streams would be too slow here.
static bool parse_number(const std::string& given, double* out) {
  std::string s = lower(trimmed(given));
  for (const char* infinity : {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}) {
    if (s == infinity) {
      *out = s[0] == '-' ? -std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::infinity();
      return true;
    }
  }
  if (s.size() > 1 && s.back() == 'f') s.pop_back();  // as in C: 0.5f
  // strtod would accept hexadecimal numbers and names too.
  if (s.empty() || s.find_first_not_of("0123456789+-.e") != std::string::npos) return false;
  char* end = nullptr;
  *out = strtod_l(s.c_str(), &end, classic());
  return *end == '\0';
}

static bool is_number(const std::string& given) {
  double x;
  return parse_number(given, &x);
}

// Parses a number that fits in a float, or the word for infinity.
static bool parse(const std::string& given, double* out) {
  if (!parse_number(given, out)) return false;
  const bool is_word = given.find_first_of("iI") != std::string::npos;
  return is_word || std::abs(*out) <= std::numeric_limits<float>::max();
}

// A number of at most that many digits, independent of the locale.
static std::string number_text(double x, int digits = 6) {
  char text[32];
  const locale_t before = uselocale(classic());
  std::snprintf(text, sizeof text, "%.*g", digits, x);
  uselocale(before);
  return text;
}

std::string float_text(double x) {
  std::string text;
  // Each text of 15 digits is the shortest one of its number.
  for (int digits = 15; digits <= 17; ++digits) {
    text = number_text(x, digits);
    if (strtod_l(text.c_str(), nullptr, classic()) == x) break;
  }
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

// The value of an option, in quotes if it is a word.
static std::string quoted(const std::string& given) {
  const std::string s = lower(trimmed(given));
  const bool is_plain = is_number(s) || (!s.empty() && std::strchr("([", s[0])) || s == "nan" ||
                        s == "true" || s == "false" || s == "none";
  return is_plain ? given : "'" + given + "'";
}

void Options::refuse(const char* name, const std::string& expected) const {
  auto given = given_.find(name);
  const std::string got = given == given_.end() ? "the default" : quoted(given->second);
  throw Refused(std::string(name) + ": expected " + expected + ", got " + got);
}

// The limit that a text exceeds, if it is a number.
static std::string too_large(const std::string& given) {
  return is_number(given) ? " that fits into float32" : "";
}

float Options::number(const char* name, double fallback, double low, double high) {
  const std::string* given = find(name);
  double x = fallback;
  if (described_) return describe("float", float_text(x)) ? 1 : (float)x;
  if (given && (!parse(*given, &x) || x < low || x > high)) {
    std::string limits;
    if (low != -kInfinity || high != kInfinity) {
      limits = " in [" + number_text(low) + ", " + number_text(high) + "]";
    } else {
      limits = too_large(*given);
    }
    refuse(name, "a number" + limits);
  }
  return (float)x;
}

std::optional<float> Options::number_or_none(const char* name) {
  const std::string* given = find(name);
  if (described_) describe("float?", "None");
  if (!given || *given == "None") return std::nullopt;
  return number(name, 0);
}

// Parses an int: digits, and the suffix L of old Pythons.
static bool parse(const std::string& given, int* out) {
  std::string s = trimmed(given);
  if (s.size() > 1 && s.back() == 'L') s.pop_back();
  double x;
  if (s.find_first_not_of("0123456789+-") != std::string::npos || !parse(s, &x)) return false;
  if (x < std::numeric_limits<int>::min() || x > std::numeric_limits<int>::max()) return false;
  *out = (int)x;
  return true;
}

int Options::integer(const char* name, int fallback) {
  const std::string* given = find(name);
  if (described_) return describe("int", std::to_string(fallback)) ? 1 : fallback;
  if (!given || parse(*given, &fallback)) return fallback;
  const bool is_large =
      is_number(*given) && given->find_first_not_of("0123456789+-") == given->npos;
  refuse(name, is_large ? "an integer in [-2147483648, 2147483647]" : "an integer");
}

int Options::integer_or_none(const char* name, int fallback) {
  const std::string* given = find(name);
  if (described_) describe("int?", "None");
  return !given || *given == "None" ? fallback : integer(name, fallback);
}

bool Options::boolean(const char* name, bool fallback) {
  const std::string* given = find(name);
  if (described_) describe("bool", fallback ? "True" : "False");
  if (!given) return fallback;
  const std::string s = lower(*given);
  if (s == "true" || s == "1") return true;
  if (s == "false" || s == "0") return false;
  refuse(name, "True or False");
}

// Parses one T, or a list of T in brackets. As in MXNet, the brackets may be of different kinds.
// `wrong` gets the text of the first element that is no T.
template <typename T>
static bool parse(const std::string& given, std::vector<T>* out, std::string* wrong = nullptr) {
  std::string s = trimmed(given);
  const bool brackets =
      s.size() >= 2 && std::strchr("([", s.front()) && std::strchr(")]", s.back());
  if (brackets) {
    s = trimmed(s.substr(1, s.size() - 2));
    if (!s.empty() && s.back() == ',') s.pop_back();
  }
  for (size_t begin = 0, end; begin <= s.size(); begin = end + 1) {
    end = brackets ? std::min(s.find(',', begin), s.size()) : s.size();
    out->emplace_back();
    const std::string element = s.substr(begin, end - begin);
    if (parse(element, &out->back())) continue;
    if (wrong) *wrong = trimmed(element);
    return false;
  }
  return true;
}

std::vector<float> Options::numbers(const char* name, std::vector<double> fallback, size_t length) {
  const std::string* given = find(name);
  std::vector<double> x;
  std::string wrong;
  if (described_) {
    std::string list;
    for (double each : fallback) list += (list.empty() ? "" : ", ") + float_text(each);
    describe("float[]", "[" + list + "]");
  }
  if (!given) {
    x = fallback;
  } else if (!parse(*given, &x, &wrong) || (length && x.size() != length)) {
    if (is_number(wrong) || lower(wrong) == "nan") {
      throw Refused(std::string(name) + ": expected a number" + too_large(wrong) + ", got " +
                    wrong);
    }
    refuse(name, length ? std::to_string(length) + " numbers" : "one number or more");
  }
  return {x.begin(), x.end()};
}

std::vector<int> Options::integers(const char* name) {
  const std::string* given = find(name);
  if (described_) describe("int[]?", "None");
  if (!given || *given == "None") return {};
  const std::string s = trimmed(*given);
  const bool brackets = s.size() >= 2 && std::strchr("([", s[0]) && std::strchr(")]", s.back());
  if (brackets && trimmed(s.substr(1, s.size() - 2)).empty()) return {};
  std::vector<int> x;
  if (!parse(s, &x)) refuse(name, "an integer, or integers in brackets");
  return x;
}

std::array<int, 2> Options::pair(const char* name, int low, int high) {
  const std::string* given = find(name);
  if (described_) return describe("int[2]", ""), std::array<int, 2>{1, 1};
  std::vector<int> x;
  const bool ok = given && parse(*given, &x) && x.size() == 2 && std::min(x[0], x[1]) >= low &&
                  std::max(x[0], x[1]) <= high;
  if (!ok) refuse(name, "two integers of at least " + std::to_string(low));
  return {x[0], x[1]};
}

int Options::choice(const char* name, std::initializer_list<const char*> choices) {
  const std::string* given = find(name);
  if (described_) describe("str", std::string("\"") + *choices.begin() + "\"");
  if (!given) return 0;
  std::string names;
  for (const char* const* c = choices.begin(); c != choices.end(); ++c) {
    if (*given == *c) return (int)(c - choices.begin());
    names += std::string(names.empty() ? "'" : ", '") + *c + "'";
  }
  refuse(name, "one of [" + names + "]");
}

}  // namespace cvops::operators
