"""roi_pooling, forward and backward, of feature maps at a sixteenth of the image's size.

MXNet and torchvision write the places of the values too, whether asked or not; ours is not asked.
"""

from functools import partial

import numpy as np
import pytest
from harness import boxes

import cvops

SCALE = 1 / 16
BINS = 7, 7
CASES = pytest.mark.parametrize(
    ("num", "shape"),
    [(32, (1, 64, 25, 34)), (300, (1, 256, 50, 68)), (1000, (1, 256, 50, 68))],
    ids=["small", "model", "large"],
)


def scene(num, shape):
    """Feature maps, rois, the size's name and the number of bins."""
    rng = np.random.default_rng(0)
    images, channels, height, width = shape
    data = rng.standard_normal(shape, np.float32)
    corners = boxes(rng, num, 0.04, 0.5).clip(0, 1) * np.float32([width, height] * 2) / SCALE
    rois = np.column_stack([rng.integers(0, images, num), corners]).astype(np.float32)
    size = f"{num} rois of {channels} x {height} x {width}"
    return data, rois, size, num * channels * BINS[0] * BINS[1]


@CASES
def bench_roi_pooling(race, num, shape):
    data, rois, size, bins = scene(num, shape)

    def as_torchvision(ours, theirs):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)

    def torchvision(tv, tensor):
        return partial(tv.ops.roi_pool, tensor(data), tensor(rois), BINS, SCALE)

    race(
        size,
        partial(cvops.roi_pooling, pooled_size=BINS, spatial_scale=SCALE),
        (data, rois),
        moved=data.nbytes + rois.nbytes + 4 * bins,
        work=(bins, "bins"),
        mxnet=lambda mx, array: partial(mx.nd.ROIPooling, array(data), array(rois), BINS, SCALE),
        torchvision=torchvision,
        as_torchvision=as_torchvision,
        too_slow=["numpy"] if num > 100 else [],
    )


@CASES
def bench_roi_pooling_backward(race, num, shape):
    data, rois, size, bins = scene(num, shape)
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

    def as_torchvision(ours, theirs):
        """On a GPU it adds in no order."""
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-4)

    race(
        size,
        partial(cvops.roi_pooling_backward, data_shape=shape),
        (out_grad, argmax),
        op="roi_pooling_backward",
        moved=out_grad.nbytes + argmax.nbytes + data.nbytes,
        work=(bins, "bins"),
        mxnet=mxnet,
        torchvision=torchvision,
        as_torchvision=as_torchvision,
        too_slow=["numpy"] if num == 1000 else [],
    )
