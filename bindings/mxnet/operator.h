// An operator of MXNet 1.9.1, made of a short description: options, shapes, and what to call.
//
// MXNet loads these as an external library (`mx.library.load`), through the lib_api.h of its own
// wheel. Across that border only C types pass, and no exception may: everything is caught here, and
// goes to MXNet as a message that names the operator, the argument and the value got.
#pragma once
#include <mxnet/lib_api.h>

#include <array>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
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

// What the caller gave cannot be used.
struct Refused : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

std::string text(const Shape& shape);

// The options of one operator, as MXNet keeps them: texts. Each is looked up once, so that what
// nobody asked for can be refused.
class Options {
 public:
  explicit Options(const Attributes& given) : given_(given) {}

  float number(const char* name, double fallback, double low = -kInfinity, double high = kInfinity);
  int integer(const char* name, int fallback);
  // None is the fallback.
  int integer_or_none(const char* name, int fallback);
  bool boolean(const char* name, bool fallback);
  // One number, or one or more in brackets; exactly `length` if that is not 0.
  std::vector<float> numbers(const char* name, std::vector<double> fallback, size_t length = 0);
  // Two integers in brackets, each in [low, high].
  std::array<int, 2> pair(const char* name, int low, int high);
  // The place in `choices` of the word given; the first is the default.
  int choice(const char* name, std::initializer_list<const char*> choices);

  // An option without a default.
  Options& required(const char* name);

  // Refuses what was given for an option.
  [[noreturn]] void refuse(const char* name, const std::string& expected) const;

  // Refuses options that nobody asked for. Names like __this__ are MXNet's own.
  void finish() const;

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::string* find(const char* name);

  const Attributes& given_;
  std::vector<std::string> known_;
};

// An axis is asked to have a size, or the size that another axis of its name has.
struct Axis {
  Axis(int size) : size(size), name(nullptr) {}
  Axis(const char* name) : size(-1), name(name) {}
  int size;
  const char* name;
};

// The shapes of an operator's inputs, for checks that name them.
class Inputs {
 public:
  Inputs(const Shapes& shapes, const std::vector<const char*>& names);

  const Shape& operator[](int i) const { return shapes_[i]; }
  // The shape of input i, if it is as it should be.
  const Shape& expect(int i, std::initializer_list<Axis> axes);
  // Refuses input i.
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

// What an operator is derived from. It has beside
//     static constexpr const char* kName;
//     static const std::vector<const char*> kInputs;
//     explicit Op(Options&);
//     Shapes shapes(Inputs) const;                                 // of the outputs
//     template <typename Device>                                   // const Cpu or Gpu
//     void forward(Device&, Tensors& in, Tensors& out) const;
// and what is other than here.
struct Operator {
  static constexpr int kOutputs = 1;

  static mxnet::ext::MXDType input_type(int) { return mxnet::ext::kFloat32; }
  static mxnet::ext::MXDType output_type(int) { return mxnet::ext::kFloat32; }

  // in: gradients of the outputs, inputs, outputs; out: gradients of the inputs. Here zeros: MXNet
  // does not let an operator without a gradient into a hybridized block.
  template <typename Device>
  void backward(Device& device, Tensors&, Tensors& out) const {
    for (auto& grad : out) set_to_zero(device, grad.data_ptr, bytes(grad));
  }

  static int64 bytes(mxnet::ext::MXTensor& tensor);
};

// Scratch memory of a backward pass, not initialized.
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

// Makes a text the message of the error that this thread is about to give to MXNet.
void tell(const std::string& text);

// Runs `body`; what it throws becomes MXNet's error.
MXReturnValue guarded(const char* name, const std::function<void()>& body);

template <typename Op>
Op make(const Attributes& attributes) {
  Options options(attributes);
  Op op(options);
  options.finish();
  return op;
}

template <typename Op>
MXReturnValue parse_attributes(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  return guarded(Op::kName, [&] {
    make<Op>(attributes);
    *num_inputs = (int)Op::kInputs.size();
    *num_outputs = Op::kOutputs;
  });
}

const char* name_of(int type);

// Refuses another number of inputs than an operator has, as an edited graph may give.
void check_count(size_t got, const std::vector<const char*>& names);

template <typename Op>
MXReturnValue infer_type(const Attributes&, std::vector<int>* in, std::vector<int>* out) {
  return guarded(Op::kName, [&] {
    check_count(in->size(), Op::kInputs);
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
  return guarded(Op::kName, [&] { *out = make<Op>(attributes).shapes(Inputs(*in, Op::kInputs)); });
}

// Whether they share memory, as after `op(x, out=x)`.
bool overlap(mxnet::ext::MXTensor& a, mxnet::ext::MXTensor& b);

// Puts copies in the place of the inputs that an output shares memory with; they live as long as
// the result.
std::vector<std::vector<char>> kept_apart(Tensors& in, Tensors& out);

template <typename Op>
MXReturnValue forward_cpu(const Attributes& attributes, Tensors* in, Tensors* out,
                          const mxnet::ext::OpResource&) {
  return guarded(Op::kName, [&] {
    const auto copies = kept_apart(*in, *out);
    const Cpu cpu;
    make<Op>(attributes).forward(cpu, *in, *out);
  });
}

template <typename Op>
MXReturnValue backward_cpu(const Attributes& attributes, Tensors* in, Tensors* out,
                           const mxnet::ext::OpResource&) {
  return guarded(Op::kName, [&] {
    const auto copies = kept_apart(*in, *out);
    const Cpu cpu;
    make<Op>(attributes).backward(cpu, *in, *out);
  });
}

// Calls `body` for the GPU of the inputs, made current for the engine's thread. The kernels load
// and store 16 bytes at a time: tensors at another address, as slices of an array, are copied to
// scratch memory meanwhile, and so are inputs that an output shares memory with.
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

// Makes an operator known to MXNet, as _contrib_cvops_<name>.
template <typename Op>
struct Register {
  Register() {
    static const std::string name = std::string("_contrib_cvops_") + Op::kName;
    auto& op = mxnet::ext::Registry<mxnet::ext::CustomOp>::get()->add(name.c_str());
    op.setParseAttrs(parse_attributes<Op>);
    op.setInferType(infer_type<Op>);
    op.setInferShape(infer_shape<Op>);
#ifdef CVOPS_EMULATED
    // The tests run the GPU's half on the CPU.
    op.setForward(forward_gpu<Op>, "cpu").setBackward(backward_gpu<Op>, "cpu");
#else
    op.setForward(forward_cpu<Op>, "cpu").setBackward(backward_cpu<Op>, "cpu");
    op.setForward(forward_gpu<Op>, "gpu").setBackward(backward_gpu<Op>, "gpu");
#endif
  }
};

}  // namespace cvops::external
