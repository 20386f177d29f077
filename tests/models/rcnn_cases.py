"""Small networks of the R-CNN family, and a batch for them."""

import numpy as np

from cvops._mxnet import mxnet
from cvops.models.rcnn import FasterRCNN, FastRCNN

mx = mxnet()
#: Side of the images in pixels. The map has 8 x 8 cells with 5 anchors each.
SIDE, ANCHORS = 64, 320
CLASSES = ("bee", "frog")
STATIC = {"static_alloc": True, "static_shape": True}


def make(kind=FasterRCNN, devices=None, seed=0, **options):
    mx.random.seed(seed)
    net = kind(CLASSES, SIDE, hidden=32, **options)
    net.initialize(ctx=devices)
    return net


def make_fast(**options):
    return make(FastRCNN, **options)


def make_batch(count=2, seed=1):
    """Noise with two bright objects each, bees left and frogs right; the last has no frog.

    Returns images, labels and masks.
    """
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 80, (count, 3, SIDE, SIDE))
    labels, masks = np.full((count, 2, 5), -1.0), np.zeros((count, 2, SIDE, SIDE))
    for i in range(count):
        for kind in range(1 if i == count - 1 else 2):
            x, y = rng.integers(2, 8) + 32 * kind, rng.integers(2, 30)
            width, height = rng.integers(14, 23, 2)
            masks[i, kind, y : y + height, x : x + width] = 1
            images[i, kind] += 150 * masks[i, kind]
            labels[i, kind] = kind, *np.array([x, y, x + width, y + height]) / SIDE
    return tuple(map(mx.nd.array, (images, labels, masks)))


def make_proposals(labels, seed=2, count=12):
    """Boxes near the objects and random ones; the last row is padding."""
    rng = np.random.default_rng(seed)
    boxes = np.full((len(labels), count, 4), -1.0)
    for rows, objects in zip(boxes, labels.asnumpy()):
        low = rng.uniform(0, 0.6, (count - 1, 2))
        rows[:-1] = np.concatenate([low, low + rng.uniform(0.1, 0.4, (count - 1, 2))], axis=1)
        objects = objects[objects[:, 0] >= 0, 1:5]
        rows[: len(objects)] = objects + rng.uniform(-0.02, 0.02, objects.shape)
    return mx.nd.array(boxes)


def make_trainer(net, rate=2e-3):
    return mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": rate})
