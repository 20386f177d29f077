"""bilinear_upsample, forward and backward: scores of 21 classes, enlarged to the image size.

The peer is MXNet's Deconvolution with one group per channel. The book's layer connects all channels
and has 21 times the work.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.jobs import Job, Peer

import cvops

CASES = pytest.mark.parametrize(
    ("shape", "scale"),
    [((1, 21, 10, 15), 32), ((8, 21, 40, 60), 8), ((32, 21, 10, 15), 32)],
    ids=["small", "model", "large"],
)


def make_inputs(shape, scale):
    """Return the maps, a gradient of the result, and the name of the size."""
    images, channels, height, width = shape
    rng = np.random.default_rng(0)
    data = rng.standard_normal(shape, np.float32)
    large = images, channels, scale * height, scale * width
    size = f"{images} x {channels} x {height} x {width}, {scale} times"
    return data, rng.standard_normal(large, np.float32), size


def deconvolution(mx, array, data, scale):
    """Return MXNet's layer as a function of the maps."""
    t = np.arange(2 * scale - scale % 2)
    profile = 1 - abs(t - (len(t) - 1) / 2) / scale
    channels = data.shape[1]
    return partial(
        mx.nd.Deconvolution,
        weight=array(np.broadcast_to(profile[:, None] * profile, (channels, 1, len(t), len(t)))),
        kernel=(len(t), len(t)),
        stride=(scale, scale),
        pad=(scale // 2, scale // 2),
        num_filter=channels,
        num_group=channels,
        no_bias=True,
    )


def check_close(ours, theirs):
    """Raise if the results differ.

    The sums of 4 products (backward: up to 64 x 64) have another order.
    """
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-3)


@lru_cache(maxsize=1)
def job(shape, scale):
    data, out_grad, size = make_inputs(shape, scale)

    def mxnet(mx, array):
        return partial(deconvolution(mx, array, data, scale), array(data))

    return Job(
        "bilinear_upsample",
        size,
        partial(cvops.bilinear_upsample, scale=scale),
        (data,),
        work=(out_grad.size, "pixels"),
        written=out_grad.nbytes,
        peers=dict(mxnet=Peer(mxnet, check_close)),
        too_slow=["numpy"] if out_grad.nbytes > 1e8 else [],
    )


@lru_cache(maxsize=1)
def backward_job(shape, scale):
    data, out_grad, size = make_inputs(shape, scale)

    def mxnet(mx, array):
        x, grad = array(data), array(out_grad)
        x.attach_grad()
        layer = deconvolution(mx, array, data, scale)
        with mx.autograd.record():
            out = layer(x)

        def backward():
            out.backward(grad, retain_graph=True)
            return x.grad

        return backward

    return Job(
        "bilinear_upsample_backward",
        size,
        partial(cvops.bilinear_upsample_backward, scale=scale),
        (out_grad,),
        work=(out_grad.size, "pixels"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet, check_close)),
        too_slow=["numpy"] if out_grad.nbytes > 1e8 else [],
    )


@CASES
def bench_bilinear_upsample(time_job, shape, scale):
    time_job(job(shape, scale))


@CASES
def bench_bilinear_upsample_backward(time_job, shape, scale):
    time_job(backward_job(shape, scale))
