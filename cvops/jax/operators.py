"""The operators as functions of JAX, with their shapes, gradients and batching."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable

import jax
import numpy as np

import cvops
from cvops.arrays.shapes import Shaped
from cvops.backends.operators import OPERATORS
from cvops.jax import build
from cvops.ops._results import ALL_RESULTS, shapes_of

_OPERATORS = {operator.npx_name: operator for operator in OPERATORS}


def names() -> list[str]:
    """Return the names of the ops."""
    return list(_OPERATORS)


@functools.cache
def function(name: str) -> Callable[..., Any]:
    """Return the op of a name for arrays of JAX.

    Raises:
        AttributeError: there is no such op.
        ImportError: the operators cannot be built.
    """
    if name not in _OPERATORS:
        raise AttributeError(f"module 'cvops.jax' has no attribute {name!r}")
    build.library()
    operator, public = _OPERATORS[name], getattr(cvops, name)
    signature = inspect.signature(public)
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for key, parameter in signature.parameters.items()
        if key not in (*ALL_RESULTS, "backend")
    ]
    signature = signature.replace(parameters=parameters, return_annotation=signature.empty)
    # An array that only selects the library is no input of the operator.
    inputs = [key for key in signature.parameters if key in operator.inputs]

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        arrays = {key: given[key] for key in inputs if given.get(key) is not None}
        for key, x in arrays.items():
            if not isinstance(x, jax.Array):
                convert = f": convert it by jax.numpy.asarray({key})" * hasattr(x, "__len__")
                raise TypeError(f"{key}: expected an array of JAX, got {type(x).__name__}{convert}")
        options = {key: x for key, x in given.items() if key not in arrays and x is not None}
        for key, x in options.items():
            if isinstance(x, jax.Array):
                raise TypeError(f"{key}: expected a value of Python, got an array of JAX")
        types = _results(name, arrays, options)
        text = "\n".join(f"{key}={_text(x)}" for key, x in options.items())
        found = _differentiable(operator.name, text, types, operator.differentiable)(
            *arrays.values()
        )
        return found if len(types) > 1 else found[0]

    call.__name__ = call.__qualname__ = name
    call.__module__ = "cvops.jax"
    call.__doc__ = f"Call :func:`cvops.{name}` on arrays of JAX, for all of its results."
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _text(x: Any) -> str:
    """Return the value of an option as the operators read it."""
    elements = x.tolist() if isinstance(x, (np.ndarray, np.generic)) else x
    return f"({', '.join(map(str, elements))})" if isinstance(elements, (list, tuple)) else str(x)


def _results(name: str, arrays: dict[str, Any], options: dict[str, Any]) -> tuple[Any, ...]:
    """Return the shape and the dtype of each result; refuse bad arguments by their names."""
    shaped = {key: Shaped(x.shape, x.dtype) for key, x in arrays.items()}
    found = shapes_of(getattr(cvops, name), {**shaped, **options})
    if any(x.dtype == np.int64 for x in found) and not jax.config.jax_enable_x64:
        raise TypeError(
            f"{name}: the result is int64, which JAX has after "
            'jax.config.update("jax_enable_x64", True) only'
        )
    return tuple((tuple(x.shape), np.dtype(x.dtype).name) for x in found)


def _target(target: str, types: Any) -> Callable[..., Any]:
    wanted = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in types]
    return jax.ffi.ffi_call(target, wanted, vmap_method="sequential")


def _once(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a part of a first derivative, which has no derivative itself."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(f"{name}: expected a first derivative, got a second one")

    part = jax.custom_jvp(function)
    part.defjvp(refuse)
    return part


@functools.lru_cache(1024)
def _differentiable(name: str, options: str, types: Any, has_gradient: bool) -> Callable[..., Any]:
    """Return the function of arrays that calls an operator with options."""
    attributes = {"name": name, "options": options}

    def compute(*arrays: Any) -> Any:
        return _target("cvops_forward", types)(*arrays, **attributes)

    if not has_gradient:
        return jax.jit(lambda *arrays: compute(*map(jax.lax.stop_gradient, arrays)))

    def forward(*arrays: Any) -> Any:
        found = _once(name, compute)(*arrays)
        return found, (arrays, found[1:])

    def gradient(grad: Any, arrays: Any, residual: Any) -> Any:
        wanted = tuple((x.shape, x.dtype.name) for x in arrays)
        return tuple(_target("cvops_backward", wanted)(grad, *arrays, *residual, **attributes))

    def backward(saved: Any, grads: Any) -> Any:
        return _once(name, gradient)(grads[0], *saved)

    differentiable = jax.custom_vjp(compute)
    differentiable.defvjp(forward, backward)
    return jax.jit(differentiable)
