"""adaptive_avg_pooling, forward and backward: the global mean, and a grid of a pyramid.

PyTorch adds the pixels of a bin in the same order.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.jobs import Job, Peer

import cvops

CASES = pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 512, 7, 7), 1), ((1, 2048, 60, 60), 6), ((32, 256, 56, 56), 1)],
    ids=["small", "model", "large"],
)


def check_close(ours, theirs):
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-5)


def make_inputs(shape, size):
    """Return the maps, a gradient of the result, and the name of the size."""
    rng = np.random.default_rng(0)
    name = f"{' x '.join(map(str, shape))} to {size} x {size}"
    out_grad = rng.standard_normal((*shape[:2], size, size), np.float32)
    return rng.standard_normal(shape, np.float32), out_grad, name


@lru_cache(maxsize=1)
def job(shape, size):
    data, out_grad, name = make_inputs(shape, size)

    def mxnet(mx, array):
        return partial(mx.nd.contrib.AdaptiveAvgPooling2D, array(data), output_size=size)

    def pytorch(_, tensor):
        import torch

        return partial(torch.nn.functional.adaptive_avg_pool2d, tensor(data), size)

    def openvino(vino, array):
        return vino.call(lambda ops, x: ops.adaptive_avg_pool(x, np.int32([size, size])), data)

    return Job(
        "adaptive_avg_pooling",
        name,
        partial(cvops.adaptive_avg_pooling, output_size=size),
        (data,),
        work=(data.size, "pixels"),
        written=out_grad.nbytes,
        peers=dict(
            mxnet=Peer(mxnet),
            torch=Peer(pytorch, check_close),
            openvino=Peer(openvino, check_close),
        ),
        too_slow=["numpy"] if data.nbytes > 1e7 else [],
    )


@lru_cache(maxsize=1)
def backward_job(shape, size):
    data, out_grad, name = make_inputs(shape, size)

    def mxnet(mx, array):
        x, grad = array(data), array(out_grad)
        x.attach_grad()
        with mx.autograd.record():
            out = mx.nd.contrib.AdaptiveAvgPooling2D(x, output_size=size)

        def backward():
            out.backward(grad, retain_graph=True)
            return x.grad

        return backward

    def pytorch(_, tensor):
        import torch

        x, grad = tensor(data).requires_grad_(), tensor(out_grad)
        out = torch.nn.functional.adaptive_avg_pool2d(x, size)
        return lambda: torch.autograd.grad(out, x, grad, retain_graph=True)[0]

    return Job(
        "adaptive_avg_pooling_backward",
        name,
        partial(cvops.adaptive_avg_pooling_backward, data_shape=shape),
        (out_grad,),
        work=(data.size, "pixels"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet), torch=Peer(pytorch, check_close)),
        too_slow=["numpy"] if data.nbytes > 1e7 else [],
    )


@CASES
def bench_adaptive_avg_pooling(time_job, shape, size):
    time_job(job(shape, size))


@CASES
def bench_adaptive_avg_pooling_backward(time_job, shape, size):
    time_job(backward_job(shape, size))
