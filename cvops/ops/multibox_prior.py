"""Anchor boxes around every cell of feature maps."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, TypeVar, overload

import numpy as np

from cvops.arrays import library_of
from cvops.ops import _check
from cvops.ops._op import DeviceOps, Inputs, Op

Array = TypeVar("Array")
_FEATURES = "shape of float32 (N, C, H, W, ...)"
_OP = Op("multibox_prior", data=_FEATURES, maps=_FEATURES)

#: ``PriorMap`` of the bindings.
_MAP = np.dtype(
    [
        *(("height", "i4"), ("width", "i4"), ("shapes", "i4"), ("step_y", "f4"), ("step_x", "f4")),
        *(("offset_y", "f4"), ("offset_x", "f4")),
    ]
)
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
        that is negative gives NaN, as in MXNet. No gradient, in MXNet too (zeros): a PyTorch tensor
        that comes out does not require one.

    Raises:
        TypeError: ``data`` is neither a float32 array nor a pair of integers.
        ValueError: ``data`` has fewer than four axes, or H or W is 0; ``sizes`` or ``ratios`` is
            empty; ``offsets`` out of [0, 1]; one of ``steps`` positive and the other negative; 2^31
            anchors or more.
    """
    if _is_pair(data):
        inputs, place = _on_kind_of(like, backend), _pair("data", data)
    else:
        inputs = _OP.inputs(backend, data=data)
        place = inputs.shapes["data"]
    options = (
        (_hashable("sizes", sizes),),
        (_hashable("ratios", ratios),),
        (steps if steps is _STEPS else _hashable("steps", steps, 2),),
        (offsets if offsets is _OFFSETS else _hashable("offsets", offsets, 2),),
    )
    return inputs.run(_layout(False, (place,), *options), _check.flag("clip", clip))


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
    """The anchor boxes of all feature maps of a detector, on a GPU by one launch.

    As what :func:`multibox_prior`, and so MXNet 1.9.1, gives for each map, one after another, bit
    for bit. (On a GPU eight maps or 128 shapes, of all maps together, take a launch.)

    Args:
        maps: the feature maps, float32 (N, C, H, W, ...), of which only H and W are read, all of
            one kind and on one device; or the pair ``(H, W)`` of each.
        sizes: for each map what :func:`multibox_prior` takes, as all that follow but ``clip``: a
            number or a sequence of them.
        ratios: for each map a number or a sequence of them.
        clip: whether to clip the coordinates to [0, 1]; NaN stays.
        steps: for each map the distance (y, x) between the centres of neighbours; if None, or not
            positive, (1 / H, 1 / W).
        offsets: for each map where in its cell a centre lies, (y, x); if None, (0.5, 0.5).
        like: an array whose kind and device the result has where ``maps`` are pairs; NumPy if None.
        backend: which implementation; by default the best for the arrays' device.

    Returns:
        float32 (1, A, 4), corners (x1, y1, x2, y2) relative to the image: first the anchors of
        ``maps[0]``, H * W * (S + R - 1) for S sizes and R ratios, then those of ``maps[1]``, ...
        No gradient, as of :func:`multibox_prior`.

    Raises:
        TypeError: one of ``maps`` is neither a float32 array nor a pair of integers; they are of
            several kinds or on several devices.
        ValueError: ``maps`` is empty; another argument has not one element for each map; what
            :func:`multibox_prior` refuses of one map; 2^31 anchors or more in all. The message
            names argument and map: ``sizes[2]``.
    """
    if not hasattr(maps, "__len__") or len(maps) == 0:
        raise ValueError(f"maps: expected one feature map or more, got {maps!r}")
    num = len(maps)
    if _is_pair(next(iter(maps))):
        inputs, places = _on_kind_of(like, backend), tuple(map(_pair, _names(num), maps))
    else:
        inputs = _OP.inputs(backend, **dict(zip(_names(num), maps)))
        places = tuple(inputs.shapes.values())
    options = (
        _of_each("sizes", sizes, num),
        _of_each("ratios", ratios, num),
        (_STEPS,) * num if steps is None else _of_each("steps", steps, num, 2),
        (_OFFSETS,) * num if offsets is None else _of_each("offsets", offsets, num, 2),
    )
    return inputs.run(_layout(True, places, *options), _check.flag("clip", clip))


def _is_pair(x: Any) -> bool:
    return library_of(x) is None and hasattr(x, "__len__")


def _on_kind_of(like: Any, backend: str | None) -> Inputs:
    return _OP.inputs(backend, like=np.empty(0, np.float32) if like is None else like)


def _pair(name: str, x: Any) -> tuple[int, ...]:
    library = library_of(x)
    if library is not None:
        raise TypeError(f"{name}: expected a pair (height, width) as before, got a {library.name}")
    return _check.integers(name, x, "an array or a pair (height, width)", low=1)


@functools.lru_cache(None)
def _names(num: int) -> list[str]:
    return [f"maps[{i}]" for i in range(num)]


def _is_key(x: tuple[Any, ...]) -> bool:
    """True if equal elements mean the same, unlike 1 and True, or 0.0 and -0.0."""
    return 0 not in x and _check.PLAIN.issuperset(map(type, x))


def _hashable(name: str, x: Any, length: int | None = None) -> tuple[float, ...]:
    """``x`` as a part of the key of :func:`_layout`, which checks a tuple of numbers itself."""
    return x if type(x) is tuple and _is_key(x) else _check.numbers(name, x, length)


def _of_each(name: str, option: Any, num: int, length: int | None = None) -> tuple[Any, ...]:
    """The option of each map, hashable."""
    items = _check.elements(option)
    if items is not option or len(items) != num:
        raise ValueError(f"{name}: expected one for each of {num} maps, got {option!r}")
    if _TUPLES.issuperset(map(type, items)) and _is_key(tuple(itertools.chain(*items))):
        return tuple(items)
    return tuple([_hashable(f"{name}[{i}]", x, length) for i, x in enumerate(items)])


class _Layout:
    """Maps, and half the width and height of each shape of their anchors."""

    def __init__(self, maps: list[tuple[Any, ...]], half: list[np.ndarray]):
        self.maps = np.array(maps, _MAP)
        self.half = np.concatenate(half)
        #: Of the result.
        self.shape = 1, sum(height * width * shapes for height, width, shapes, *_ in maps), 4
        #: What the extension takes.
        self.fields = self.maps.view(np.int32).reshape(len(maps), -1), self.half


@functools.lru_cache(256)
def _layout(
    listed: bool, places: tuple[tuple[int, ...], ...], *options: tuple[Any, ...]
) -> _Layout:
    """Of sizes, ratios, steps and offsets of each map, not yet checked.

    A place is a map's shape, or the pair of its height and width. Kept, for a model asks for few.
    An error names the argument, and if they are ``listed`` the map.
    """
    maps: list[tuple[Any, ...]] = []
    halves, total = [], 0
    for i, (place, *of_map) in enumerate(zip(places, *options)):
        name, at = (f"maps[{i}]", f"[{i}]") if listed else ("data", "")
        height, width = place if len(place) == 2 else place[2:4]
        if height == 0 or width == 0:
            raise ValueError(f"{name}: expected a height and a width above 0, got {place}")
        size, ratio, centers = _checked(at, height, width, *of_map)
        total += height * width * len(size)
        if total >= 2**31:
            with_others = ", with those before," if i else ""
            raise ValueError(
                f"{name}: {height} x {width} cells of {len(size)} anchors{with_others} are 2^31 or "
                "more"
            )
        maps.append((height, width, len(size), *centers))
        halves.append(_half_sizes(height, width, size, ratio))
    return _Layout(maps, halves)


def _checked(
    at: str, height: int, width: int, sizes: Any, ratios: Any, steps: Any, offsets: Any
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Size and ratio of each shape of a map, and its steps and offsets (y, x)."""
    sizes, ratios = _check.numbers(f"sizes{at}", sizes), _check.numbers(f"ratios{at}", ratios)
    step_y, step_x = np.array(_check.numbers(f"steps{at}", steps, 2), np.float32)
    if step_y * step_x < 0:
        raise ValueError(f"steps{at}: expected both positive or neither, got {steps!r}")
    if step_y <= 0 or step_x <= 0:
        step_y, step_x = np.float32(1) / np.float32(height), np.float32(1) / np.float32(width)
    offset_y, offset_x = _check.numbers(f"offsets{at}", offsets, 2)
    for offset in (offset_y, offset_x):
        _check.number(f"offsets{at}", offset, 0, 1)
    shapes = [(size, ratios[0]) for size in sizes] + [(sizes[0], ratio) for ratio in ratios[1:]]
    size, ratio = np.array(shapes, np.float32).T
    return size, ratio, (step_y, step_x, offset_y, offset_x)


def _half_sizes(height: int, width: int, size: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """In MXNet's order of operations. A ratio that is negative gives NaN."""
    with np.errstate(all="ignore"):
        root = np.sqrt(ratio)
        half_width = size * np.float32(height) / np.float32(width) * root / 2
        return np.stack([half_width, size / root / 2], axis=1)


@_OP.implementation("numpy")
def _numpy(layout: _Layout, clip: bool) -> np.ndarray:
    boxes, shape = [], 0
    for height, width, shapes, step_y, step_x, offset_y, offset_x in layout.maps:
        y = ((np.arange(height, dtype=np.float32) + offset_y) * step_y)[:, None, None]
        x = ((np.arange(width, dtype=np.float32) + offset_x) * step_x)[None, :, None]
        half_width, half_height = layout.half[shape : shape + shapes].T
        with np.errstate(all="ignore"):
            corners = x - half_width, y - half_height, x + half_width, y + half_height
        boxes.append(np.stack(np.broadcast_arrays(*corners), axis=-1).reshape(1, -1, 4))
        shape += shapes
    out = np.concatenate(boxes, axis=1)
    return np.where(out < 0, np.float32(0), np.where(out > 1, np.float32(1), out)) if clip else out


@_OP.implementation("native")
def _native(device: DeviceOps, layout: _Layout, clip: bool) -> np.ndarray:
    out = device.empty(layout.shape, np.float32)
    device.ops.multibox_prior(out, *layout.fields, clip)
    return out
