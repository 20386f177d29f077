// The operators as targets of XLA's foreign function interface, on the CPU.
//
// One handler serves all operators. The Python side (cvops/jax) checks the arrays, computes the
// shapes of the results, and passes the operator's name and its options as text.
#include <xla/ffi/api/ffi.h>

#include <string>

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

ffi::Error forward(ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                   std::string_view options) {
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
    call->forward(Cpu(), in, out);
  });
}

// Arguments: the gradient of the first output, the inputs, the second output if the operator has
// one. Results: a gradient for each input.
ffi::Error backward(ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                    std::string_view options) {
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
    call->backward(Cpu(), in, out);
  });
}

}  // namespace
}  // namespace cvops::jax

#define CVOPS_BINDING                 \
  xla::ffi::Ffi::Bind()               \
      .RemainingArgs()                \
      .RemainingRets()                \
      .Attr<std::string_view>("name") \
      .Attr<std::string_view>("options")

XLA_FFI_DEFINE_HANDLER_SYMBOL(cvops_forward, cvops::jax::forward, CVOPS_BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cvops_backward, cvops::jax::backward, CVOPS_BINDING);
