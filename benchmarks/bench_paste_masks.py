"""paste_masks: the masks of 100 detections of an image.

PyTorch pastes by grid_sample, as detectron2 does, on whole images.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import boxes
from tools.jobs import Job, Peer

import cvops

CELLS = 28


@lru_cache(maxsize=1)
def job(num, height, width):
    rng = np.random.default_rng(0)
    corners = boxes(rng, num, 0.05, 0.4) * np.float32([width, height, width, height])
    inputs = rng.random((num, CELLS, CELLS), np.float32), corners

    def check_most(ours, theirs):
        # Other roundings change few pixels. Half a cell around a box is outside of ours.
        assert (ours[0] == theirs[0]).mean() > 0.99

    def torch(ops, tensor):
        return partial(ops.paste_masks, *map(tensor, inputs), height, width)

    return Job(
        "paste_masks",
        f"{num} masks of {CELLS} x {CELLS}, {height} x {width}",
        partial(cvops.paste_masks, shape=(height, width)),
        inputs,
        work=(num * height * width, "pixels"),
        written=num * height * width,
        peers=dict(torch=Peer(torch, check_most)),
    )


@pytest.mark.parametrize(
    ("num", "height", "width"), [(20, 128, 128), (100, 800, 1333)], ids=["small", "large"]
)
def bench_paste_masks(time_job, num, height, width):
    time_job(job(num, height, width))
