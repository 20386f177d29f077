"""proposal: the RPN of Faster R-CNN with 12 anchors per cell, 6000 candidates, 300 proposals."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.jobs import Job, Peer

import cvops


@lru_cache(maxsize=1)
def job(images, anchors=12, height=50, width=68):
    rng = np.random.default_rng(0)
    prob = rng.random((images, 2 * anchors, height, width), np.float32)
    offsets = rng.normal(0, 0.3, (images, 4 * anchors, height, width)).astype(np.float32)
    info = np.tile(np.float32([16 * height, 16 * width, 1]), (images, 1))
    options = dict(output_score=True)

    def mxnet(mx, array):
        inputs = map(array, (prob, offsets, info))
        return partial(mx.nd.contrib.MultiProposal, *inputs, **options)

    def check_equal(ours, theirs):
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-3)

    num = images * anchors * height * width
    return Job(
        "proposal",
        f"{images} x {anchors} x {height} x {width}",
        partial(cvops.multi_proposal, **options),
        [prob, offsets, info],
        work=(num, "anchors"),
        written=24 * 300 * images,
        peers=dict(mxnet=Peer(mxnet, check_equal)),
        too_slow=["numpy"] if images > 1 else [],
    )


@pytest.mark.parametrize("images", [1, 8], ids=["small", "model"])
def bench_proposal(time_job, images):
    time_job(job(images))
