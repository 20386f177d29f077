"""Boxes that may contain an object, without training: selective search.

After Uijlings, van de Sande, Gevers and Smeulders, "Selective Search for Object Recognition", 2013.
Boxes are (x1, y1, x2, y2), corners, in pixels; x2 and y2 are exclusive.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvops._imports import optional
from cvops.images import as_numpy
from cvops.ops._check import integer, number, numbers

_COLOR_BINS = 25  # per channel
_ANGLES, _STRENGTHS = 8, 10  # bins of the direction and of the length of a gradient


def selective_search(
    image: Any,
    scales: Sequence[float] = (50, 100, 200, 400),
    sigma: float = 0.8,
    min_size: int = 20,
    min_side: int = 4,
    most: int | None = None,
) -> np.ndarray:
    """Return boxes of the regions of an image.

    For each scale, scikit-image's ``felzenszwalb`` divides the image into regions. The two most
    similar neighbors are merged, until one region is left. Each region, before and after merging,
    gives its box. The similarity is the sum of four terms of 0 to 1: the intersections of the
    histograms of colors (HSV) and of gradients, a term that merges small regions first, and one for
    regions that fill their box together.

    Args:
        image: RGB, uint8 (height, width, 3), an array of NumPy or MXNet, or a Pillow image.
        scales: scales of ``felzenszwalb``: a larger scale gives larger regions.
        sigma: standard deviation of the smoothing before the segmentation, in pixels.
        min_size: minimum area of the first regions, in pixels.
        min_side: minimum width and height of a box, in pixels.
        most: maximum number of boxes; no maximum by default.

    Returns:
        float32 (n, 4), different boxes. Boxes of regions that were merged late come first, for all
        scales alternately: they are the larger ones.

    Raises:
        TypeError: an option is not a number.
        ValueError: ``image`` is not an RGB image, or an option is out of range.
    """
    with optional():
        from skimage.segmentation import felzenszwalb

    pixels = as_numpy(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(
            f"image: expected uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}"
        )
    scales, sigma = numbers("scales", scales), number("sigma", sigma, 0)
    if min(scales) <= 0:
        raise ValueError(f"scales: expected numbers above 0, got {scales}")
    min_size, min_side = integer("min_size", min_size, 0), integer("min_side", min_side, 0)
    limit = None if most is None else integer("most", most, 0)
    bins = _bins(pixels)
    orders = []
    for scale in scales:
        labels = felzenszwalb(pixels, scale=scale, sigma=sigma, min_size=min_size)
        orders.append(_merged_boxes(labels, bins)[::-1])
    longest = max(map(len, orders))
    boxes = [order[i] for i in range(longest) for order in orders if i < len(order)]
    large = (box for box in boxes if min(box[2] - box[0], box[3] - box[1]) >= min_side)
    different = list(dict.fromkeys(large))[:limit]
    return np.array(different, np.float32).reshape(-1, 4)


def _bins(pixels: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Return for each histogram the bin of each pixel, (height, width), and the number of bins."""
    with optional():
        from skimage.color import rgb2hsv
        from skimage.filters import gaussian

    result: list[tuple[np.ndarray, int]] = []
    for channel in np.moveaxis(rgb2hsv(pixels), 2, 0):
        result.append(
            ((channel * _COLOR_BINS).astype(np.intp).clip(0, _COLOR_BINS - 1), _COLOR_BINS)
        )
    smooth = gaussian(pixels, sigma=1, channel_axis=2)
    for channel in np.moveaxis(smooth, 2, 0):
        dy, dx = (_difference(channel, axis) for axis in (0, 1))
        angle = ((np.arctan2(dy, dx) / (2 * np.pi) % 1) * _ANGLES).astype(np.intp) % _ANGLES
        strength = (np.hypot(dx, dy) * 4 * _STRENGTHS).astype(np.intp).clip(0, _STRENGTHS - 1)
        result.append((angle * _STRENGTHS + strength, _ANGLES * _STRENGTHS))
    return result


def _difference(channel: np.ndarray, axis: int) -> np.ndarray:
    """Return the derivative along an axis; 0 on an axis of one pixel."""
    if channel.shape[axis] == 1:
        return np.zeros_like(channel)
    return np.asarray(np.gradient(channel, axis=axis))


def _histograms(labels: np.ndarray, count: int, bins: Sequence[tuple[np.ndarray, int]]) -> Any:
    """Return the histogram of each region, (count, all bins), of sum 1 for each quantity."""
    parts = []
    for index, length in bins:
        flat = np.bincount((labels * length + index).ravel(), minlength=count * length)
        parts.append(flat.reshape(count, length))
    sizes = np.bincount(labels.ravel(), minlength=count)
    return np.concatenate(parts, axis=1) / sizes[:, None]


def _neighbors(labels: np.ndarray) -> set[tuple[int, int]]:
    """Return the pairs (a, b), a < b, of regions with adjacent pixels."""
    pairs = [(labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])]
    both = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
    both = np.unique(np.sort(both[both[:, 0] != both[:, 1]], axis=1), axis=0)
    return {(int(a), int(b)) for a, b in both}


def _first_boxes(labels: np.ndarray, count: int) -> list[tuple[int, ...]]:
    y, x = np.indices(labels.shape)
    corners = []
    for position, pick in ((x, np.minimum), (y, np.minimum), (x, np.maximum), (y, np.maximum)):
        start = max(labels.shape) if pick is np.minimum else -1
        corner = np.full(count, start, np.intp)
        pick.at(corner, labels.ravel(), position.ravel())
        corners.append(corner + (pick is np.maximum))
    return [tuple(box) for box in np.stack(corners, axis=1).tolist()]


def _merged_boxes(
    labels: np.ndarray, bins: Sequence[tuple[np.ndarray, int]]
) -> list[tuple[int, ...]]:
    """Merge neighbors greedily, and return the box of each region in the order of its creation."""
    count, area = int(labels.max()) + 1, labels.size
    histograms = list(_histograms(labels, count, bins))
    sizes = np.bincount(labels.ravel(), minlength=count).tolist()
    boxes = _first_boxes(labels, count)
    terms = len(bins) // 2  # half of the histograms are of colors, the other half of gradients
    near: dict[int, set[int]] = {region: set() for region in range(count)}
    queue: list[tuple[float, int, int]] = []

    def add(a: int, b: int) -> None:
        near[a].add(b)
        near[b].add(a)
        size = sizes[a] + sizes[b]
        x1, y1, x2, y2 = _union(boxes[a], boxes[b])
        common = float(np.minimum(histograms[a], histograms[b]).sum()) / terms
        similarity = common + (1 - size / area) + (1 - ((x2 - x1) * (y2 - y1) - size) / area)
        heapq.heappush(queue, (-similarity, a, b))

    for pair in sorted(_neighbors(labels)):
        add(*pair)
    while queue:
        _, a, b = heapq.heappop(queue)
        if a not in near or b not in near:  # already merged
            continue
        size = sizes[a] + sizes[b]
        histograms.append((sizes[a] * histograms[a] + sizes[b] * histograms[b]) / size)
        sizes.append(size)
        boxes.append(_union(boxes[a], boxes[b]))
        others = sorted((near.pop(a) | near.pop(b)) - {a, b})
        region = len(boxes) - 1
        near[region] = set()
        for other in others:
            near[other] -= {a, b}
            add(other, region)
    return boxes


def _union(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
