#include "operator.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "device.h"

namespace cvops::operators {

std::string text(const Shape& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() == 1 ? ",)" : ")");
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
    for (int64 axis : shapes[i]) {
      if (axis < 0) {
        throw Refused(std::string(names[i]) + ": expected a known shape, got an unknown one");
      }
      if (axis > std::numeric_limits<int>::max()) {
        refuse((int)i, "axes of size below 2^31");
      }
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
      ok = shape[j] == axis.size;
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

const char* name_of(Dtype type) {
  const char* names[] = {"float32", "float64", "float16", "uint8", "int32", "int8", "int64"};
  if (type == Dtype::bfloat16) return "bfloat16";
  return (int)type >= 0 && (int)type < 7 ? names[(int)type] : "another type";
}

int64 size_of(Dtype type) {
  switch (type) {
    case Dtype::uint8:
    case Dtype::int8:
      return 1;
    case Dtype::float16:
    case Dtype::bfloat16:
      return 2;
    case Dtype::float64:
    case Dtype::int64:
      return 8;
    default:
      return 4;
  }
}

int64 Tensor::size() const {
  return std::accumulate(shape.begin(), shape.end(), (int64)1, std::multiplies<int64>());
}

// A function, because other files register operators before main().
static std::vector<const OperatorType*>& registry() {
  static std::vector<const OperatorType*> types;
  return types;
}

void add_operator(const OperatorType* type) {
  auto& types = registry();
  auto before = [](const OperatorType* a, const OperatorType* b) {
    return std::strcmp(a->name, b->name) < 0;
  };
  types.insert(std::upper_bound(types.begin(), types.end(), type, before), type);
}

const std::vector<const OperatorType*>& operators() { return registry(); }

const char* OperatorType::expected_type(int i) const {
  const Dtype type = input_type(i);
  return may_float(i, type) ? "float32, float64, float16 or bfloat16" : name_of(type);
}

std::unique_ptr<Call> OperatorType::call(const Attributes& attributes, bool beyond_mxnet) const {
  Options options(attributes, beyond_mxnet);
  std::unique_ptr<Call> made = make(options);
  options.finish();
  return made;
}

static bool overlap(const Tensor& a, const Tensor& b) {
  const auto first = (std::uintptr_t)a.data_ptr, second = (std::uintptr_t)b.data_ptr;
  return first < second + b.bytes() && second < first + a.bytes();
}

static bool overlaps_one_of(const Tensor& tensor, const Tensors& others) {
  return std::any_of(others.begin(), others.end(),
                     [&](const Tensor& other) { return overlap(tensor, other); });
}

std::vector<std::vector<char>> copy_on_overlap(Tensors& in, Tensors& out) {
  std::vector<std::vector<char>> copies;
  for (Tensor& tensor : in) {
    if (!overlaps_one_of(tensor, out)) continue;
    const char* data = tensor.data<char>();
    copies.emplace_back(data, data + tensor.bytes());
    tensor.data_ptr = copies.back().data();
  }
  return copies;
}

void on_gpu(int number, void* stream, const Gpu::Allocate& allocate, Tensors& in, Tensors& out,
            const std::function<void(Gpu&, Tensors& in, Tensors& out)>& body) {
  auto misaligned = [](const Tensor& tensor) { return (std::uintptr_t)tensor.data_ptr % 16 != 0; };
  auto run = [&](Gpu& gpu) {
    Tensors inputs = in, outputs = out;
    for (size_t i = 0; i < in.size(); ++i) {
      if (!misaligned(in[i]) && !overlaps_one_of(in[i], out)) continue;
      inputs[i].data_ptr = gpu.scratch<char>(in[i].bytes());
      gpu.copy(inputs[i].data_ptr, in[i].data_ptr, in[i].bytes());
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (misaligned(out[i])) outputs[i].data_ptr = gpu.scratch<char>(out[i].bytes());
    }
    {
      Gpu::Scope scope(gpu);
      body(gpu, inputs, outputs);
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (misaligned(out[i])) gpu.copy(out[i].data_ptr, outputs[i].data_ptr, out[i].bytes());
    }
  };
  Device& device = cuda::default_device(number);
  device.with_current([&] {
    Gpu gpu(device, stream, allocate);
    gpu.run([&] { run(gpu); });
  });
}

}  // namespace cvops::operators
