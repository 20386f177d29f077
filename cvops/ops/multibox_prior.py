"""Anchor boxes around every cell of a feature map."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cvops import _cpu, _gpu
from cvops._arrays import Buffer, library_of
from cvops._op import Op
from cvops.ops import _check

_OP = Op("multibox_prior", data="float32 (N, C, H, W, ...)")
_GRID = np.dtype(
    [
        *(("height", "i4"), ("width", "i4"), ("step_y", "f4"), ("step_x", "f4")),
        *(("offset_y", "f4"), ("offset_x", "f4")),
    ]
)
#: ``kPriorShapes`` of the kernel: the shapes of an anchor that one launch takes.
_GROUP = 64
_SHAPES = np.dtype([("size", "f4", _GROUP), ("ratio", "f4", _GROUP)])


class _Grid(NamedTuple):
    """``PriorGrid`` of the kernel."""

    height: int
    width: int
    step_y: float
    step_x: float
    offset_y: float
    offset_x: float


def multibox_prior(
    data: Any,
    sizes: float | Sequence[float] = (1.0,),
    ratios: float | Sequence[float] = (1.0,),
    clip: bool = False,
    steps: Sequence[float] = (-1.0, -1.0),
    offsets: Sequence[float] = (0.5, 0.5),
    *,
    like: Any = None,
    backend: str | None = None,
) -> Any:
    """Anchor boxes of several shapes around every cell of a feature map.

    As ``mx.nd.contrib.MultiBoxPrior`` of MXNet 1.9.1 on the CPU, bit for bit. Each cell gets S + R
    - 1 anchors for S sizes and R ratios: every size with ``ratios[0]``, then ``sizes[0]`` with each
    other ratio. Cells go row by row. An anchor of size s and ratio r is ``s * H / W * sqrt(r)``
    wide and ``s / sqrt(r)`` high, in units of the image's width and height.

    Args:
        data: the feature map, float32 (N, C, H, W, ...), of which only H and W are read; or the
            pair ``(H, W)`` itself.
        sizes: heights of square anchors, relative to the image.
        ratios: ratios of width to height.
        clip: whether to clip the coordinates to [0, 1]; NaN stays.
        steps: distance (y, x) between the centres of neighbours, relative to the image. If either
            is not positive, (1 / H, 1 / W).
        offsets: where in its cell a centre lies, (y, x), each in [0, 1].
        like: an array whose kind and device the result has where ``data`` is a pair; NumPy if None.
        backend: which implementation; by default the best for the array's device.

    Returns:
        float32 (1, H * W * (S + R - 1), 4), corners (x1, y1, x2, y2) relative to the image. A ratio
        that is negative gives NaN, as in MXNet. No gradient, in MXNet too (zeros).

    Raises:
        TypeError: ``data`` is neither a float32 array nor a pair of integers.
        ValueError: ``data`` has fewer than four axes, or H or W is 0; ``sizes`` or ``ratios`` is
            empty; ``offsets`` out of [0, 1]; one of ``steps`` positive and the other negative; 2^31
            anchors or more.
    """
    if library_of(data) is None and hasattr(data, "__len__"):
        if len(data) != 2:
            raise ValueError(f"data: expected an array or a pair (height, width), got {data!r}")
        height, width = (_check.integer("data", size, low=1) for size in data)
        call = _OP.call(backend, like=np.empty(0, np.float32) if like is None else like)
    else:
        call = _OP.call(backend, data=data)
        height, width = call.sizes["H"], call.sizes["W"]
        if height == 0 or width == 0:
            raise ValueError(
                f"data: expected a height and a width above 0, got {call.shapes['data']}"
            )
    options = map(_hashable, (sizes, ratios, steps, offsets))
    return call(*_layout(height, width, *options), bool(clip))


def _hashable(x: Any) -> Any:
    return tuple(x) if hasattr(x, "__len__") and not isinstance(x, str) else x


@functools.lru_cache(256)
def _layout(
    height: int, width: int, sizes: Any, ratios: Any, steps: Any, offsets: Any
) -> tuple[_Grid, np.ndarray, np.ndarray]:
    """The grid, and size and ratio of each shape. Kept, for a model asks for few."""
    sizes, ratios = _check.numbers("sizes", sizes), _check.numbers("ratios", ratios)
    step_y, step_x = np.array(_check.numbers("steps", steps, 2), np.float32)
    if step_y * step_x < 0:
        raise ValueError(f"steps: expected both positive or neither, got {steps!r}")
    if step_y <= 0 or step_x <= 0:
        step_y, step_x = np.float32(1) / np.float32(height), np.float32(1) / np.float32(width)
    offset_y, offset_x = _check.numbers("offsets", offsets, 2)
    for offset in (offset_y, offset_x):
        _check.number("offsets", offset, 0, 1)
    shapes = [(size, ratios[0]) for size in sizes] + [(sizes[0], ratio) for ratio in ratios[1:]]
    if height * width * len(shapes) >= 2**31:
        raise ValueError(
            f"data: {height} x {width} cells of {len(shapes)} anchors are 2^31 or more"
        )
    grid = _Grid(height, width, float(step_y), float(step_x), offset_y, offset_x)
    size, ratio = np.array(shapes, np.float32).T.copy()
    return grid, size, ratio


@_OP.body("numpy")
def _numpy(grid: _Grid, size: np.ndarray, ratio: np.ndarray, clip: bool) -> np.ndarray:
    height, width, step_y, step_x, offset_y, offset_x = map(np.float32, grid)
    y = (np.arange(grid.height, dtype=np.float32) + offset_y) * step_y
    x = (np.arange(grid.width, dtype=np.float32) + offset_x) * step_x
    y, x = y[:, None, None], x[None, :, None]
    with np.errstate(all="ignore"):
        root = np.sqrt(ratio)
        half_width = size * height / width * root / 2
        half_height = size / root / 2
        corners = x - half_width, y - half_height, x + half_width, y + half_height
        out = np.stack(np.broadcast_arrays(*corners), axis=-1).reshape(1, -1, 4)
        return (
            np.where(out < 0, np.float32(0), np.where(out > 1, np.float32(1), out)) if clip else out
        )


@_OP.body("native")
def _native(
    cpu: _cpu.Cpu, grid: _Grid, size: np.ndarray, ratio: np.ndarray, clip: bool
) -> np.ndarray:
    out = cpu.empty((1, grid.height * grid.width * len(size), 4), np.float32)
    cpu.module.multibox_prior(out, grid, size, ratio, clip)
    return out


@_OP.body("kernels")
def _kernels(gpu: _gpu.Gpu, grid: _Grid, size: np.ndarray, ratio: np.ndarray, clip: bool) -> Buffer:
    cells, total = grid.height * grid.width, len(size)
    out = gpu.empty((1, cells * total, 4), np.float32)
    for first in range(0, total, _GROUP):
        group = np.zeros((), _SHAPES)
        count = min(total - first, _GROUP)
        group["size"][:count] = size[first : first + count]
        group["ratio"][:count] = ratio[first : first + count]
        blocks = min(-(-cells * count // 256), 1 << 16)
        args = out, np.array(grid, _GRID), group, first, count, total, clip
        gpu.launch("multibox_prior", "multibox_prior", (blocks,), (256,), *args)
    return out


@_OP.body("native_cuda")
def _native_cuda(
    gpu: _gpu.Native, grid: _Grid, size: np.ndarray, ratio: np.ndarray, clip: bool
) -> Buffer:
    out = gpu.empty((1, grid.height * grid.width * len(size), 4), np.float32)
    gpu.module.multibox_prior_cuda(out.pointer, grid, size, ratio, clip, gpu.stream)
    return out
