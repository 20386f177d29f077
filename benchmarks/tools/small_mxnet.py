"""MXNet's own ops on the arrays of ``small_inputs.py``: functions that make a call."""

from __future__ import annotations

from functools import partial

import numpy as np
from tools.small_inputs import CELLS, DEFORMED, MAPS, ROIS


def gradients(mx, out_grad, forward, *inputs):
    """Return a call of MXNet's backward pass, which gives the gradients of some inputs."""
    for x in inputs:
        x.attach_grad()
    with mx.autograd.record():
        out = forward()

    def backward():
        out.backward(out_grad, retain_graph=True)
        return inputs[0].grad if len(inputs) == 1 else [x.grad for x in inputs]

    return backward


def roi_pooling_backward(mx, out_grad, argmax):
    """Return a call of MXNet's backward pass.

    It uses the positions of its own forward pass, which are equal to ``argmax``.
    """
    data, rois = mx.nd.array(MAPS), mx.nd.array(ROIS)
    return gradients(mx, out_grad, lambda: mx.nd.ROIPooling(data, rois, (2, 2), 1.0), data)


def deformable_psroi_pooling_backward(mx, out_grad, data, rois, trans):
    """Return a call of MXNet's backward pass."""
    pool = partial(mx.nd.contrib.DeformablePSROIPooling, data, rois, trans, **DEFORMED)
    return gradients(mx, out_grad, pool, data, trans)


def psroi_pooling_backward(mx, out_grad, rois):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(CELLS)
    pool = partial(mx.nd.contrib.PSROIPooling, data, rois, 1.0, 1, 2)
    return gradients(mx, out_grad, pool, data)


def roi_align_backward(mx, out_grad, rois):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    return gradients(mx, out_grad, partial(mx.nd.contrib.ROIAlign, data, rois, (2, 2), 1.0), data)


def adaptive_avg_pooling_backward(mx, out_grad):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    pool = partial(mx.nd.contrib.AdaptiveAvgPooling2D, data, output_size=2)
    return gradients(mx, out_grad, pool, data)


def bilinear_resize_backward(mx, out_grad):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    resize = partial(mx.nd.contrib.BilinearResize2D, data, height=2, width=2)
    return gradients(mx, out_grad, resize, data)


def deconvolution(mx, maps):
    """Return a call that enlarges the maps 2 times."""
    profile = np.float32([0.25, 0.75, 0.75, 0.25])
    weight = mx.nd.array((profile[:, None] * profile)[None, None])
    sizes = dict(kernel=(4, 4), stride=(2, 2), pad=(1, 1))
    return partial(mx.nd.Deconvolution, maps, weight, **sizes, num_filter=1, no_bias=True)


def bincount(mx, prediction, label):
    """Return a call that counts the pairs of a prediction and a label."""
    prediction, label = prediction.as_np_ndarray().reshape(-1), label.as_np_ndarray().reshape(-1)
    return lambda: mx.np.bincount(label * 3 + prediction, minlength=9).reshape(3, 3)


def contrib(name, **options):
    """Return a function that makes the call of MXNet's op with that name."""
    return lambda mx, *arrays: partial(getattr(mx.nd.contrib, name), *arrays, **options)
