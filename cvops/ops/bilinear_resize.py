"""Bilinear interpolation of feature maps to another size, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op

Array = TypeVar("Array")
_OP = Op("bilinear_resize", data="float32 (N, C, H, W)")
_LIKE = Op("bilinear_resize", data="float32 (N, C, H, W)", like="float32 (M, K, height, width)")
_BACKWARD = Op("bilinear_resize_backward", out_grad="float32 (N, C, height, width)")

#: The lengths of an axis that do not depend on an option, by mode.
_PARITIES: dict[str, Callable[[int], int]] = {
    "to_even_down": lambda size: size - size % 2,
    "to_even_up": lambda size: size + size % 2,
    "to_odd_down": lambda size: size - (1 - size % 2),
    "to_odd_up": lambda size: size + (1 - size % 2),
}
_MODES = ("size", "odd_scale", "like", *_PARITIES)


class _Sizes(NamedTuple):
    """The C++ struct ``BilinearResize``."""

    height: int
    width: int
    out_height: int
    out_width: int
    align_corners: bool


def bilinear_resize(
    data: Array,
    like: Optional[Array] = None,
    height: int = 1,
    width: int = 1,
    scale_height: Optional[float] = None,
    scale_width: Optional[float] = None,
    mode: str = "size",
    align_corners: bool = True,
    *,
    backend: str | None = None,
) -> Array:
    """Resize feature maps by bilinear interpolation.

    The result has the bits of ``mx.nd.contrib.BilinearResize2D`` of MXNet 1.9.1 on the CPU.

    Along an axis of ``H`` pixels and ``height`` outputs, output ``i`` is at position ``i * ((H - 1)
    / (height - 1))`` with ``align_corners``. Without, it is at ``(i + 0.5) * (H / height) - 0.5``,
    or at 0 if that is negative. One output is at 0. The fraction of the position is the weight
    ``b`` of the next pixel, and ``a = 1 - b`` the weight of the pixel. The result is ``ay * (ax *
    d1 + bx * d2) + by * (ax * d3 + bx * d4)`` for the upper left, upper right, lower left and lower
    right pixel. Each operation is rounded to float32; the position without ``align_corners`` is
    computed in float64. Maps that keep their size are copied.

    Args:
        data: feature maps, float32 (N, C, H, W).
        like: maps whose height and width the result has, float32 (M, K, height, width); for the
            mode "like" only.
        height: the height of the result for the mode "size" without ``scale_height``.
        width: the width of the result for the mode "size" without ``scale_height``.
        scale_height: the factor for the height in the modes "size" and "odd_scale".
        scale_width: the factor for the width in these modes. Without ``scale_height`` it has no
            effect in the mode "size", as in MXNet.
        mode: "size": ``height`` and ``width``, or the sizes times the factors, rounded down.
            "odd_scale": the same with ``(H - 1) * scale_height``, rounded down, plus 1 for an odd
            ``H``, and likewise for the width. "like": the sizes of ``like``. "to_even_down",
            "to_even_up", "to_odd_down", "to_odd_up": the next even or odd sizes.
        align_corners: True if the first and last outputs have the positions of the first and last
            pixels, False if the edges of the maps are aligned.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (N, C, height, width). Without images or channels it is empty. A PyTorch result has
        the gradient of :func:`bilinear_resize_backward`, which has no gradient itself. The gradient
        with respect to ``like`` is 0.

    Raises:
        TypeError: ``data`` or ``like`` is not a float32 array; the arrays differ in library or
            device; ``height`` or ``width`` is not an integer; a factor is not a number, or missing.
        ValueError: an array does not have four axes; ``data`` has no pixels; ``height`` or
            ``width`` is below 1; ``mode`` is unknown; ``like`` is missing, or the mode is another;
            ``align_corners`` is not a flag; the result has no pixels; maps have 2**30 elements or
            more before or after.

    Example:
        >>> data = np.float32([[[[0, 2], [4, 6]]]])
        >>> cvops.bilinear_resize(data, height=3, width=3)
        array([[[[0., 1., 2.],
                 [2., 3., 4.],
                 [4., 5., 6.]]]], dtype=float32)
    """
    mode = _check.choice("mode", mode, _MODES)
    if (mode == "like") != (like is not None):
        want = "an array for mode 'like'" if like is None else f"None for mode {mode!r}"
        raise ValueError(f"like: expected {want}, got {type(like).__name__}")
    arrays: tuple[Array, ...]
    if like is None:
        arrays, signature = (data,), _OP.signature.get(backend, data=data)
    else:
        arrays, signature = (data, like), _LIKE.signature.get(backend, data=data, like=like)
    sizes = _sizes.get(
        signature.shapes["data"], signature.shapes.get("like"), mode, height, width, scale_height,
        scale_width, align_corners,
    )  # fmt: skip
    return signature.run(arrays, (sizes,))


@_check.memoized
def _sizes(
    shape: tuple[int, ...],
    like_shape: tuple[int, ...] | None,
    mode: str,
    *options: Any,
) -> _Sizes:
    height, width, factors, align_corners = _options.get(mode, *options)
    images, channels, *before = shape
    if like_shape is not None:
        after = like_shape[2:]
    elif mode in _PARITIES:
        after = tuple(map(_PARITIES[mode], before))
    elif factors is not None:
        odd = [mode == "odd_scale" and size % 2 for size in before]
        after = tuple(
            [_scaled(size - one, factor) + one for size, one, factor in zip(before, odd, factors)]
        )
    else:
        after = height, width
    sizes = _Sizes(before[0], before[1], after[0], after[1], align_corners)
    _check_sizes("data", "the result", images * channels, sizes)
    return sizes


@_check.memoized
def _options(
    mode: str, height: Any, width: Any, scale_height: Any, scale_width: Any, align_corners: Any
) -> tuple[int, int, tuple[float, float] | None, bool]:
    """Return the checked height, width, factors and alignment of the corners."""
    height = _check.integer("height", height, low=1)
    width = _check.integer("width", width, low=1)
    factors = _factors(mode, scale_height, scale_width)
    return height, width, factors, _check.flag("align_corners", align_corners)


def _factors(mode: str, scale_height: Any, scale_width: Any) -> tuple[float, float] | None:
    """Return the factors if the mode has them."""
    scales = [
        None if scale is None or (isinstance(scale, str) and scale == "None")
        else _check.number(name, scale)
        for name, scale in (("scale_height", scale_height), ("scale_width", scale_width))
    ]  # fmt: skip
    if mode != "odd_scale" and (mode != "size" or scales[0] is None):
        return None
    if None in scales:
        text = f"expected two numbers for mode {mode!r}, got {scale_height!r}, {scale_width!r}"
        raise TypeError(f"scale_height, scale_width: {text}")
    return scales[0], scales[1]  # type: ignore[return-value]


def _scaled(size: int, factor: float) -> int:
    """Return the length times the factor in float32, rounded toward 0 and limited to 2**30."""
    with np.errstate(all="ignore"):
        length = np.float32(size) * np.float32(factor)
    return int(length) if length < 2**30 else 2**30


def bilinear_resize_backward(
    out_grad: Array,
    data_shape: Sequence[int],
    align_corners: bool = True,
    *,
    backend: str | None = None,
) -> Array:
    """Return the gradient of :func:`bilinear_resize` with respect to ``data``.

    The result has the bits of the gradient of ``mx.nd.contrib.BilinearResize2D`` of MXNet 1.9.1 on
    one thread of a CPU; with more threads, the order of MXNet's sums depends on them. Each output
    adds ``(wy * wx) * g`` to its four pixels: ``g`` is the element of ``out_grad``, ``wy`` and
    ``wx`` are the weights of the pixel. A pixel adds in the order of the outputs, by rows, then
    upper left, upper right, lower left and lower right pixel. Each operation is rounded. The result
    is the same in every run, also on a GPU.

    Args:
        out_grad: the gradient with respect to the result, float32 (N, C, height, width).
        data_shape: the shape of ``data``: (N, C, H, W).
        align_corners: as in :func:`bilinear_resize`.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 of shape ``data_shape``.

    Raises:
        TypeError: ``out_grad`` is not a float32 array; ``data_shape`` has a number that is not an
            integer.
        ValueError: ``out_grad`` does not have four axes, or has no pixels; ``data_shape`` does not
            have four numbers, has another number of images or channels, or has no pixels;
            ``align_corners`` is not a flag; maps have 2**30 elements or more before or after.
    """
    signature = _BACKWARD.signature.get(backend, out_grad=out_grad)
    return signature.run(
        (out_grad,), (_backward_sizes.get(signature.shapes["out_grad"], data_shape, align_corners),)
    )


@_check.memoized
def _backward_sizes(grad_shape: tuple[int, ...], data_shape: Any, align_corners: Any) -> _Sizes:
    images, channels, height, width = grad_shape
    shape = _check.integers("data_shape", data_shape, "(N, C, H, W)", low=0)
    if shape[:2] != (images, channels):
        raise ValueError(
            f"data_shape: expected (N, C, H, W) with (N, C) = {(images, channels)} as in out_grad, "
            f"got {shape}"
        )
    align_corners = _check.flag("align_corners", align_corners)
    sizes = _Sizes(shape[2], shape[3], height, width, align_corners)
    _check_sizes("data_shape", "out_grad", images * channels, sizes)
    return sizes


def _check_sizes(data: str, out: str, planes: int, sizes: _Sizes) -> None:
    """Refuse maps that are empty or too large."""
    for name, height, width in ((data, *sizes[:2]), (out, *sizes[2:4])):
        if min(height, width) < (1 if planes else 0):
            raise ValueError(f"{name}: expected one pixel or more, got {height} x {width}")
        if max(height, 1) * max(width, 1) >= 2**30:
            raise ValueError(f"{name}: expected less than 2**30 pixels, got {height} x {width}")


@_OP.backward()
def _gradient(out_grad: Any, sizes: _Sizes, backend: str | None) -> Any:
    shape = (*out_grad.shape[:2], *sizes[:2])
    return bilinear_resize_backward(out_grad, shape, sizes.align_corners, backend=backend)


_LIKE.backward()(_gradient)


@_OP.mxnet
def _operator(sizes: _Sizes) -> tuple[str, dict[str, Any]]:
    return "BilinearResize2D", {
        "height": sizes.out_height,
        "width": sizes.out_width,
        "align_corners": sizes.align_corners,
    }


@_LIKE.mxnet
def _operator_like(sizes: _Sizes) -> tuple[str, dict[str, Any]]:
    return "BilinearResize2D", {"mode": "like", "align_corners": sizes.align_corners}


class _Axis:
    """The samples of an axis: two pixels and their weights for each output."""

    def __init__(self, size: int, out_size: int, align_corners: bool):
        one = np.float32(1)
        scale = np.float32(0)
        if out_size > 1:
            pixels, steps = (size - 1, out_size - 1) if align_corners else (size, out_size)
            scale = np.float32(pixels) / np.float32(steps)
        outputs = np.arange(out_size)
        if align_corners:
            position = scale * outputs.astype(np.float32)
        else:
            position = (np.float64(scale) * (outputs + 0.5) - 0.5).astype(np.float32)
        position = np.maximum(position, np.float32(0))
        self.low = np.minimum(position.astype(np.int64), size - 1)
        self.high = np.minimum(self.low + 1, size - 1)
        self.high_weight = position - self.low.astype(np.float32)
        self.low_weight = one - self.high_weight


def _axes(sizes: _Sizes) -> tuple[_Axis, _Axis]:
    """Return the axes y and x."""
    return (
        _Axis(sizes.height, sizes.out_height, sizes.align_corners),
        _Axis(sizes.width, sizes.out_width, sizes.align_corners),
    )


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, *args: Any) -> np.ndarray:
    sizes: _Sizes = args[-1]
    shape = (*data.shape[:2], *sizes[2:4])
    if 0 in shape:
        return np.zeros(shape, np.float32)
    if sizes[:2] == sizes[2:4]:
        return np.array(data, order="C")
    y, x = _axes(sizes)
    with np.errstate(all="ignore"):
        rows = x.low_weight * data[..., x.low] + x.high_weight * data[..., x.high]
        upper, lower = rows[:, :, y.low], rows[:, :, y.high]
        return y.low_weight[:, None] * upper + y.high_weight[:, None] * lower


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, sizes: _Sizes) -> np.ndarray:
    grad = np.zeros((*out_grad.shape[:2], *sizes[:2]), np.float32)
    if grad.size == 0 or sizes[:2] == sizes[2:4]:
        return grad + out_grad if grad.size else grad
    y, x = _axes(sizes)
    with np.errstate(all="ignore"):
        for i, j in np.ndindex(*sizes[2:4]):
            for row, row_weight in ((y.low[i], y.low_weight[i]), (y.high[i], y.high_weight[i])):
                for column, weight in ((x.low[j], x.low_weight[j]), (x.high[j], x.high_weight[j])):
                    grad[:, :, row, column] += row_weight * weight * out_grad[:, :, i, j]
    return grad


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, *args: Any) -> np.ndarray:
    sizes: _Sizes = args[-1]
    images, channels = data.shape[:2]
    out = device.empty((images, channels, *sizes[2:4]), np.float32)
    device.ops.bilinear_resize(out, data, images * channels, sizes)
    return out


_LIKE.implementation("numpy")(_numpy)
_LIKE.implementation("native")(_native)


@_BACKWARD.implementation("native")
def _backward_native(device: DeviceOps, out_grad: np.ndarray, sizes: _Sizes) -> np.ndarray:
    images, channels = out_grad.shape[:2]
    grad = device.empty((images, channels, *sizes[:2]), np.float32)
    device.ops.bilinear_resize_backward(grad, out_grad, images * channels, sizes)
    return grad
