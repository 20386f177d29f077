"""A small TinySSD, a batch for it, and its trainer."""

import numpy as np

from cvops._mxnet import mxnet
from cvops.models import TinySSD

mx = mxnet()
#: Side of the images in pixels. The feature maps have 8 x 8, 4 x 4, 2 x 2, 1 and 1 cells with 4
#: anchors each: 344 anchors.
SIDE = 64
STATIC = {"static_alloc": True, "static_shape": True}


def make(ops="mxnet", devices=None, seed=0):
    mx.random.seed(seed)
    net = TinySSD(("bee", "frog"), SIDE, ops)
    net.initialize(mx.init.Xavier(), ctx=devices)
    return net


def make_batch(count=3, seed=1):
    """Images of noise with two objects each; the last image has one object."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 255, (count, 3, SIDE, SIDE))
    labels = np.empty((count, 2, 5))
    labels[..., 0] = rng.integers(0, 2, (count, 2))
    labels[..., 1:3] = rng.uniform(0, 0.5, (count, 2, 2))
    labels[..., 3:] = labels[..., 1:3] + rng.uniform(0.2, 0.5, (count, 2, 2))
    labels[-1, 1] = -1
    return mx.nd.array(images), mx.nd.array(labels)


def make_trainer(net, rate=0.02):
    options = {"learning_rate": rate, "momentum": 0.9, "wd": 5e-4}
    return mx.gluon.Trainer(net.collect_params(), "sgd", options)


def log_softmax(x):
    """The logarithm of the softmax over the last axis, in float64."""
    x = np.asarray(x, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
