// The operators of the adapter, and what their kernels share.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapter.h"
#undef KERNEL  // a macro of PyTorch's autocast
#include "operator.h"

namespace cvops::pytorch {

using c10::DispatchKey;
using c10::DispatchKeySet;
using c10::IValue;
using c10::OperatorHandle;
using operators::Call;
using operators::OperatorType;
using torch::jit::Stack;

// An operator in PyTorch. Its arguments are the inputs, then the options.
struct Entry {
  const OperatorType* type;
  std::string name;                  // "cvops::box_iou"
  std::vector<std::string> options;  // in the order of the schema
  int num_inputs, num_outputs;
  std::optional<OperatorHandle> backward;
};

// The call with the options that are the last arguments of `handle`.
std::unique_ptr<Call> call_of(const Entry& entry, const OperatorHandle& handle,
                              c10::ArrayRef<IValue> args);

// Runs `body`; exceptions become errors of PyTorch that name the operator.
template <typename Body>
void guarded(const Entry& entry, const Body& body) {
  std::string message;
  try {
    return body();
  } catch (const operators::Refused& error) {
    message = error.what();
  }
  TORCH_CHECK_VALUE(false, entry.name, ": ", message);
}

// Makes a kernel of class `Kernel` that of an operator for a key of the dispatcher.
template <typename Kernel>
void implement(const std::string& name, DispatchKey key, const Entry& entry) {
  library().impl(name.c_str(),
                 torch::dispatch(key, torch::CppFunction::makeFromBoxedFunctor<Kernel>(
                                          std::make_unique<Kernel>(entry))));
}

}  // namespace cvops::pytorch
