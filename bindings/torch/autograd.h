// Gradients of the operators, in PyTorch's graph of autograd. It is a header because another source
// file would double the time to compile: PyTorch's headers take most of it.
#pragma once
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <mutex>

#include "entry.h"

namespace cvops::pytorch {

// Makes an object that a pointer of this PyTorch's kind holds: std::shared_ptr, later intrusive.
template <typename T, typename... Args>
auto make_pointer(Args&&... args) {
  using Pointer = decltype(torch::autograd::Edge::function);
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<torch::autograd::Node>>) {
    return std::make_shared<T>(std::forward<Args>(args)...);
  } else {
    return c10::make_intrusive<T>(std::forward<Args>(args)...);
  }
}

// The step of the backward pass that calls the operator's gradient.
class Node final : public torch::autograd::Node {
 public:
  Node(const Entry& entry, torch::autograd::edge_list&& edges, std::vector<IValue> args)
      : torch::autograd::Node(std::move(edges)), entry_(entry), args_(std::move(args)) {}

  std::string name() const override { return "CvopsBackward"; }

  void save(const std::vector<at::Tensor>& inputs, const at::Tensor& residual) {
    for (const auto& x : inputs) saved_.emplace_back(x, false);
    if (residual.defined()) saved_.emplace_back(residual, false);
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& x : saved_) x.reset_data();
    released_ = true;
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    // Threads may run one graph. As in PyTorch, a thread ends its step before another begins it.
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!released_, torch::autograd::ERR_BACKWARD_TWICE);
    torch::autograd::variable_list found(entry_.type->differentiable.size());
    if (!grads[0].defined()) return found;
    Stack stack = {grads[0]};
    size_t next = 0;
    for (int i = 0; i < entry_.num_inputs; ++i) {
      stack.push_back(args_[i].isNone() ? IValue() : IValue(saved_[next++].unpack()));
    }
    if (entry_.num_outputs > 1) stack.emplace_back(saved_[next].unpack());
    stack.insert(stack.end(), args_.begin() + entry_.num_inputs, args_.end());
    entry_.backward->callBoxed(stack);
    for (size_t i = 0; i < found.size(); ++i) {
      if (task_should_compute_output(i)) found[i] = stack[i].toTensor();
    }
    return found;
  }

 private:
  const Entry& entry_;
  const std::vector<IValue> args_;  // an input is true, or None if it is omitted
  std::vector<torch::autograd::SavedVariable> saved_;
  bool released_ = false;
};

// Calls the operator below autograd.
inline void redispatch(const OperatorHandle& handle, DispatchKeySet keys, Stack* stack) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  handle.redispatchBoxed(keys & c10::after_autograd_keyset, stack);
}

class Autograd final : public c10::OperatorKernel {
 public:
  explicit Autograd(const Entry& entry) : entry_(entry) {}

  void operator()(const OperatorHandle& handle, DispatchKeySet keys, Stack* stack) {
    const auto args = torch::jit::last(*stack, handle.schema().arguments().size());
    std::vector<at::Tensor> inputs;
    bool needed = false;
    torch::autograd::edge_list edges;
    for (int i : entry_.type->differentiable) {
      if (!args[i].isTensor()) {
        edges.emplace_back();
        continue;
      }
      const at::Tensor& x = args[i].toTensor();
      TORCH_CHECK_NOT_IMPLEMENTED(!torch::autograd::isFwGradDefined(x), entry_.name,
                                  " has no forward-mode gradient: use requires_grad_() and "
                                  "torch.autograd.grad");
      needed |= x.requires_grad();
      edges.push_back(torch::autograd::impl::gradient_edge(x));
    }
    bool has_gradient = needed && at::GradMode::is_enabled();
    if (has_gradient) {
      guarded(entry_, [&] { has_gradient = call_of(entry_, handle, args)->has_gradient(); });
    }
    if (!has_gradient) return redispatch(handle, keys, stack);
    std::vector<IValue> kept = args.vec();
    for (int i = 0; i < entry_.num_inputs; ++i) {
      if (!kept[i].isTensor()) continue;
      inputs.push_back(kept[i].toTensor());
      kept[i] = true;
    }
    auto node = make_pointer<Node>(entry_, std::move(edges), std::move(kept));
    redispatch(handle, keys, stack);
    const auto outputs = torch::jit::last(*stack, entry_.num_outputs);
    at::Tensor first = outputs[0].toTensor();
    torch::autograd::set_history(first, node);
    node->save(inputs, entry_.num_outputs > 1 ? outputs[1].toTensor() : at::Tensor());
  }

 private:
  const Entry& entry_;
};

// A gradient has no gradient. The error comes when it is asked for, as that of PyTorch.
class AutogradOfBackward final : public c10::OperatorKernel {
 public:
  explicit AutogradOfBackward(const Entry& entry) : entry_(entry) {}

  void operator()(const OperatorHandle& handle, DispatchKeySet keys, Stack* stack) {
    const auto args = torch::jit::last(*stack, handle.schema().arguments().size());
    torch::autograd::edge_list edges;
    bool needed = false;
    for (int i = 0; i <= entry_.num_inputs; ++i) {
      if (!args[i].isTensor()) continue;
      needed |= args[i].toTensor().requires_grad();
      edges.push_back(torch::autograd::impl::gradient_edge(args[i].toTensor()));
    }
    redispatch(handle, keys, stack);
    if (!needed || !at::GradMode::is_enabled()) return;
    auto node = make_pointer<torch::autograd::Error>(
        entry_.name +
            ": trying to differentiate twice, and the op has a first derivative only (as a "
            "function marked with @once_differentiable)",
        std::move(edges));
    for (const IValue& x : torch::jit::last(*stack, entry_.type->differentiable.size())) {
      at::Tensor grad = x.toTensor();
      torch::autograd::set_history(grad, node);
    }
  }

 private:
  const Entry& entry_;
};

}  // namespace cvops::pytorch
