"""Shape inference from a part of the shapes.

An external operator cannot infer shapes from a part of its inputs. MXNet's operators then replace
ours.
"""

from __future__ import annotations

import functools
from typing import Any

from cvops._mxnet import symbols
from cvops._mxnet.register import from_json, mx


def _with_known_inference(symbol: Any) -> Any:
    """Return a symbol of the same shapes without our operators."""
    text = symbol.tojson()
    if '"_contrib_cvops_' not in text:
        return symbol
    return from_json(symbols.with_mxnet_shapes(text), type(symbol))


def _is_known(shape: Any) -> bool:
    """Report if a shape is complete; 0 and () are unknown outside of MXNet's NumPy shapes."""
    if shape is None or mx.util.is_np_shape():
        return shape is not None and all(size is not None and size >= 0 for size in shape)
    return len(shape) > 0 and all(shape)


def patch() -> None:
    """Patch MXNet's shape inference."""
    theirs = mx.sym.Symbol._infer_shape_impl

    @functools.wraps(theirs)
    def infer_shape(self: Any, partial: bool, *args: Any, **kwargs: Any) -> Any:
        arguments = self.list_arguments()
        given = [*args, *(shape for name, shape in kwargs.items() if name in arguments)]
        if sum(map(_is_known, given)) < len(arguments):
            self = _with_known_inference(self)
        return theirs(self, partial, *args, **kwargs)

    mx.sym.Symbol._infer_shape_impl = infer_shape


patch()
