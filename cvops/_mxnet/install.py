"""MXNet's own names for our operators."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops._mxnet import build, register, symbols
from cvops._mxnet.operators import OPERATORS, Operator
from cvops._mxnet.register import mx


class _Place(NamedTuple):
    """A name in a module of MXNet, and what stands there."""

    module: Any
    name: str
    theirs: Any
    ours: Any


#: Where MXNet has its operators' functions. Other modules have functions of the same names: those
#: of ONNX's operators, for one.
_HOMES = (
    *("mxnet.ndarray", "mxnet.symbol", "mxnet.numpy_extension"),
    *("mxnet.contrib.ndarray", "mxnet.contrib.symbol"),
)

_lock = threading.RLock()
_places: list[_Place] = []
#: Whether install() was called, and how many installed() are open.
_wanted, _open = False, 0
#: While a block is traced: the types of its inputs, by name.
_tracing = threading.local()


def install() -> None:
    """Let MXNet's names mean our operators, everywhere they are reachable, until uninstall().

    ``mx.nd.contrib``, ``mx.sym.contrib`` and their older homes in ``mx.contrib``, ``ROIPooling`` of
    ``mx.nd`` and ``mx.sym``, and ``mx.npx``: so ``F.contrib`` and ``F.npx`` in blocks too. Symbols
    that are loaded meanwhile, as by ``SymbolBlock.imports``, get our operators for MXNet's.

    What we do not have stays MXNet's: arrays that are not float32 or not dense, inputs of a
    hybridized block of another type than float32, arrays on a GPU where the operators were built
    without CUDA. Blocks keep the operators that they were first hybridized with. Calling it again
    changes nothing; all threads see it.
    """
    _change(wanted=True)


def uninstall() -> None:
    """Give MXNet's names back to MXNet. Without effect within :func:`installed`."""
    _change(wanted=False)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """:func:`install` for a block of code; such blocks may overlap, in threads too."""
    _change(opened=1)
    try:
        yield
    finally:
        _change(opened=-1)


def is_installed() -> bool:
    """Whether MXNet's names mean our operators now."""
    return _wanted or _open > 0


def _change(wanted: bool | None = None, opened: int = 0) -> None:
    global _wanted, _open
    with _lock:
        before = is_installed()
        _wanted = _wanted if wanted is None else wanted
        _open += opened
        if is_installed() and not before:
            _put()
        elif before and not is_installed():
            _give_back()


def _put() -> None:
    _places[:] = _find()
    for place in _places:
        setattr(place.module, place.name, place.ours)


def _give_back() -> None:
    for place in _places:
        # What has been put around ours since (AMP does) stays, and ours gives way in it.
        if getattr(place.module, place.name) is place.ours:
            setattr(place.module, place.name, place.theirs)


def _loading_library(theirs: Any) -> Callable[..., Any]:
    """``mx.library.load``, which makes the functions of all operators anew, so ours again after."""

    @functools.wraps(theirs)
    def load(*args: Any, **kwargs: Any) -> None:
        with _lock:
            try:
                theirs(*args, **kwargs)
            finally:
                register.register()
                if is_installed():
                    _give_back()
                    _put()

    return load


def _find() -> list[_Place]:
    """Every name in MXNet's modules that stands for an operator that we have."""
    places = []
    gpu_graphs_stay = _only_on_the_cpu()
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(_HOMES) or ".gen_" in name:
            continue
        symbolic = ".symbol" in name
        if symbolic and gpu_graphs_stay:
            continue  # whether a graph will run on a GPU is not known when it is made
        make = _for_symbols if symbolic else _for_arrays
        for operator in OPERATORS:
            for key in _names(operator):
                theirs = vars(module).get(key)
                if callable(theirs):
                    places.append(_Place(module, key, theirs, make(name, operator, theirs)))
    for module in (mx.sym, mx.sym.symbol, mx.sym.numpy, mx.sym.numpy._symbol):
        for key in ("load", "load_json"):
            theirs = vars(module).get(key)
            if callable(theirs):
                places.append(_Place(module, key, theirs, _loading(theirs)))
    block = mx.gluon.HybridBlock
    places.append(_Place(block, "_get_graph", block._get_graph, _tracing_types(block._get_graph)))
    return places


def _names(operator: Operator) -> list[str]:
    names = [name.replace("_contrib_", "") for name in operator.replaces]
    return [*names, operator.npx_name] if operator.npx_name not in names else names


def _for_arrays(module: str, operator: Operator, theirs: Any) -> Callable[..., Any]:
    ours = functools.partial(register.functions_for, module, operator)
    array, dense = mx.nd.NDArray, (mx.nd.NDArray, mx.np.ndarray)
    everywhere = not _only_on_the_cpu()

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if is_installed():
            for x in (*args, *kwargs.values()):
                if isinstance(x, array) and not (
                    type(x) in dense
                    and x.dtype == np.float32
                    and (everywhere or x.ctx.device_type != "gpu")
                ):
                    break
            else:
                return ours()(*args, **kwargs)
        return theirs(*args, **kwargs)

    return function


def _only_on_the_cpu() -> bool:
    """Whether MXNet has GPU arrays, and our operators do not take them."""
    return mx.runtime.Features().is_enabled("CUDA") and not build.library().has_kernels


def _for_symbols(module: str, operator: Operator, theirs: Any) -> Callable[..., Any]:
    ours = functools.partial(register.functions_for, module, operator)
    place = {symbols.PLACE: symbols.full_name(operator, theirs.__name__)}

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        cast = operator.amp == "float32" and mx.contrib.amp.amp._amp_initialized
        if is_installed() and (cast or all(map(_may_be_float32, (*args, *kwargs.values())))):
            kwargs["attr"] = {**(kwargs.get("attr") or {}), **place}
            return ours()(*args, **kwargs)
        return theirs(*args, **kwargs)

    return function


def _may_be_float32(x: Any) -> bool:
    """Report if a symbol may be dense and of float32; any other argument may."""
    if not isinstance(x, mx.sym.Symbol):
        return True
    if any(
        about.get("__storage_type__", "0") not in ("0", "-1") for about in x.attr_dict().values()
    ):
        return False
    known = getattr(_tracing, "types", {})
    names = set(x.list_arguments())
    _, out, _ = x.infer_type_partial(**{k: v for k, v in known.items() if k in names})
    return all(t in (None, np.float32) for t in out or [])


def _tracing_types(theirs: Any) -> Callable[..., Any]:
    """``HybridBlock._get_graph``, with the types of the arrays that it traces kept at hand."""

    @functools.wraps(theirs)
    def get_graph(self: Any, *args: Any) -> Any:
        before = getattr(_tracing, "types", {})
        arrays = [x for x in _flat(args) if x is not None]
        names = [f"data{i}" for i in range(len(arrays))] if len(arrays) > 1 else ["data"]
        types = {name: x.dtype for name, x in zip(names, arrays) if hasattr(x, "dtype")}
        _tracing.types = types
        try:
            return theirs(self, *args)
        finally:
            _tracing.types = before

    return get_graph


def _flat(args: Any) -> Iterator[Any]:
    for x in args:
        if isinstance(x, (list, tuple)):
            yield from _flat(x)
        else:
            yield x


def _loading(theirs: Any) -> Callable[..., Any]:
    """``load`` or ``load_json`` of symbols, with MXNet's operators made ours."""

    @functools.wraps(theirs)
    def load(*args: Any, **kwargs: Any) -> Any:
        symbol = theirs(*args, **kwargs)
        text = symbol.tojson() if is_installed() else ""
        if not symbols.suits(text):
            return symbol
        return register.from_json(symbols.as_loaded(text), type(symbol))

    return load


def _saving(theirs: Any) -> Callable[..., Any]:
    """``Symbol.save``: a file has MXNet's operators where ours took their places."""

    @functools.wraps(theirs)
    def save(self: Any, fname: Any, remove_amp_cast: bool = True) -> None:
        text = self.tojson(remove_amp_cast=False)
        written = symbols.as_written(text)
        if written is not text:
            self = register.from_json(written, type(self))
        theirs(self, fname, remove_amp_cast)

    return save


def _fitting(symbol: Any, types: dict[str, Any]) -> Any:
    """A symbol of ours, or of MXNet's operators where the types of its inputs ask for those."""
    text = symbol.tojson(remove_amp_cast=False)
    written = symbols.as_written(text)
    if written is text:
        return symbol
    names = set(symbol.list_inputs())
    try:
        _infer_type(symbol, True, **{k: v for k, v in types.items() if k in names})
    except mx.MXNetError:
        return register.from_json(written, type(symbol))
    return symbol


def _binding(theirs: Any) -> Callable[..., Any]:
    """``SymbolBlock._build_cache``, for arrays of any type."""

    @functools.wraps(theirs)
    def build_cache(self: Any, *args: Any) -> None:
        data, out = self._cached_graph
        types = {x.name: a.dtype for x, a in zip(data, _flat(args)) if hasattr(a, "dtype")}
        types.update({name: p.dtype for name, p in self.params.items()})
        self._cached_graph = data, _fitting(out, types)
        theirs(self, *args)

    return build_cache


def _inferring_types(theirs: Any) -> Callable[..., Any]:
    """``Symbol._infer_type_impl``, for types that MXNet's operators take and ours do not."""

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
    """``Symbol.bind``, for arrays of any type."""

    @functools.wraps(theirs)
    def bind(self: Any, ctx: Any, args: Any, *others: Any, **kwargs: Any) -> Any:
        given = args if isinstance(args, dict) else dict(zip(self.list_arguments(), args or ()))
        types = {name: x.dtype for name, x in given.items() if hasattr(x, "dtype")}
        return theirs(_fitting(self, types), ctx, args, *others, **kwargs)

    return bind


def _allocating(theirs: Any) -> Callable[..., Any]:
    """``Symbol.simple_bind``, for any types."""

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
mx.gluon.SymbolBlock._build_cache = _binding(mx.gluon.SymbolBlock._build_cache)
