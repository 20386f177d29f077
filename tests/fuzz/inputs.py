"""Random calls of each op: valid arguments of all sizes, ties, and odd values in the arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

#: Values that break rules of ordinary arithmetic.
SPECIAL = np.float32([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, -1e-38, 3e38, -3e38, 2**24, 0.5])


class Inputs:
    """Makes the arguments of one call from choices of hypothesis."""

    def __init__(self, draw: Any):
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        #: "plain", "ties" (multiples of 1/8) or "special" (a tenth of the values are odd).
        self.mode = draw(st.sampled_from(["plain", "ties", "special"]))

    def size(self, low: int = 0, high: int = 6) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def options(self, **choices: Any) -> dict[str, Any]:
        """Choose some options; the others have their defaults."""
        return {
            name: self.pick(*values) for name, values in choices.items() if self.draw(st.booleans())
        }

    def floats(self, *shape: int, low: float = 0, high: float = 1) -> np.ndarray:
        x = self.rng.uniform(low, high, shape).astype(np.float32)
        if self.mode == "ties":
            x = np.round(x * 8) / np.float32(8)
        if self.mode == "special":
            odd = self.rng.random(shape) < 0.1
            x[odd] = self.rng.choice(SPECIAL, np.count_nonzero(odd))
        return x

    def integers(self, *shape: int, low: int, high: int) -> np.ndarray:
        return self.rng.integers(low, high, shape, dtype=np.int32)

    def boxes(self, *shape: int, scale: float = 1) -> np.ndarray:
        """Boxes (..., 4); most are not inverted."""
        x = self.floats(*shape, 4, high=scale)
        if self.pick(True, True, False):
            with np.errstate(all="ignore"):
                x[..., 2:] = x[..., :2] + abs(x[..., 2:]) / np.float32(2)
        return x

    def rois(self, num: int, images: int, side: float, scale: float) -> np.ndarray:
        index = self.integers(num, low=-1, high=images + 1).astype(np.float32)
        return np.c_[index, self.boxes(num, scale=side / max(scale, 0.1))]

    def label(self, batch: int, truths: int, classes: int) -> np.ndarray:
        """Ground truths (batch, truths, 5), after them rows of -1."""
        label = np.full((batch, truths, 5), -1, np.float32)
        for rows in label:
            count = self.size(0, truths)
            rows[:count, 0] = self.integers(count, low=0, high=classes)
            rows[:count, 1:] = self.boxes(count)
        return label

    def plain(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return an array without odd values: huge RoIs have too many samples for the reference."""
        mode, self.mode = self.mode, "plain" if self.mode == "special" else self.mode
        made = make()
        self.mode = mode
        return made

    def rotated_boxes(self, *shape: int) -> np.ndarray:
        """Boxes (..., 5) of a center, two sides and an angle; a few sides are negative."""
        x = self.floats(*shape, 5)
        x[..., 2:4] -= np.float32(0.1)
        with np.errstate(all="ignore"):
            x[..., 4] *= self.pick(1, 90, 360, -720)
        return x

    def rows(self, *shape: int, width: int = 6) -> np.ndarray:
        """Rows (..., width) of a class, a score, corners, and more."""
        x = self.floats(*shape, width)
        x[..., 0] = self.integers(*shape, low=-1, high=3)
        x[..., 2:6] = self.boxes(*shape)
        return x


def adaptive_avg_pooling(new: Inputs) -> tuple:
    shape = new.size(0, 2), new.size(0, 3), new.size(1, 9), new.size(1, 9)
    size = new.pick((), 3, (new.size(1, 12), new.size(1, 12)))
    return (new.floats(*shape, low=-1), size), {}


def adaptive_avg_pooling_backward(new: Inputs) -> tuple:
    shape = new.size(0, 2), new.size(0, 3), new.size(1, 5), new.size(1, 5)
    return (new.floats(*shape, low=-1), (*shape[:2], new.size(1, 9), new.size(1, 9))), {}


def bilinear_resize(new: Inputs) -> tuple:
    shape = new.size(0, 2), new.size(0, 3), new.size(1, 9), new.size(1, 9)
    options = new.options(align_corners=[False])
    size = {"height": new.size(1, 12), "width": new.size(1, 12)}
    return (new.floats(*shape, low=-1),), {**size, **options}


def bilinear_resize_backward(new: Inputs) -> tuple:
    shape = new.size(0, 2), new.size(0, 3), new.size(1, 9), new.size(1, 9)
    data_shape = *shape[:2], new.size(1, 9), new.size(1, 9)
    return (new.floats(*shape, low=-1), data_shape), new.options(align_corners=[False])


def bilinear_upsample(new: Inputs) -> tuple:
    shape = new.size(0, 2), new.size(0, 3), new.size(0, 9), new.size(0, 9)
    return (new.floats(*shape, low=-1), new.size(1, 9)), {}


def bilinear_upsample_backward(new: Inputs) -> tuple:
    scale = new.size(1, 6)
    shape = new.size(0, 2), new.size(0, 3), new.size(0, 5) * scale, new.size(0, 5) * scale
    return (new.floats(*shape, low=-1), scale), {}


def bipartite_matching(new: Inputs) -> tuple:
    data = new.floats(new.size(0, 3), new.size(0, 12), new.size(0, 12))
    options = new.options(is_ascend=[True, False], topk=[-1, 0, 1, 3, 100])
    return (data,), {"threshold": new.pick(0, 0.5, -1, 1e-12), **options}


def box_decode(new: Inputs) -> tuple:
    batch, num = new.size(0, 3), new.size(0, 40)
    options = new.options(
        std0=[0.1, 2], std2=[0.2, 3], clip=[-1, 0.5, 10], format=["corner", "center"]
    )
    return (new.floats(batch, num, 4, low=-2, high=2), new.boxes(1, num)), options


def box_encode(new: Inputs) -> tuple:
    batch, num, truths = new.size(0, 3), new.size(0, 40), new.size(1, 5)
    samples = new.integers(batch, num, low=-1, high=2).astype(np.float32)
    matches = new.integers(batch, num, low=0, high=truths).astype(np.float32)
    scale = new.floats(4, low=-0.1, high=0.1), np.float32([0.1, 0.1, 0.2, 0.2])
    return (samples, matches, new.boxes(batch, num), new.boxes(batch, truths), *scale), {}


def box_iou(new: Inputs) -> tuple:
    lhs = new.boxes(*[new.size(0, 9) for _ in range(new.size(1, 2))])
    options = new.options(format=["corner", "center"], kind=["iou", "giou", "diou", "ciou"])
    return (lhs, new.boxes(new.size(0, 40))), options


def box_iou_backward(new: Inputs) -> tuple:
    lhs, rhs = new.boxes(new.size(0, 20)), new.boxes(new.size(0, 30))
    options = new.options(format=["corner", "center"], kind=["iou", "giou", "diou", "ciou"])
    return (new.floats(len(lhs), len(rhs), low=-1), lhs, rhs), options


def box_iou_rotated(new: Inputs) -> tuple:
    lhs = new.rotated_boxes(*[new.size(0, 9) for _ in range(new.size(1, 2))])
    options = new.options(angle=["degrees", "radians"], clockwise=[True, False])
    return (lhs, new.rotated_boxes(new.size(0, 40))), options


def box_nms(new: Inputs) -> tuple:
    rows = new.rows(new.size(0, 3), new.size(0, 70), width=new.size(6, 8))
    options = new.options(
        overlap_thresh=[0, 0.3, 0.7, 1],
        valid_thresh=[-1, 0.1],
        topk=[0, 1, 10],
        id_index=[0],
        background_id=[0],
        force_suppress=[True],
        in_format=["center"],
        out_format=["center"],
    )
    return (rows,), {"return_index": True, **options}


def box_nms_backward(new: Inputs) -> tuple:
    batch, num, width = new.size(0, 3), new.size(0, 20), new.size(5, 7)
    index = np.full((batch, num), -1, np.int32)
    for row in index:
        kept = new.rng.permutation(num)[: new.size(0, num)]
        row[: len(kept)] = kept
    return (new.floats(batch, num, width), index), {}


def confusion_matrix(new: Inputs) -> tuple:
    classes = new.size(1, 30)
    shape = new.size(0, 3), new.size(0, 50), new.size(0, 50)
    pairs = [new.integers(*shape, low=-1, high=classes + 1) for _ in range(2)]
    return (*pairs, classes), new.options(ignore_label=[0, -1, 255])


def deformable_psroi_pooling(new: Inputs) -> tuple:
    (data, rois, scale, dim, pooled, group), _ = psroi_pooling(new)
    part, classes = new.size(1, 3), new.pick(1, dim)
    trans = new.floats(len(rois), 2 * classes, part, part, low=-1)
    options = new.options(sample_per_part=[2, 3], trans_std=[0.1, 1])
    if new.pick(True, False, False):
        trans, options = None, {**options, "no_trans": True}
    return (data, rois, trans, scale, dim, group, pooled), {"part_size": part, **options}


def deformable_psroi_pooling_backward(new: Inputs) -> tuple:
    (data, rois, trans, scale, dim, group, pooled), options = deformable_psroi_pooling(new)
    options.pop("no_trans", None)
    out_grad = new.floats(len(rois), dim, pooled, pooled, low=-1)
    return (out_grad, data, rois, trans, scale, group), options


def label_from_color(new: Inputs) -> tuple:
    colors = new.rng.integers(0, 256, (new.size(1, 40), 3), np.uint8)
    pixels = new.rng.integers(0, 256, (new.size(0, 30), new.size(0, 30), 3), np.uint8)
    if len(colors):
        known = new.rng.random(pixels.shape[:2]) < 0.8
        pixels[known] = colors[new.rng.integers(0, len(colors), np.count_nonzero(known))]
    return (pixels, colors), new.options(unknown=[-1, 255])


def mask_target(new: Inputs) -> tuple:
    batch, num, masks, classes = new.size(0, 2), new.size(0, 6), new.size(1, 3), new.size(1, 4)
    rois = new.plain(lambda: new.boxes(batch, num, scale=12))
    matches = new.integers(batch, num, low=0, high=masks).astype(np.float32)
    classes_of = new.integers(batch, num, low=-1, high=classes).astype(np.float32)
    options = new.options(sample_ratio=[-1, 1, 3], aligned=[True])
    given = rois, new.floats(batch, masks, new.size(1, 12), new.size(1, 12)), matches, classes_of
    return given, {"num_classes": classes, "mask_size": (new.size(1, 4), new.size(1, 4)), **options}


def match_anchors(new: Inputs) -> tuple:
    batch, num = new.pick((), (2,), (1, 3)), new.size(0, 80)
    own = new.pick((), (1,), batch)
    options = new.options(
        high_threshold=[0, 0.3, 1],
        allow_low_quality_matches=[True],
        match_best_anchors=[True],
    )
    if options.get("high_threshold", 0.5) and new.pick(True, False):
        options["low_threshold"] = new.pick(0, 0.1, None)
    return (new.boxes(*own, num), new.boxes(*batch, new.size(0, 9))), options


def matrix_nms(new: Inputs) -> tuple:
    rows = new.rows(new.size(0, 3), new.size(0, 70), width=new.size(6, 8))
    return (rows,), {"return_index": True, **soft_options(new), **new.options(post_thresh=[0.2])}


def multibox_detection(new: Inputs) -> tuple:
    batch, classes, num = new.size(0, 3), new.size(1, 5), new.size(0, 60)
    options = new.options(
        clip=[False],
        threshold=[-1, 0, 0.5],
        nms_threshold=[0, 0.3, 1],
        force_suppress=[True],
        nms_topk=[0, 1, 10],
        variances=[(0.2, 0.2, 0.1, 0.1)],
    )
    offsets = new.floats(batch, 4 * num, low=-2, high=2)
    return (new.floats(batch, classes, num), offsets, new.boxes(1, num)), options


def multibox_prior(new: Inputs) -> tuple:
    data = np.zeros((1, 1, new.size(1, 9), new.size(1, 9)), np.float32)
    options = new.options(
        sizes=[(0.5,), (0.2, 0.3), (1, 0.1, 1e-3)],
        ratios=[(2,), (1, 2, 0.5)],
        clip=[True],
        steps=[(0.1, 0.2)],
        offsets=[(0, 1)],
    )
    return (data,), options


def multibox_target(new: Inputs) -> tuple:
    batch, classes, num, truths = new.size(0, 3), new.size(2, 5), new.size(1, 60), new.size(0, 6)
    label = new.label(batch, truths, classes - 1)
    options = new.options(
        overlap_threshold=[0, 0.3, 0.7],
        ignore_label=[-2],
        negative_mining_ratio=[0, 1, 3],
        negative_mining_thresh=[0.3, 1],
        minimum_negative_samples=[0, 5],
    )
    return (new.boxes(1, num), label, new.floats(batch, classes, num, low=-4, high=4)), options


def multiclass_nms(new: Inputs) -> tuple:
    batch, classes, num = new.size(0, 2), new.size(1, 4), new.size(0, 60)
    options = new.options(
        overlap_thresh=[0, 0.3, 0.9],
        valid_thresh=[-1, 0, 0.5],
        topk=[1, 10],
        post_nms=[1, 20],
        background_id=[0],
        force_suppress=[True],
        in_format=["center"],
    )
    return (new.boxes(batch, num), new.floats(batch, classes, num)), options


def nms_rotated(new: Inputs) -> tuple:
    batch, num = new.size(0, 3), new.size(0, 70)
    rows = np.concatenate([new.rows(batch, num)[..., :2], new.rotated_boxes(batch, num)], axis=-1)
    options = new.options(
        overlap_thresh=[-1, 0, 0.3, 0.7, 1],
        valid_thresh=[-1, 0.1],
        topk=[0, 1, 10],
        id_index=[0],
        background_id=[0],
        force_suppress=[True],
        angle=["radians"],
        clockwise=[True],
    )
    return (rows,), {"return_index": True, **options}


def paste_masks(new: Inputs) -> tuple:
    num = new.size(0, 5)
    masks = new.floats(num, new.size(1, 6), new.size(1, 6))
    boxes = new.boxes(num, scale=20)
    return (masks, boxes, (new.size(0, 20), new.size(0, 20))), new.options(threshold=[0, 0.3, 1])


def proposal(new: Inputs) -> tuple:
    scales, ratios = new.pick((4,), (0.5, 8)), new.pick((1,), (0.5, 1, 2))
    anchors, height, width = len(scales) * len(ratios), new.size(1, 5), new.size(1, 5)
    scores = new.floats(1, 2 * anchors, height, width)
    offsets = new.floats(1, 4 * anchors, height, width, low=-1)
    options = new.options(
        rpn_pre_nms_top_n=[1, 10, 6000],
        threshold=[0, 0.5],
        rpn_min_size=[0, 30],
        output_score=[True],
        iou_loss=[True],
    )
    info = np.float32([[16 * height, 16 * width - 3, 1]])
    sizes = {"scales": scales, "ratios": ratios, "rpn_post_nms_top_n": new.size(1, 40)}
    return (scores, offsets, info), {**sizes, **options}


def psroi_pooling(new: Inputs) -> tuple:
    dim, pooled, group = new.size(1, 2), new.size(1, 3), new.size(1, 3)
    images, side, scale = new.size(1, 2), new.size(1, 12), new.pick(1, 0.5, 0.0625)
    data = new.floats(images, dim * group**2, side, new.size(1, 12), low=-1)
    rois = new.plain(lambda: new.rois(new.size(0, 6), images, side, scale))
    return (data, rois, scale, dim, pooled, group), {}


def psroi_pooling_backward(new: Inputs) -> tuple:
    (data, rois, scale, dim, pooled, group), _ = psroi_pooling(new)
    out_grad = new.floats(len(rois), dim, pooled, pooled, low=-1)
    return (out_grad, rois, data.shape, scale), {"group_size": group}


def rcnn_target(new: Inputs) -> tuple:
    batch, num = new.size(0, 3), new.size(0, 40)
    label = new.label(batch, new.size(0, 5), 4)
    noise = new.floats(batch, num + label.shape[1])
    options = new.options(pos_iou_thresh=[0.3, 0.7], pos_ratio=[0, 0.5, 1])
    return (new.boxes(batch, num), label, noise), {"num_sample": new.size(1, 20), **options}


def roi_align(new: Inputs) -> tuple:
    pooled = new.size(1, 3), new.size(1, 3)
    options = new.options(sample_ratio=[-1, 1, 3], position_sensitive=[True], aligned=[True])
    channels = new.size(1, 2) * (pooled[0] * pooled[1] if "position_sensitive" in options else 1)
    images, side, scale = new.size(1, 2), new.size(1, 12), new.pick(1, 0.5, 0.0625)
    data = new.floats(images, channels, side, new.size(1, 12), low=-1)
    rois = new.plain(lambda: new.rois(new.size(0, 6), images, side, scale))
    return (data, rois, pooled, scale), options


def roi_align_backward(new: Inputs) -> tuple:
    (data, rois, pooled, scale), options = roi_align(new)
    bins = pooled[0] * pooled[1] if "position_sensitive" in options else 1
    out_grad = new.floats(len(rois), data.shape[1] // bins, *pooled, low=-1)
    return (out_grad, rois, data.shape, scale), options


def roi_pooling(new: Inputs) -> tuple:
    images, side, scale = new.size(1, 2), new.size(1, 12), new.pick(1, 0.5, 0.0625)
    data = new.floats(images, new.size(1, 3), side, new.size(1, 12), low=-1)
    rois = new.rois(new.size(0, 6), images, side, scale)
    return (data, rois, (new.size(1, 4), new.size(1, 4)), scale), {"return_argmax": True}


def roi_pooling_backward(new: Inputs) -> tuple:
    shape = new.size(1, 2), new.size(1, 3), new.size(1, 8), new.size(1, 8)
    out = new.size(0, 9), shape[1], new.size(1, 3), new.size(1, 3)
    argmax = new.integers(*out, low=-1, high=int(np.prod(shape)) + 3)
    return (new.floats(*out, low=-1), argmax, shape), {}


def rpn_target(new: Inputs) -> tuple:
    batch, num = new.size(0, 3), new.size(1, 60)
    label = new.label(batch, new.size(0, 5), 4)
    options = new.options(pos_iou_thresh=[0.5], neg_iou_thresh=[0.1], pos_ratio=[0, 1])
    given = new.boxes(num), label, new.floats(batch, num)
    return given, {"num_sample": new.size(1, 40), **options}


def rroi_align(new: Inputs) -> tuple:
    images, side, scale = new.size(1, 2), new.size(1, 12), new.pick(1, 0.5)
    data = new.floats(images, new.size(1, 3), side, new.size(1, 12), low=-1)
    num = new.size(0, 6)
    rois = new.plain(lambda: new.rois(num, images, side, scale))
    turned = np.c_[rois, new.plain(lambda: new.floats(num, low=-500, high=500))]
    pooled = new.size(1, 3), new.size(1, 3)
    return (data, turned.astype(np.float32), pooled, scale), new.options(sampling_ratio=[-1, 1, 3])


def soft_options(new: Inputs) -> dict:
    return new.options(
        method=["linear", "gaussian"],
        sigma=[0.1, 2],
        valid_thresh=[0, 0.3],
        topk=[0, 1, 10],
        post_nms=[1, 20],
        id_index=[0],
        background_id=[0],
        force_suppress=[True],
        in_format=["center"],
    )


def soft_nms(new: Inputs) -> tuple:
    rows = new.rows(new.size(0, 3), new.size(0, 70), width=new.size(6, 8))
    options = {**soft_options(new), **new.options(overlap_thresh=[0, 0.7])}
    return (rows,), {"return_index": True, **options}


def weighted_boxes_fusion(new: Inputs) -> tuple:
    rows = new.rows(new.size(0, 3), new.size(0, 70), width=new.size(6, 8))
    options = new.options(
        overlap_thresh=[0, 0.2, 1],
        num_models=[2, 5],
        score_type=["max"],
        valid_thresh=[0.3],
        topk=[0, 1, 10],
        post_nms=[1, 20],
        id_index=[0],
        background_id=[0],
        force_suppress=[True],
        in_format=["center"],
    )
    return (rows,), options
