"""match_anchors by the rules of a region proposal network: anchors of models, boxes of an image.

PyTorch computes all IoUs, as torchvision's ``Matcher``, which has more passes over them.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import SSD_512, TINY_SSD, anchors, boxes
from tools.jobs import Job, Peer

import cvops

OPTIONS = dict(high_threshold=0.7, low_threshold=0.3, allow_low_quality_matches=True)


@lru_cache(maxsize=1)
def job(maps, truths, copies=1):
    rng = np.random.default_rng(0)
    anchor = np.concatenate([anchors(maps)[0]] * copies)
    inputs = anchor, boxes(rng, truths)

    def torch(ops, tensor):
        return partial(ops.match_anchors, *map(tensor, inputs))

    return Job(
        "match_anchors",
        f"{len(anchor)} x {truths}",
        partial(cvops.match_anchors, **OPTIONS),
        inputs,
        work=(len(anchor) * truths, "pairs"),
        written=4 * len(anchor),
        peers=dict(torch=Peer(torch)),
    )


@pytest.mark.parametrize(
    ("maps", "truths", "copies"),
    [(TINY_SSD, 8, 1), (SSD_512, 50, 1), (SSD_512, 500, 5)],
    ids=["small", "model", "large"],
)
def bench_match_anchors(time_job, maps, truths, copies):
    time_job(job(maps, truths, copies))
