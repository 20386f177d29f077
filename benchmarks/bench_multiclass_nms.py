"""multiclass_nms: 80 classes of 8400 boxes, a fifth of the scores above the threshold.

No peer has this op. torchvision runs nonzero, topk and batched_nms for each image. MXNet runs
box_nms on all candidates as rows; the time to make the rows is not included. The operator of ONNX
Runtime has no topk; for one image its threshold is the score of the last candidate.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from bench_box_nms import clustered
from tools.jobs import InnerLoop, Job, Peer, check_scores, count_kept_pairs

import cvops

CLASSES, BOXES, TOPK, VALID = 80, 8400, 1000, 0.01


@lru_cache(maxsize=1)
def job(images):
    rng = np.random.default_rng(0)
    boxes = np.stack([clustered(rng, BOXES) for _ in range(images)])
    scores = rng.random((images, CLASSES, BOXES), np.float32) ** 20

    def torchvision(tv, tensor):
        import torch

        def nms(corners, table):
            flat = table.reshape(-1)
            valid = torch.nonzero(flat > VALID)[:, 0]
            best = flat[valid].topk(min(TOPK, len(valid)))
            index = valid[best.indices]
            kept = tv.ops.batched_nms(corners[index % BOXES], best.values, index // BOXES, 0.5)
            return best.values[kept]

        arrays = tensor(boxes), tensor(scores)
        return lambda: [nms(*image) for image in zip(*arrays)]

    def mxnet(mx, array):
        rows = np.empty((CLASSES, BOXES, 6), np.float32)
        rows[..., 0] = np.arange(CLASSES)[:, None]
        rows[..., 1], rows[..., 2:] = scores[0], boxes[0]
        options = dict(valid_thresh=VALID, topk=TOPK, id_index=0)
        return partial(mx.nd.contrib.box_nms, array(rows.reshape(-1, 6)), **options)

    def onnxruntime(onnx, array):
        inputs = dict(
            boxes=boxes,
            scores=scores,
            max_boxes=np.array([TOPK]),
            iou_threshold=np.array([0.5], np.float32),
            score_threshold=np.partition(scores, -TOPK - 1, axis=None)[-TOPK - 1 : -TOPK],
        )
        return onnx.call("NonMaxSuppression", inputs, np.int64)

    def check_images(ours, theirs):
        for rows, scores in zip(ours[0], theirs):
            check_scores(rows[rows[:, 0] >= 0, 1], scores, 0.99)

    peers = dict(torchvision=Peer(torchvision, check_images))
    if images == 1:
        peers["mxnet"] = Peer(
            mxnet,
            lambda ours, theirs: np.testing.assert_array_equal(ours[0][0], theirs[0][:TOPK]),
        )
        peers["onnxruntime"] = Peer(
            onnxruntime,
            lambda ours, theirs: check_images(ours, [scores[tuple(theirs[0].T)]]),
        )
    return Job(
        "multiclass_nms",
        f"{images} x {CLASSES} classes x {BOXES}, topk {TOPK}",
        cvops.multiclass_nms,
        (boxes, scores),
        work=(scores.size, "scores"),
        written=images * (TOPK * 6 * 4 + 4),
        inner=InnerLoop("NMS", count_kept_pairs),
        peers=peers,
        too_slow=["numpy"] if images > 1 else [],
    )


@pytest.mark.parametrize("images", [1, 32], ids=["small", "model"])
def bench_multiclass_nms(time_job, images):
    time_job(job(images))
