"""Greedy matching of the rows and the columns of score matrices."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("bipartite_matching", data="float32 (..., N, M)")
#: The sort has one matrix in at most 65535 tiles of 2048 pairs.
_MAX_PAIRS = 65535 * 2048


class _Options(NamedTuple):
    """``MatchingOptions`` of the extension."""

    threshold: float
    is_ascend: bool
    topk: int


def bipartite_matching(
    data: Array,
    is_ascend: bool = False,
    threshold: float | None = None,
    topk: int = -1,
    *,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """Match rows and columns of score matrices, the best pair first.

    The results have the bits of ``mx.nd.contrib.bipartite_matching`` of MXNet 1.9.1 on the CPU.
    Among all pairs of a free row and a free column, the pair with the best score is matched, while
    its score is beyond the threshold. Among equal scores the lowest row has priority, then the
    lowest column.

    Args:
        data: scores, float32 (..., N, M), such as IoUs or distances. Each matrix of the last two
            axes has its own matching.
        is_ascend: True matches the lowest score first, False the highest.
        threshold: only scores above it are matched, or scores below it with ``is_ascend``. It is
            required.
        topk: if positive, at most ``topk`` + 1 pairs of a matrix are matched. The additional pair
            is MXNet's.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        The pair (columns, rows). columns, float32 (..., N), has the index of the column of each
        row, or -1. rows, float32 (..., M), has the index of the row of each column, or -1. An index
        above 2**24 is rounded to float32. NaN is never matched, and does not affect other pairs; in
        MXNet the results are then arbitrary. Without rows or columns all results are -1. There is
        no gradient, and MXNet's is zero: PyTorch results do not require one. A GPU reads no value
        back, so a CUDA graph can capture the call.

    Raises:
        TypeError: ``data`` is not a float32 array; ``threshold`` is missing or not a number;
            ``topk`` is not an integer.
        ValueError: ``data`` has one axis only; a matrix has more than 65535 * 2048 pairs; there are
            2**31 matrices or more; ``threshold`` is NaN; ``is_ascend`` is not a flag.

    Example:
        >>> scores = np.float32([[0.9, 0.8], [0.7, 0.1], [0.6, 0.5]])
        >>> cvops.bipartite_matching(scores, threshold=0.2)
        (array([ 0., -1.,  1.], dtype=float32), array([0., 2.], dtype=float32))
    """
    signature = _OP.signature.get(backend, data=data)
    return signature.run((data,), (_options.get(threshold, is_ascend, topk),))


@_check.memoized
def _options(threshold: Any, is_ascend: Any, topk: Any) -> _Options:
    return _Options(
        _check.single("threshold", threshold),
        _check.flag("is_ascend", is_ascend),
        _check.integer("topk", topk),
    )


@_OP.check
def _check_shapes(signature: Signature) -> None:
    shape = signature.shapes["data"]
    *batch, rows, columns = shape
    _check.sizes_fit("data", shape, math.prod(batch))
    if 0 not in shape and rows * columns > _MAX_PAIRS:
        raise ValueError(f"data: expected at most {_MAX_PAIRS} pairs in a matrix, got {shape}")


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, options: _Options) -> tuple[np.ndarray, np.ndarray]:
    *batch, num_rows, num_columns = data.shape
    columns = np.full((*batch, num_rows), -1, np.float32)
    rows = np.full((*batch, num_columns), -1, np.float32)
    if data.size == 0:
        return columns, rows
    most = min(num_rows, num_columns, options.topk + 1 if options.topk > 0 else num_rows)
    for at in np.ndindex(*batch):
        left = most
        for i in _sorted_pairs(data[at].reshape(-1), options):
            row, column = divmod(int(i), num_columns)
            if columns[at][row] < 0 and rows[at][column] < 0:
                columns[at][row], rows[at][column] = column, row
                left -= 1
            if left == 0:
                break
    return columns, rows


def _sorted_pairs(scores: np.ndarray, options: _Options) -> np.ndarray:
    """Return the indices of the scores beyond the threshold, the best first."""
    threshold = np.float32(options.threshold)
    better = scores < threshold if options.is_ascend else scores > threshold
    pairs = np.flatnonzero(better)
    found = scores[pairs]
    return pairs[np.argsort(found if options.is_ascend else -found, kind="stable")]


@_OP.implementation("native")
def _native(
    device: DeviceOps, data: np.ndarray, options: _Options
) -> tuple[np.ndarray, np.ndarray]:
    *batch, num_rows, num_columns = data.shape
    columns = device.empty((*batch, num_rows), np.float32)
    rows = device.empty((*batch, num_columns), np.float32)
    shape = math.prod(batch), num_rows, num_columns
    device.ops.bipartite_matching(columns, rows, data, shape, options)
    return columns, rows
