"""A small fully convolutional network, and inputs for it."""

import numpy as np

from cvops._mxnet import mxnet
from cvops.models import FCN

mx = mxnet()


def make_net(seed=0, **options):
    mx.random.seed(seed)
    net = FCN(5, **options)
    net.initialize()
    return net


def random_array(*shape, seed=0):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape))
