"""mask_target: rois of 28 x 28 bins, for 20 classes.

MXNet has the op for GPUs only. On a CPU ROIAlign pools the matched masks, and the classes are
broadcast.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import boxes
from tools.jobs import Job, Peer

import cvops

SIDE, BINS, CLASSES, MASKS = 512, 28, 20, 8


@lru_cache(maxsize=1)
def job(images, rois):
    rng = np.random.default_rng(0)
    corners = SIDE * boxes(rng, images * rois, 0.1, 0.5).reshape(images, rois, 4)
    masks = np.float32(rng.random((images, MASKS, SIDE, SIDE)) < 0.5)
    matches = rng.integers(0, MASKS, (images, rois)).astype(np.float32)
    classes = rng.integers(0, CLASSES, (images, rois)).astype(np.float32)
    inputs = corners, masks, matches, classes
    shape = images, rois, CLASSES, BINS, BINS

    def mxnet(mx, array):
        planes = array(masks.reshape(-1, 1, SIDE, SIDE))
        index = matches + MASKS * np.arange(images, dtype=np.float32)[:, None]
        rows = array(np.concatenate([index[..., None], corners], axis=2).reshape(-1, 5))
        of_roi, each = array(classes), mx.nd.arange(CLASSES)

        def call():
            pooled = mx.nd.contrib.ROIAlign(planes, rows, (BINS, BINS), 1.0, sample_ratio=2)
            pooled = pooled.reshape((images, rois, 1, BINS, BINS)).broadcast_to(shape)
            same = mx.nd.broadcast_equal(of_roi.expand_dims(2), each.reshape((1, 1, CLASSES)))
            return pooled, same.reshape((images, rois, CLASSES, 1, 1)).broadcast_to(shape)

        return call

    return Job(
        "mask_target",
        f"{images} x {rois} rois, {CLASSES} classes of {BINS} x {BINS}",
        partial(cvops.mask_target, num_classes=CLASSES, mask_size=(BINS, BINS)),
        inputs,
        work=(images * rois * BINS * BINS, "bins"),
        written=8 * int(np.prod(shape)),
        peers=dict(mxnet=Peer(mxnet)),
    )


@pytest.mark.parametrize(("images", "rois"), [(1, 32), (4, 128)], ids=["image", "batch"])
def bench_mask_target(time_job, images, rois):
    time_job(job(images, rois))
