"""The networks of the benchmarks, and their inputs."""

from __future__ import annotations

import numpy as np
from tools.inputs import boxes

from cvops._mxnet import mxnet
from cvops.models import tiny_ssd
from cvops.models.tiny_ssd import TinySSD

OPS = "mxnet", "cvops"
SIDE = 256
STATIC = {"static_alloc": True, "static_shape": True}


def tiny_ssds():
    """Return two TinySSDs of one class with equal parameters, with the ops of MXNet and cvops."""
    mx = mxnet()
    mx.random.seed(0)
    np.random.seed(0)  # for the initializers
    nets = {ops: TinySSD(["thing"], SIDE, ops) for ops in OPS}
    for net in nets.values():
        net.initialize(mx.init.Xavier())
    first, second = (net.collect_params().values() for net in nets.values())
    for source, target in zip(first, second):
        target.set_data(source.data())
    return nets


def images(batch):
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, SIDE, SIDE))
    return mxnet().nd.array(pixels, dtype=np.float32)


def labels(batch, objects):
    corners = boxes(np.random.default_rng(1), batch * objects, 0.05, 0.6)
    classes = np.zeros((batch, objects, 1))
    return mxnet().nd.array(np.concatenate([classes, corners.reshape(batch, objects, 4)], axis=-1))


def make_priors(net, pixels):
    """Return a function that calls MultiBoxPrior for each feature map of the images."""
    nd = mxnet().nd
    maps, features = [], pixels
    for stage in net.stages:
        features = stage(features)
        maps.append(nd.zeros(features.shape))  # anchors depend only on the shape

    def call():
        for feature_map, sizes, ratios in zip(maps, tiny_ssd.SIZES, tiny_ssd.RATIOS):
            net.op(nd, "MultiBoxPrior")(feature_map, sizes=sizes, ratios=ratios)

    return call
