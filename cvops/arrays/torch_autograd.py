"""PyTorch's side of a call: gradients, tensors that are refused, and ``torch.compile``.

Nothing here imports PyTorch: the caller's tensors have done so.
"""

from __future__ import annotations

import functools
import inspect
import pkgutil
import sys
from collections.abc import Iterable
from typing import Any

from cvops._imports import when_imported

_OPERATORS = "import cvops.torch and call torch.ops.cvops"
#: For each transformation: its effect on a call, and the way around it.
_REMEDIES = {
    "torch.jit.trace": f"it would store the result as a constant; {_OPERATORS}",
    "torch.func.vmap": f"{_OPERATORS}, or use the leading axes of the op",
    "torch.func.grad, vjp or jvp": f"{_OPERATORS}, or use requires_grad_() and torch.autograd.grad",
    "forward-mode AD": "use requires_grad_() and torch.autograd.grad",
    "make_fx": f"it would store the result as a constant; {_OPERATORS}",
    "FakeTensorMode": _OPERATORS,
    "FakeTensor": f"torch.export and make_fx make such tensors; {_OPERATORS}",
    "Proxy": "torch.fx.symbolic_trace makes such objects; register the op by torch.fx.wrap",
}


_NOT_TRACED = "cvops computes outside of the graphs of torch.compile without `import cvops.torch`"


def exclude_from_dynamo() -> None:
    """Exclude cvops from the tracing of ``torch.compile``, once its tracer is imported.

    A compiled function then has a graph break at each op, which runs as it does without it.
    """
    when_imported("torch._dynamo.trace_rules", _exclude)


def _exclude(trace_rules: Any) -> None:
    import cvops

    # By their folders, which cover the frames of private functions. The functions of cvops.torch
    # call operators of PyTorch.
    for module in pkgutil.iter_modules(cvops.__path__, "cvops."):
        if module.name != "cvops.torch":
            trace_rules.add(module.name)
    for function in vars(cvops).values():
        if inspect.isfunction(function):
            # As torch.compiler.disable marks a function: the message of fullgraph=True.
            function._torchdynamo_disable = True  # type: ignore[attr-defined]
            function._torchdynamo_disable_msg = _NOT_TRACED  # type: ignore[attr-defined]


def refusal(subject: str) -> NotImplementedError:
    return NotImplementedError(
        f"expected a tensor with values in memory, got one under {subject}, "
        f"which cvops does not support yet: {_REMEDIES[subject]}"
    )


def refused_type(kind: type) -> Exception:
    """The error for an object of a class whose values are not in memory."""
    name = kind.__name__
    expected = f"expected a tensor with values in memory, got a {name}"
    if name in _REMEDIES:
        return NotImplementedError(
            f"{expected}, which cvops does not support yet: {_REMEDIES[name]}"
        )
    return TypeError(expected)


def check(signature: Any, arrays: Iterable[Any]) -> None:
    """Refuse, by its name, a tensor that an op cannot read.

    Raises:
        TypeError: a tensor is sparse, or has another layout without strides.
        NotImplementedError: a transformation of PyTorch holds the tensor.
    """
    torch = sys.modules["torch"]
    for name, x in zip(signature.shapes, arrays):
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            batched = torch._C._functorch.is_batchedtensor(x)
            subject = "torch.func.vmap" if batched else "torch.func.grad, vjp or jvp"
            raise NotImplementedError(f"{name}: {refusal(subject)}")
        if x.layout != torch.strided:
            raise TypeError(
                f"{name}: expected a dense tensor, got layout {x.layout}: convert it by .to_dense()"
            )


def run(signature: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
    """Compute a call that PyTorch may watch: a gradient is wanted, or a mode is active.

    The results of an op without a gradient do not require one.
    """
    torch = sys.modules["torch"]
    arrays = tuple(arrays)
    check(signature, arrays)
    _check_modes(signature.op.name)
    if signature.op.gradient is not None:
        dual = torch.autograd.forward_ad
        if dual._current_level >= 0 and any(
            dual.unpack_dual(x).tangent is not None for x in arrays
        ):
            raise NotImplementedError(f"{signature.op.name}: {refusal('forward-mode AD')}")
        if torch.is_grad_enabled() and any(x.requires_grad for x in arrays):
            if torch._C._functorch.peek_interpreter_stack() is not None:
                subject = "torch.func.grad, vjp or jvp"
                raise NotImplementedError(f"{signature.op.name}: {refusal(subject)}")
            return _functions()[0].apply(signature, options, *arrays)
    return signature.execute([x.detach() for x in arrays], options)


def _check_modes(op: str) -> None:
    """Refuse a call under a mode of PyTorch that records operators instead of computing them."""
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    for mode in _get_current_dispatch_mode_stack():
        module = type(mode).__module__
        if module.startswith("torch._subclasses."):
            raise NotImplementedError(f"{op}: {refusal('FakeTensorMode')}")
        if module.startswith("torch.fx."):
            raise NotImplementedError(f"{op}: {refusal('make_fx')}")


@functools.lru_cache(None)
def _functions() -> tuple[Any, Any]:
    """The ``autograd.Function`` of all ops, and the one that refuses a second derivative."""
    torch = sys.modules["torch"]

    class Cvops(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, signature: Any, options: tuple[Any, ...], *arrays: Any) -> Any:
            gradient = signature.op.gradient
            ctx.signature, ctx.options = signature, options
            detached = [x.detach() for x in arrays]
            if not gradient.residual:
                named = dict(zip(signature.shapes, arrays))
                ctx.save_for_backward(*[named[name] for name in gradient.inputs])
                return signature.execute(detached, options)
            out, residual = signature.execute(detached, (*options[:-1], True))
            ctx.save_for_backward(residual)
            ctx.mark_non_differentiable(residual)
            return (out, residual) if options[-1] else out

        @staticmethod
        def backward(ctx: Any, out_grad: Any, *_: Any) -> Any:
            signature, needed = ctx.signature, ctx.needs_input_grad[2:]
            grads = [
                torch.zeros(shape, device=out_grad.device, dtype=out_grad.dtype) if need else None
                for need, (shape, _) in zip(needed, signature.types)
            ]
            gradient = signature.op.gradient
            if any(needed[: gradient.arrays]):
                saved = [x.detach() for x in ctx.saved_tensors]
                args = (*saved, *ctx.options, signature.backend)
                found = gradient.backward(out_grad.detach(), *args)
                for i, grad in enumerate(found if gradient.arrays > 1 else (found,)):
                    if needed[i]:
                        grads[i] = grad
                        if torch.is_grad_enabled() and out_grad.requires_grad:
                            grads[i] = Once.apply(signature.op.name, grad, out_grad)
            return None, None, *grads

    class Once(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, op: str, grad: Any, out_grad: Any) -> Any:
            ctx.op = op
            return grad.view_as(grad)

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            raise RuntimeError(
                f"{ctx.op}: trying to differentiate twice, and the op has a first derivative only "
                "(as a function marked with @once_differentiable)"
            )

    return Cvops, Once
