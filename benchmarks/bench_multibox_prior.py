"""multibox_prior: the anchors of a model's feature maps, one call for each map."""

from functools import lru_cache, partial

import numpy as np
import pytest
from harness import TINY_SSD, TINY_SSD_RATIOS, Job, Peer

import cvops

CASES = {
    "small": ((4, (0.71, 0.79)),),
    "model": TINY_SSD,
    "large": ((512, (0.02, 0.03, 0.04)),),
}


@lru_cache(maxsize=1)
def job(maps):
    sides, sizes = zip(*maps)
    arrays = [np.zeros((1, 1, side, side), np.float32) for side in sides]

    def ours(*arrays, backend):
        prior = partial(cvops.multibox_prior, ratios=TINY_SSD_RATIOS, backend=backend)
        return [prior(x, sizes=s) for x, s in zip(arrays, sizes)]

    def mxnet(mx, array):
        theirs = [array(x) for x in arrays]
        prior = partial(mx.nd.contrib.MultiBoxPrior, ratios=TINY_SSD_RATIOS)
        return lambda: [prior(x, sizes=s) for x, s in zip(theirs, sizes)]

    num = sum((len(s) + len(TINY_SSD_RATIOS) - 1) * side**2 for side, s in maps)
    return Job(
        "multibox_prior",
        f"{num} anchors" + (f" of {len(maps)} maps" if len(maps) > 1 else ""),
        ours,
        arrays,
        work=(num, "anchors"),
        written=16 * num,
        read=0,
        peers=dict(mxnet=Peer(mxnet)),
    )


@pytest.mark.parametrize("case", CASES)
def bench_multibox_prior(race, case):
    race(job(CASES[case]))
