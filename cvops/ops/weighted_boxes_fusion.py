"""Fusion of the boxes of several models."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._nms_rows import Columns, check_sets, columns_of, fitted
from cvops.ops._op import DeviceOps, Op
from cvops.ops.box_iou import _intersection, _sized
from cvops.ops.box_nms import _candidates, _truncated

Array = TypeVar("Array")
_OP = Op("weighted_boxes_fusion", data="float32 (..., N, K)")


class _Options(NamedTuple):
    """The options of the implementations, in the order of the extension's parameters."""

    #: ``NmsColumns``: the width of a row, the columns of score, first coordinate and class.
    columns: Columns
    valid_thresh: float
    background_id: float
    #: The maximum number of candidates.
    topk: int
    #: ``BoxFusion``: threshold, num_models, best_score, by_class, center.
    op: tuple[float, int, bool, bool, bool]
    #: The number of rows of a set in the result.
    rows: int


def weighted_boxes_fusion(
    data: Array,
    overlap_thresh: float = 0.55,
    num_models: int = 1,
    score_type: str = "avg",
    valid_thresh: float = 0,
    topk: int = -1,
    post_nms: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    *,
    backend: str | None = None,
) -> Array:
    """Fuse boxes of several models that overlap: Weighted Boxes Fusion (Solovyev et al., 2019).

    The candidates are the rows with a score above ``valid_thresh``, of all models. Only the first
    ``topk`` candidates by score remain; equal scores are in the order of ``data``. Each candidate,
    the best first, joins the cluster of its class whose fused box has the highest IoU with it, if
    that IoU is above ``overlap_thresh``; of equal IoUs, the first cluster. Else it begins a
    cluster. The fused box of a cluster is the mean of its boxes, weighted by their scores.

    The score of a cluster of T boxes is the mean of their scores, times min(T, ``num_models``) /
    ``num_models``: a box that few models find has a lower score. MXNet 1.9.1 has no such op. The
    rules are those of the authors' package ``ensemble_boxes``. The weight of a model is a factor
    of the scores in ``data``.

    All operations are rounded to float32, and sums are in the order of the scores. IoUs have the
    bits of :func:`box_nms`; a NaN matches nothing. The result is the same on every device. The time
    grows with the number of candidates times the number of clusters, so ``topk`` limits it.

    Args:
        data: float32 (..., N, K): sets of N rows of K numbers. Each leading index is one set.
        overlap_thresh: the IoU above which a box joins a cluster, in [0, 1].
        num_models: the number of models, 1 or more.
        score_type: "avg" for the mean of the scores, "max" for the highest one instead.
        valid_thresh: the score that a row must exceed; 0 or more.
        topk: the maximum number of candidates in a set; no maximum if negative.
        post_nms: the maximum number of rows of a set in the result; N if negative.
        coord_start: the column of the first of the four coordinates, which have any unit.
        score_index: the column of the score.
        id_index: the column of the class, or -1. Classes are equal if their integer parts are.
        background_id: rows of this class are not candidates; -1 excludes the class -1.
        force_suppress: True also fuses boxes of different classes.
        in_format: "corner" for (x1, y1, x2, y2), "center" for (x, y, width, height).
        backend: the implementation; by default the best for the array's device.

    Returns:
        float32 (..., R, K), with R = ``post_nms``, or N if it is negative or larger: a row for each
        cluster, the highest score first, then rows of -1. Equal scores are in the order of the
        clusters. The columns beside the box and the score are those of the cluster's best box.
        There is no gradient: a PyTorch result does not require one. A GPU reads no value back, so a
        CUDA graph can capture the call.

    Raises:
        TypeError: ``data`` is not a float32 array; an argument is not a number.
        ValueError: ``data`` has fewer than two axes; K is too small, or 2**31 or more; N is 65535 *
            256 or more; there are 2**31 sets or more that are not empty; a column is out of range
            or used twice; ``score_type`` or ``in_format`` is unknown; ``overlap_thresh`` is out of
            [0, 1]; ``valid_thresh`` is negative or NaN; ``num_models`` is not positive.

    Example:
        >>> rows = np.float32([[0, 0.75, 0, 0, 4, 4], [0, 0.25, 0, 0, 4, 3]])
        >>> cvops.weighted_boxes_fusion(rows, num_models=2, id_index=0)
        array([[ 0.  ,  0.5 ,  0.  ,  0.  ,  4.  ,  3.75],
               [-1.  , -1.  , -1.  , -1.  , -1.  , -1.  ]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data)
    options = _fitted.get(
        signature.shapes["data"], overlap_thresh, num_models, score_type, valid_thresh, topk,
        post_nms, coord_start, score_index, id_index, background_id, force_suppress, in_format,
    )  # fmt: skip
    return signature.run((data,), (options,))


@_check.memoized
def _fitted(shape: tuple[int, ...], *options: Any) -> _Options:
    """Return the options for ``data`` of a shape."""
    return fitted(_options.get(*options), shape)


@_check.memoized
def _options(
    overlap_thresh: Any,
    num_models: Any,
    score_type: Any,
    valid_thresh: Any,
    topk: Any,
    post_nms: Any,
    coord_start: Any,
    score_index: Any,
    id_index: Any,
    background_id: Any,
    force_suppress: Any,
    in_format: Any,
) -> _Options:
    columns = columns_of(coord_start, score_index, id_index)
    best_score = _check.choice("score_type", score_type, ("avg", "max")) == "max"
    center = _check.choice("in_format", in_format, ("corner", "center")) == "center"
    by_class = not _check.flag("force_suppress", force_suppress) and columns[3] >= 0
    return _Options(
        columns,
        _check.number("valid_thresh", valid_thresh, 0),
        _check.integer("background_id", background_id),
        _check.integer("topk", topk),
        (
            _check.number("overlap_thresh", overlap_thresh, 0, 1),
            _check.integer("num_models", num_models, 1),
            best_score,
            by_class,
            center,
        ),
        _check.integer("post_nms", post_nms),
    )


_OP.check(check_sets)


class _Cluster:
    """Boxes of one class, and the mean of them."""

    def __init__(self, row: np.ndarray, columns: tuple[int, int, int, int]):
        self.row, self.count = row.copy(), 1
        _, score, coord, _ = columns
        self.best = self.score = row[score]
        self.box = row[coord : coord + 4]
        self.weighted = self.score * self.box

    def add(self, box: np.ndarray, score: np.float32) -> None:
        self.weighted = self.weighted + score * box
        self.score = self.score + score
        self.count += 1
        self.box = self.weighted / self.score


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, options: _Options) -> np.ndarray:
    *leading, _, width = data.shape
    out = np.full((*leading, options.rows, width), -1, np.float32)
    with np.errstate(all="ignore"):
        for at in np.ndindex(*leading) if out.size else ():
            found = _fused(data[at], options)
            out[at][: len(found)] = found[: options.rows]
    return out


def _fused(rows: np.ndarray, options: _Options) -> np.ndarray:
    """Return the row of each cluster of a set, the highest score first."""
    _, score, coord, id_ = options.columns
    threshold, num_models, best_score, by_class, center = options.op
    order = _candidates(
        rows, options.columns, options.valid_thresh, options.background_id, options.topk
    )
    classes = _truncated(rows[:, id_]) if by_class else np.zeros(len(rows))
    clusters: list[_Cluster] = []
    of_clusters: list[float] = []
    for i in order:
        box = rows[i, coord : coord + 4]
        iou = np.zeros(0, np.float32)
        if clusters:
            own, area = _sized(box[None], center)
            fused, areas = _sized(np.stack([cluster.box for cluster in clusters]), center)
            overlap = _intersection(own, fused) if center else _intersection(fused, own)
            iou = overlap / (areas + area - overlap)
            same = np.array(of_clusters) == classes[i]
            iou = np.where(same & (iou > np.float32(threshold)), iou, np.float32(0))
        if iou.any():
            clusters[iou.argmax()].add(box, rows[i, score])
        else:
            clusters.append(_Cluster(rows[i], options.columns))
            of_clusters.append(classes[i])
    for cluster in clusters:
        mean = cluster.best if best_score else cluster.score / np.float32(cluster.count)
        models = np.float32(min(cluster.count, num_models))
        cluster.row[score] = mean * models / np.float32(num_models)
        cluster.row[coord : coord + 4] = cluster.box
    found = np.array([cluster.row for cluster in clusters], np.float32).reshape(-1, rows.shape[1])
    return found[np.argsort(-found[:, score], kind="stable")]


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, options: _Options) -> np.ndarray:
    *leading, num, width = data.shape
    out = device.empty((*leading, options.rows, width), np.float32)
    device.ops.weighted_boxes_fusion(out, data, math.prod(leading), num, *options)
    return out
