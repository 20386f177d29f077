"""Calls with MXNet's arrays while MXNet records them for a gradient.

The operator of an op (:mod:`cvops.mxnet`) computes an op with a gradient, so that the gradient is
the operator's. All backends have the operator's bits: there, ``backend`` selects the computation of
a second result only. An op without a gradient computes as it does outside of recording. Its
results then depend on the arrays, with a gradient of 0, as those of MXNet's operators.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def run(signature: Any, arrays: tuple[Any, ...], options: tuple[Any, ...]) -> Any:
    """Compute a call whose results MXNet may differentiate."""
    mx, op = sys.modules["mxnet"], signature.op
    is_np = isinstance(arrays[0], mx.np.ndarray)
    legacy = [x.as_nd_ndarray() for x in arrays] if is_np else arrays
    if op.operator is None:
        with mx.autograd.pause():
            out = signature.execute(arrays, options)
        results = out if isinstance(out, tuple) else (out,)
        results = tuple([_with_zero_gradient(y.as_nd_ndarray(), legacy) for y in results])
    else:
        importlib.import_module("cvops.mxnet")  # registers the operators
        operator, attributes = op.operator(*options)
        results = (getattr(mx.nd.contrib, f"cvops_{operator}")(*legacy, **attributes),)
        if op.gradient.residual and options[-1]:
            with mx.autograd.pause():
                _, second = signature.execute(arrays, options)
            results = (*results, second.as_nd_ndarray())
    if is_np:
        results = tuple([y.as_np_ndarray() for y in results])
    return results if len(results) > 1 else results[0]


def _with_zero_gradient(y: Any, arrays: Any) -> Any:
    """Make ``y`` depend on arrays: append a zero of each, and slice the zeros off.

    ``zeros_like`` ends the gradient. A gradient of 0 that reaches an array through a slice can
    overwrite the gradients of its other users in MXNet.
    """
    nd = sys.modules["mxnet"].nd
    if not y.size:
        return y
    zeros = [nd.zeros_like(x).reshape((-1,)) for x in arrays if x.size]
    ends = [x.slice_axis(0, 0, 1).astype(y.dtype) for x in zeros]
    longer = nd.concat(y.reshape((-1,)), *ends, dim=0)
    return longer.slice_axis(0, 0, y.size).reshape(y.shape)
