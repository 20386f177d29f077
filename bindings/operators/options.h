// The options of an operator: text that a framework gives, or the schema that it asks for.
#pragma once
#include <array>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace cvops::operators {

// Options of a call as text, by name.
using Attributes = std::unordered_map<std::string, std::string>;

// Error for unusable arguments of the caller.
struct Refused : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// "a, b, c"
template <typename Name>
std::string list_of(const std::vector<Name>& names) {
  std::string out;
  for (const Name& name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

// The shortest text that reads back as a number, as in Python: "0.7", "1.0", "1e-05", "inf".
std::string float_text(double x);

// An option as an operator looks it up.
struct Option {
  std::string name;
  // In a schema of PyTorch, with the default if there is one: "float threshold=0.5".
  std::string schema;
};

class Call;
struct OperatorType;

// Options of one operator. Each lookup is recorded, so that unknown options can be rejected.
class Options {
 public:
  // `beyond_mxnet`: the framework gets all outputs and gradients, also those that MXNet lacks.
  explicit Options(const Attributes& given, bool beyond_mxnet = false)
      : given_(given), beyond_mxnet_(beyond_mxnet) {}

  bool beyond_mxnet() const { return beyond_mxnet_; }

  float number(const char* name, double fallback, double low = -kInfinity, double high = kInfinity);
  std::optional<float> number_or_none(const char* name);
  int integer(const char* name, int fallback);
  // None means the fallback.
  int integer_or_none(const char* name, int fallback);
  bool boolean(const char* name, bool fallback);
  // One number, or a list in brackets; exactly `length` numbers if `length` is not 0.
  std::vector<float> numbers(const char* name, std::vector<double> fallback, size_t length = 0);
  // One integer, or a list in brackets; an empty list if missing or None.
  std::vector<int> integers(const char* name);
  // Two integers in brackets, each in [low, high].
  std::array<int, 2> pair(const char* name, int low, int high);
  // Index in `choices` of the given word; the first is the default.
  int choice(const char* name, std::initializer_list<const char*> choices);

  // Rejects a missing option.
  Options& required(const char* name);

  // Rejects the value of an option.
  [[noreturn]] void refuse(const char* name, const std::string& expected) const;

  // Rejects options that were never looked up. MXNet itself uses names such as __this__.
  void finish() const;

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  friend std::unique_ptr<Call> describe(const OperatorType& type, std::vector<Option>* options);

  const std::string* find(const char* name);
  // Records the schema of the last lookup. Returns true if the option is required.
  bool describe(const char* type, const std::string& fallback);

  const Attributes& given_;
  const bool beyond_mxnet_;
  std::vector<const char*> known_;
  // If this is not null, required options have a value that all operators accept.
  std::vector<Option>* described_ = nullptr;
  bool required_ = false;  // the next lookup
};

}  // namespace cvops::operators
