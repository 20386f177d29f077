"""Anchor boxes around each cell of feature maps."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from cvops.arrays import library_of
from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op

Array = TypeVar("Array")
_FEATURES = "shape of float32 (N, C, H, W, ...)"
_OP = Op("multibox_prior", data=_FEATURES, maps=_FEATURES)

#: ``PriorMap`` of the bindings. Steps that are not positive are those of a map from edge to edge.
_MAP = np.dtype(
    [
        ("height", "i4"),
        ("width", "i4"),
        ("shapes", "i4"),
        ("step_y", "f4"),
        ("step_x", "f4"),
        ("offset_y", "f4"),
        ("offset_x", "f4"),
    ]
)
_PACKED = struct.Struct("iiiffff")
_TUPLES = frozenset([tuple])
_STEPS, _OFFSETS = (-1.0, -1.0), (0.5, 0.5)


@overload
def multibox_prior(
    data: Sequence[int],
    sizes: float | Sequence[float] = (1.0,),
    ratios: float | Sequence[float] = (1.0,),
    clip: bool = False,
    steps: Sequence[float] = _STEPS,
    offsets: Sequence[float] = _OFFSETS,
    *,
    like: None = None,
    backend: str | None = None,
) -> np.ndarray: ...
@overload
def multibox_prior(
    data: Sequence[int],
    sizes: float | Sequence[float] = (1.0,),
    ratios: float | Sequence[float] = (1.0,),
    clip: bool = False,
    steps: Sequence[float] = _STEPS,
    offsets: Sequence[float] = _OFFSETS,
    *,
    like: Array,
    backend: str | None = None,
) -> Array: ...
@overload
def multibox_prior(
    data: Array,
    sizes: float | Sequence[float] = (1.0,),
    ratios: float | Sequence[float] = (1.0,),
    clip: bool = False,
    steps: Sequence[float] = _STEPS,
    offsets: Sequence[float] = _OFFSETS,
    *,
    like: Any = None,
    backend: str | None = None,
) -> Array: ...
def multibox_prior(
    data: Any,
    sizes: float | Sequence[float] = (1.0,),
    ratios: float | Sequence[float] = (1.0,),
    clip: bool = False,
    steps: Sequence[float] = _STEPS,
    offsets: Sequence[float] = _OFFSETS,
    *,
    like: Any = None,
    backend: str | None = None,
) -> Any:
    """Return anchor boxes of several shapes around each cell of a feature map.

    The result has the bits of ``mx.nd.contrib.MultiBoxPrior`` of MXNet 1.9.1 on the CPU. A cell has
    S + R - 1 anchors for S sizes and R ratios: each size with ``ratios[0]``, then ``sizes[0]`` with
    each other ratio. The cells are in order of rows. An anchor of size s and ratio r has the width
    ``s * H / W * sqrt(r)`` and the height ``s / sqrt(r)``, relative to the image.

    Args:
        data: the feature map, float32 (N, C, H, W, ...), of which the op reads H and W only; or the
            pair ``(H, W)``.
        sizes: heights of square anchors, relative to the image.
        ratios: ratios of width to height.
        clip: True clips the coordinates to [0, 1]; NaN stays.
        steps: the distance (y, x) between the centers of neighbors, relative to the image;
            (1 / H, 1 / W) if either is not positive.
        offsets: the position (y, x) of a center in its cell, each in [0, 1].
        like: an array that selects the library and the device of the result for a pair ``data``;
            NumPy if None.
        backend: the implementation; by default the best for the array's device.

    Returns:
        float32 (1, H * W * (S + R - 1), 4), corners (x1, y1, x2, y2) relative to the image. A
        negative ratio gives NaN, as in MXNet. There is no gradient, and MXNet's is zero: a PyTorch
        result does not require one.

    Raises:
        TypeError: ``data`` is neither a float32 array nor a pair of integers.
        ValueError: ``data`` has fewer than four axes; H or W is 0; ``sizes`` or ``ratios`` is
            empty; one of ``offsets`` is out of [0, 1]; one of ``steps`` is positive and the other
            negative; there are 2**31 anchors or more.

    Example:
        >>> cvops.multibox_prior((1, 2), sizes=[0.5], ratios=[1])
        array([[[0.125, 0.25 , 0.375, 0.75 ],
                [0.625, 0.25 , 0.875, 0.75 ]]], dtype=float32)
    """
    if _is_pair(data):
        like, map_ = _like(like), _pair("data", data)
        arrays, signature = (like,), _OP.signature.get(backend, like=like)
    else:
        arrays, signature = (data,), _OP.signature.get(backend, data=data)
        map_ = signature.shapes["data"]
    options = (
        (_as_tuple("sizes", sizes),),
        (_as_tuple("ratios", ratios),),
        (_as_tuple("steps", steps, 2),),
        (_as_tuple("offsets", offsets, 2),),
    )
    return signature.run(arrays, (_layout.get(False, (map_,), *options), _check.flag("clip", clip)))


@overload
def multibox_priors(
    maps: Sequence[Sequence[int]],
    sizes: Sequence[float | Sequence[float]],
    ratios: Sequence[float | Sequence[float]],
    clip: bool = False,
    steps: Sequence[Sequence[float]] | None = None,
    offsets: Sequence[Sequence[float]] | None = None,
    *,
    like: None = None,
    backend: str | None = None,
) -> np.ndarray: ...
@overload
def multibox_priors(
    maps: Sequence[Sequence[int]],
    sizes: Sequence[float | Sequence[float]],
    ratios: Sequence[float | Sequence[float]],
    clip: bool = False,
    steps: Sequence[Sequence[float]] | None = None,
    offsets: Sequence[Sequence[float]] | None = None,
    *,
    like: Array,
    backend: str | None = None,
) -> Array: ...
@overload
def multibox_priors(
    maps: Sequence[Array],
    sizes: Sequence[float | Sequence[float]],
    ratios: Sequence[float | Sequence[float]],
    clip: bool = False,
    steps: Sequence[Sequence[float]] | None = None,
    offsets: Sequence[Sequence[float]] | None = None,
    *,
    like: Any = None,
    backend: str | None = None,
) -> Array: ...
def multibox_priors(
    maps: Sequence[Any],
    sizes: Sequence[float | Sequence[float]],
    ratios: Sequence[float | Sequence[float]],
    clip: bool = False,
    steps: Sequence[Sequence[float]] | None = None,
    offsets: Sequence[Sequence[float]] | None = None,
    *,
    like: Any = None,
    backend: str | None = None,
) -> Any:
    """Return the anchor boxes of all feature maps of a detector, on a GPU in one launch.

    The result is the concatenation of the results of :func:`multibox_prior` for each map, and so of
    MXNet 1.9.1, bit for bit. On a GPU, one launch has at most eight maps and 128 shapes of all
    maps.

    Args:
        maps: the feature maps, float32 (N, C, H, W, ...) of one library on one device, of which the
            op reads H and W only; or the pair ``(H, W)`` of each map.
        sizes: for each map the ``sizes`` of :func:`multibox_prior`: a number or a sequence.
        ratios: for each map the ``ratios``: a number or a sequence.
        clip: True clips the coordinates to [0, 1]; NaN stays.
        steps: for each map the distance (y, x) between the centers of neighbors; (1 / H, 1 / W) if
            None or not positive.
        offsets: for each map the position (y, x) of a center in its cell; (0.5, 0.5) if None.
        like: an array that selects the library and the device of the result for pairs ``maps``;
            NumPy if None.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (1, A, 4), corners (x1, y1, x2, y2) relative to the image: the anchors of
        ``maps[0]``, H * W * (S + R - 1) for S sizes and R ratios, then those of ``maps[1]``, ...
        There is no gradient, as in :func:`multibox_prior`.

    Raises:
        TypeError: one of ``maps`` is neither a float32 array nor a pair of integers; they differ in
            library or device.
        ValueError: ``maps`` is empty; another argument does not have one element for each map;
            :func:`multibox_prior` refuses a map; there are 2**31 anchors or more. The message
            names argument and map: ``sizes[2]``.

    Example:
        >>> cvops.multibox_priors([(8, 8), (4, 4)], sizes=[[0.2], [0.5]], ratios=[[1, 2]] * 2).shape
        (1, 160, 4)
    """
    if not hasattr(maps, "__len__") or len(maps) == 0:
        raise ValueError(f"maps: expected one feature map or more, got {maps!r}")
    num = len(maps)
    if _is_pair(next(iter(maps))):
        like, pairs = _like(like), tuple(map(_pair, _names(num), maps))
        arrays, signature = (like,), _OP.signature.get(backend, like=like)
    else:
        arrays = tuple(maps)
        signature = _OP.signature.get(backend, **dict(zip(_names(num), arrays)))
        pairs = tuple(signature.shapes.values())
    options = (
        _for_each_map("sizes", sizes, num),
        _for_each_map("ratios", ratios, num),
        (_STEPS,) * num if steps is None else _for_each_map("steps", steps, num, 2),
        (_OFFSETS,) * num if offsets is None else _for_each_map("offsets", offsets, num, 2),
    )
    return signature.run(arrays, (_layout.get(True, pairs, *options), _check.flag("clip", clip)))


def _is_pair(x: Any) -> bool:
    return library_of(x) is None and (hasattr(x, "__len__") or isinstance(x, (int, float)))


def _like(like: Any) -> Any:
    return np.empty(0, np.float32) if like is None else like


def _pair(name: str, x: Any) -> tuple[int, ...]:
    library = library_of(x)
    if library is not None:
        raise TypeError(f"{name}: expected a pair (height, width) as before, got {library.name}")
    return _check.integers(name, x, "an array or a pair (height, width)", low=1)


@functools.lru_cache(None)
def _names(num: int) -> list[str]:
    return [f"maps[{i}]" for i in range(num)]


def _as_tuple(name: str, x: Any, length: int | None = None) -> tuple[Any, ...]:
    """Return the numbers as a tuple: :func:`_layout` remembers no list. It checks a tuple."""
    return x if type(x) is tuple else _check.numbers(name, x, length)


def _for_each_map(name: str, option: Any, num: int, length: int | None = None) -> tuple[Any, ...]:
    """Return the numbers of each map, as tuples."""
    items = _check.elements(option)
    if items is not option or len(items) != num:
        raise ValueError(f"{name}: expected one for each of {num} maps, got {option!r}")
    if _TUPLES.issuperset(map(type, items)):
        return tuple(items)
    return tuple([_as_tuple(f"{name}[{i}]", x, length) for i, x in enumerate(items)])


class _Layout(NamedTuple):
    """Feature maps, and the shapes of their anchors."""

    #: ``PriorMap`` of each map, as bytes in int32.
    maps: np.ndarray
    #: (size, ratio) of each shape, of one map after another.
    shapes: np.ndarray
    #: The shape of the result.
    out: tuple[int, int, int]


@_check.memoized
def _layout(
    listed: bool, shapes: tuple[tuple[int, ...], ...], *options: tuple[Any, ...]
) -> _Layout:
    """Check the sizes, ratios, steps and offsets of each map, and return the layout.

    ``shapes`` has the shape of each map, or the pair of its height and width. An error names the
    argument, and also the map if the maps are ``listed``.
    """
    maps: list[bytes] = []
    anchors, total = [], 0
    for i, (shape, *of_map) in enumerate(zip(shapes, *options)):
        name, at = (f"maps[{i}]", f"[{i}]") if listed else ("data", "")
        height, width = shape if len(shape) == 2 else shape[2:4]
        if height == 0 or width == 0:
            raise ValueError(f"{name}: expected a height and a width above 0, got {shape}")
        of_cell, centers = _checked.get(at, *of_map)
        total += height * width * len(of_cell)
        if total >= 2**31:
            with_others = ", with those before," if i else ""
            raise ValueError(
                f"{name}: {height} x {width} cells of {len(of_cell)} anchors{with_others} are 2^31 "
                "or more"
            )
        maps.append(_PACKED.pack(height, width, len(of_cell), *centers))
        anchors.append(of_cell)
    all_anchors = np.concatenate(anchors) if len(anchors) > 1 else anchors[0]
    return _Layout(np.frombuffer(b"".join(maps), np.int32), all_anchors, (1, total, 4))


@_check.memoized
def _checked(
    at: str, sizes: Any, ratios: Any, steps: Any, offsets: Any
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return (size, ratio) of each shape of a map, and its steps and offsets (y, x)."""
    sizes, ratios = _check.numbers(f"sizes{at}", sizes), _check.numbers(f"ratios{at}", ratios)
    with np.errstate(over="ignore"):
        step_y, step_x = np.array(_check.numbers(f"steps{at}", steps, 2), np.float32)
    if step_y * step_x < 0:
        raise ValueError(f"steps{at}: expected both positive or neither, got {steps!r}")
    offset_y, offset_x = _check.numbers(f"offsets{at}", offsets, 2)
    for offset in (offset_y, offset_x):
        _check.number(f"offsets{at}", offset, 0, 1)
    shapes = [(size, ratios[0]) for size in sizes] + [(sizes[0], ratio) for ratio in ratios[1:]]
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite
        of_cell = np.array(shapes, np.float32)
    return of_cell, (step_y, step_x, offset_y, offset_x)


def _half_sizes(height: int, width: int, shapes: np.ndarray) -> np.ndarray:
    """Compute half sizes in MXNet's order of operations. A negative ratio gives NaN."""
    size, ratio = shapes.T
    with np.errstate(all="ignore"):
        root = np.sqrt(ratio)
        half_width = size * np.float32(height) / np.float32(width) * root / 2
        return np.stack([half_width, size / root / 2], axis=1)


@_OP.implementation("numpy")
def _numpy(layout: _Layout, clip: bool) -> np.ndarray:
    boxes, shape = [], 0
    for height, width, shapes, step_y, step_x, offset_y, offset_x in layout.maps.view(_MAP):
        if step_y <= 0 or step_x <= 0:
            step_y, step_x = np.float32(1) / np.float32(height), np.float32(1) / np.float32(width)
        y = ((np.arange(height, dtype=np.float32) + offset_y) * step_y)[:, None, None]
        x = ((np.arange(width, dtype=np.float32) + offset_x) * step_x)[None, :, None]
        of_cell = layout.shapes[shape : shape + shapes]
        half_width, half_height = _half_sizes(height, width, of_cell).T
        with np.errstate(all="ignore"):
            corners = x - half_width, y - half_height, x + half_width, y + half_height
        boxes.append(np.stack(np.broadcast_arrays(*corners), axis=-1).reshape(1, -1, 4))
        shape += shapes
    out = np.concatenate(boxes, axis=1)
    return np.where(out < 0, np.float32(0), np.where(out > 1, np.float32(1), out)) if clip else out


@_OP.implementation("native")
def _native(device: DeviceOps, layout: _Layout, clip: bool) -> np.ndarray:
    out = device.empty(layout.out, np.float32)
    device.ops.multibox_prior(out, layout.maps, layout.shapes, clip)
    return out
