// An operator: its options, its shapes, and the call of the op, without any framework.
//
// A framework's adapter (bindings/mxnet, bindings/torch) describes its tensors and its options, and
// registers all operators of operators().
#pragma once
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "gpu.h"
#include "half.h"
#include "options.h"

namespace cvops::operators {

// The values are those of MXNet.
enum class Dtype {
  float32 = 0,
  float64 = 1,
  float16 = 2,
  uint8 = 3,
  int32 = 4,
  int8 = 5,
  int64 = 6,
  bfloat16 = 12
};

inline bool is_half(Dtype type) { return type == Dtype::float16 || type == Dtype::bfloat16; }
inline bool is_floating(Dtype type) {
  return type == Dtype::float32 || type == Dtype::float64 || is_half(type);
}

// "float32"; "another type" for an unknown value.
const char* name_of(Dtype type);
// Bytes of an element.
int64 size_of(Dtype type);

using Shape = std::vector<int64>;
using Shapes = std::vector<Shape>;
// Contiguous memory of the caller.
struct Tensor {
  void* data_ptr;
  Shape shape;
  Dtype dtype;

  template <typename T>
  T* data() const {
    return static_cast<T*>(data_ptr);
  }
  int64 size() const;  // number of elements
  int64 bytes() const { return size() * size_of(dtype); }
};
using Tensors = std::vector<Tensor>;

std::string text(const Shape& shape);

// An axis with a fixed size, or with a name: all axes of one name have the same size.
struct Axis {
  Axis(int64 size) : size(size), name(nullptr) {}
  Axis(int size) : size(size), name(nullptr) {}
  Axis(const char* name) : size(-1), name(name) {}
  int64 size;
  const char* name;
};

// Shapes of the inputs of an operator. Its checks name the input.
class Inputs {
 public:
  Inputs(const Shapes& shapes, const std::vector<const char*>& names);

  const Shape& operator[](int i) const { return shapes_[i]; }
  // Returns the shape of input i, or rejects it.
  const Shape& expect(int i, std::initializer_list<Axis> axes);
  // Rejects input i.
  [[noreturn]] void refuse(int i, const std::string& expected) const;

 private:
  struct Known {
    std::string name;
    int64 size;
    int input;
  };
  const Shapes& shapes_;
  const std::vector<const char*>& names_;
  std::vector<Known> known_;
};

// Base class of the operators. A derived class overrides some members and adds these:
//     static constexpr const char* kName;
//     static const std::vector<const char*> kInputs;
//     explicit Op(Options&);
//     Shapes shapes(Inputs) const;                                 // of the outputs
//     template <typename Device>                                   // const Cpu or Gpu
//     void forward(Device&, Tensors& in, Tensors& out) const;
//
// With kAnyFloat, the float32 tensors of a call may all have another floating type instead, and
// `forward` and `backward` have a template parameter before Device: float or double. float16 and
// bfloat16 tensors are computed in float.
struct Operator {
  static constexpr int kOutputs = 1;
  static constexpr bool kAnyFloat = false;

  static Dtype input_type(int) { return Dtype::float32; }
  static Dtype output_type(int) { return Dtype::float32; }

  // The inputs with a gradient that is not zero.
  static std::vector<int> differentiable() { return {}; }
  // False if the options make all gradients zero.
  bool has_gradient() const { return true; }

  // in: gradients of the outputs, inputs, outputs; out: gradients of the inputs. The default is
  // zero gradients: MXNet rejects an operator without a gradient in a hybridized block.
  template <typename Device>
  void backward(Device& device, Tensors&, Tensors& out) const {
    for (auto& grad : out) set_to_zero(device, grad.data_ptr, grad.bytes());
  }

  // Names of the inputs if they depend on the options; else null, for kInputs.
  const std::vector<const char*>* input_names() const { return nullptr; }
};

// Number of outputs: op.outputs() of an operator with optional outputs, else kOutputs.
template <typename Op>
auto num_outputs_of(const Op& op, int) -> decltype(op.outputs()) {
  return op.outputs();
}
template <typename Op>
int num_outputs_of(const Op&, long) {
  return Op::kOutputs;
}

// Uninitialized scratch memory of a backward pass.
template <typename Device>
class Scratch;

template <>
class Scratch<const Cpu> {
 public:
  explicit Scratch(const Cpu&) {}
  template <typename T>
  T* take(int64 num) {
    pieces_.emplace_back(new char[num * sizeof(T)]);
    return reinterpret_cast<T*>(pieces_.back().get());
  }

 private:
  std::vector<std::unique_ptr<char[]>> pieces_;
};

template <>
class Scratch<Gpu> {
 public:
  explicit Scratch(Gpu& gpu) : gpu_(gpu), scope_(gpu) {}
  template <typename T>
  T* take(int64 num) {
    return gpu_.scratch<T>(num);
  }

 private:
  Gpu& gpu_;
  Gpu::Scope scope_;
};

// An operator with the options of one call.
class Call {
 public:
  virtual ~Call() = default;

  virtual const std::vector<const char*>& inputs() const = 0;
  virtual int outputs() const = 0;
  virtual bool has_gradient() const = 0;
  // Shapes of the outputs, or an error that names the input.
  virtual Shapes shapes(const Shapes& in) const = 0;
  virtual void forward(const Cpu&, Tensors& in, Tensors& out) const = 0;
  virtual void forward(Gpu&, Tensors& in, Tensors& out) const = 0;
  virtual void backward(const Cpu&, Tensors& in, Tensors& out) const = 0;
  virtual void backward(Gpu&, Tensors& in, Tensors& out) const = 0;
};

// Calls body(T(), in, out) with float or double, which is the floating type of the tensors `in` and
// `out`. Tensors of a smaller type are converted to float and back.
template <typename Device, typename Body>
void as_floats(Device& device, Tensors& in, Tensors& out, const Body& body) {
  const Dtype type = in.at(0).dtype;
  if (type == Dtype::float64) return body(double(), in, out);
  if (!is_half(type)) return body(float(), in, out);
  Scratch<Device> scratch(device);
  auto in_float = [&](const Tensor& x) {
    if (x.dtype != type) return x;
    return Tensor{scratch.template take<float>(x.size()), x.shape, Dtype::float32};
  };
  Tensors inputs, outputs;
  for (const Tensor& x : in) {
    inputs.push_back(in_float(x));
    if (x.dtype != type || x.size() == 0) continue;
    half_to_float(device, inputs.back().template data<float>(), x.template data<uint16>(), x.size(),
                  type == Dtype::bfloat16);
  }
  for (const Tensor& x : out) outputs.push_back(in_float(x));
  body(float(), inputs, outputs);
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].dtype != type || out[i].size() == 0) continue;
    float_to_half(device, out[i].template data<uint16>(), outputs[i].template data<float>(),
                  out[i].size(), type == Dtype::bfloat16);
  }
}

struct OperatorType {
  const char* name;
  // Names of all inputs. A call may have fewer: see Call::inputs().
  std::vector<const char*> inputs;
  // Inputs with a gradient.
  std::vector<int> differentiable;
  Dtype (*input_type)(int);
  Dtype (*output_type)(int);
  // True if `floating`, the floating type of a call, need not be float32.
  bool any_float;
  std::unique_ptr<Call> (*make)(Options&);

  Dtype input_type_of(int i, Dtype floating) const { return actual(input_type(i), floating); }
  Dtype output_type_of(int i, Dtype floating) const { return actual(output_type(i), floating); }
  // True if an input may have the type, and the call then has this floating type.
  bool may_float(int i, Dtype type) const {
    return any_float && input_type(i) == Dtype::float32 && is_floating(type);
  }
  // The types that an input may have, as text.
  const char* expected_type(int i) const;

  // The call with these options, or an error that names the option.
  std::unique_ptr<Call> call(const Attributes& attributes, bool beyond_mxnet = false) const;

 private:
  Dtype actual(Dtype type, Dtype floating) const {
    return any_float && type == Dtype::float32 ? floating : type;
  }
};

// The options of an operator beyond MXNet.
std::vector<Option> options_of(const OperatorType& type);
// The number of its outputs.
int num_outputs(const OperatorType& type);

// All operators, in the order of their names.
const std::vector<const OperatorType*>& operators();

void add_operator(const OperatorType* type);

// True if the operator has a `backward` of its own, with the template parameter of kAnyFloat.
template <typename Op, typename = void>
struct HasTypedBackward : std::false_type {};
template <typename Op>
struct HasTypedBackward<Op, decltype(std::declval<const Op&>().template backward<float>(
                                std::declval<const Cpu&>(), std::declval<Tensors&>(),
                                std::declval<Tensors&>()))> : std::true_type {};

template <typename Op>
class CallOf final : public Call {
 public:
  explicit CallOf(Options& options) : op_(options) {}

  const std::vector<const char*>& inputs() const override {
    return op_.input_names() ? *op_.input_names() : Op::kInputs;
  }
  int outputs() const override { return num_outputs_of(op_, 0); }
  bool has_gradient() const override { return op_.has_gradient(); }
  Shapes shapes(const Shapes& in) const override { return op_.shapes(Inputs(in, inputs())); }
  void forward(const Cpu& cpu, Tensors& in, Tensors& out) const override {
    forward_on(cpu, in, out);
  }
  void forward(Gpu& gpu, Tensors& in, Tensors& out) const override { forward_on(gpu, in, out); }
  void backward(const Cpu& cpu, Tensors& in, Tensors& out) const override {
    backward_on(cpu, in, out);
  }
  void backward(Gpu& gpu, Tensors& in, Tensors& out) const override { backward_on(gpu, in, out); }

 private:
  template <typename Device>
  void forward_on(Device& device, Tensors& in, Tensors& out) const {
    if constexpr (Op::kAnyFloat) {
      as_floats(device, in, out, [&](auto zero, Tensors& a, Tensors& b) {
        op_.template forward<decltype(zero)>(device, a, b);
      });
    } else {
      op_.forward(device, in, out);
    }
  }
  template <typename Device>
  void backward_on(Device& device, Tensors& in, Tensors& out) const {
    if constexpr (Op::kAnyFloat && HasTypedBackward<Op>::value) {
      as_floats(device, in, out, [&](auto zero, Tensors& a, Tensors& b) {
        op_.template backward<decltype(zero)>(device, a, b);
      });
    } else {
      op_.backward(device, in, out);
    }
  }

 private:
  const Op op_;
};

template <typename Op>
struct Register {
  Register() {
    static const OperatorType type = {Op::kName,
                                      Op::kInputs,
                                      Op::differentiable(),
                                      Op::input_type,
                                      Op::output_type,
                                      Op::kAnyFloat,
                                      [](Options& options) -> std::unique_ptr<Call> {
                                        return std::make_unique<CallOf<Op>>(options);
                                      }};
    add_operator(&type);
  }
};

// Rejects a wrong number of inputs, which an edited graph can have.
void check_count(size_t got, const std::vector<const char*>& names);

// Replaces each input that shares memory with an output, as after `op(x, out=x)`, by a copy, which
// lives as long as the result.
std::vector<std::vector<char>> copy_on_overlap(Tensors& in, Tensors& out);

// Calls `body` with GPU number `device`, current for this thread. The kernels load and store 16
// bytes at a time. Tensors with another alignment, such as slices of arrays, are therefore copied
// to scratch memory. So are inputs that share memory with an output.
void on_gpu(int device, void* stream, const Gpu::Allocate& allocate, Tensors& in, Tensors& out,
            const std::function<void(Gpu&, Tensors& in, Tensors& out)>& body);

}  // namespace cvops::operators
