"""The detection operators in standard operators of ONNX.

B images, N boxes. A suppression sorts the boxes first. NonMaxSuppression then gets their ranks as
scores, so that the order of equal scores does not depend on the runtime.
"""

from __future__ import annotations

import numpy as np

from cvops.onnx.graph import Graph, Operand
from cvops.onnx.operators import Call, converter
from cvops.ops.multibox_prior import multibox_prior


@converter("_contrib_cvops_MultiBoxPrior", "_contrib_MultiBoxPrior")
def _multibox_prior(graph: Graph, call: Call) -> str:
    """Return the anchors as a constant: they depend only on the size of the map."""
    given = call.options
    known = {name: given[name] for name in ("clip", "steps", "offsets") if name in given}
    sizes, ratios = (call.numbers(name, (1,)).tolist() for name in ("sizes", "ratios"))
    return graph.constant(multibox_prior(call.shapes[0][2:], sizes, ratios, **known))


def _decode(
    graph: Graph, offsets: str, anchors: str, factors: np.ndarray, clip: float, corner: bool
) -> str:
    """Return the boxes (B, N, 4) of offsets (B, N, 4) from anchors (1, N, 4)."""
    center, size = graph.slice(anchors, 2, 0, 2), graph.slice(anchors, 2, 2, 4)
    if corner:
        size = graph.add("Sub", size, center)
        center = graph.add("Add", center, graph.add("Mul", size, np.float32(0.5)))
    offsets = graph.add("Mul", offsets, factors)
    move, scale = graph.slice(offsets, 2, 0, 2), graph.slice(offsets, 2, 2, 4)
    center = graph.add("Add", graph.add("Mul", move, size), center)
    if clip > 0:
        scale = graph.add("Min", scale, np.float32(clip))
    size = graph.add("Mul", graph.add("Exp", scale), size)
    half = graph.add("Mul", size, np.float32(0.5))
    return graph.add(
        "Concat", graph.add("Sub", center, half), graph.add("Add", center, half), axis=2
    )


@converter("_contrib_cvops_box_decode", "_contrib_box_decode")
def _box_decode(graph: Graph, call: Call) -> str:
    offsets, anchors = call.inputs
    factors = np.array([call.get(f"std{i}", 1) for i in range(4)], np.float32)
    corner = call.get("format", "center") == "corner"
    return _decode(graph, offsets, anchors, factors, call.get("clip", -1), corner)


# --- suppression ----------------------------------------------------------------------------------


def _sort(graph: Graph, keys: str, count: int, *values: str) -> list[str]:
    """Return the ``count`` largest keys (B, N), sorted, and the same rows of values (B, N, K).

    Equal keys keep their order.
    """
    keys, order = graph.add_all("TopK", 2, keys, [count], axis=1, largest=1, sorted=1)
    index = graph.unsqueeze(order, -1)
    return [keys, *(graph.add("GatherND", x, index, batch_dims=1) for x in values)]


def _ranks(count: int) -> np.ndarray:
    """Return a positive score for each place of ``count`` sorted boxes, float32 (1, count)."""
    return np.arange(count, 0, -1, dtype=np.float32)[None]


def _survivors(
    graph: Graph, boxes: str, kinds: str, valid: str, count: int, num_classes: int, iou: np.float32
) -> str:
    """Return the boxes that no better box of their class suppresses, bool (B, N).

    Args:
        boxes: float32 (B, N, 4), corners, sorted: the best box is the first.
        kinds: the classes, float32 (B, N).
        valid: the boxes that take part, bool (B, N).
        count: N.
        num_classes: the number of classes.
        iou: a box is suppressed if its IoU with a better one is larger.
    """
    ids = np.arange(num_classes, dtype=np.float32)[:, None]
    mine = graph.add("Equal", graph.unsqueeze(kinds, 1), ids)  # (B, classes, N)
    mine = graph.add("And", mine, graph.unsqueeze(valid, 1))
    scores = graph.add("Where", mine, _ranks(count), np.float32(0))
    chosen = graph.add("NonMaxSuppression", boxes, scores, [count], iou, np.float32(0))
    places = graph.add("Gather", chosen, [0, 2], axis=1)  # rows (image, class, box)
    none = graph.full(graph.shape(kinds), np.float32(0))
    ones = graph.full(graph.shape(chosen, 0, 1), np.float32(1))
    return graph.cast(graph.add("ScatterND", none, places, ones), bool)


@converter("_contrib_cvops_MultiBoxDetection", "_contrib_MultiBoxDetection")
def _multibox_detection(graph: Graph, call: Call) -> str:
    probabilities, offsets, anchors = call.inputs
    (_, num_classes, count), iou = call.shapes[0], np.float32(call.get("nms_threshold", 0.5))
    if not 0 < iou <= 1 or call.get("force_suppress", False) or call.get("nms_topk", -1) > 0:
        raise NotImplementedError("MultiBoxDetection with these options")
    probabilities = graph.slice(probabilities, 1, 1)  # without the background
    scores = graph.add("ReduceMax", probabilities, axes=[1], keepdims=0)
    kinds = graph.add("ArgMax", probabilities, axis=1, keepdims=0)
    threshold = np.float32(call.get("threshold", 0.01))
    valid = graph.add("GreaterOrEqual", scores, threshold)
    factors = call.numbers("variances", (0.1, 0.1, 0.2, 0.2))
    boxes = graph.add("Reshape", offsets, [0, -1, 4])
    boxes = _decode(graph, boxes, anchors, factors, -1, True)
    if call.get("clip", True):
        boxes = graph.add("Clip", boxes, np.float32(0), np.float32(1))
    kinds = graph.unsqueeze(graph.cast(kinds, np.float32), -1)
    keys = graph.add("Where", valid, scores, np.float32(-1))
    keys, kinds, boxes = _sort(graph, keys, count, kinds, boxes)
    valid = graph.add("GreaterOrEqual", keys, threshold)
    # An IoU at MXNet's threshold suppresses; one at ONNX's does not.
    below = np.nextafter(iou, np.float32(0))
    flat = graph.add("Squeeze", kinds, [2])
    kept = _survivors(graph, boxes, flat, valid, count, num_classes - 1, below)
    kinds = graph.add("Where", graph.unsqueeze(kept, -1), kinds, np.float32(-1))
    rows = graph.add("Concat", kinds, graph.unsqueeze(keys, -1), boxes, axis=2)
    return graph.add("Where", graph.unsqueeze(valid, -1), rows, np.float32(-1))


def _suppress_rows(
    graph: Graph,
    rows: Operand,
    valid_thresh: float,
    counts: tuple[int, int],
    num_classes: int,
    iou: float,
) -> str:
    """Return the kept rows (class, score, x1, y1, x2, y2), the best first, then rows of -1.

    Args:
        rows: float32 (B, N, 6).
        valid_thresh: rows with a larger score take part.
        counts: the number of rows that take part, and of rows in the result.
        num_classes: the number of classes.
        iou: a row is suppressed if its IoU with a better one of its class is larger.
    """
    scores = graph.add("Squeeze", graph.slice(rows, 2, 1, 2), [2])
    limit = np.float32(valid_thresh)
    valid = graph.add("Greater", scores, limit)
    keys = graph.add("Where", valid, scores, np.float32(-np.inf))
    keys, rows = _sort(graph, keys, counts[0], str(rows))
    valid = graph.add("Greater", keys, limit)
    boxes = graph.slice(rows, 2, 2, 6)
    kinds = graph.add("Squeeze", graph.slice(rows, 2, 0, 1), [2])
    kept = _survivors(graph, boxes, kinds, valid, counts[0], num_classes, np.float32(iou))
    keys = graph.add("Where", kept, _ranks(counts[0]), np.float32(0))
    keys, rows = _sort(graph, keys, counts[1], rows)
    kept = graph.unsqueeze(graph.add("Greater", keys, np.float32(0)), -1)
    return graph.add("Where", kept, rows, np.float32(-1))


@converter("_contrib_cvops_box_nms", "_contrib_box_nms")
def _box_nms(graph: Graph, call: Call) -> str:
    places = [call.get(x, y) for x, y in (("coord_start", 2), ("score_index", 1), ("id_index", -1))]
    others = call.get("force_suppress", False), call.get("topk", -1) > 0
    if places != [2, 1, 0] or any(others) or call.shapes[0][2] != 6:
        raise NotImplementedError("box_nms with these options")
    count = call.shapes[0][1]
    iou = call.get("overlap_thresh", 0.5)
    limit = call.get("valid_thresh", 0)
    return _suppress_rows(graph, call.inputs[0], limit, (count, count), graph.num_classes, iou)


@converter("_contrib_cvops_multiclass_nms")
def _multiclass_nms(graph: Graph, call: Call) -> str:
    """Return the rows; the counts are not there."""
    boxes, scores = call.inputs
    _, classes, count = call.shapes[1]
    if classes != 1 or call.get("force_suppress", False):
        raise NotImplementedError("multiclass_nms of more than one class")
    scores = graph.add("Transpose", scores, perm=[0, 2, 1])
    kinds = graph.full(graph.shape(scores), np.float32(0))
    rows = graph.add("Concat", kinds, scores, boxes, axis=2)
    limit = min(call.get("topk", 1000), count)
    post = call.get("post_nms", -1)
    counts = limit, limit if post < 0 else min(post, limit)
    iou = call.get("overlap_thresh", 0.5)
    return _suppress_rows(graph, rows, call.get("valid_thresh", 0.01), counts, 1, iou)


# --- pooling --------------------------------------------------------------------------------------


def _pool(graph: Graph, call: Call, align: bool) -> str:
    """Return the features of rois, rows (image, x1, y1, x2, y2); 0 for a negative image."""
    features, rois = call.inputs
    images = graph.slice(rois, 1, 0, 1)
    boxes = graph.slice(rois, 1, 1, 5)
    present = graph.cast(graph.add("GreaterOrEqual", images, np.float32(0)), np.float32)
    images = graph.add("Max", images, np.float32(0))
    scale = float(call.options["spatial_scale"])
    height, width = call.options["pooled_size"]
    if align:
        if call.get("aligned", False) or call.get("position_sensitive", False):
            raise NotImplementedError("ROIAlign with these options")
        pooled = graph.add(
            "RoiAlign",
            *(features, boxes, graph.cast(graph.add("Squeeze", images, [1]), np.int64)),
            output_height=height,
            output_width=width,
            sampling_ratio=max(call.get("sample_ratio", -1), 0),
            spatial_scale=scale,
        )
    else:
        rows = graph.add("Concat", images, boxes, axis=1)
        pooled = graph.add(
            "MaxRoiPool", features, rows, pooled_shape=(height, width), spatial_scale=scale
        )
    return graph.add("Mul", pooled, graph.add("Reshape", present, [-1, 1, 1, 1]))


@converter("_contrib_cvops_ROIAlign", "_contrib_ROIAlign")
def _roi_align(graph: Graph, call: Call) -> str:
    return _pool(graph, call, True)


@converter("_contrib_cvops_ROIPooling", "ROIPooling")
def _roi_pooling(graph: Graph, call: Call) -> str:
    return _pool(graph, call, False)
