"""MXNet's own ops on the arrays of ``small_inputs.py``: functions that make a call."""

from __future__ import annotations

from functools import partial

import numpy as np
from tools.small_inputs import CELLS, DEFORMED, MAPS, ROIS


def roi_pooling_backward(mx, out_grad, argmax):
    """Return a call of MXNet's backward pass.

    It uses the positions of its own forward pass, which are equal to ``argmax``.
    """
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.ROIPooling(data, mx.nd.array(ROIS), (2, 2), 1.0)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def deformable_psroi_pooling_backward(mx, out_grad, *arrays):
    """Return a call of MXNet's backward pass."""
    for x in arrays:
        x.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.DeformablePSROIPooling(*arrays, **DEFORMED)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return [arrays[0].grad, arrays[2].grad]

    return backward


def psroi_pooling_backward(mx, out_grad, rois):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(CELLS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.PSROIPooling(data, rois, 1.0, 1, 2)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def roi_align_backward(mx, out_grad, rois):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.ROIAlign(data, rois, (2, 2), 1.0)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def adaptive_avg_pooling_backward(mx, out_grad):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.AdaptiveAvgPooling2D(data, output_size=2)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def bilinear_resize_backward(mx, out_grad):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.BilinearResize2D(data, height=2, width=2)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


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
