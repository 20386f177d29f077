"""Our operators under the names of MXNet's."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops._mxnet import build, register, symbols
from cvops._mxnet.register import mx
from cvops.backends.operators import OPERATORS, Operator


class _Patch(NamedTuple):
    """A name in a module of MXNet, with MXNet's function and ours."""

    module: Any
    name: str
    #: None if this build of MXNet lacks the operator.
    theirs: Any
    ours: Any


#: The modules that get an operator of which this build of MXNet has no version.
_CONTRIB = (
    "mxnet.ndarray.contrib",
    "mxnet.symbol.contrib",
    "mxnet.contrib.ndarray",
    "mxnet.contrib.symbol",
)
#: The modules with functions of operators. Functions of other modules may have the same names, such
#: as the converters of ONNX.
_MODULES = (
    "mxnet.ndarray",
    "mxnet.symbol",
    "mxnet.numpy_extension",
    "mxnet.contrib.ndarray",
    "mxnet.contrib.symbol",
)

_lock = threading.RLock()
_patches: list[_Patch] = []
#: True after install(); the number of open installed().
_wanted, _open = False, 0
#: The types of the inputs of a block, by name, while it is traced.
_tracing = threading.local()


def install() -> None:
    """Replace MXNet's operators by ours under all of their names, until :func:`uninstall`.

    The names are in ``mx.nd.contrib``, ``mx.sym.contrib``, the older modules of ``mx.contrib``, and
    ``mx.npx``; ``ROIPooling`` is in ``mx.nd`` and ``mx.sym``. Blocks see them as ``F.contrib`` and
    ``F.npx``. Symbols that are loaded meanwhile, as by ``SymbolBlock.imports``, get our operators.
    ``mrcnn_mask_target`` is added to ``contrib`` of an MXNet for CPUs, which lacks it.

    MXNet's operators still compute arrays that are not dense, or not of float32 or float64, where
    few operators take float64 (:mod:`cvops.backends.operators`), hybridized blocks with inputs of
    another type, calls with numbers that only MXNet accepts (NaN), and arrays on a GPU if
    our operators have no kernels. A block keeps the operators of its first hybridized call as long
    as its inputs have the same types. A second call of this function has no effect. All threads see
    the change.
    """
    _change(wanted=True)


def uninstall() -> None:
    """Restore MXNet's operators. The call has no effect within :func:`installed`."""
    _change(wanted=False)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Install the operators for a block of code; such blocks may overlap, also in threads."""
    _change(opened=1)
    try:
        yield
    finally:
        _change(opened=-1)


def is_installed() -> bool:
    """Report if our operators have MXNet's names now."""
    return _wanted or _open > 0


def _change(wanted: bool | None = None, opened: int = 0) -> None:
    global _wanted, _open
    with _lock:
        before = is_installed()
        _wanted = _wanted if wanted is None else wanted
        _open += opened
        if is_installed() and not before:
            _patch()
        elif before and not is_installed():
            _restore()


def _patch() -> None:
    _patches[:] = _find()
    for patch in _patches:
        setattr(patch.module, patch.name, patch.ours)


def _restore() -> None:
    for patch in _patches:
        # A later wrapper of our function, such as AMP's, stays; our function then calls MXNet's.
        if getattr(patch.module, patch.name, None) is not patch.ours:
            continue
        if patch.theirs is None:
            delattr(patch.module, patch.name)
        else:
            setattr(patch.module, patch.name, patch.theirs)


def _loading_library(theirs: Any) -> Callable[..., Any]:
    """Wrap ``mx.library.load``, which makes all functions again: add ours again after it."""

    @functools.wraps(theirs)
    def load(*args: Any, **kwargs: Any) -> None:
        with _lock:
            try:
                theirs(*args, **kwargs)
            finally:
                register.register()
                if is_installed():
                    _restore()
                    _patch()

    return load


def _find() -> list[_Patch]:
    """Find each name in MXNet's modules of an operator that we have."""
    patches = []
    keep_graphs = _only_on_the_cpu()
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(_MODULES) or ".gen_" in name:
            continue
        symbolic = ".symbol" in name
        if symbolic and keep_graphs:
            continue  # a new graph does not have a device yet
        make = _for_symbols if symbolic else _for_arrays
        for operator in OPERATORS:
            for key in _names(operator):
                theirs = vars(module).get(key)
                if callable(theirs):
                    patches.append(_Patch(module, key, theirs, make(name, operator, theirs)))
                elif key == operator.gpu_name and name in _CONTRIB:
                    patches.append(_Patch(module, key, None, _added(name, operator)))
    for module in (mx.sym, mx.sym.symbol, mx.sym.numpy, mx.sym.numpy._symbol):
        for key in ("load", "load_json"):
            theirs = vars(module).get(key)
            if callable(theirs):
                patches.append(_Patch(module, key, theirs, _loading(theirs)))
    block = mx.gluon.HybridBlock
    patches.append(_Patch(block, "_get_graph", block._get_graph, _tracing_types(block._get_graph)))
    return patches


def _names(operator: Operator) -> list[str]:
    names = [name.replace("_contrib_", "") for name in operator.replaces]
    names += [operator.gpu_name] if operator.gpu_name else []
    return [*names, operator.npx_name] if operator.npx_name not in names else names


def _added(module: str, operator: Operator) -> Callable[..., Any]:
    """Return our function under the name that this MXNet lacks."""
    ours = functools.partial(register.functions_for, module, operator)

    @functools.wraps(ours())
    def function(*args: Any, **kwargs: Any) -> Any:
        return ours()(*args, **kwargs)

    function.__name__ = function.__qualname__ = operator.gpu_name
    return function


def _for_arrays(module: str, operator: Operator, theirs: Any) -> Callable[..., Any]:
    ours = functools.partial(register.functions_for, module, operator)
    array, dense = mx.nd.NDArray, (mx.nd.NDArray, mx.np.ndarray)
    types = _types_of(operator)
    everywhere = not _only_on_the_cpu()

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


def _only_on_the_cpu() -> bool:
    """Report if MXNet has GPU arrays, and our operators do not accept them."""
    return mx.runtime.Features().is_enabled("CUDA") and not build.library().has_kernels


def _for_symbols(module: str, operator: Operator, theirs: Any) -> Callable[..., Any]:
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


def _tracing_types(theirs: Any) -> Callable[..., Any]:
    """Wrap ``HybridBlock._get_graph``: record the types of the arrays that it traces."""

    @functools.wraps(theirs)
    def get_graph(self: Any, *args: Any) -> Any:
        before = getattr(_tracing, "types", {})
        types = _types(args)
        names = [f"data{i}" for i in range(len(types))] if len(types) > 1 else ["data"]
        _tracing.types = {name: dtype for name, dtype in zip(names, types) if dtype is not None}
        try:
            return theirs(self, *args)
        finally:
            _tracing.types = before

    return get_graph


def _types(args: Any) -> list[Any]:
    """List the types of the arrays of a call; None for other inputs."""
    return [getattr(x, "dtype", None) for x in _flat(args) if x is not None]


def _flat(args: Any) -> Iterator[Any]:
    for x in args:
        if isinstance(x, (list, tuple)):
            yield from _flat(x)
        else:
            yield x


def _loading(theirs: Any) -> Callable[..., Any]:
    """Wrap ``load`` or ``load_json`` of symbols: replace MXNet's operators by ours."""

    @functools.wraps(theirs)
    def load(*args: Any, **kwargs: Any) -> Any:
        symbol = theirs(*args, **kwargs)
        text = symbol.tojson() if is_installed() else ""
        if not symbols.is_float32(text):
            return symbol
        return register.from_json(symbols.as_loaded(text, register.takes), type(symbol))

    return load


def _saving(theirs: Any) -> Callable[..., Any]:
    """Wrap ``Symbol.save``: restore MXNet's operators in the file."""

    @functools.wraps(theirs)
    def save(self: Any, fname: Any, remove_amp_cast: bool = True) -> None:
        text = self.tojson(remove_amp_cast=False)
        written = symbols.as_written(text)
        if written is not text:
            self = register.from_json(written, type(self))
        theirs(self, fname, remove_amp_cast)

    return save


def _fitting(symbol: Any, types: dict[str, Any]) -> Any:
    """Return the symbol, with MXNet's operators if the types of its inputs require them."""
    text = symbol.tojson(remove_amp_cast=False)
    written = symbols.as_written(text)
    if written is text:
        return symbol
    names = set(symbol.list_inputs())
    if np.float16 in types.values():  # see _types_of
        return register.from_json(written, type(symbol))
    try:
        _infer_type(symbol, True, **{k: v for k, v in types.items() if k in names})
    except mx.MXNetError:
        return register.from_json(written, type(symbol))
    return symbol


def _building(theirs: Any) -> Callable[..., Any]:
    """Wrap ``HybridBlock._build_cache``: store the types for which it selected operators."""

    @functools.wraps(theirs)
    def build_cache(self: Any, *args: Any) -> None:
        theirs(self, *args)
        text = self._cached_graph[1].tojson(remove_amp_cast=False)
        self._cvops_types = _types(args) if symbols.has_choice(text) else None

    return build_cache


def _calling(theirs: Any) -> Callable[..., Any]:
    """Wrap ``HybridBlock._call_cached_op``: trace again for inputs of other types."""

    @functools.wraps(theirs)
    def call_cached_op(self: Any, *args: Any) -> Any:
        types = vars(self).get("_cvops_types")
        if types is not None and self._cached_op is not None and types != _types(args):
            self._clear_cached_op()
        return theirs(self, *args)

    return call_cached_op


def _binding(theirs: Any) -> Callable[..., Any]:
    """Wrap ``SymbolBlock._build_cache`` for arrays of any type."""

    @functools.wraps(theirs)
    def build_cache(self: Any, *args: Any) -> None:
        data, out = self._cached_graph
        types = {x.name: a.dtype for x, a in zip(data, _flat(args)) if hasattr(a, "dtype")}
        types.update({name: p.dtype for name, p in self.params.items()})
        self._cached_graph = data, _fitting(out, types)
        theirs(self, *args)

    return build_cache


def _inferring_types(theirs: Any) -> Callable[..., Any]:
    """Wrap ``Symbol._infer_type_impl`` for types that only MXNet's operators accept."""

    @functools.wraps(theirs)
    def infer_type(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return theirs(self, *args, **kwargs)
        except mx.MXNetError:
            text = self.tojson(remove_amp_cast=False)
            written = symbols.as_written(text)
            if written is text:
                raise
            return theirs(register.from_json(written, type(self)), *args, **kwargs)

    return infer_type


def _executing(theirs: Any) -> Callable[..., Any]:
    """Wrap ``Symbol.bind`` for arrays of any type."""

    @functools.wraps(theirs)
    def bind(self: Any, ctx: Any, args: Any, *others: Any, **kwargs: Any) -> Any:
        given = args if isinstance(args, dict) else dict(zip(self.list_arguments(), args or ()))
        types = {name: x.dtype for name, x in given.items() if hasattr(x, "dtype")}
        return theirs(_fitting(self, types), ctx, args, *others, **kwargs)

    return bind


def _allocating(theirs: Any) -> Callable[..., Any]:
    """Wrap ``Symbol.simple_bind`` for any types."""

    @functools.wraps(theirs)
    def simple_bind(
        self: Any,
        ctx: Any,
        grad_req: Any = "write",
        type_dict: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        return theirs(_fitting(self, type_dict or {}), ctx, grad_req, type_dict, *args, **kwargs)

    return simple_bind


mx.library.load = _loading_library(mx.library.load)
mx.sym.Symbol.save = _saving(mx.sym.Symbol.save)
_infer_type = mx.sym.Symbol._infer_type_impl
mx.sym.Symbol._infer_type_impl = _inferring_types(_infer_type)
mx.sym.Symbol.bind = _executing(mx.sym.Symbol.bind)
mx.sym.Symbol.simple_bind = _allocating(mx.sym.Symbol.simple_bind)
mx.gluon.HybridBlock._build_cache = _building(mx.gluon.HybridBlock._build_cache)
mx.gluon.HybridBlock._call_cached_op = _calling(mx.gluon.HybridBlock._call_cached_op)
mx.gluon.SymbolBlock._build_cache = _binding(mx.gluon.SymbolBlock._build_cache)
