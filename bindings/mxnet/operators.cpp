// The operators as an external library of MXNet 1.9.1.
//
// MXNet loads the library (`mx.library.load`) through the lib_api.h of its own wheel. Only C types
// and no exceptions may cross that ABI boundary. Exceptions are caught here. MXNet gets a message
// that names the operator, the argument and the value.
#include <mxnet/lib_api.h>

#include <utility>

#include "error.h"
#include "operator.h"

namespace cvops::external {
namespace {

using mxnet::ext::MXReturnValue;
using mxnet::ext::MXTensor;
using mxnet::ext::OpResource;
using operators::Attributes;
using operators::Call;
using operators::Dtype;
using operators::OperatorType;
using operators::Tensors;

// Runs `body` and converts exceptions to MXNet errors.
template <typename Body>
MXReturnValue guarded(const OperatorType& type, const Body& body) {
  try {
    body();
    return mxnet::ext::MX_SUCCESS;
  } catch (const std::exception& error) {
    set_error(std::string("cvops_") + type.name + ": " + error.what());
  } catch (...) {
    set_error(std::string("cvops_") + type.name + ": unknown error");
  }
  return mxnet::ext::MX_FAIL;
}

Tensors tensors_of(const std::vector<MXTensor>& given) {
  Tensors out;
  for (const MXTensor& x : given) {
    out.push_back({x.data_ptr, {x.shape.begin(), x.shape.end()}, (Dtype)x.dtype});
  }
  return out;
}

MXReturnValue parse_attributes(const OperatorType& type, const Attributes& attributes, int* inputs,
                               int* outputs) {
  return guarded(type, [&] {
    const auto call = type.call(attributes);
    *inputs = (int)call->inputs().size();
    *outputs = call->outputs();
  });
}

MXReturnValue infer_type(const OperatorType& type, const Attributes& attributes,
                         std::vector<int>* in, std::vector<int>* out) {
  return guarded(type, [&] {
    if (in->size() != type.inputs.size()) {
      operators::check_count(in->size(), type.call(attributes)->inputs());
    }
    // The first known floating type is that of the call.
    Dtype floating = Dtype::float32;
    const char* first_float = nullptr;
    for (size_t i = 0; i < in->size() && !first_float; ++i) {
      if (in->at(i) < 0 || !type.may_float((int)i, (Dtype)in->at(i))) continue;
      floating = (Dtype)in->at(i);
      first_float = type.inputs[i];
    }
    for (size_t i = 0; i < in->size(); ++i) {
      const Dtype wanted = type.input_type_of((int)i, floating), got = (Dtype)in->at(i);
      if (in->at(i) >= 0 && got != wanted) {
        const bool as_first = first_float && type.may_float((int)i, got);
        throw operators::Refused(std::string(type.inputs[i]) + ": expected " +
                                 (as_first ? std::string(name_of(wanted)) + " as " + first_float
                                           : std::string(type.expected_type((int)i))) +
                                 ", got " + name_of(got));
      }
      in->at(i) = (int)wanted;
    }
    for (size_t i = 0; i < out->size(); ++i) {
      out->at(i) = (int)type.output_type_of((int)i, floating);
    }
  });
}

MXReturnValue infer_shape(const OperatorType& type, const Attributes& attributes,
                          std::vector<std::vector<unsigned>>* in,
                          std::vector<std::vector<unsigned>>* out) {
  return guarded(type, [&] {
    operators::Shapes shapes;
    for (const auto& shape : *in) {
      shapes.emplace_back();
      // MXNet's -1 is an unknown axis.
      for (unsigned axis : shape) shapes.back().push_back((int)axis);
    }
    out->clear();
    for (const auto& shape : type.call(attributes)->shapes(shapes)) {
      out->emplace_back(shape.begin(), shape.end());
    }
  });
}

// Runs body(device, call, in, out) on the CPU or on the GPU of the inputs.
template <bool kGpu, typename Body>
MXReturnValue run(const OperatorType& type, const Attributes& attributes, std::vector<MXTensor>* in,
                  std::vector<MXTensor>* out, const OpResource& resource, const Body& body) {
  return guarded(type, [&] {
    Tensors inputs = tensors_of(*in), outputs = tensors_of(*out);
    const auto call = type.call(attributes);
    if (!kGpu) {
      const auto copies = operators::copy_on_overlap(inputs, outputs);
      const Cpu cpu;
      return body(cpu, *call, inputs, outputs);
    }
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
    operators::on_gpu(in->at(0).ctx.dev_id, resource.get_cuda_stream(), allocate, inputs, outputs,
                      [&](Gpu& gpu, Tensors& a, Tensors& b) { body(gpu, *call, a, b); });
  });
}

template <bool kGpu>
MXReturnValue forward(const OperatorType& type, const Attributes& attributes,
                      std::vector<MXTensor>* in, std::vector<MXTensor>* out,
                      const OpResource& resource) {
  return run<kGpu>(
      type, attributes, in, out, resource,
      [](auto& device, const Call& call, Tensors& a, Tensors& b) { call.forward(device, a, b); });
}

template <bool kGpu>
MXReturnValue backward(const OperatorType& type, const Attributes& attributes,
                       std::vector<MXTensor>* in, std::vector<MXTensor>* out,
                       const OpResource& resource) {
  return run<kGpu>(
      type, attributes, in, out, resource,
      [](auto& device, const Call& call, Tensors& a, Tensors& b) { call.backward(device, a, b); });
}

// MXNet takes plain functions, which do not say their operator: each operator has its own, by its
// number.
constexpr int kMostOperators = 64;

template <int kNumber, auto kFunction>
struct Numbered;

template <int kNumber, typename... Args, MXReturnValue (*kFunction)(const OperatorType&, Args...)>
struct Numbered<kNumber, kFunction> {
  static MXReturnValue call(Args... args) {
    return kFunction(*operators::operators()[kNumber], std::forward<Args>(args)...);
  }
};

// Registers an operator with MXNet as _contrib_cvops_<name>.
template <int kNumber>
void add() {
  const auto& types = operators::operators();
  if (kNumber >= (int)types.size()) return;
  static const std::string name = std::string("_contrib_cvops_") + types[kNumber]->name;
  auto& op = mxnet::ext::Registry<mxnet::ext::CustomOp>::get()->add(name.c_str());
  op.setParseAttrs(Numbered<kNumber, parse_attributes>::call);
  op.setInferType(Numbered<kNumber, infer_type>::call);
  op.setInferShape(Numbered<kNumber, infer_shape>::call);
#ifdef CVOPS_EMULATED
  // The tests run the GPU version on the CPU.
  op.setForward(Numbered<kNumber, forward<true>>::call, "cpu");
  op.setBackward(Numbered<kNumber, backward<true>>::call, "cpu");
#else
  op.setForward(Numbered<kNumber, forward<false>>::call, "cpu");
  op.setBackward(Numbered<kNumber, backward<false>>::call, "cpu");
  op.setForward(Numbered<kNumber, forward<true>>::call, "gpu");
  op.setBackward(Numbered<kNumber, backward<true>>::call, "gpu");
#endif
}

template <int... kNumbers>
bool add_all(std::integer_sequence<int, kNumbers...>) {
  (add<kNumbers>(), ...);
  return operators::operators().size() <= kMostOperators;
}

const bool added_all = add_all(std::make_integer_sequence<int, kMostOperators>());

}  // namespace
}  // namespace cvops::external

// MXNet calls this first, to check its version.
mxnet::ext::MXReturnValue initialize(int version) {
  if (version < 10900 || version >= 20000) {
    cvops::external::set_error("MXNet: expected version 1.9, got " + std::to_string(version));
    return mxnet::ext::MX_FAIL;
  }
  if (!cvops::external::added_all) {
    cvops::external::set_error("cvops: expected at most 64 operators");
    return mxnet::ext::MX_FAIL;
  }
  return mxnet::ext::MX_SUCCESS;
}
