#include "operator.h"

#include <locale.h>
#include <stdlib.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <locale>
#include <sstream>

#include "device.h"

namespace cvops::external {

std::string text(const Shape& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() == 1 ? ",)" : ")");
}

// "a, b, c"
template <typename Name>
static std::string list_of(const std::vector<Name>& names) {
  std::string out;
  for (const Name& name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

// Options of an operator.

const std::string* Options::find(const char* name) {
  known_.push_back(name);
  auto found = given_.find(name);
  return found == given_.end() ? nullptr : &found->second;
}

Options& Options::required(const char* name) {
  if (!given_.count(name)) {
    throw Refused(std::string(name) + ": expected a value, got none");
  }
  return *this;
}

void Options::finish() const {
  for (const auto& [name, value] : given_) {
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    if (name.compare(0, 2, "__") == 0) continue;
    throw Refused("options: expected some of " + list_of(known_) + ", got " + name);
  }
}

void Options::refuse(const char* name, const std::string& expected) const {
  auto given = given_.find(name);
  const std::string got = given == given_.end() ? "the default" : given->second;
  throw Refused(std::string(name) + ": expected " + expected + ", got " + got);
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

// Parses a number that fits in a float, independent of the locale; NaN is rejected. MXNet has the
// options parsed several times per call, so streams would be too slow here.
static bool parse(const std::string& given, double* out) {
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
  static const locale_t classic = newlocale(LC_ALL_MASK, "C", nullptr);
  char* end = nullptr;
  *out = strtod_l(s.c_str(), &end, classic);
  return *end == '\0' && std::abs(*out) <= std::numeric_limits<float>::max();
}

static std::string number_text(double x) {
  std::ostringstream stream;
  stream.imbue(std::locale::classic());
  stream << x;
  return stream.str();
}

float Options::number(const char* name, double fallback, double low, double high) {
  const std::string* given = find(name);
  double x = fallback;
  if (given && (!parse(*given, &x) || x < low || x > high)) {
    std::string limits = low == -kInfinity && high == kInfinity
                             ? ""
                             : " in [" + number_text(low) + ", " + number_text(high) + "]";
    refuse(name, "a number" + limits);
  }
  return (float)x;
}

std::optional<float> Options::number_or_none(const char* name) {
  const std::string* given = find(name);
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
  if (given && !parse(*given, &fallback)) refuse(name, "an integer");
  return fallback;
}

int Options::integer_or_none(const char* name, int fallback) {
  const std::string* given = find(name);
  return given && *given == "None" ? fallback : integer(name, fallback);
}

bool Options::boolean(const char* name, bool fallback) {
  const std::string* given = find(name);
  if (!given) return fallback;
  const std::string s = lower(*given);
  if (s == "true" || s == "1") return true;
  if (s == "false" || s == "0") return false;
  refuse(name, "True or False");
}

// Parses one T, or a list of T in brackets. As in MXNet, the brackets may be of different kinds.
template <typename T>
static bool parse(const std::string& given, std::vector<T>* out) {
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
    if (!parse(s.substr(begin, end - begin), &out->back())) return false;
  }
  return true;
}

std::vector<float> Options::numbers(const char* name, std::vector<double> fallback, size_t length) {
  const std::string* given = find(name);
  std::vector<double> x;
  if (!given) {
    x = fallback;
  } else if (!parse(*given, &x) || (length && x.size() != length)) {
    refuse(name, length ? std::to_string(length) + " numbers" : "one number or more");
  }
  return {x.begin(), x.end()};
}

std::vector<int> Options::integers(const char* name) {
  const std::string* given = find(name);
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
  std::vector<int> x;
  const bool ok = given && parse(*given, &x) && x.size() == 2 && std::min(x[0], x[1]) >= low &&
                  std::max(x[0], x[1]) <= high;
  if (!ok) refuse(name, "two integers of at least " + std::to_string(low));
  return {x[0], x[1]};
}

int Options::choice(const char* name, std::initializer_list<const char*> choices) {
  const std::string* given = find(name);
  if (!given) return 0;
  std::string names;
  for (const char* const* c = choices.begin(); c != choices.end(); ++c) {
    if (*given == *c) return (int)(c - choices.begin());
    names += std::string(names.empty() ? "" : " or ") + "'" + *c + "'";
  }
  refuse(name, names);
}

// Shapes of the inputs.

void check_count(size_t got, const std::vector<const char*>& names) {
  if (got == names.size()) return;
  throw Refused("inputs: expected " + list_of(names) + ", got " + std::to_string(got) + " inputs");
}

Inputs::Inputs(const Shapes& shapes, const std::vector<const char*>& names)
    : shapes_(shapes), names_(names) {
  check_count(shapes.size(), names);
  for (size_t i = 0; i < shapes.size(); ++i) {
    const unsigned unknown = (unsigned)-1;
    if (std::count(shapes[i].begin(), shapes[i].end(), unknown)) {
      throw Refused(std::string(names[i]) + ": expected a known shape, got an unknown one");
    }
  }
}

void Inputs::refuse(int i, const std::string& expected) const {
  throw Refused(std::string(names_[i]) + ": expected " + expected + ", got " + text(shapes_[i]));
}

const Shape& Inputs::expect(int i, std::initializer_list<Axis> axes) {
  const Shape& shape = shapes_[i];
  std::string pattern, why;
  for (const Axis& axis : axes) {
    pattern += (pattern.empty() ? "" : ", ") + (axis.name ? axis.name : std::to_string(axis.size));
  }
  bool ok = shape.size() == axes.size();
  for (size_t j = 0; ok && j < shape.size(); ++j) {
    const Axis& axis = axes.begin()[j];
    if (!axis.name) {
      ok = shape[j] == (unsigned)axis.size;
      continue;
    }
    auto known = std::find_if(known_.begin(), known_.end(),
                              [&](const Known& k) { return k.name == axis.name; });
    if (known == known_.end()) {
      known_.push_back({axis.name, shape[j], i});
    } else if (known->size != shape[j]) {
      ok = false;
      why = " with " + known->name + " = " + std::to_string(known->size) + " as in " +
            names_[known->input];
    }
  }
  if (!ok) refuse(i, "shape (" + pattern + (axes.size() == 1 ? ",)" : ")") + why);
  return shape;
}

// Execution.

int64 Operator::bytes(mxnet::ext::MXTensor& tensor) {
  int64 item = 4;
  switch (tensor.dtype) {
    case mxnet::ext::kUint8:
    case mxnet::ext::kInt8:
      item = 1;
      break;
    case mxnet::ext::kFloat16:
      item = 2;
      break;
    case mxnet::ext::kFloat64:
    case mxnet::ext::kInt64:
      item = 8;
      break;
    default:
      break;
  }
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), item, std::multiplies<int64>());
}

const char* name_of(int type) {
  const char* names[] = {"float32", "float64", "float16", "uint8", "int32", "int8", "int64"};
  return type >= 0 && type < 7 ? names[type] : "another type";
}

MXReturnValue guarded(const char* name, const std::function<void()>& body) {
  try {
    body();
    return mxnet::ext::MX_SUCCESS;
  } catch (const std::exception& error) {
    set_error(std::string("cvops_") + name + ": " + error.what());
  } catch (...) {
    set_error(std::string("cvops_") + name + ": unknown error");
  }
  return mxnet::ext::MX_FAIL;
}

bool overlap(mxnet::ext::MXTensor& a, mxnet::ext::MXTensor& b) {
  const auto first = (std::uintptr_t)a.data_ptr, second = (std::uintptr_t)b.data_ptr;
  return first < second + Operator::bytes(b) && second < first + Operator::bytes(a);
}

static bool overlaps_one_of(mxnet::ext::MXTensor& tensor, Tensors& others) {
  return std::any_of(others.begin(), others.end(),
                     [&](auto& other) { return overlap(tensor, other); });
}

std::vector<std::vector<char>> copy_on_overlap(Tensors& in, Tensors& out) {
  std::vector<std::vector<char>> copies;
  for (auto& tensor : in) {
    if (!overlaps_one_of(tensor, out)) continue;
    const char* data = (const char*)tensor.data_ptr;
    copies.emplace_back(data, data + Operator::bytes(tensor));
    tensor.data_ptr = copies.back().data();
  }
  return copies;
}

void on_gpu(Tensors& in, Tensors& out, const mxnet::ext::OpResource& resource,
            const std::function<void(Gpu&, Tensors& in, Tensors& out)>& body) {
  auto allocate = [&](int64 bytes) {
    if (bytes > std::numeric_limits<int>::max()) {
      throw std::runtime_error("scratch memory: expected less than 2**31 bytes, got " +
                               std::to_string(bytes));
    }
#ifdef CVOPS_EMULATED
    return resource.alloc_cpu((int)bytes);
#else
    return resource.alloc_gpu((int)bytes);
#endif
  };
  auto misaligned = [](auto& tensor) { return (std::uintptr_t)tensor.data_ptr % 16 != 0; };
  auto run = [&](Gpu& gpu) {
    Tensors inputs = in, outputs = out;
    for (size_t i = 0; i < in.size(); ++i) {
      if (!misaligned(in[i]) && !overlaps_one_of(in[i], out)) continue;
      inputs[i].data_ptr = gpu.scratch<char>(Operator::bytes(in[i]));
      gpu.copy(inputs[i].data_ptr, in[i].data_ptr, Operator::bytes(in[i]));
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (misaligned(out[i])) outputs[i].data_ptr = gpu.scratch<char>(Operator::bytes(out[i]));
    }
    {
      Gpu::Scope scope(gpu);
      body(gpu, inputs, outputs);
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (misaligned(out[i])) {
        gpu.copy(out[i].data_ptr, outputs[i].data_ptr, Operator::bytes(out[i]));
      }
    }
  };
  Device& device = cuda::default_device(in.at(0).ctx.dev_id);
  device.with_current([&] {
    Gpu gpu(device, resource.get_cuda_stream(), allocate);
    gpu.run([&] { run(gpu); });
  });
}

}  // namespace cvops::external

// MXNet calls this first, to check its version.
mxnet::ext::MXReturnValue initialize(int version) {
  if (version >= 10900 && version < 20000) return mxnet::ext::MX_SUCCESS;
  cvops::external::set_error("MXNet: expected version 1.9, got " + std::to_string(version));
  return mxnet::ext::MX_FAIL;
}
