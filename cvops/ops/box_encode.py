"""Training targets of matched anchors: offsets to their boxes."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from cvops.ops import _check, _exp_log
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op(
    "box_encode",
    samples="float (B, N)",
    matches="float (B, N)",
    anchors="float (B, N, 4)",
    refs="float (B, M, 4)",
    means="float (4,)",
    stds="float (4,)",
)


def box_encode(
    samples: Array,
    matches: Array,
    anchors: Array,
    refs: Array,
    means: Array,
    stds: Array,
    *,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """Return the offsets from positive anchors to their matched boxes, and a mask.

    The op is ``mx.nd.contrib.box_encode`` of MXNet 1.9.1 on the CPU, bit for bit except for
    offsets that depend on log. These are computed in double, as in MXNet, and rounded once: few
    differ from MXNet's, in the last place. The result is the same on every device.

    An anchor is positive if its sample is above 0.5. For an anchor with the center (ax, ay) and the
    size (aw, ah), and a box with the center (x, y) and the size (w, h), the offsets are
    (((x - ax) / aw - means[0]) / stds[0], ((y - ay) / ah - means[1]) / stds[1],
    (log(w / aw) - means[2]) / stds[2], (log(h / ah) - means[3]) / stds[3]).

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once).

    Args:
        samples: float (B, N), such as 1 for positive, -1 for negative, 0 for ignored anchors.
        matches: float (B, N), the index of the matched box of each positive anchor; its fraction
            is dropped. The matches of the other anchors do not matter.
        anchors: float (B, N, 4), corners (x1, y1, x2, y2) in any unit.
        refs: boxes of each image, float (B, M, 4), corners in the anchors' unit.
        means: the means of the four offsets, float (4,).
        stds: the standard deviations of the four offsets, float (4,).
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        Targets and masks, both float (B, N, 4): the offsets and 1 for each positive
        anchor, 0 for the other anchors. A box without width or height has the offset -inf, an
        inverted one NaN. Empty inputs give empty results. There is no gradient, and MXNet's is
        zero: PyTorch results do not require one. On the CPU the two are parts of one array, which
        lives until the last of them dies.

    Raises:
        TypeError: an input is not a float array; the inputs differ in library or device.
        ValueError: the shapes do not agree; an axis is 2**31 or more; on the CPU, the match of a
            positive anchor is not an index of ``refs``. MXNet reads out of bounds then. On a GPU
            this check would need a wait: a match below 0 (also NaN, and a number that does not fit
            into int32) becomes 0 there, a match of M or more becomes M - 1, and without boxes all
            results are 0.

    Example:
        >>> anchors, boxes = np.float32([[[0, 0, 2, 2]]]), np.float32([[[1, 0, 3, 2]]])
        >>> positive, matches = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
        >>> means, stds = np.zeros(4, np.float32), np.full(4, 0.5, np.float32)
        >>> cvops.box_encode(positive, matches, anchors, boxes, means, stds)[0]
        array([[[1., 0., 0., 0.]]], dtype=float32)
    """
    arrays = samples, matches, anchors, refs, means, stds
    signature = _OP.signature.get(
        backend,
        samples=samples,
        matches=matches,
        anchors=anchors,
        refs=refs,
        means=means,
        stds=stds,
    )
    return signature.run(arrays, ())


@_OP.check
def _check_shapes(signature: Signature) -> None:
    _check.sizes_fit("anchors", signature.shapes["anchors"], *signature.shapes["anchors"])
    _check.sizes_fit("refs", signature.shapes["refs"], *signature.shapes["refs"])


@_OP.implementation("numpy")
def _numpy(
    samples: np.ndarray,
    matches: np.ndarray,
    anchors: np.ndarray,
    refs: np.ndarray,
    means: np.ndarray,
    stds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    targets, masks = np.zeros_like(anchors), np.zeros_like(anchors)
    with np.errstate(all="ignore"):
        image, anchor = np.nonzero(samples > 0.5)
        match = np.trunc(matches[image, anchor])
    wrong = np.flatnonzero(~((match >= 0) & (match < refs.shape[1])))
    if len(wrong):
        at = image[wrong[0]], anchor[wrong[0]]
        raise ValueError(
            f"matches: expected an index of {refs.shape[1]} refs where samples is positive, got "
            f"{matches[at]:.9g} in image {at[0]}, anchor {at[1]}"
        )
    with np.errstate(all="ignore"):
        center, size = _center(anchors[image, anchor])
        ref_center, ref_size = _center(refs[image, match.astype(np.int64)])
        targets[image, anchor, :2] = ((ref_center - center) / size - means[:2]) / stds[:2]
        # MXNet computes these offsets in double and rounds once.
        logs = _exp_log.log_in_double(ref_size / size)
        targets[image, anchor, 2:] = (logs - means[2:]) / stds[2:]
    masks[image, anchor] = 1
    return targets, masks


def _center(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centers and sizes of boxes in corner format."""
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size * np.float32(0.5), size


@_OP.implementation("native")
def _native(device: DeviceOps, *inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, _, anchors, *_ = inputs
    targets, masks = device.empty_all(*[(anchors.shape, anchors.dtype)] * 2)
    device.ops.box_encode(targets, masks, *inputs)
    return targets, masks
