// An operator of MXNet 1.9.1, made from a short description: options, shapes, and the function to
// call.
//
// MXNet loads the operators as an external library (`mx.library.load`), through the lib_api.h of
// its own wheel. Only C types and no exceptions may cross that ABI boundary. Exceptions are caught
// here. MXNet gets a message that names the operator, the argument and the value.
#pragma once
#include <mxnet/lib_api.h>

#include <array>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "gpu.h"

namespace cvops::external {

using mxnet::ext::MXReturnValue;
using Attributes = std::unordered_map<std::string, std::string>;
using Shape = std::vector<unsigned>;
using Shapes = std::vector<Shape>;
using Tensors = std::vector<mxnet::ext::MXTensor>;

// Error for unusable arguments of the caller.
struct Refused : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

std::string text(const Shape& shape);

// Options of one operator. MXNet stores them as text. Each lookup is recorded, so that unknown
// options can be rejected.
class Options {
 public:
  explicit Options(const Attributes& given) : given_(given) {}

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
  const std::string* find(const char* name);

  const Attributes& given_;
  std::vector<std::string> known_;
};

// An axis with a fixed size, or with a name: all axes of one name have the same size.
struct Axis {
  Axis(int size) : size(size), name(nullptr) {}
  Axis(const char* name) : size(-1), name(name) {}
  int size;
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
    unsigned size;
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
struct Operator {
  static constexpr int kOutputs = 1;

  static mxnet::ext::MXDType input_type(int) { return mxnet::ext::kFloat32; }
  static mxnet::ext::MXDType output_type(int) { return mxnet::ext::kFloat32; }

  // in: gradients of the outputs, inputs, outputs; out: gradients of the inputs. The default is
  // zero gradients: MXNet rejects an operator without a gradient in a hybridized block.
  template <typename Device>
  void backward(Device& device, Tensors&, Tensors& out) const {
    for (auto& grad : out) set_to_zero(device, grad.data_ptr, bytes(grad));
  }

  // Names of the inputs if they depend on the options; else null, for kInputs.
  const std::vector<const char*>* input_names() const { return nullptr; }

  static int64 bytes(mxnet::ext::MXTensor& tensor);
};

template <typename Op>
const std::vector<const char*>& inputs_of(const Op& op) {
  return op.input_names() ? *op.input_names() : Op::kInputs;
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

// Sets the error message of this thread, which MXNet reads next.
void set_error(const std::string& text);

// Runs `body` and converts exceptions to MXNet errors.
MXReturnValue guarded(const char* name, const std::function<void()>& body);

template <typename Op>
Op make(const Attributes& attributes) {
  Options options(attributes);
  Op op(options);
  options.finish();
  return op;
}

// Number of outputs: op.outputs() of an operator with optional outputs, else kOutputs.
template <typename Op>
auto num_outputs_of(const Op& op, int) -> decltype(op.outputs()) {
  return op.outputs();
}
template <typename Op>
int num_outputs_of(const Op&, long) {
  return Op::kOutputs;
}

template <typename Op>
MXReturnValue parse_attributes(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  return guarded(Op::kName, [&] {
    const Op op = make<Op>(attributes);
    *num_inputs = (int)inputs_of(op).size();
    *num_outputs = num_outputs_of(op, 0);
  });
}

const char* name_of(int type);

// Rejects a wrong number of inputs, which an edited graph can have.
void check_count(size_t got, const std::vector<const char*>& names);

template <typename Op>
MXReturnValue infer_type(const Attributes& attributes, std::vector<int>* in,
                         std::vector<int>* out) {
  return guarded(Op::kName, [&] {
    if (in->size() != Op::kInputs.size()) {
      check_count(in->size(), inputs_of(make<Op>(attributes)));
    }
    for (size_t i = 0; i < in->size(); ++i) {
      const int wanted = Op::input_type((int)i), got = in->at(i);
      if (got >= 0 && got != wanted) {
        throw Refused(std::string(Op::kInputs[i]) + ": expected " + name_of(wanted) + ", got " +
                      name_of(got));
      }
      in->at(i) = wanted;
    }
    for (size_t i = 0; i < out->size(); ++i) out->at(i) = Op::output_type((int)i);
  });
}

template <typename Op>
MXReturnValue infer_shape(const Attributes& attributes, Shapes* in, Shapes* out) {
  return guarded(Op::kName, [&] {
    const Op op = make<Op>(attributes);
    *out = op.shapes(Inputs(*in, inputs_of(op)));
  });
}

// True if two tensors share memory, as after `op(x, out=x)`.
bool overlap(mxnet::ext::MXTensor& a, mxnet::ext::MXTensor& b);

// Replaces each input that shares memory with an output by a copy, which lives as long as the
// result.
std::vector<std::vector<char>> copy_on_overlap(Tensors& in, Tensors& out);

template <typename Op>
MXReturnValue forward_cpu(const Attributes& attributes, Tensors* in, Tensors* out,
                          const mxnet::ext::OpResource&) {
  return guarded(Op::kName, [&] {
    const auto copies = copy_on_overlap(*in, *out);
    const Cpu cpu;
    make<Op>(attributes).forward(cpu, *in, *out);
  });
}

template <typename Op>
MXReturnValue backward_cpu(const Attributes& attributes, Tensors* in, Tensors* out,
                           const mxnet::ext::OpResource&) {
  return guarded(Op::kName, [&] {
    const auto copies = copy_on_overlap(*in, *out);
    const Cpu cpu;
    make<Op>(attributes).backward(cpu, *in, *out);
  });
}

// Calls `body` with the GPU of the inputs, current for the engine's thread. The kernels load and
// store 16 bytes at a time. Tensors with another alignment, such as slices of arrays, are therefore
// copied to scratch memory. So are inputs that share memory with an output.
void on_gpu(Tensors& in, Tensors& out, const mxnet::ext::OpResource& resource,
            const std::function<void(Gpu&, Tensors& in, Tensors& out)>& body);

template <typename Op>
MXReturnValue forward_gpu(const Attributes& attributes, Tensors* in, Tensors* out,
                          const mxnet::ext::OpResource& resource) {
  return guarded(Op::kName, [&] {
    const Op op = make<Op>(attributes);
    on_gpu(*in, *out, resource,
           [&](Gpu& gpu, Tensors& in, Tensors& out) { op.forward(gpu, in, out); });
  });
}

template <typename Op>
MXReturnValue backward_gpu(const Attributes& attributes, Tensors* in, Tensors* out,
                           const mxnet::ext::OpResource& resource) {
  return guarded(Op::kName, [&] {
    const Op op = make<Op>(attributes);
    on_gpu(*in, *out, resource,
           [&](Gpu& gpu, Tensors& in, Tensors& out) { op.backward(gpu, in, out); });
  });
}

// Registers an operator with MXNet as _contrib_cvops_<name>.
template <typename Op>
struct Register {
  Register() {
    static const std::string name = std::string("_contrib_cvops_") + Op::kName;
    auto& op = mxnet::ext::Registry<mxnet::ext::CustomOp>::get()->add(name.c_str());
    op.setParseAttrs(parse_attributes<Op>);
    op.setInferType(infer_type<Op>);
    op.setInferShape(infer_shape<Op>);
#ifdef CVOPS_EMULATED
    // The tests run the GPU version on the CPU.
    op.setForward(forward_gpu<Op>, "cpu").setBackward(backward_gpu<Op>, "cpu");
#else
    op.setForward(forward_cpu<Op>, "cpu").setBackward(backward_cpu<Op>, "cpu");
    op.setForward(forward_gpu<Op>, "gpu").setBackward(backward_gpu<Op>, "gpu");
#endif
  }
};

}  // namespace cvops::external
