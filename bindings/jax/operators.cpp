// The operators as targets of XLA's foreign function interface, on the CPU and on GPUs.
//
// One handler serves all operators on a device. The Python side (cvops/jax) checks the arrays,
// computes the shapes of the results, and passes the operator's name and its options as text.
#include <xla/ffi/api/ffi.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "operator.h"

namespace cvops::jax {
namespace {

namespace ffi = xla::ffi;
using operators::Call;
using operators::Dtype;
using operators::OperatorType;
using operators::Tensors;

ffi::DataType data_type_of(Dtype type) {
  switch (type) {
    case Dtype::uint8:
      return ffi::DataType::U8;
    case Dtype::int32:
      return ffi::DataType::S32;
    case Dtype::int64:
      return ffi::DataType::S64;
    case Dtype::float64:
      return ffi::DataType::F64;
    case Dtype::float16:
      return ffi::DataType::F16;
    case Dtype::bfloat16:
      return ffi::DataType::BF16;
    default:
      return ffi::DataType::F32;
  }
}

const OperatorType& type_of(std::string_view name) {
  for (const OperatorType* type : operators::operators()) {
    if (name == type->name) return *type;
  }
  throw operators::Refused("no operator " + std::string(name));
}

// Options from lines "name=value".
operators::Attributes attributes_of(std::string_view text) {
  operators::Attributes attributes;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size()), equal = text.find('=');
    attributes.emplace(text.substr(0, equal), text.substr(equal + 1, end - equal - 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return attributes;
}

operators::Tensor view_of(const ffi::AnyBuffer& x, Dtype type) {
  if (x.element_type() != data_type_of(type)) {
    throw operators::Refused(std::string("expected arrays of ") + name_of(type));
  }
  return {x.untyped_data(), {x.dimensions().begin(), x.dimensions().end()}, type};
}

// The floating type of a call, from one of its arrays; float32 for an array of another type.
Dtype floating_type_of(const ffi::AnyBuffer& x) {
  for (Dtype type : {Dtype::float64, Dtype::float16, Dtype::bfloat16}) {
    if (x.element_type() == data_type_of(type)) return type;
  }
  return Dtype::float32;
}

// If true, arrays on the CPU are computed as on GPU 0, for tests with an emulated GPU.
bool through_gpu = false;

// The device of a call: device(in, out, body) runs body(Cpu or Gpu, in, out).
struct OnCpu {
  template <typename Body>
  void operator()(Tensors& in, Tensors& out, const Body& body) const {
    if (!through_gpu) {
      const Cpu cpu;
      return body(cpu, in, out);
    }
    std::vector<std::vector<char>> scratch;
    auto allocate = [&](int64 bytes) {
      scratch.emplace_back(bytes + Gpu::kAlignment);
      const auto begin = reinterpret_cast<uintptr_t>(scratch.back().data());
      return reinterpret_cast<void*>(ceil_div(begin, Gpu::kAlignment) * Gpu::kAlignment);
    };
    operators::on_gpu(0, nullptr, allocate, in, out, body);
  }
};

struct OnGpu {
  void* stream;
  int32_t number;
  ffi::ScratchAllocator& scratch;

  template <typename Body>
  void operator()(Tensors& in, Tensors& out, const Body& body) const {
    auto allocate = [&](int64 bytes) {
      const auto memory = scratch.Allocate((size_t)bytes, Gpu::kAlignment);
      if (!memory) {
        throw std::runtime_error("scratch memory: XLA has no " + std::to_string(bytes) + " bytes");
      }
      return *memory;
    };
    operators::on_gpu(number, stream, allocate, in, out, body);
  }
};

template <typename Body>
ffi::Error guarded(std::string_view name, const Body& body) {
  try {
    body();
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::InvalidArgument("cvops." + std::string(name) + ": " + error.what());
  }
}

operators::Shapes shapes_of(const Call& call, const Tensors& in) {
  operators::Shapes shapes;
  for (const auto& x : in) shapes.push_back(x.shape);
  return call.shapes(shapes);
}

void check_results(const Tensors& out, const operators::Shapes& shapes) {
  bool same = out.size() == shapes.size();
  for (size_t i = 0; same && i < out.size(); ++i) same = out[i].shape == shapes[i];
  if (!same) throw operators::Refused("expected results of other shapes");
}

template <typename Device>
ffi::Error forward_on(const Device& device, ffi::RemainingArgs args, ffi::RemainingRets rets,
                      std::string_view name, std::string_view options) {
  return guarded(name, [&] {
    const OperatorType& type = type_of(name);
    const auto call = type.call(attributes_of(options), true);
    Tensors in, out;
    const Dtype floating = floating_type_of(*args.get<ffi::AnyBuffer>(0));
    for (size_t i = 0; i < args.size(); ++i) {
      const Dtype wanted = type.input_type_of((int)i, floating);
      in.push_back(view_of(*args.get<ffi::AnyBuffer>(i), wanted));
    }
    for (size_t i = 0; i < rets.size(); ++i) {
      const Dtype wanted = type.output_type_of((int)i, floating);
      out.push_back(view_of(**rets.get<ffi::AnyBuffer>(i), wanted));
    }
    check_results(out, shapes_of(*call, in));
    device(in, out, [&](auto& on, Tensors& a, Tensors& b) { call->forward(on, a, b); });
  });
}

// Arguments: the gradient of the first output, the inputs, the second output if the operator has
// one. Results: a gradient for each input.
template <typename Device>
ffi::Error backward_on(const Device& device, ffi::RemainingArgs args, ffi::RemainingRets rets,
                       std::string_view name, std::string_view options) {
  return guarded(name, [&] {
    const OperatorType& type = type_of(name);
    const auto call = type.call(attributes_of(options), true);
    const size_t inputs = call->inputs().size(), outputs = call->outputs();
    if (args.size() != inputs + (outputs > 1 ? 2 : 1)) {
      throw operators::Refused("expected another number of arrays");
    }
    Tensors given, out;
    const Dtype floating = floating_type_of(*args.get<ffi::AnyBuffer>(0));
    for (size_t i = 0; i < inputs; ++i) {
      const Dtype wanted = type.input_type_of((int)i, floating);
      given.push_back(view_of(*args.get<ffi::AnyBuffer>(i + 1), wanted));
      out.push_back(view_of(**rets.get<ffi::AnyBuffer>(i), floating));
    }
    const operators::Shapes shapes = shapes_of(*call, given);
    // Inputs of Call::backward: gradients of all outputs, inputs, outputs.
    const operators::Tensor none = {nullptr, {0}, Dtype::float32};
    Tensors in = {view_of(*args.get<ffi::AnyBuffer>(0), floating)};
    check_results(in, {shapes[0]});
    in.resize(outputs, none);
    in.insert(in.end(), given.begin(), given.end());
    in.push_back(none);
    if (outputs > 1) {
      in.push_back(
          view_of(*args.get<ffi::AnyBuffer>(inputs + 1), type.output_type_of(1, floating)));
      check_results({in.back()}, {shapes[1]});
    }
    device(in, out, [&](auto& on, Tensors& a, Tensors& b) { call->backward(on, a, b); });
  });
}

ffi::Error forward(ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                   std::string_view options) {
  return forward_on(OnCpu(), args, rets, name, options);
}

ffi::Error backward(ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                    std::string_view options) {
  return backward_on(OnCpu(), args, rets, name, options);
}

ffi::Error forward_cuda(void* stream, int32_t number, ffi::ScratchAllocator scratch,
                        ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                        std::string_view options) {
  return forward_on(OnGpu{stream, number, scratch}, args, rets, name, options);
}

ffi::Error backward_cuda(void* stream, int32_t number, ffi::ScratchAllocator scratch,
                         ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                         std::string_view options) {
  return backward_on(OnGpu{stream, number, scratch}, args, rets, name, options);
}

}  // namespace
}  // namespace cvops::jax

#define CVOPS_BINDING(context)                  \
  xla::ffi::Ffi::Bind() context.RemainingArgs() \
      .RemainingRets()                          \
      .Attr<std::string_view>("name")           \
      .Attr<std::string_view>("options")
#define CVOPS_ON_GPU                      \
  .Ctx<xla::ffi::PlatformStream<void*>>() \
      .Ctx<xla::ffi::DeviceOrdinal>()     \
      .Ctx<xla::ffi::ScratchAllocator>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(cvops_forward, cvops::jax::forward, CVOPS_BINDING());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cvops_backward, cvops::jax::backward, CVOPS_BINDING());
XLA_FFI_DEFINE_HANDLER_SYMBOL(cvops_forward_cuda, cvops::jax::forward_cuda,
                              CVOPS_BINDING(CVOPS_ON_GPU));
XLA_FFI_DEFINE_HANDLER_SYMBOL(cvops_backward_cuda, cvops::jax::backward_cuda,
                              CVOPS_BINDING(CVOPS_ON_GPU));

extern "C" void cvops_compute_through_gpu(int on) { cvops::jax::through_gpu = on; }
