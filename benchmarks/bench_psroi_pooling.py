"""psroi_pooling, forward and backward, of R-FCN's maps with a sixteenth of the image size.

MXNet adds the pixels, and the gradients of a pixel, in the order of cvops.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import boxes
from tools.jobs import Job, Peer

import cvops

SCALE = 1 / 16
SIZE = 7
CASES = pytest.mark.parametrize(
    ("num", "dim", "shape"),
    [(32, 8, (1, 392, 25, 34)), (300, 21, (1, 1029, 38, 63)), (300, 81, (1, 3969, 38, 63))],
    ids=["small", "model", "large"],
)


def make_inputs(num, dim, shape):
    """Return feature maps, rois, the name of the size and the number of bins."""
    rng = np.random.default_rng(0)
    images, _, height, width = shape
    data = rng.standard_normal(shape, np.float32)
    corners = boxes(rng, num, 0.04, 0.5).clip(0, 1) * np.float32([width, height] * 2) / SCALE
    rois = np.column_stack([rng.integers(0, images, num), corners]).astype(np.float32)
    size = f"{num} rois of {dim} x {SIZE} x {SIZE} x {height} x {width}"
    return data, rois, size, num * dim * SIZE * SIZE


@lru_cache(maxsize=1)
def job(num, dim, shape):
    data, rois, size, bins = make_inputs(num, dim, shape)

    def mxnet(mx, array):
        return partial(mx.nd.contrib.PSROIPooling, array(data), array(rois), SCALE, dim, SIZE)

    def openvino(vino, array):
        def make(ops, *inputs):
            return ops.psroi_pooling(*inputs, dim, SIZE, SCALE, SIZE, SIZE, "average")

        return vino.call(make, data, rois)

    def check_close(ours, theirs):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-4)

    return Job(
        "psroi_pooling",
        size,
        partial(cvops.psroi_pooling, spatial_scale=SCALE, output_dim=dim, pooled_size=SIZE),
        (data, rois),
        work=(bins, "bins"),
        written=4 * bins,
        peers=dict(mxnet=Peer(mxnet), openvino=Peer(openvino, check_close)),
        too_slow=["numpy"] if num > 100 else [],
    )


@lru_cache(maxsize=1)
def backward_job(num, dim, shape):
    data, rois, size, bins = make_inputs(num, dim, shape)
    out_grad = np.random.default_rng(1).standard_normal((num, dim, SIZE, SIZE), np.float32)

    def mxnet(mx, array):
        x, grad = array(data), array(out_grad)
        x.attach_grad()
        with mx.autograd.record():
            out = mx.nd.contrib.PSROIPooling(x, array(rois), SCALE, dim, SIZE)

        def backward():
            out.backward(grad, retain_graph=True)
            return x.grad

        return backward

    return Job(
        "psroi_pooling_backward",
        size,
        partial(cvops.psroi_pooling_backward, data_shape=shape, spatial_scale=SCALE),
        (out_grad, rois),
        work=(bins, "bins"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet)),
        too_slow=["numpy"] if num > 100 else [],
    )


@CASES
def bench_psroi_pooling(time_job, num, dim, shape):
    time_job(job(num, dim, shape))


@CASES
def bench_psroi_pooling_backward(time_job, num, dim, shape):
    time_job(backward_job(num, dim, shape))
