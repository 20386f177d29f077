// The operators as torch.ops.cvops.<name>. Their gradients: autograd.h.
//
// One boxed kernel serves all operators: it has the tensors and the options on PyTorch's stack. The
// Python side (cvops/torch) names the operators, and adds their shapes for tracers and their rule
// for vmap.
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "autograd.h"
#include "entry.h"

namespace cvops::pytorch {

bool through_gpu = false;

torch::Library& library() {
  static torch::Library made(torch::Library::FRAGMENT, "cvops", std::nullopt, __FILE__, __LINE__);
  return made;
}

namespace {

using operators::Attributes;
using operators::Dtype;
using operators::Tensors;

c10::ScalarType scalar_type_of(Dtype type) {
  switch (type) {
    case Dtype::uint8:
      return at::kByte;
    case Dtype::int32:
      return at::kInt;
    case Dtype::int64:
      return at::kLong;
    case Dtype::float64:
      return at::kDouble;
    case Dtype::float16:
      return at::kHalf;
    case Dtype::bfloat16:
      return at::kBFloat16;
    default:
      return at::kFloat;
  }
}

// The floating type of a tensor; float32 for another type.
Dtype floating_type_of(const at::Tensor& x) {
  for (Dtype type : {Dtype::float64, Dtype::float16, Dtype::bfloat16}) {
    if (x.scalar_type() == scalar_type_of(type)) return type;
  }
  return Dtype::float32;
}

std::string text_of(const IValue& value) {
  if (value.isBool()) return value.toBool() ? "True" : "False";
  if (value.isDouble()) return operators::float_text(value.toDouble());
  if (value.isInt()) return std::to_string(value.toInt());
  if (value.isString()) return value.toStringRef();
  std::string list;
  for (const IValue& each : value.toListRef()) list += (list.empty() ? "" : ", ") + text_of(each);
  return "(" + list + ")";
}

// True if an option has its default. Lists count as given.
bool is_default(const IValue& value, const std::optional<IValue>& fallback) {
  if (!fallback) return false;
  if (value.isDouble()) return fallback->isDouble() && value.toDouble() == fallback->toDouble();
  if (value.isInt()) return fallback->isInt() && value.toInt() == fallback->toInt();
  if (value.isBool()) return fallback->isBool() && value.toBool() == fallback->toBool();
  if (value.isString()) return value.toStringRef() == fallback->toStringRef();
  return false;
}

}  // namespace

std::unique_ptr<Call> call_of(const Entry& entry, const OperatorHandle& handle,
                              c10::ArrayRef<IValue> args) {
  Attributes attributes;
  const auto& declared = handle.schema().arguments();
  const size_t first = args.size() - entry.options.size();
  for (size_t i = first; i < args.size(); ++i) {
    if (args[i].isNone() || is_default(args[i], declared[i].default_value())) continue;
    attributes.emplace(entry.options[i - first], text_of(args[i]));
  }
  return entry.type->call(attributes, true);
}

namespace {

// The inputs of a call, dense and on one device.
struct Given {
  std::vector<at::Tensor> tensors;
  Dtype floating = Dtype::float32;  // of all that are floats
};

Given tensors_of(const Entry& entry, const Call& call, c10::ArrayRef<IValue> args) {
  const auto& names = call.inputs();
  Given given;
  auto& found = given.tensors;
  const char* first_float = nullptr;
  for (size_t i = 0; i < (size_t)entry.num_inputs; ++i) {
    const char* const name = entry.type->inputs[i];
    if (i >= names.size()) {
      TORCH_CHECK_VALUE(args[i].isNone(), entry.name, ": ", name,
                        ": expected None with these options, got a tensor");
      continue;
    }
    TORCH_CHECK_TYPE(args[i].isTensor(), entry.name, ": ", name,
                     ": expected a tensor with these options, got None");
    const at::Tensor& x = args[i].toTensor();
    const bool is_float = entry.type->may_float((int)i, Dtype::float32);
    if (is_float && !first_float) given.floating = floating_type_of(x);
    const Dtype wanted = entry.type->input_type_of((int)i, given.floating);
    const bool is_first = is_float && !first_float;
    TORCH_CHECK_TYPE(x.scalar_type() == scalar_type_of(wanted), entry.name, ": ", name,
                     ": expected ", is_first ? entry.type->expected_type((int)i) : name_of(wanted),
                     is_float && !is_first ? std::string(" as ") + first_float : std::string(),
                     ", got ", c10::getDtypeNames(x.scalar_type()).first,
                     ": convert it by .to(torch.", name_of(wanted), ")");
    if (is_first) first_float = name;
    TORCH_CHECK_TYPE(x.layout() == at::kStrided, entry.name, ": ", name,
                     ": expected a dense tensor, got layout ", x.layout());
    TORCH_CHECK_TYPE(found.empty() || x.device() == found[0].device(), entry.name, ": ", names[0],
                     " is on ", found.empty() ? x.device() : found[0].device(), " and ", name,
                     " on ", x.device(), ": the tensors must be on one device");
    found.push_back(x.contiguous());
  }
  return given;
}

operators::Tensor view_of(const at::Tensor& x, Dtype type) {
  return {x.data_ptr(), {x.sizes().begin(), x.sizes().end()}, type};
}

// Runs body(device, in, out) on the device of the tensors.
template <typename Body>
void run(c10::Device device, Tensors& in, Tensors& out, const Body& body) {
  if (device.is_cpu() && !through_gpu) {
    const Cpu cpu;
    return body(cpu, in, out);
  }
  void* stream = nullptr;
  if (!device.is_cpu()) {
    const c10::impl::VirtualGuardImpl guard(device.type());
    stream = guard.getStreamNativeHandle(guard.getStream(device));
  }
  std::vector<at::Tensor> scratch;
  auto allocate = [&](int64 bytes) {
    scratch.push_back(at::empty({bytes}, at::TensorOptions(device).dtype(at::kByte)));
    return scratch.back().data_ptr();
  };
  operators::on_gpu(device.is_cpu() ? 0 : device.index(), stream, allocate, in, out, body);
}

class Forward final : public c10::OperatorKernel {
 public:
  explicit Forward(const Entry& entry) : entry_(entry) {}

  void operator()(const OperatorHandle& handle, DispatchKeySet, Stack* stack) {
    guarded(entry_, [&] {
      const size_t num = handle.schema().arguments().size();
      const auto args = torch::jit::last(*stack, num);
      const auto call = call_of(entry_, handle, args);
      const auto [inputs, floating] = tensors_of(entry_, *call, args);
      Tensors in, out;
      operators::Shapes shapes;
      for (size_t i = 0; i < inputs.size(); ++i) {
        in.push_back(view_of(inputs[i], entry_.type->input_type_of((int)i, floating)));
        shapes.push_back(in.back().shape);
      }
      shapes = call->shapes(shapes);
      const auto options = inputs[0].options();
      std::vector<at::Tensor> outputs;
      for (size_t i = 0; i < shapes.size(); ++i) {
        const Dtype type = entry_.type->output_type_of((int)i, floating);
        const std::vector<int64_t> shape(shapes[i].begin(), shapes[i].end());
        outputs.push_back(at::empty(shape, options.dtype(scalar_type_of(type))));
        out.push_back(view_of(outputs[i], type));
      }
      const c10::OptionalDeviceGuard guard(inputs[0].device());
      run(inputs[0].device(), in, out,
          [&](auto& device, Tensors& a, Tensors& b) { call->forward(device, a, b); });
      torch::jit::drop(*stack, num);
      for (auto& x : outputs) torch::jit::push(*stack, std::move(x));
    });
  }

 private:
  const Entry& entry_;
};

// Arguments: the gradient of the first output, the inputs, the second output if the operator has
// one, the options. Results: the gradients of the inputs that have one.
class Backward final : public c10::OperatorKernel {
 public:
  explicit Backward(const Entry& entry) : entry_(entry) {}

  void operator()(const OperatorHandle& handle, DispatchKeySet, Stack* stack) {
    guarded(entry_, [&] {
      const size_t num = handle.schema().arguments().size();
      const auto args = torch::jit::last(*stack, num);
      const auto call = call_of(entry_, handle, args);
      const at::Tensor out_grad = args[0].toTensor().contiguous();
      const auto [inputs, floating] = tensors_of(entry_, *call, args.slice(1));
      TORCH_CHECK_TYPE(out_grad.scalar_type() == scalar_type_of(floating), entry_.name,
                       ": out_grad: expected ", name_of(floating), ", got ",
                       c10::getDtypeNames(out_grad.scalar_type()).first);
      TORCH_CHECK_TYPE(out_grad.device() == inputs[0].device(), entry_.name,
                       ": out_grad: expected a tensor on ", inputs[0].device(), ", got one on ",
                       out_grad.device());
      Tensors in = {view_of(out_grad, floating)}, given;
      operators::Shapes shapes;
      for (size_t i = 0; i < inputs.size(); ++i) {
        given.push_back(view_of(inputs[i], entry_.type->input_type_of((int)i, floating)));
        shapes.push_back(given.back().shape);
      }
      shapes = call->shapes(shapes);
      if (in[0].shape != shapes[0]) {
        throw operators::Refused("out_grad: expected shape " + operators::text(shapes[0]) +
                                 ", got " + operators::text(in[0].shape));
      }
      // Inputs of Call::backward: gradients of all outputs, inputs, outputs.
      const operators::Tensor none = {nullptr, {0}, Dtype::float32};
      in.resize(entry_.num_outputs, none);
      in.insert(in.end(), given.begin(), given.end());
      in.push_back(none);
      at::Tensor residual;
      if (entry_.num_outputs > 1) {
        residual = args[1 + entry_.num_inputs].toTensor().contiguous();
        in.push_back(view_of(residual, entry_.type->output_type_of(1, floating)));
        if (in.back().shape != shapes[1]) {
          throw operators::Refused("residual: expected shape " + operators::text(shapes[1]) +
                                   ", got " + operators::text(in.back().shape));
        }
      }
      std::vector<at::Tensor> grads;
      Tensors out;
      for (size_t i = 0; i < inputs.size(); ++i) {
        const auto type = scalar_type_of(floating);
        grads.push_back(at::empty(inputs[i].sizes(), inputs[i].options().dtype(type)));
        out.push_back(view_of(grads[i], floating));
      }
      const c10::OptionalDeviceGuard guard(inputs[0].device());
      run(inputs[0].device(), in, out,
          [&](auto& device, Tensors& a, Tensors& b) { call->backward(device, a, b); });
      torch::jit::drop(*stack, num);
      for (int i : entry_.type->differentiable) {
        // An input that these options omit has no gradient, but a result.
        const bool is_given = i < (int)grads.size();
        torch::jit::push(*stack, is_given ? grads[i] : at::empty({0}, out_grad.options()));
      }
    });
  }

 private:
  const Entry& entry_;
};

// Computes in float32 under autocast.
template <DispatchKey kKey, c10::DeviceType kDevice>
class Autocast final : public c10::OperatorKernel {
 public:
  explicit Autocast(const Entry&) {}

  void operator()(const OperatorHandle& handle, DispatchKeySet, Stack* stack) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(kKey);
    const size_t num = handle.schema().arguments().size();
    for (size_t i = stack->size() - num; i < stack->size(); ++i) {
      IValue& x = (*stack)[i];
      if (x.isTensor()) x = at::autocast::cached_cast(at::kFloat, x.toTensor(), kDevice);
    }
    handle.callBoxed(stack);
  }
};

using AutocastCpu = Autocast<DispatchKey::AutocastCPU, c10::kCPU>;
using AutocastCuda = Autocast<DispatchKey::AutocastCUDA, c10::kCUDA>;

// "(Tensor a, Tensor b)"
std::string results(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "Tensor " : ", Tensor ") + name;
  return "(" + text + ")";
}

void define(const OperatorType& type, const std::string& function,
            const std::vector<std::string>& order, int num_optional) {
  const auto known = operators::options_of(type);
  auto* entry = new Entry{&type, "cvops::" + function, order, (int)type.inputs.size(), 0, {}};
  std::string tensors, options;
  bool all_default = true, some_default = false;
  for (const std::string& name : order) {
    for (const auto& option : known) {
      if (option.name != name) continue;
      const bool has_default = option.schema.find('=') != std::string::npos;
      // A required option after one with a default can be named only.
      if (some_default && all_default && !has_default) options += ", *";
      options += ", " + option.schema;
      all_default &= has_default, some_default |= has_default;
    }
  }
  for (int i = 0; i < entry->num_inputs; ++i) {
    const bool optional = i >= entry->num_inputs - num_optional;
    tensors += (i ? ", " : "") + std::string(optional ? "Tensor? " : "Tensor ") + type.inputs[i] +
               (optional && all_default ? "=None" : "");
  }
  entry->num_outputs = operators::num_outputs(type);
  std::vector<std::string> outputs(entry->num_outputs), gradients;
  for (int i : type.differentiable) gradients.push_back(type.inputs[i] + std::string("_grad"));
  library().def((function + "(" + tensors + options + ") -> " + results(outputs)).c_str());
  implement<Forward>(function, DispatchKey::CPU, *entry);
  implement<Forward>(function, DispatchKey::CUDA, *entry);
  implement<AutocastCpu>(function, DispatchKey::AutocastCPU, *entry);
  implement<AutocastCuda>(function, DispatchKey::AutocastCUDA, *entry);
  if (type.differentiable.empty()) {
    // The results do not require a gradient.
    library().impl(function.c_str(),
                   torch::dispatch(DispatchKey::Autograd, torch::CppFunction::makeFallthrough()));
    return;
  }
  const std::string backward = "_" + function + "_backward";
  const std::string residual = entry->num_outputs > 1 ? ", Tensor residual" : "";
  std::string plain = tensors;
  for (size_t at; (at = plain.find("=None")) != std::string::npos;) plain.erase(at, 5);
  library().def(
      (backward + "(Tensor out_grad, " + plain + residual + options + ") -> " + results(gradients))
          .c_str());
  implement<Backward>(backward, DispatchKey::CPU, *entry);
  implement<Backward>(backward, DispatchKey::CUDA, *entry);
  entry->backward =
      c10::Dispatcher::singleton().findSchemaOrThrow(("cvops::" + backward).c_str(), "");
  implement<AutogradOfBackward>(backward, DispatchKey::Autograd, *entry);
  implement<Autograd>(function, DispatchKey::Autograd, *entry);
}

}  // namespace
}  // namespace cvops::pytorch

// Defines torch.ops.cvops.<function>. `options` are its options in order, separated by commas.
// Returns null, or a message that is valid until the next call.
extern "C" const char* cvops_define(const char* name, const char* function, const char* options,
                                    int num_optional) {
  static std::string message;
  try {
    std::vector<std::string> order;
    const std::string text = options;
    for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
      end = std::min(text.find(',', begin), text.size());
      order.push_back(text.substr(begin, end - begin));
    }
    for (const auto* type : cvops::operators::operators()) {
      if (std::strcmp(type->name, name)) continue;
      cvops::pytorch::define(*type, function, order, num_optional);
      return nullptr;
    }
    message = std::string("no operator ") + name;
  } catch (const c10::Error& error) {
    message = error.what_without_backtrace();
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}

// Defines torch.ops.cvops._nms, which cvops.torch.nms calls.
extern "C" void cvops_define_nms() { cvops::pytorch::define_nms(); }

extern "C" void cvops_compute_through_gpu(int on) { cvops::pytorch::through_gpu = on; }
