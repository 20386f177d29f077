"""The functions ``cvops_<name>`` of ``mx.nd.contrib``, ``mx.sym.contrib`` and ``mx.npx``."""

from __future__ import annotations

import ctypes
import importlib
import inspect
import itertools
from typing import Any, Callable

import numpy as np

from cvops._mxnet import build, mxnet
from cvops._mxnet.operators import OPERATORS, Operator

mx = mxnet()
_NULL = mx.base._Null


def _handle(operator: Operator) -> Any:
    handle = mx.base.OpHandle()
    name = operator.full_name.encode()
    mx.base.check_call(mx.base._LIB.NNGetOpHandle(name, ctypes.byref(handle)))
    return handle


def _text(value: Any) -> Any:
    """A value as MXNet writes it into a graph; item by item: NumPy 2 prints its own otherwise."""
    listed = isinstance(value, (list, tuple, range)) or getattr(value, "ndim", 0) == 1
    return "(" + ", ".join(map(str, value)) + ")" if listed else value


def _texts(options: dict[str, Any]) -> dict[str, Any]:
    return {key: _text(x) for key, x in options.items() if x is not _NULL}


def split(
    operator: Operator, kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The inputs (None where not given) and the options of a call."""
    names = operator.inputs + operator.options
    name = f"cvops_{operator.name}"
    if len(args) > len(names):
        raise TypeError(f"{name}() takes at most {len(names)} arguments, got {len(args)}")
    given = dict(zip(names, args))
    for key, value in kwargs.items():
        if key in given:
            raise TypeError(f"{name}() got more than one value for {key!r}")
        if key not in names and not key.startswith("__"):
            raise TypeError(f"{name}() got an unexpected argument {key!r}")
        given[key] = value
    inputs = [given.pop(key, None) for key in operator.inputs]
    for key, value in zip(operator.inputs, inputs):
        if value is not None and not isinstance(value, kind):
            want = "a Symbol" if kind is mx.sym.Symbol else "an NDArray"
            raise TypeError(f"{name}: {key}: expected {want}, got {type(value).__name__}")
    return inputs, _texts(given)


def _for_arrays(operator: Operator) -> Callable[..., Any]:
    handle = _handle(operator)
    call = mx.nd.register._make_ndarray_function(
        handle, operator.full_name, f"cvops_{operator.name}"
    )
    invoke = mx.nd.register._imperative_invoke
    usual, known = [mx.nd.NDArray] * len(operator.inputs), frozenset(operator.options)

    def function(*args: Any, out: Any = None, name: Any = None, **kwargs: Any) -> Any:
        # Small calls are all overhead. The usual one has its inputs by position and its options by
        # name: there is nothing in it to sort out or refuse, neither here nor in MXNet's function.
        plain = out is None and list(map(type, args)) == usual and kwargs.keys() <= known
        if plain:
            inputs, options = list(args), _texts(kwargs)
        else:
            inputs, options = split(operator, mx.nd.NDArray, args, kwargs)
            for key, value in zip(operator.inputs, inputs):
                if value is None:
                    raise TypeError(f"cvops_{operator.name}() misses the argument {key!r}")
        if mx.autograd.is_recording():
            # An external operator always overwrites the gradients of its inputs, whatever grad_req
            # they have. A view takes them and gives them on as it should. Only an array that keeps
            # its gradient has a grad_req; for the others the view would cost more than the call.
            inputs = [x if x.grad is None or not x.ndim else x.reshape(x.shape) for x in inputs]
        if plain:
            return invoke(handle.value, inputs, list(options), options.values(), None, False, False)
        return call(*inputs, out=out, **options)

    return function


#: Makes each copy another one: see below.
_copies = itertools.count()


def apart(operator: Operator, x: Any, name: str) -> Any:
    """``x`` as an input of an operator whose gradient overwrites what is there.

    MXNet does not tell an external operator that it is to add to a gradient (grad_req "add", and
    the sums of graphs with static_alloc). So a copy, which is told, stands before it. Of equal
    copies MXNet would make one, and that one's gradient would be the operators' sum again: a mark
    keeps them apart. Where the gradient is zero it is cut off, with the operator's own.
    """
    cut = mx.sym.identity if operator.differentiable else mx.sym.BlockGrad
    return cut(x, name=f"{name}_copy", attr={"__cvops__": f"{name}/{next(_copies)}"})


def _for_symbols(operator: Operator) -> Callable[..., Any]:
    call = mx.sym.register._make_symbol_function(
        _handle(operator), operator.full_name, f"cvops_{operator.name}"
    )

    def function(
        *args: Any, name: Any = None, attr: Any = None, out: Any = None, **kwargs: Any
    ) -> Any:
        inputs, options = split(operator, mx.sym.Symbol, args, kwargs)
        name = _names().get(name, operator.name.lower())
        with mx.name.NameManager():  # the name is whole: no block's prefix a second time
            for i, (key, x) in enumerate(zip(operator.inputs, inputs)):
                x = mx.sym.var(f"{name}_{key}") if x is None else x
                inputs[i] = apart(operator, x, f"{name}_{key}")
            return call(*inputs, name=name, attr=attr, **options)

    return function


def _names() -> Any:
    """Who names the nodes of symbols, in this thread."""
    current = mx.name.NameManager._current
    if not hasattr(current, "value"):
        current.value = mx.name.NameManager()
    return current.value


def from_json(text: str, kind: type) -> Any:
    """A symbol of that kind from its JSON, by no function that :func:`install` replaces."""
    handle = mx.base.SymbolHandle()
    mx.base.check_call(mx.base._LIB.MXSymbolCreateFromJSON(text.encode(), ctypes.byref(handle)))
    return kind(handle)


def for_np_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of legacy arrays as one of ``mx.np`` arrays."""
    return _converted(function, mx.np.ndarray, "as_nd_ndarray", "as_np_ndarray")


def for_np_symbols(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of legacy symbols as one of ``mx.sym.np`` symbols."""
    return _converted(function, mx.sym.np._symbol._Symbol, "as_nd_ndarray", "as_np_ndarray")


def _converted(function: Any, kind: type, enter: str, leave: str) -> Callable[..., Any]:
    def converted(x: Any) -> Any:
        return getattr(x, enter)() if isinstance(x, kind) else x

    def call(*args: Any, **kwargs: Any) -> Any:
        out = function(*map(converted, args), **{k: converted(v) for k, v in kwargs.items()})
        if kwargs.get("out") is not None:
            return kwargs["out"]
        if isinstance(out, mx.sym.Symbol):
            parts = [part.as_np_ndarray() for part in out]
            return parts if len(parts) > 1 else parts[0]
        return [x.as_np_ndarray() for x in out] if isinstance(out, list) else out.as_np_ndarray()

    return call


def describe(function: Any, name: str, operator: Operator, module: Any, tail: list[str]) -> None:
    """Give a function its name, its signature, and a docstring."""
    parameter = inspect.Parameter
    both = parameter.POSITIONAL_OR_KEYWORD
    parameters = [parameter(key, both, default=None) for key in operator.inputs]
    parameters += [parameter(key, both, default=_NULL) for key in operator.options]
    parameters += [parameter(key, parameter.KEYWORD_ONLY, default=None) for key in tail]
    function.__signature__ = inspect.Signature(parameters)
    function.__name__ = function.__qualname__ = name
    function.__module__ = module.__name__
    function.__doc__ = f"cvops.{operator.npx_name} as an operator of MXNet; see there."


def functions_for(module: str, operator: Operator) -> Callable[..., Any]:
    """Our function in the place of MXNet's of that module."""
    if "numpy_extension" in module:
        kind = mx.sym.numpy_extension if "symbol" in module else mx.npx
        return getattr(kind, f"cvops_{operator.npx_name}")
    contrib = mx.sym.contrib if "symbol" in module else mx.nd.contrib
    return getattr(contrib, f"cvops_{operator.name}")


def register() -> None:
    """Put the functions where models look for them."""
    array, symbol = ["out", "name"], ["name", "attr", "out"]
    for operator in OPERATORS:
        nd, sym = _for_arrays(operator), _for_symbols(operator)
        npx, npx_sym = for_np_arrays(nd), for_np_symbols(sym)
        name, npx_name = f"cvops_{operator.name}", f"cvops_{operator.npx_name}"
        for modules, function, own, tail in (
            ((mx.nd.contrib, mx.contrib.ndarray), nd, name, array),
            ((mx.sym.contrib, mx.contrib.symbol), sym, name, symbol),
            ((mx.npx, mx.nd.numpy_extension), npx, npx_name, array),
            ((mx.sym.numpy_extension,), npx_sym, npx_name, symbol),
        ):
            describe(function, own, operator, modules[0], tail)
            for module in modules:
                setattr(module, own, function)


def _tell_amp() -> None:
    """Let MXNet's automatic mixed precision cast the inputs of ours as those of its own."""
    amp = importlib.import_module("mxnet.contrib.amp")
    single = [operator.full_name for operator in OPERATORS if operator.amp == "float32"]
    widest = [operator.full_name for operator in OPERATORS if operator.amp == "widest"]
    lists = amp.lists.symbol_fp16, amp.lists.symbol_bf16
    for table in lists:
        table.FP32_FUNCS += single
        table.WIDEST_TYPE_CASTS += widest
    if amp.amp._amp_initialized:  # and all functions that there were have been wrapped
        own = amp.amp.list_widest_type_cast
        amp.amp.list_widest_type_cast = lambda dtype: widest
        try:
            for module in (mx.sym, mx.nd):
                amp.amp._wrap_symbol_functions(module, np.dtype("float16"), [], [], single)
        finally:
            amp.amp.list_widest_type_cast = own


build.library()
register()
_tell_amp()
