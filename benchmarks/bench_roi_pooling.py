"""roi_pooling, forward and backward, of feature maps with a sixteenth of the image size.

MXNet and torchvision also write the positions of the maxima. ONNX Runtime and OpenVINO do not, nor
cvops without ``return_argmax``.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import boxes
from tools.jobs import Job, Peer

import cvops

SCALE = 1 / 16
BINS = 7, 7
CASES = pytest.mark.parametrize(
    ("num", "shape"),
    [
        (20, (1, 16, 50, 68)),
        (32, (1, 64, 25, 34)),
        (300, (1, 256, 50, 68)),
        (1000, (1, 256, 50, 68)),
    ],
    ids=["few", "small", "model", "large"],
)


def make_inputs(num, shape):
    """Return feature maps, rois, the name of the size and the number of bins."""
    rng = np.random.default_rng(0)
    images, channels, height, width = shape
    data = rng.standard_normal(shape, np.float32)
    corners = boxes(rng, num, 0.04, 0.5).clip(0, 1) * np.float32([width, height] * 2) / SCALE
    rois = np.column_stack([rng.integers(0, images, num), corners]).astype(np.float32)
    size = f"{num} rois of {channels} x {height} x {width}"
    return data, rois, size, num * channels * BINS[0] * BINS[1]


@lru_cache(maxsize=1)
def job(num, shape):
    data, rois, size, bins = make_inputs(num, shape)

    def check_close(ours, theirs):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)

    def mxnet(mx, array):
        return partial(mx.nd.ROIPooling, array(data), array(rois), BINS, SCALE)

    def torchvision(tv, tensor):
        return partial(tv.ops.roi_pool, tensor(data), tensor(rois), BINS, SCALE)

    def onnxruntime(onnx, array):
        inputs = dict(data=data, rois=rois)
        options = dict(pooled_shape=BINS, spatial_scale=SCALE)
        return onnx.call("MaxRoiPool", inputs, np.float32, **options)

    def openvino(vino, array):
        def make(ops, *inputs):
            return ops.roi_pooling(*inputs, list(BINS), SCALE, "max")

        return vino.call(make, data, rois)

    return Job(
        "roi_pooling",
        size,
        partial(cvops.roi_pooling, pooled_size=BINS, spatial_scale=SCALE),
        (data, rois),
        work=(bins, "bins"),
        written=4 * bins,
        peers=dict(
            mxnet=Peer(mxnet),
            torchvision=Peer(torchvision, check_close),
            onnxruntime=Peer(onnxruntime, check_close),
            openvino=Peer(openvino, check_close),
        ),
        too_slow=["numpy"] if num > 100 else [],
    )


@lru_cache(maxsize=1)
def backward_job(num, shape):
    data, rois, size, bins = make_inputs(num, shape)
    pooled, argmax = cvops.roi_pooling(data, rois, BINS, SCALE, return_argmax=True)
    out_grad = np.random.default_rng(1).standard_normal(pooled.shape, np.float32)

    def mxnet(mx, array):
        x, grad = array(data), array(out_grad)
        x.attach_grad()
        with mx.autograd.record():
            out = mx.nd.ROIPooling(x, array(rois), BINS, SCALE)

        def backward():
            out.backward(grad, retain_graph=True)
            return x.grad

        return backward

    def torchvision(tv, tensor):
        import torch

        x, grad = tensor(data).requires_grad_(), tensor(out_grad)
        out = tv.ops.roi_pool(x, tensor(rois), BINS, SCALE)
        return lambda: torch.autograd.grad(out, x, grad, retain_graph=True)[0]

    def check_close(ours, theirs):
        """Raise if the results differ; on a GPU the order of torchvision's sums varies."""
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-4)

    return Job(
        "roi_pooling_backward",
        size,
        partial(cvops.roi_pooling_backward, data_shape=shape),
        (out_grad, argmax),
        work=(bins, "bins"),
        written=data.nbytes,
        peers=dict(mxnet=Peer(mxnet), torchvision=Peer(torchvision, check_close)),
        too_slow=["numpy"] if num == 1000 else [],
    )


@CASES
def bench_roi_pooling(time_job, num, shape):
    time_job(job(num, shape))


@CASES
def bench_roi_pooling_backward(time_job, num, shape):
    time_job(backward_job(num, shape))
