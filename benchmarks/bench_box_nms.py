"""box_nms, forward and backward: one list of boxes, of one class or of many, and batches.

"New inputs": each call has the next of many lists. A CPU learns the branches of a short list that
repeats, which makes code with branches on the boxes several times as fast as it is in a model.
"""

import math
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest
from tools.implementations import PEERS_ON_CPU
from tools.inputs import boxes
from tools.jobs import InnerLoop, Job, Peer, check_scores, count_kept_pairs

import cvops


def spread(rng, num):
    """Return boxes in the whole image; NMS keeps most of them."""
    return boxes(rng, num, 0.01, 0.06)


def clustered(rng, num, members=25, noise=0.08):
    """Return clusters of 25 boxes, similar to a detector's; NMS keeps a few boxes of each."""
    centers = boxes(rng, math.ceil(num / members), 0.05, 0.3)
    size = np.tile(centers[:, 2:] - centers[:, :2], 2)
    noisy = centers + rng.normal(0, noise, (members, len(centers), 4)) * size
    return noisy.reshape(-1, 4)[rng.permutation(members * len(centers))[:num]].astype(np.float32)


def heaps(rng, num):
    """Return heaps of 50 almost equal boxes; NMS keeps about one of each."""
    return clustered(rng, num, 50, 0.02)


CASES = {
    "fewest": (1, 100, 1, clustered),
    "few": (1, 300, 1, clustered),
    "small": (1, 1000, 1, spread),
    "small heaps": (1, 1000, 1, heaps),
    "middle": (1, 5000, 1, spread),
    "middle heaps": (1, 5000, 1, heaps),
    "model": (32, 5444, 20, clustered),
    "large": (1, 20000, 1, spread),
    "large clustered": (1, 20000, 1, clustered),
    "large heaps": (1, 20000, 1, heaps),
    "large classes": (1, 20000, 80, spread),
    "batch": (32, 8400, 80, clustered, 1000),
    "huge": (1, 100_000, 1, spread),
}
OPTIONS = dict(overlap_thresh=0.5, id_index=0)
#: Boxes of a job with new inputs. The tested CPU learned the branches of 64 lists of 100 boxes.
NEW_BOXES = 40_000


def make_rows(images, num, classes, make_boxes, topk=-1, seed=0):
    """Return rows (class, score, x1, y1, x2, y2), and the name of the size."""
    rng = np.random.default_rng(seed)
    data = np.empty((images, num, 6), np.float32)
    data[..., 0] = rng.integers(0, classes, (images, num))
    data[..., 1] = rng.uniform(0.01, 1, (images, num))
    for rows in data:
        rows[:, 2:] = make_boxes(rng, num)
    size = f"{images} x {num}, {classes} classes" if images > 1 else f"{num}"
    if images == 1 and classes > 1:
        size += f" in {classes} classes"
    if topk >= 0:
        size += f", topk {topk}"
    return data, f"{size}, {make_boxes.__name__}"


@lru_cache
def openvino_nms(num):
    """Return the function that makes OpenVINO's operator; jobs of one size share it."""

    def make(ops, corners, scores):
        most, threshold = np.int64(num), np.float32(0.5)
        return ops.non_max_suppression(
            corners, scores, most, threshold, np.float32(0), sort_result_descending=False
        )

    return make


@lru_cache(maxsize=1)
def job(images, num, classes, make_boxes, topk=-1, seed=0):
    data, size = make_rows(images, num, classes, make_boxes, topk, seed)
    # One class needs no id_index; torchvision's nms has no classes.
    options = OPTIONS if classes > 1 else dict(overlap_thresh=0.5)
    if topk >= 0:
        options = dict(options, topk=topk)

    def check_indices(ours, indices):
        """Raise if another library keeps other boxes; ``indices`` are the rows that it keeps.

        torchvision adds an offset for each class, so that the corners have fewer bits.
        """
        kept = ours[0][..., 1]
        check_scores(
            kept[kept > 0], data[..., 1].reshape(-1)[indices], 0.999 if classes == 1 else 0.99
        )

    def torchvision(tv, tensor):
        flat = data.reshape(-1, 6)
        corners, scores = tensor(flat[:, 2:].copy()), tensor(flat[:, 1].copy())
        if images * classes == 1:
            return partial(tv.ops.nms, corners, scores, 0.5)
        # A class of an image is a group.
        groups = tensor((np.arange(len(flat)) // num * classes + flat[:, 0]).astype(np.int64))
        if topk >= 0:
            from peers import torch_ops

            scores, groups = scores.view(images, num), groups.view(images, num)
            return partial(torch_ops.topk_nms, tv, corners, scores, groups, 0.5, topk)
        return partial(tv.ops.batched_nms, corners, scores, groups, 0.5)

    def onnxruntime(onnx, array):
        """Return a call with a score for each class, above 0 only for the class of the box."""
        of_class = data[:, None, :, 0] == np.arange(classes)[:, None]
        inputs = dict(
            boxes=data[..., 2:].copy(),
            scores=np.where(of_class, data[:, None, :, 1], np.float32(-1)),
            max_boxes=np.array([num]),
            iou_threshold=np.array([0.5], np.float32),
            score_threshold=np.array([0], np.float32),
        )
        return onnx.call("NonMaxSuppression", inputs, np.int64)

    def check_onnxruntime(ours, theirs):
        image, _, row = theirs[0].T
        check_indices(ours, image * num + row)

    def openvino(vino, array):
        of_class = data[:, None, :, 0] == np.arange(classes)[:, None]
        scores = np.where(of_class, data[:, None, :, 1], np.float32(-1))
        return vino.call(openvino_nms(num), data[..., 2:].copy(), scores)

    def check_openvino(ours, theirs):
        """Its rows after the last kept box are -1."""
        check_onnxruntime(ours, [theirs[0][theirs[0][:, 0] >= 0]])

    def opencv(cv, array):
        sides = data[0, :, 4:] - data[0, :, 2:4]
        rects, scores = np.hstack([data[0, :, 2:4], sides]), data[0, :, 1].copy()
        if classes == 1:
            return partial(cv.dnn.NMSBoxes, rects, scores, 0.0, 0.5)
        ids = data[0, :, 0].astype(np.int32)
        return partial(cv.dnn.NMSBoxesBatched, rects, scores, ids, 0.0, 0.5)

    def powerboxes(pb, array):
        """Return a call of its faster function."""
        nms = pb.rtree_nms if make_boxes is spread else pb.nms
        return partial(nms, data[0, :, 2:].copy(), data[0, :, 1].astype(np.float64), 0.5, 0.0)

    def check_rows(ours, theirs):
        check_indices(ours, theirs[0].astype(np.int64))

    peers = dict(
        mxnet=Peer(lambda mx, array: partial(mx.nd.contrib.box_nms, array(data), **options)),
        torchvision=Peer(torchvision, lambda ours, theirs: check_indices(ours, theirs[0])),
    )
    if topk < 0:
        peers["onnxruntime"] = Peer(onnxruntime, check_onnxruntime)
        peers["openvino"] = Peer(openvino, check_openvino)
    if images == 1:
        peers["opencv"] = Peer(opencv, check_rows)
        if classes == 1:
            peers["powerboxes"] = Peer(powerboxes, check_rows)
    too_slow = ["numpy"] if images > 1 or num > 1000 else []
    if num > 5000:
        too_slow.append("opencv")  # it takes seconds
    if num >= 100_000:
        too_slow += PEERS_ON_CPU
    return Job(
        "box_nms",
        size,
        partial(cvops.box_nms, **options),
        (data,),
        work=(images * num, "boxes"),
        written=data.nbytes,
        inner=InnerLoop("NMS", count_kept_pairs),
        peers=peers,
        too_slow=too_slow,
    )


@lru_cache(maxsize=1)
def jobs_with_new_inputs(images, num, *arguments):
    jobs = [job(images, num, *arguments, seed=seed) for seed in range(NEW_BOXES // num)]
    return [replace(x, size=f"{x.size}, new inputs") for x in jobs]


@lru_cache(maxsize=1)
def backward_job(images, num, classes, make_boxes):
    data, size = make_rows(images, num, classes, make_boxes)
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
        work=(images * num, "boxes"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet)),
    )


@pytest.mark.parametrize("case", CASES)
def bench_box_nms(time_job, case):
    time_job(job(*CASES[case]))


@pytest.mark.parametrize(
    "case", ["fewest", "few", "small", "small heaps", "middle", "middle heaps"]
)
def bench_box_nms_new_inputs(time_job, case):
    time_job(*jobs_with_new_inputs(*CASES[case]))


@pytest.mark.parametrize("case", ["small", "model", "large"])
def bench_box_nms_backward(time_job, case):
    time_job(backward_job(*CASES[case]))
