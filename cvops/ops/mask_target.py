"""Training targets of the masks of regions of interest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check, roi_align
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op(
    "mask_target",
    rois="float32 (B, N, 4)",
    gt_masks="float32 (B, M, H, W)",
    matches="float32 (B, N)",
    cls_targets="float32 (B, N)",
)
_MOST_SAMPLES = 1024

#: ``MaskTargetShape`` of the extension: images, rois, masks, height, width.
_Shape = tuple[int, int, int, int, int]


class _Options(NamedTuple):
    """``MaskTargetOptions`` of the extension."""

    classes: int
    height: int
    width: int
    sample_ratio: int
    aligned: bool


def mask_target(
    rois: Array,
    gt_masks: Array,
    matches: Array,
    cls_targets: Array,
    num_rois: int | None = None,
    num_classes: int | None = None,
    mask_size: Sequence[int] | None = None,
    sample_ratio: int = 2,
    aligned: bool = False,
    *,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """Return the matched mask of each region of interest in a grid of bins, for each class.

    The op is ``mx.nd.contrib.mrcnn_mask_target`` of MXNet 1.9.1, which has it for GPUs only. A mask
    of a roi has the bits of ``mx.nd.contrib.ROIAlign`` on the CPU, for the matched mask with
    ``spatial_scale`` 1: see :func:`roi_align`. It is the same for each class.

    Args:
        rois: float32 (B, N, 4), corners (x1, y1, x2, y2) in pixels of the masks.
        gt_masks: the masks of each image, float32 (B, M, H, W), such as 0 and 1.
        matches: float32 (B, N), the index of the mask of each roi; its fraction is dropped.
        cls_targets: float32 (B, N), the class of each roi, from 0 to ``num_classes`` - 1. Any other
            number, such as -1, is no class.
        num_rois: N, or None.
        num_classes: the number of classes C. It is required.
        mask_size: height h and width w of the grid of bins. It is required.
        sample_ratio: samples of a bin along each axis, at most 1024. 0 or less selects an adaptive
            number: the length of the bin in pixels, rounded up.
        aligned: True subtracts half a pixel from the positions. False enlarges a roi to one pixel
            along an axis where it is shorter or malformed.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        The pair (mask_targets, mask_weights), both float32 (B, N, C, h, w): the mask of each roi,
        for each class, and 1 for the roi's class, 0 for the other classes. The match of a roi
        without a class is clamped to the indices of the masks. Without masks, and of masks without
        pixels, the targets are 0. There is no gradient, and MXNet's is none: PyTorch results do not
        require one. On the CPU the two are parts of one array, which lives until the last of them
        dies.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device; an
            option is missing or not an integer.
        ValueError: the shapes do not agree; ``num_rois`` is not N; ``num_classes`` is not positive;
            ``mask_size`` is not a pair of positive numbers, or has 2**30 bins or more;
            ``sample_ratio`` is above 1024; ``aligned`` is not a flag; a mask has 2**31 pixels or
            more; another axis is 2**31 or more; on the CPU, the match of a roi with a class is not
            an index of ``gt_masks``. MXNet reads out of bounds then. On a GPU this check would need
            a wait: a match below 0 (also NaN, and a number that does not fit into int32) becomes 0
            there, and a match of M or more becomes M - 1.

    Example:
        >>> masks = np.float32([[[[0, 1], [0, 1]]]])  # (images, objects, height, width)
        >>> rois, match = np.float32([[[0, 0, 1, 1]]]), np.zeros((1, 1), np.float32)
        >>> cvops.mask_target(rois, masks, match, match, num_classes=1, mask_size=(1, 2))[0]
        array([[[[[0.25, 0.75]]]]], dtype=float32)
    """
    signature = _OP.signature.get(
        backend, rois=rois, gt_masks=gt_masks, matches=matches, cls_targets=cls_targets
    )
    options = _options.get(
        signature.shapes["gt_masks"], signature.sizes["N"], num_rois, num_classes, mask_size,
        sample_ratio, aligned,
    )  # fmt: skip
    return signature.run((rois, gt_masks, matches, cls_targets), options)


@_check.memoized
def _options(
    shape: tuple[int, ...],
    num: int,
    num_rois: Any,
    num_classes: Any,
    mask_size: Any,
    sample_ratio: Any,
    aligned: Any,
) -> tuple[_Shape, _Options]:
    images, masks, height, width = shape
    if num_rois is not None and _check.integer("num_rois", num_rois) != num:
        raise ValueError(f"num_rois: expected the number of rois, {num}, got {num_rois!r}")
    classes = _check.integer("num_classes", num_classes, 1)
    size = _check.integers("mask_size", mask_size, "a pair (height, width)", low=1)
    if size[0] * size[1] >= 2**30:
        raise ValueError(f"mask_size: expected less than 2**30 bins, got {mask_size!r}")
    options = _Options(
        classes,
        size[0],
        size[1],
        _check.integer("sample_ratio", sample_ratio, high=_MOST_SAMPLES),
        _check.flag("aligned", aligned),
    )
    return (images, num, masks, height, width), options


@_OP.check
def _check_shapes(signature: Signature) -> None:
    for name in ("rois", "gt_masks"):
        _check.sizes_fit(name, signature.shapes[name], *signature.shapes[name])
    shape = signature.shapes["gt_masks"]
    if 0 not in shape and math.prod(shape[2:]) >= 2**31:
        raise ValueError(f"gt_masks: expected masks of less than 2**31 pixels, got shape {shape}")


def _results(shape: _Shape, options: _Options) -> tuple[int, ...]:
    return (*shape[:2], options.classes, options.height, options.width)


@_OP.implementation("numpy")
def _numpy(
    rois: np.ndarray,
    gt_masks: np.ndarray,
    matches: np.ndarray,
    cls_targets: np.ndarray,
    shape: _Shape,
    options: _Options,
) -> tuple[np.ndarray, np.ndarray]:
    images, _, masks, height, width = shape
    targets, weights = np.zeros((2, *_results(shape, options)), np.float32)
    if targets.size == 0:
        return targets, weights
    classes = np.arange(options.classes, dtype=np.float32)
    is_class = cls_targets[..., None] == classes
    weights[:] = is_class[..., None, None]
    with np.errstate(all="ignore"):
        match = np.trunc(matches)
    wrong = np.argwhere(is_class.any(axis=2) & ~((match >= 0) & (match < masks)))
    if len(wrong):
        at = tuple(wrong[0].tolist())
        raise ValueError(
            f"matches: expected an index of {masks} gt_masks where cls_targets is a class, got "
            f"{matches[at]:.9g} in image {at[0]}, roi {at[1]}"
        )
    if masks == 0:
        return targets, weights
    fits = np.abs(match) < 2**31
    match = np.where(fits, match, -1).clip(0, masks - 1).astype(np.float32)
    grid = options.height, options.width
    sizes = masks, 1, height, width, *grid, 1.0, options.sample_ratio, False, options.aligned
    for image in range(images):
        rows = np.concatenate([match[image, :, None], rois[image]], axis=1)
        planes = roi_align.reference(gt_masks[image][:, None], rows, sizes)
        targets[image] = planes
    return targets, weights


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    rois: np.ndarray,
    gt_masks: np.ndarray,
    matches: np.ndarray,
    cls_targets: np.ndarray,
    shape: _Shape,
    options: _Options,
) -> tuple[np.ndarray, np.ndarray]:
    result = _results(shape, options), np.float32
    targets, weights = device.empty_all(result, result)
    if shape[0] * shape[1] > 0:  # without results another size may be more than an int holds
        device.ops.mask_target(
            targets, weights, rois, gt_masks, matches, cls_targets, shape, options
        )
    return targets, weights
