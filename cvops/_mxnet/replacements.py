"""Functions that call our operators for the arrays that they take, and MXNet's for others."""

from __future__ import annotations

import functools
import threading
from typing import Any, Callable

import numpy as np

from cvops._mxnet import build, register, symbols
from cvops._mxnet.graphs import types_in
from cvops._mxnet.register import mx
from cvops._mxnet.switch import is_installed
from cvops.backends.operators import Operator

#: The types of the inputs of a block, by name, while it is traced.
_tracing = threading.local()


def added(module: str, operator: Operator) -> Callable[..., Any]:
    """Return our function under the name that this MXNet lacks."""
    ours = functools.partial(register.functions_for, module, operator)

    @functools.wraps(ours())
    def function(*args: Any, **kwargs: Any) -> Any:
        return ours()(*args, **kwargs)

    function.__name__ = function.__qualname__ = operator.gpu_name
    return function


def for_arrays(module: str, operator: Operator, theirs: Any) -> Callable[..., Any]:
    """Return a function of arrays under the name of ``theirs``, MXNet's in ``module``."""
    ours = functools.partial(register.functions_for, module, operator)
    array, dense = mx.nd.NDArray, (mx.nd.NDArray, mx.np.ndarray)
    types = _types_of(operator)
    everywhere = not only_on_the_cpu()

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if is_installed():
            for x in (*args, *kwargs.values()):
                if isinstance(x, array) and not (
                    type(x) in dense
                    and x.dtype in types
                    and (everywhere or x.ctx.device_type != "gpu")
                ):
                    break
            else:
                try:
                    return ours()(*args, **kwargs)
                except mx.MXNetError as error:
                    return _with_other_number(theirs, args, kwargs, error)
        return theirs(*args, **kwargs)

    return function


def _types_of(operator: Operator) -> tuple[Any, ...]:
    """Return the types of the arrays for which an operator of ours replaces MXNet's.

    MXNet rounds each operation of float16, and ours round once.
    """
    return (np.float32, np.float64) if operator.any_float else (np.float32,)


def _with_other_number(
    theirs: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> Any:
    """Call MXNet's operator, which also accepts NaN, and "1e" as 1; else raise our ``error``."""
    if ": expected a number" not in str(error):
        raise error
    try:
        return theirs(*args, **kwargs)
    except mx.MXNetError:
        raise error from None


def only_on_the_cpu() -> bool:
    """Report if MXNet has GPU arrays, and our operators do not accept them."""
    return mx.runtime.Features().is_enabled("CUDA") and not build.library().has_kernels


def for_symbols(module: str, operator: Operator, theirs: Any) -> Callable[..., Any]:
    """Return a function of symbols under the name of ``theirs``, MXNet's in ``module``."""
    ours = functools.partial(register.functions_for, module, operator)
    replaced, types = {}, _types_of(operator)
    if operator.replaces:
        replaced[symbols.REPLACED] = symbols.full_name(operator, theirs.__name__)

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        cast = operator.amp == "float32" and mx.contrib.amp.amp._amp_initialized
        if is_installed() and (cast or all(_may_be(x, types) for x in (*args, *kwargs.values()))):
            attr = {**(kwargs.get("attr") or {}), **replaced}
            try:
                return ours()(*args, **{**kwargs, "attr": attr})
            except mx.MXNetError as error:
                return _with_other_number(theirs, args, kwargs, error)
        return theirs(*args, **kwargs)

    return function


def _may_be(x: Any, types: tuple[Any, ...]) -> bool:
    """Report if a symbol may be dense and of one of some types; any other argument may."""
    if not isinstance(x, mx.sym.Symbol):
        return True
    if any(
        about.get("__storage_type__", "0") not in ("0", "-1") for about in x.attr_dict().values()
    ):
        return False
    known = getattr(_tracing, "types", {})
    names = set(x.list_arguments())
    _, out, _ = x.infer_type_partial(**{k: v for k, v in known.items() if k in names})
    return all(t in (None, *types) for t in out or [])


def tracing_types(theirs: Any) -> Callable[..., Any]:
    """Wrap ``HybridBlock._get_graph``: record the types of the arrays that it traces."""

    @functools.wraps(theirs)
    def get_graph(self: Any, *args: Any) -> Any:
        before = getattr(_tracing, "types", {})
        types = types_in(args)
        names = [f"data{i}" for i in range(len(types))] if len(types) > 1 else ["data"]
        _tracing.types = {name: dtype for name, dtype in zip(names, types) if dtype is not None}
        try:
            return theirs(self, *args)
        finally:
            _tracing.types = before

    return get_graph
