"""rroi_align of feature maps with a sixteenth of the image size, two samples per axis of a bin.

The rois are those of roi_pooling, turned by any angle. The sines and cosines of MXNet's C library
may differ in the last bit.
"""

from functools import lru_cache, partial

import numpy as np
from bench_roi_pooling import BINS, CASES, SCALE, make_inputs
from tools.jobs import Job, Peer

import cvops

RATIO = 2


def check_close(ours, theirs):
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-4)


@lru_cache(maxsize=1)
def job(num, shape):
    data, rois, size, bins = make_inputs(num, shape)
    image, corners = rois[:, :1], rois[:, 1:].reshape(num, 2, 2)
    degrees = np.random.default_rng(2).uniform(-180, 180, (num, 1))
    parts = [image, corners.mean(axis=1), corners[:, 1] - corners[:, 0], degrees]
    turned = np.concatenate(parts, axis=1).astype(np.float32)

    def mxnet(mx, array):
        inputs = array(data), array(turned)
        return partial(mx.nd.contrib.RROIAlign, *inputs, BINS, SCALE, RATIO)

    return Job(
        "rroi_align",
        size,
        partial(cvops.rroi_align, pooled_size=BINS, spatial_scale=SCALE, sampling_ratio=RATIO),
        (data, turned),
        work=(bins, "bins"),
        written=4 * bins,
        peers=dict(mxnet=Peer(mxnet, check_close)),
        too_slow=["numpy"] if num > 100 else [],
    )


@CASES
def bench_rroi_align(time_job, num, shape):
    time_job(job(num, shape))
