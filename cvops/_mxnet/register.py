"""The functions ``cvops_<name>`` of ``mx.nd.contrib``, ``mx.sym.contrib`` and ``mx.npx``."""

from __future__ import annotations

import ctypes
import importlib
import inspect
import itertools
from typing import Any, Callable

import numpy as np

from cvops._mxnet import build, mxnet
from cvops.backends.operators import OPERATORS, Operator

mx = mxnet()
_NULL = mx.base._Null


def _handle(operator: Operator) -> Any:
    handle = mx.base.OpHandle()
    name = operator.full_name.encode()
    mx.base.check_call(mx.base._LIB.NNGetOpHandle(name, ctypes.byref(handle)))
    return handle


def _text(value: Any) -> Any:
    """Return a value as MXNet writes it into a graph; NumPy 2 prints numbers in another way."""
    listed = isinstance(value, (list, tuple, range)) or getattr(value, "ndim", 0) == 1
    return "(" + ", ".join(map(str, value)) + ")" if listed else value


def _texts(options: dict[str, Any]) -> dict[str, Any]:
    return {key: _text(x) for key, x in options.items() if x is not _NULL}


def _may_miss(operator: Operator, key: str, options: dict[str, Any]) -> bool:
    """Report if a call with the options may omit an input."""
    flag = str(options.get(operator.omitting, False)).strip().lower()
    return key in operator.optional and (not operator.omitting or flag in ("true", "1"))


def takes(operator: Operator, options: dict[str, Any]) -> bool:
    """Report if our operator accepts the options, as values or as the texts of a graph."""
    given = {key: str(x) for key, x in _texts(options).items() if key in operator.options}
    handle = mx.base.SymbolHandle()
    status = mx.base._LIB.MXSymbolCreateAtomicSymbol(
        _handle(operator),
        mx.base.mx_uint(len(given)),
        mx.base.c_str_array(given.keys()),
        mx.base.c_str_array(given.values()),
        ctypes.byref(handle),
    )
    if status == 0:
        mx.sym.Symbol(handle)  # frees the handle
    return bool(status == 0)


def split(
    operator: Operator, kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Split a call into its inputs (None where missing) and its options."""
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
        # Overhead dominates small calls. A usual call has its inputs by position and its options by
        # name: it needs no check, neither here nor in MXNet's function.
        plain = out is None and list(map(type, args)) == usual and kwargs.keys() <= known
        if plain:
            inputs, options = list(args), _texts(kwargs)
        else:
            inputs, options = split(operator, mx.nd.NDArray, args, kwargs)
            for key, value in zip(operator.inputs, inputs):
                if value is None and not _may_miss(operator, key, options):
                    raise TypeError(f"cvops_{operator.name}() misses the argument {key!r}")
            inputs = [x for x in inputs if x is not None]
        if mx.autograd.is_recording():
            # An external operator overwrites the gradients of its inputs for each grad_req. A view
            # passes them on according to grad_req. Only an array that stores its gradient has a
            # grad_req; for other arrays a view would take longer than the call.
            inputs = [x if x.grad is None or not x.ndim else x.reshape(x.shape) for x in inputs]
        if plain:
            return invoke(handle.value, inputs, list(options), options.values(), None, False, False)
        return call(*inputs, out=out, **options)

    return function


#: The numbers of the copies: see below.
_copies = itertools.count()


def gradient_copy(operator: Operator, x: Any, name: str) -> Any:
    """Return a copy of ``x`` as the input of an operator whose gradient overwrites.

    MXNet does not request addition from an external operator (grad_req "add", and the sums of
    graphs with static_alloc). MXNet's copy operator does add. A mark makes each copy different,
    since MXNet merges equal copies. An operator with a gradient of zero gets BlockGrad.
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
        with mx.name.NameManager():  # the name has the prefix of the block already
            copies = []
            for key, x in zip(operator.inputs, inputs):
                if x is None and _may_miss(operator, key, options):
                    continue
                x = mx.sym.var(f"{name}_{key}") if x is None else x
                copies.append(gradient_copy(operator, x, f"{name}_{key}"))
            return call(*copies, name=name, attr=attr, **options)

    return function


def _names() -> Any:
    """Return the manager of this thread that names the nodes of symbols."""
    current = mx.name.NameManager._current
    if not hasattr(current, "value"):
        current.value = mx.name.NameManager()
    return current.value


def from_json(text: str, kind: type) -> Any:
    """Make a symbol of a class from its JSON, without a function that :func:`install` replaces."""
    handle = mx.base.SymbolHandle()
    mx.base.check_call(mx.base._LIB.MXSymbolCreateFromJSON(text.encode(), ctypes.byref(handle)))
    return kind(handle)


def for_np_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Convert a function of legacy arrays to one of ``mx.np`` arrays."""
    return _converted(function, mx.np.ndarray, "as_nd_ndarray", "as_np_ndarray")


def for_np_symbols(function: Callable[..., Any]) -> Callable[..., Any]:
    """Convert a function of legacy symbols to one of ``mx.sym.np`` symbols."""
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
    """Set the name, the signature and the docstring of a function."""
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
    """Return our function that replaces MXNet's in a module."""
    if "numpy_extension" in module:
        kind = mx.sym.numpy_extension if "symbol" in module else mx.npx
        return getattr(kind, f"cvops_{operator.npx_name}")
    contrib = mx.sym.contrib if "symbol" in module else mx.nd.contrib
    return getattr(contrib, f"cvops_{operator.name}")


def register() -> None:
    """Add the functions to the modules of MXNet."""
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


def _register_for_amp() -> None:
    """Register our operators for the casts of MXNet's automatic mixed precision."""
    amp = importlib.import_module("mxnet.contrib.amp")
    single = [operator.full_name for operator in OPERATORS if operator.amp == "float32"]
    widest = [operator.full_name for operator in OPERATORS if operator.amp == "widest"]
    lists = amp.lists.symbol_fp16, amp.lists.symbol_bf16
    for table in lists:
        table.FP32_FUNCS += single
        table.WIDEST_TYPE_CASTS += widest
    if amp.amp._amp_initialized:  # AMP has wrapped the functions that existed then
        own = amp.amp.list_widest_type_cast
        amp.amp.list_widest_type_cast = lambda dtype: widest
        try:
            for module in (mx.sym, mx.nd):
                amp.amp._wrap_symbol_functions(module, np.dtype("float16"), [], [], single)
        finally:
            amp.amp.list_widest_type_cast = own


build.library()
register()
_register_for_amp()
