"""multibox_prior: the anchors of a model's feature maps, one call for each map."""

from functools import partial

import numpy as np
import pytest
from harness import TINY_SSD, TINY_SSD_RATIOS

import cvops

CASES = {
    "64 anchors": [(4, (0.71, 0.79))],
    "5444 anchors": TINY_SSD,
    "1048576 anchors": [(512, (0.02, 0.03))],
}


@pytest.mark.parametrize("size", CASES, ids=["small", "model", "large"])
def bench_multibox_prior(race, size):
    sides, sizes = zip(*CASES[size])
    maps = [np.zeros((1, 1, side, side), np.float32) for side in sides]

    def ours(*maps, backend):
        prior = partial(cvops.multibox_prior, ratios=TINY_SSD_RATIOS, backend=backend)
        return [prior(x, sizes=s) for x, s in zip(maps, sizes)]

    def mxnet(mx, array):
        arrays = [array(x) for x in maps]
        prior = partial(mx.nd.contrib.MultiBoxPrior, ratios=TINY_SSD_RATIOS)
        return lambda: [prior(x, sizes=s) for x, s in zip(arrays, sizes)]

    num = sum(4 * side * side for side in sides)
    race(size, ours, maps, moved=16 * num, work=(num, "anchors"), mxnet=mxnet)
