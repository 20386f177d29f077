"""box_decode of the anchors of a model, in corner format, with a bound for the sizes."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import SSD_512, TINY_SSD, anchors
from tools.jobs import Job, Peer

import cvops

STDS, CLIP = (0.1, 0.1, 0.2, 0.2), 4.0


@lru_cache(maxsize=1)
def job(images, maps):
    boxes = anchors(maps)
    num = images * boxes.shape[1]
    rng = np.random.default_rng(0)
    data = rng.standard_normal((images, boxes.shape[1], 4), np.float32)
    options = dict(zip(("std0", "std1", "std2", "std3"), STDS), clip=CLIP, format="corner")

    def check_close(ours, theirs):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-6)

    def mxnet(mx, array):
        return partial(mx.nd.contrib.box_decode, array(data), array(boxes), **options)

    def torch(ops, tensor):
        stds = tensor(np.float32(STDS))
        return partial(ops.box_decode, tensor(data), tensor(boxes), stds, CLIP)

    return Job(
        "box_decode",
        f"{images} x {boxes.shape[1]}",
        partial(cvops.box_decode, **options),
        (data, boxes),
        work=(num, "boxes"),
        written=16 * num,
        peers=dict(mxnet=Peer(mxnet, check_close), torch=Peer(torch, check_close)),
    )


@pytest.mark.parametrize(
    ("images", "maps"),
    [(1, TINY_SSD), (32, TINY_SSD), (64, SSD_512)],
    ids=["small", "model", "large"],
)
def bench_box_decode(time_job, images, maps):
    time_job(job(images, maps))
