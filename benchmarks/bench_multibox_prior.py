"""multibox_prior: the anchors of all feature maps of a model, in one call.

MXNet and the book need one call per map. The concatenation of their results is not timed.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import SSD_512, TINY_SSD, TINY_SSD_RATIOS
from tools.jobs import Job, Peer, check_identical

import cvops

CASES = {
    "small": ((4, (0.71, 0.79)),),
    "model": TINY_SSD,
    "ssd": SSD_512,
    "large": ((500, (0.02, 0.03)),),
}


@lru_cache(maxsize=1)
def job(maps):
    sides, sizes = zip(*maps)
    ratios = (TINY_SSD_RATIOS,) * len(maps)
    arrays = [np.zeros((1, 1, side, side), np.float32) for side in sides]

    def ours(*arrays, backend):
        if len(arrays) == 1:
            return cvops.multibox_prior(*arrays, *sizes, *ratios, backend=backend)
        return cvops.multibox_priors(arrays, sizes, ratios, backend=backend)

    def mxnet(mx, array):
        theirs = [array(x) for x in arrays]
        prior = partial(mx.nd.contrib.MultiBoxPrior, ratios=TINY_SSD_RATIOS)
        return lambda: [prior(x, sizes=s) for x, s in zip(theirs, sizes)]

    def check_concatenated(ours, theirs):
        check_identical(ours, [np.concatenate(theirs, axis=1)])

    def book(ops, tensor):
        theirs = [tensor(x) for x in arrays]
        prior = partial(ops.book_multibox_prior, ratios=TINY_SSD_RATIOS)
        return lambda: [prior(x, s) for x, s in zip(theirs, sizes)]

    def check_close(ours, theirs):
        """Raise if the results differ; the book's products have another order."""
        np.testing.assert_allclose(ours[0], np.concatenate(theirs, axis=1), rtol=0, atol=1e-6)

    num = sum((len(s) + len(TINY_SSD_RATIOS) - 1) * side**2 for side, s in maps)
    return Job(
        "multibox_prior",
        f"{num} anchors" + (f" of {len(maps)} maps" if len(maps) > 1 else ""),
        ours,
        arrays,
        work=(num, "anchors"),
        written=16 * num,
        read=0,
        peers=dict(mxnet=Peer(mxnet, check_concatenated), book=Peer(book, check_close)),
    )


@pytest.mark.parametrize("case", CASES)
def bench_multibox_prior(time_job, case):
    time_job(job(CASES[case]))
