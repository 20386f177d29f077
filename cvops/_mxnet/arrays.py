"""New arrays of MXNet, which has two kinds: ``mx.nd`` and ``mx.np``."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops._mxnet.compat import mxnet


def from_numpy(values: np.ndarray, like: Any = None) -> Any:
    """Return a copy of ``values`` as an MXNet array of the kind and on the device of ``like``.

    If ``like`` is None, the kind is ``mx.np`` after ``npx.set_np()``, or else ``mx.nd``.
    """
    mx = mxnet()
    is_np = mx.util.is_np_array() if like is None else isinstance(like, mx.np.ndarray)
    ctx = None if like is None else like.ctx
    array = mx.nd.array(values, ctx=ctx, dtype=values.dtype)
    return array.as_np_ndarray() if is_np else array
