"""Bilinear upsampling by an integer factor, and its gradient."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op

Array = TypeVar("Array")
_OP = Op("bilinear_upsample", data="float (N, C, H, W)")
_BACKWARD = Op("bilinear_upsample_backward", out_grad="float (N, C, height, width)")


def bilinear_upsample(data: Array, scale: int, *, backend: str | None = None) -> Array:
    """Enlarge feature maps ``scale`` times by bilinear interpolation.

    The op is the transposed convolution of each channel with the bilinear kernel, which ends a
    fully convolutional network in "Dive into Deep Learning" (``bilinear_kernel``). It is
    ``mx.nd.Deconvolution`` of MXNet 1.9.1 (gluon's ``Conv2DTranspose``) with ``num_group`` = C,
    without a bias, and with

    - kernel ``k = 2 * scale - scale % 2``, stride ``scale``, padding ``scale // 2`` in both
      directions, as ``mx.nd.UpSampling`` has them for "bilinear";
    - weight ``w[i] * w[j]`` at (i, j), where ``w[t] = 1 - abs(t - (k - 1) / 2) / scale``.

    The outside of a map is 0, so the ``scale // 2`` outputs along an edge are smaller.

    The op computes along x, then along y, in the dtype. An output along an axis is ``near * w[t] +
    far * w[t + scale]``, from the one or two pixels next to it. Each operation is rounded, and each
    weight is rounded once. All implementations return the same bits. MXNet multiplies by rounded
    products of two weights and adds in another order. The difference is less than 1e-6 times the
    result of the absolute values. It is zero where no rounding occurs (``scale`` a power of two,
    values that are small integers).

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once).

    Args:
        data: feature maps, float (N, C, H, W).
        scale: the factor for height and width, an integer in [1, 1024].
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float (N, C, scale * H, scale * W). Empty maps give empty maps. Infinity and NaN affect
        the outputs that have a weight for them. A PyTorch result has the gradient of
        :func:`bilinear_upsample_backward`, which has no gradient itself.

    Raises:
        TypeError: ``data`` is not a float array; ``scale`` is not an integer.
        ValueError: ``data`` does not have four axes; ``scale`` is out of range; a map of the result
            has 2**30 elements or more, where an axis of length 0 counts as 1.

    Example:
        >>> data = np.ones((1, 1, 1, 2), np.float32)
        >>> cvops.bilinear_upsample(data, 2)
        array([[[[0.5625, 0.75  , 0.75  , 0.5625],
                 [0.5625, 0.75  , 0.75  , 0.5625]]]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data)
    scale = _check.integer("scale", scale, low=1, high=1024)
    height, width = signature.sizes["H"], signature.sizes["W"]
    if max(height, 1) * max(width, 1) * scale**2 >= 2**30:
        raise ValueError(
            f"data: expected maps that have less than 2**30 elements when enlarged {scale} times, "
            f"got {height} x {width}"
        )
    return signature.run((data,), (scale,))


def bilinear_upsample_backward(out_grad: Array, scale: int, *, backend: str | None = None) -> Array:
    """Return the gradient of :func:`bilinear_upsample` with respect to ``data``.

    It is the exact transpose, as the gradient of ``mx.nd.Deconvolution`` of MXNet 1.9.1: for each
    pixel, the weighted sum of the ``k`` x ``k`` elements of ``out_grad`` that depend on it.

    The op adds along y from the top, then along x from the left, in the dtype. Each operation is
    rounded. All implementations return the same bits in every run. MXNet adds in another order. The
    difference is less than 1e-5 times the result of the absolute values. It is zero where no
    rounding occurs.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once).

    Args:
        out_grad: the gradient with respect to the result, float (N, C, scale * H, scale * W).
        scale: as in :func:`bilinear_upsample`.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float (N, C, H, W).

    Raises:
        TypeError: ``out_grad`` is not a float array; ``scale`` is not an integer.
        ValueError: ``out_grad`` does not have four axes; its last two axes are not multiples of
            ``scale``; a map has 2**30 elements or more; ``scale`` is out of range.
    """
    signature = _BACKWARD.signature.get(backend, out_grad=out_grad)
    scale = _check.integer("scale", scale, low=1, high=1024)
    height, width = signature.sizes["height"], signature.sizes["width"]
    if height % scale or width % scale:
        raise ValueError(
            f"out_grad: expected maps of multiples of scale = {scale}, got {height} x {width}"
        )
    if max(height, scale) * max(width, scale) >= 2**30:
        raise ValueError(
            f"out_grad: expected maps of less than 2**30 elements, got {height} x {width}"
        )
    return signature.run((out_grad,), (scale,))


@_OP.backward()
def _gradient(out_grad: Array, scale: int, backend: str | None) -> Array:
    return bilinear_upsample_backward(out_grad, scale, backend=backend)


@_OP.mxnet
def _operator(scale: int) -> tuple[str, dict[str, Any]]:
    return "bilinear_upsample", {"scale": scale}


def _weights(scale: int, dtype: Any) -> np.ndarray:
    """Return the weights of ``2 * scale`` taps; the last one of an odd scale is 0."""
    t = np.arange(2 * scale)
    numerators = 2 * scale - abs(2 * t - (2 * scale - 1 - scale % 2))
    return numerators.astype(dtype) / np.array(2 * scale, dtype)


def _taps(scale: int) -> int:
    return 2 * scale - scale % 2


def _sizes(small: tuple[int, ...], scale: int) -> tuple[int, int, int, int]:
    """Return the sizes for C++: planes, height, width, scale."""
    images, channels, height, width = small
    return images * channels, height, width, scale


def _large(small: tuple[int, ...], scale: int) -> tuple[int, ...]:
    return *small[:2], small[2] * scale, small[3] * scale


def _small(large: tuple[int, ...], scale: int) -> tuple[int, ...]:
    return *large[:2], large[2] // scale, large[3] // scale


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, scale: int) -> np.ndarray:
    if data.size == 0:
        return np.empty(_large(data.shape, scale), data.dtype)
    along_x = _enlarged(data, scale)
    return np.ascontiguousarray(_enlarged(along_x.swapaxes(2, 3), scale).swapaxes(2, 3))


def _enlarged(data: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge along the last axis."""
    width = data.shape[-1]
    near, tap = np.divmod(np.arange(width * scale) + scale // 2, scale)
    weights = _weights(scale, data.dtype)
    near_weight, far_weight = weights[tap], weights[tap + scale]
    # There is a zero at each end. A far weight of 0 multiplies a zero, not an infinity.
    padded = np.pad(data, [(0, 0)] * 3 + [(1, 1)])
    far = padded[..., np.where(far_weight > 0, near, 0)]
    with np.errstate(all="ignore"):
        return padded[..., near + 1] * near_weight + far * far_weight


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, scale: int) -> np.ndarray:
    if out_grad.size == 0:
        return np.empty(_small(out_grad.shape, scale), out_grad.dtype)
    along_y = _gathered(out_grad.swapaxes(2, 3), scale).swapaxes(2, 3)
    return np.ascontiguousarray(_gathered(along_y, scale))


def _gathered(out_grad: np.ndarray, scale: int) -> np.ndarray:
    """Sum the gradient along the last axis."""
    width = out_grad.shape[-1] // scale
    padded = np.pad(out_grad, [(0, 0)] * 3 + [(scale // 2, scale)])
    grad = np.zeros((*out_grad.shape[:3], width), out_grad.dtype)
    with np.errstate(all="ignore"):
        for t, weight in enumerate(_weights(scale, grad.dtype)[: _taps(scale)]):
            grad += padded[..., t : t + width * scale : scale] * weight
    return grad


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, scale: int) -> np.ndarray:
    out = device.empty(_large(data.shape, scale), data.dtype)
    device.ops.bilinear_upsample(out, data, *_sizes(data.shape, scale))
    return out


@_BACKWARD.implementation("native")
def _backward_native(device: DeviceOps, out_grad: np.ndarray, scale: int) -> np.ndarray:
    grad = device.empty(_small(out_grad.shape, scale), out_grad.dtype)
    device.ops.bilinear_upsample_backward(grad, out_grad, *_sizes(grad.shape, scale))
    return grad
