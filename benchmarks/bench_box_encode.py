"""box_encode of the anchors of a model with 8 boxes per image; one anchor in 16 is positive."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import SSD_512, TINY_SSD, anchors, boxes
from tools.jobs import Job, Peer

import cvops

REFS = 8


@lru_cache(maxsize=1)
def job(images, maps):
    rng = np.random.default_rng(0)
    repeated = anchors(maps).repeat(images, axis=0)
    num = images * repeated.shape[1]
    samples = np.float32(rng.random(repeated.shape[:2]) < 1 / 16)
    matches = rng.integers(0, REFS, samples.shape).astype(np.float32)
    refs = boxes(rng, images * REFS).reshape(images, REFS, 4)
    means, stds = np.zeros(4, np.float32), np.float32([0.1, 0.1, 0.2, 0.2])
    inputs = samples, matches, repeated, refs, means, stds

    def check_close(ours, theirs):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(ours[1], theirs[1])

    def mxnet(mx, array):
        return partial(mx.nd.contrib.box_encode, *map(array, inputs))

    def torch(ops, tensor):
        return partial(ops.box_encode, *map(tensor, inputs))

    return Job(
        "box_encode",
        f"{images} x {repeated.shape[1]}",
        cvops.box_encode,
        inputs,
        work=(num, "anchors"),
        written=32 * num,
        peers=dict(mxnet=Peer(mxnet, check_close), torch=Peer(torch, check_close)),
    )


@pytest.mark.parametrize(
    ("images", "maps"),
    [(1, TINY_SSD), (32, TINY_SSD), (64, SSD_512)],
    ids=["small", "model", "large"],
)
def bench_box_encode(time_job, images, maps):
    time_job(job(images, maps))
