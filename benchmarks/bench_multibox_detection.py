"""multibox_detection: what a model predicts for TinySSD's anchors, to boxes."""

from functools import partial

import numpy as np
import pytest
from harness import TINY_SSD, anchors

import cvops


@pytest.mark.parametrize(
    ("images", "classes"), [(1, 2), (32, 2), (32, 21)], ids=["small", "model", "large"]
)
def bench_multibox_detection(race, images, classes):
    rng = np.random.default_rng(0)
    anchor = anchors(TINY_SSD)
    num = anchor.shape[1]
    prob = np.exp(2 * rng.standard_normal((images, classes, num), np.float32))
    prob /= prob.sum(axis=1, keepdims=True)
    loc = rng.standard_normal((images, 4 * num), np.float32)
    arrays = prob, loc, anchor

    def as_mxnet(ours, theirs):
        """exp may differ in its last bit, and then a decision where an IoU is that near to 0.5."""
        ours, theirs = ours[0], theirs[0]
        np.testing.assert_array_equal(ours[..., 1], theirs[..., 1])
        np.testing.assert_allclose(ours[..., 2:], theirs[..., 2:], rtol=0, atol=3e-7)
        assert (ours[..., 0] != theirs[..., 0]).mean() <= 1e-4

    race(
        f"{images} x {num}, {classes} classes",
        cvops.multibox_detection,
        arrays,
        moved=sum(x.nbytes for x in arrays) + 4 * 6 * images * num,
        work=(images * num, "anchors"),
        mxnet=lambda mx, array: partial(mx.nd.contrib.MultiBoxDetection, *map(array, arrays)),
        as_mxnet=as_mxnet,
        too_slow=["numpy"] if images > 1 else [],
    )
