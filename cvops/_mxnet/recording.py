"""Calls with MXNet's arrays while MXNet records them for a gradient.

The operator of an op (:mod:`cvops.mxnet`) computes an op with a gradient, so that the gradient is
the operator's. All backends have the operator's bits: there, ``backend`` selects the computation of
a second result alone. An op without a gradient computes as it does outside of recording. Its
results then depend on the arrays, with a gradient of 0, as those of MXNet's operators.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def run(plan: Any, arrays: tuple[Any, ...], options: tuple[Any, ...]) -> Any:
    """Compute a call whose results MXNet may differentiate."""
    mx = sys.modules["mxnet"]
    numpy = isinstance(arrays[0], mx.np.ndarray)
    legacy = [x.as_nd_ndarray() for x in arrays] if numpy else arrays
    if plan.op.operator is None:
        with mx.autograd.pause():
            out = plan.place.run(plan, arrays if plan.kinds else (), options)
        results = out if isinstance(out, tuple) else (out,)
        results = tuple([_depending(y.as_nd_ndarray(), legacy) for y in results])
    else:
        importlib.import_module("cvops.mxnet")
        operator, attributes = plan.op.operator(*options)
        results = (getattr(mx.nd.contrib, f"cvops_{operator}")(*legacy, **attributes),)
        if plan.op.gradient.residual and options[-1]:
            with mx.autograd.pause():
                _, second = plan.place.run(plan, arrays, options)
            results = (*results, second.as_nd_ndarray())
    if numpy:
        results = tuple([y.as_np_ndarray() for y in results])
    return results if len(results) > 1 else results[0]


def _depending(y: Any, arrays: Any) -> Any:
    """``y`` as a function of arrays, with a gradient of 0: one element of each is added and cut."""
    if not y.size:
        return y
    ends = [x.reshape((-1,)).slice_axis(0, 0, 1).astype(y.dtype) for x in arrays if x.size]
    longer = sys.modules["mxnet"].nd.concat(y.reshape((-1,)), *ends, dim=0)
    return longer.slice_axis(0, 0, y.size).reshape(y.shape)
