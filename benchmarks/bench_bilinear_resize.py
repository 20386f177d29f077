"""bilinear_resize, forward and backward: scores to the size of the image, and maps to half.

PyTorch's ``interpolate`` has the same positions. It may contract products and sums, and adds
gradients in any order on a GPU. The order of MXNet's sums of gradients depends on its threads.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.jobs import Job, Peer

import cvops

CASES = pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 64, 28, 28), (56, 56)),
        ((8, 21, 60, 60), (480, 480)),
        ((8, 256, 64, 64), (32, 32)),
    ],
    ids=["small", "scores", "reduced"],
)


def check_close(ours, theirs):
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3, atol=1e-3)


def make_inputs(shape, size):
    """Return the maps, a gradient of the result, and the name of the size."""
    rng = np.random.default_rng(0)
    name = f"{' x '.join(map(str, shape))} to {size[0]} x {size[1]}"
    out_grad = rng.standard_normal((*shape[:2], *size), np.float32)
    return rng.standard_normal(shape, np.float32), out_grad, name


@lru_cache(maxsize=1)
def job(shape, size):
    data, out_grad, name = make_inputs(shape, size)
    options = dict(height=size[0], width=size[1])

    def mxnet(mx, array):
        return partial(mx.nd.contrib.BilinearResize2D, array(data), **options)

    def pytorch(_, tensor):
        from torch.nn.functional import interpolate

        return partial(interpolate, tensor(data), size, mode="bilinear", align_corners=True)

    def openvino(vino, array):
        def make(ops, x):
            options = dict(axes=np.int32([2, 3]), coordinate_transformation_mode="align_corners")
            return ops.interpolate(x, np.int32(size), "linear_onnx", "sizes", **options)

        return vino.call(make, data)

    return Job(
        "bilinear_resize",
        name,
        partial(cvops.bilinear_resize, **options),
        (data,),
        work=(out_grad.size, "pixels"),
        written=out_grad.nbytes,
        peers=dict(
            mxnet=Peer(mxnet),
            torch=Peer(pytorch, check_close),
            openvino=Peer(openvino, check_close),
        ),
        too_slow=["numpy"] if out_grad.nbytes > 1e7 else [],
    )


@lru_cache(maxsize=1)
def backward_job(shape, size):
    data, out_grad, name = make_inputs(shape, size)

    def mxnet(mx, array):
        x, grad = array(data), array(out_grad)
        x.attach_grad()
        with mx.autograd.record():
            out = mx.nd.contrib.BilinearResize2D(x, height=size[0], width=size[1])

        def backward():
            out.backward(grad, retain_graph=True)
            return x.grad

        return backward

    def pytorch(_, tensor):
        import torch

        x, grad = tensor(data).requires_grad_(), tensor(out_grad)
        out = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=True)
        return lambda: torch.autograd.grad(out, x, grad, retain_graph=True)[0]

    return Job(
        "bilinear_resize_backward",
        name,
        partial(cvops.bilinear_resize_backward, data_shape=shape),
        (out_grad,),
        work=(out_grad.size, "pixels"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet, check_close), torch=Peer(pytorch, check_close)),
        too_slow=["numpy"],
    )


@CASES
def bench_bilinear_resize(time_job, shape, size):
    time_job(job(shape, size))


@CASES
def bench_bilinear_resize_backward(time_job, shape, size):
    time_job(backward_job(shape, size))
