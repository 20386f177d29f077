"""rpn_target of the anchors of a model with 16 boxes per image.

No peer has this op. PyTorch computes all IoUs, and sorts the noise of both sides.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import SSD_512, TINY_SSD, anchors, boxes
from tools.jobs import Job, Peer

import cvops

TRUTHS = 16


@lru_cache(maxsize=1)
def job(images, maps):
    rng = np.random.default_rng(0)
    anchor = anchors(maps)
    num = images * anchor.shape[1]
    truths = boxes(rng, images * TRUTHS).reshape(images, TRUTHS, 4)
    labels = np.concatenate([np.zeros((images, TRUTHS, 1), np.float32), truths], axis=2)
    inputs = anchor, labels, rng.random((images, anchor.shape[1]), np.float32)

    def check_close(ours, theirs):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(ours[2], theirs[2])

    def torch(ops, tensor):
        return partial(ops.rpn_target, *map(tensor, inputs))

    return Job(
        "rpn_target",
        f"{images} x {anchor.shape[1]} x {TRUTHS}",
        cvops.rpn_target,
        inputs,
        work=(num * TRUTHS, "pairs"),
        written=36 * num,
        peers=dict(torch=Peer(torch, check_close)),
    )


@pytest.mark.parametrize(
    ("images", "maps"),
    [(1, TINY_SSD), (8, TINY_SSD), (8, SSD_512)],
    ids=["small", "model", "large"],
)
def bench_rpn_target(time_job, images, maps):
    time_job(job(images, maps))
