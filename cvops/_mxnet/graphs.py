"""Methods of symbols and blocks that keep MXNet's operators where ours do not compute a graph.

A graph with our operators is saved with MXNet's. It runs with MXNet's if its inputs are of types
that ours do not take. The import of this module replaces the methods of MXNet's classes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Callable

import numpy as np

from cvops._mxnet import register, symbols
from cvops._mxnet.register import mx
from cvops._mxnet.switch import is_installed


def types_in(args: Any) -> list[Any]:
    """List the types of the arrays of a call; None for other inputs."""
    return [getattr(x, "dtype", None) for x in _flat(args) if x is not None]


def _flat(args: Any) -> Iterator[Any]:
    for x in args:
        if isinstance(x, (list, tuple)):
            yield from _flat(x)
        else:
            yield x


def loading(theirs: Any) -> Callable[..., Any]:
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
    if np.float16 in types.values():  # see replacements._types_of
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
        self._cvops_types = types_in(args) if symbols.has_choice(text) else None

    return build_cache


def _calling(theirs: Any) -> Callable[..., Any]:
    """Wrap ``HybridBlock._call_cached_op``: trace again for inputs of other types."""

    @functools.wraps(theirs)
    def call_cached_op(self: Any, *args: Any) -> Any:
        types = vars(self).get("_cvops_types")
        if types is not None and self._cached_op is not None and types != types_in(args):
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


_infer_type = mx.sym.Symbol._infer_type_impl
mx.sym.Symbol.save = _saving(mx.sym.Symbol.save)
mx.sym.Symbol._infer_type_impl = _inferring_types(_infer_type)
mx.sym.Symbol.bind = _executing(mx.sym.Symbol.bind)
mx.sym.Symbol.simple_bind = _allocating(mx.sym.Symbol.simple_bind)
mx.gluon.HybridBlock._build_cache = _building(mx.gluon.HybridBlock._build_cache)
mx.gluon.HybridBlock._call_cached_op = _calling(mx.gluon.HybridBlock._call_cached_op)
mx.gluon.SymbolBlock._build_cache = _binding(mx.gluon.SymbolBlock._build_cache)
