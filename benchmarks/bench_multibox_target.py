"""multibox_target: truths to anchors, in batches; with mining of negatives where it says so."""

from functools import partial

import numpy as np
import pytest
from harness import SSD_512, TINY_SSD, anchors, boxes

import cvops

MINING = dict(negative_mining_ratio=3.0, negative_mining_thresh=0.5)


@pytest.mark.parametrize(
    ("images", "model", "truths", "classes", "options"),
    [
        (1, TINY_SSD, 8, 2, {}),
        (32, TINY_SSD, 1, 2, {}),
        (32, TINY_SSD, 64, 2, {}),
        (64, SSD_512, 8, 21, MINING),
    ],
    ids=["small", "one truth", "model", "large"],
)
def bench_multibox_target(race, images, model, truths, classes, options):
    rng = np.random.default_rng(0)
    anchor = anchors(model)
    num = anchor.shape[1]
    label = np.empty((images, truths, 5), np.float32)
    label[..., 0] = rng.integers(0, classes - 1, label.shape[:2])
    label[..., 1:] = boxes(rng, images * truths, 0.05, 0.6).reshape(images, truths, 4)
    cls_pred = rng.standard_normal((images, classes, num), np.float32)

    def as_mxnet(ours, theirs):
        """The logarithm, and with mining the softmax, may differ in their last bit."""
        np.testing.assert_allclose(ours[0], theirs[0], rtol=4e-7, atol=1e-6)
        np.testing.assert_array_equal(ours[1], theirs[1])
        positive = theirs[1][:, ::4] > 0
        np.testing.assert_array_equal(ours[2][positive], theirs[2][positive])
        np.testing.assert_array_equal((ours[2] == 0).sum(axis=1), (theirs[2] == 0).sum(axis=1))
        assert (ours[2] != theirs[2]).sum() <= (2 * images if options else 0)

    arrays = anchor, label, cls_pred
    read = sum(x.nbytes for x in (arrays if options else arrays[:2]))

    def mxnet(mx, array):
        return partial(mx.nd.contrib.MultiBoxTarget, *map(array, arrays), **options)

    race(
        f"{images} x {num} x {truths}" + (f", {classes} classes, mining" if options else ""),
        partial(cvops.multibox_target, **options),
        arrays,
        moved=read + 4 * 9 * images * num,
        work=(images * num * truths, "pairs"),
        mxnet=mxnet,
        as_mxnet=as_mxnet,
        too_slow=["numpy"] if images > 1 else [],
    )
