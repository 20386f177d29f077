"""box_nms, forward and backward: one list of boxes, of one class or of many, and batches."""

import math
from functools import lru_cache, partial

import numpy as np
import pytest
from tools.harness import PEERS_ON_CPU, Inner, Job, Peer, boxes, pairs_of_kept, same_scores

import cvops


def spread(rng, num):
    """Return boxes all over the image, most of which are kept."""
    return boxes(rng, num, 0.01, 0.06)


def clustered(rng, num):
    """Return clusters of 25 boxes, as from a detector; a few boxes of each are kept."""
    centers = boxes(rng, math.ceil(num / 25), 0.05, 0.3)
    size = np.tile(centers[:, 2:] - centers[:, :2], 2)
    noisy = centers + rng.normal(0, 0.08, (25, len(centers), 4)) * size
    return noisy.reshape(-1, 4)[rng.permutation(25 * len(centers))[:num]].astype(np.float32)


CASES = {
    "small": (1, 1000, 1, spread),
    "middle": (1, 5000, 1, spread),
    "model": (32, 5444, 20, clustered),
    "large": (1, 20000, 1, spread),
    "large clustered": (1, 20000, 1, clustered),
    "large classes": (1, 20000, 80, spread),
    "batch": (32, 8400, 80, clustered, 1000),
    "huge": (1, 100_000, 1, spread),
}
OPTIONS = dict(overlap_thresh=0.5, id_index=0)


def scene(sets, num, classes, where, topk=-1):
    """Return rows (class, score, x1, y1, x2, y2), and the name of the size."""
    rng = np.random.default_rng(0)
    data = np.empty((sets, num, 6), np.float32)
    data[..., 0] = rng.integers(0, classes, (sets, num))
    data[..., 1] = rng.uniform(0.01, 1, (sets, num))
    for rows in data:
        rows[:, 2:] = where(rng, num)
    size = f"{sets} x {num}, {classes} classes" if sets > 1 else f"{num}"
    if sets == 1 and classes > 1:
        size += f" in {classes} classes"
    if topk >= 0:
        size += f", topk {topk}"
    return data, f"{size}, {where.__name__}"


@lru_cache(maxsize=1)
def job(sets, num, classes, where, topk=-1):
    data, size = scene(sets, num, classes, where, topk)
    # Boxes of one class are compared without classes, as by torchvision's nms.
    options = OPTIONS if classes > 1 else dict(overlap_thresh=0.5)
    if topk >= 0:
        options = dict(options, topk=topk)

    def same_boxes(ours, places):
        """Compare with the indices of kept rows that other libraries return.

        torchvision adds an offset for each class, which costs bits of the corners.
        """
        kept = ours[0][..., 1]
        same_scores(
            kept[kept > 0], data[..., 1].reshape(-1)[places], 0.999 if classes == 1 else 0.99
        )

    def torchvision(tv, tensor):
        flat = data.reshape(-1, 6)
        corners, scores = tensor(flat[:, 2:].copy()), tensor(flat[:, 1].copy())
        if sets * classes == 1:
            return partial(tv.ops.nms, corners, scores, 0.5)
        kinds = tensor((np.arange(len(flat)) // num * classes + flat[:, 0]).astype(np.int64))
        if topk >= 0:
            from peers import torch_ops

            scores, kinds = scores.view(sets, num), kinds.view(sets, num)
            return partial(torch_ops.topk_nms, tv, corners, scores, kinds, 0.5, topk)
        return partial(tv.ops.batched_nms, corners, scores, kinds, 0.5)

    def onnxruntime(onnx, array):
        """Return a call with a score per class; a box has a score in one class only."""
        of_class = data[:, None, :, 0] == np.arange(classes)[:, None]
        inputs = dict(
            boxes=data[..., 2:].copy(),
            scores=np.where(of_class, data[:, None, :, 1], np.float32(-1)),
            most=np.array([num]),
            overlap=np.array([0.5], np.float32),
            score=np.array([0], np.float32),
        )
        return onnx.call("NonMaxSuppression", inputs, np.int64)

    def same_indices(ours, theirs):
        item, _, row = theirs[0].T
        same_boxes(ours, item * num + row)

    peers = dict(
        mxnet=Peer(lambda mx, array: partial(mx.nd.contrib.box_nms, array(data), **options)),
        torchvision=Peer(torchvision, lambda ours, theirs: same_boxes(ours, theirs[0])),
    )
    if topk < 0:
        peers["onnxruntime"] = Peer(onnxruntime, same_indices)
    return Job(
        "box_nms",
        size,
        partial(cvops.box_nms, **options),
        (data,),
        work=(sets * num, "boxes"),
        written=data.nbytes,
        inner=Inner("NMS", pairs_of_kept),
        peers=peers,
        too_slow=["numpy", *(PEERS_ON_CPU if num >= 100_000 else ())]
        if sets > 1 or num > 1000
        else [],
    )


@lru_cache(maxsize=1)
def backward_job(sets, num, classes, where):
    data, size = scene(sets, num, classes, where)
    _, index = cvops.box_nms(data, **OPTIONS, return_index=True)
    out_grad = np.random.default_rng(1).standard_normal(data.shape, np.float32)

    def mxnet(mx, array):
        x, grad = array(data), array(out_grad)
        x.attach_grad()
        with mx.autograd.record():
            out = mx.nd.contrib.box_nms(x, **OPTIONS)

        def backward():
            out.backward(grad, retain_graph=True)
            return x.grad

        return backward

    return Job(
        "box_nms_backward",
        size,
        cvops.box_nms_backward,
        (out_grad, index),
        work=(sets * num, "boxes"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet)),
    )


@pytest.mark.parametrize("case", CASES)
def bench_box_nms(race, case):
    race(job(*CASES[case]))


@pytest.mark.parametrize("case", ["small", "model", "large"])
def bench_box_nms_backward(race, case):
    race(backward_job(*CASES[case]))
