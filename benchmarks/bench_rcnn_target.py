"""rcnn_target: proposals around 16 boxes per image, some of them positive.

No peer has this op. PyTorch computes all IoUs and sorts all proposals.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import boxes
from tools.jobs import Job, Peer

import cvops

TRUTHS, SAMPLES = 16, 512


@lru_cache(maxsize=1)
def job(images, num):
    rng = np.random.default_rng(0)
    truths = boxes(rng, images * TRUTHS).reshape(images, TRUTHS, 4)
    near = truths[:, rng.integers(0, TRUTHS, num)]
    moves = rng.normal(0, 0.06, near.shape).astype(np.float32)
    labels = np.concatenate([np.zeros((images, TRUTHS, 1), np.float32), truths], axis=2)
    proposals = near + moves
    low, high = proposals[..., :2], proposals[..., 2:]
    proposals[..., 2:] = np.maximum(high, low + np.float32(0.001))
    inputs = proposals, labels, rng.random((images, num + TRUTHS), np.float32)

    def check_close(ours, theirs):
        for x, y in zip(ours[:3], theirs[:3]):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_allclose(ours[3], theirs[3], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(ours[4], theirs[4])

    def torch(ops, tensor):
        return partial(ops.rcnn_target, *map(tensor, inputs), num_sample=SAMPLES)

    return Job(
        "rcnn_target",
        f"{images} x {num} x {TRUTHS}, {SAMPLES} samples",
        partial(cvops.rcnn_target, num_sample=SAMPLES),
        inputs,
        work=(images * num * TRUTHS, "pairs"),
        written=56 * images * SAMPLES,
        peers=dict(torch=Peer(torch, check_close)),
    )


@pytest.mark.parametrize(("images", "num"), [(1, 2000), (8, 2000)], ids=["image", "batch"])
def bench_rcnn_target(time_job, images, num):
    time_job(job(images, num))
