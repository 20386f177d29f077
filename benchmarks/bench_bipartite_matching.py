"""bipartite_matching of anchors and ground truths by their IoU; most IoUs are 0."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import SSD_512, TINY_SSD, anchors, boxes
from tools.jobs import Job, Peer

import cvops

THRESHOLD = 1e-12


@lru_cache(maxsize=1)
def job(images, maps, truths):
    rng = np.random.default_rng(0)
    rows = anchors(maps)[0]
    data = np.stack([cvops.box_iou(rows, boxes(rng, truths)) for _ in range(images)])
    num = data.size

    def mxnet(mx, array):
        return partial(mx.nd.contrib.bipartite_matching, array(data), threshold=THRESHOLD)

    def torch(ops, tensor):
        return partial(ops.bipartite_matching, tensor(data), THRESHOLD)

    def check_equal(ours, theirs):
        for x, y in zip(ours, theirs):
            np.testing.assert_array_equal(x, y)

    return Job(
        "bipartite_matching",
        f"{images} x {len(rows)} x {truths}",
        partial(cvops.bipartite_matching, threshold=THRESHOLD),
        [data],
        work=(num, "pairs"),
        written=4 * images * (len(rows) + truths),
        peers=dict(mxnet=Peer(mxnet, check_equal), torch=Peer(torch, check_equal)),
        too_slow=["numpy"] if num > 1e6 else [],
    )


@pytest.mark.parametrize(
    ("images", "maps", "truths"),
    [(1, TINY_SSD, 8), (32, TINY_SSD, 64), (1, SSD_512, 100)],
    ids=["small", "model", "large"],
)
def bench_bipartite_matching(time_job, images, maps, truths):
    time_job(job(images, maps, truths))
