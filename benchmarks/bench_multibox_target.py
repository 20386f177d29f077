"""multibox_target of batches, with and without hard negative mining."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import SSD_512, TINY_SSD, anchors, boxes
from tools.jobs import InnerLoop, Job, Peer

import cvops

MINING = dict(negative_mining_ratio=3.0, negative_mining_thresh=0.5)


@lru_cache(maxsize=1)
def job(images, maps, num_gt, classes=2, mining=False):
    rng = np.random.default_rng(0)
    anchor = anchors(maps)
    num = anchor.shape[1]
    label = np.empty((images, num_gt, 5), np.float32)
    label[..., 0] = rng.integers(0, classes - 1, label.shape[:2])
    label[..., 1:] = boxes(rng, images * num_gt, 0.05, 0.6).reshape(images, num_gt, 4)
    cls_pred = rng.standard_normal((images, classes, num), np.float32)
    arrays = anchor, label, cls_pred
    options = MINING if mining else {}

    def check_close(ours, theirs):
        """Raise if the results differ by more than MXNet's log and exp allow.

        The logarithm, and with mining the softmax, may differ in the last bit.
        """
        np.testing.assert_allclose(ours[0], theirs[0], rtol=4e-7, atol=1e-6)
        np.testing.assert_array_equal(ours[1], theirs[1])
        positive = theirs[1][:, ::4] > 0
        np.testing.assert_array_equal(ours[2][positive], theirs[2][positive])
        np.testing.assert_array_equal((ours[2] == 0).sum(axis=1), (theirs[2] == 0).sum(axis=1))
        assert (ours[2] != theirs[2]).sum() <= (2 * images if mining else 0)

    def mxnet(mx, array):
        return partial(mx.nd.contrib.MultiBoxTarget, *map(array, arrays), **options)

    def torch(ops, tensor):
        return partial(ops.multibox_target, *map(tensor, arrays), **options)

    def book(ops, tensor):
        return partial(ops.book_multibox_target, *map(tensor, arrays[:2]))

    def check_most(ours, theirs):
        """Raise if more than a few anchors have other targets: other roundings change decisions."""
        same = ours[2] == theirs[2]
        assert same.mean() >= 0.999
        both = np.repeat(same & (theirs[2] > 0), 4, axis=1)
        np.testing.assert_array_equal(ours[1][both], theirs[1][both])
        np.testing.assert_allclose(ours[0][both], theirs[0][both], rtol=1e-4, atol=1e-4)

    peers = dict(mxnet=Peer(mxnet, check_close), torch=Peer(torch, check_most))
    if not mining:
        peers["book"] = Peer(book, check_most)
    too_slow = ["numpy"] if images > 1 else []
    if images * num * num_gt > 1e7:
        too_slow += ["torch", "book"]
    return Job(
        "multibox_target",
        f"{images} x {num} x {num_gt}" + (f", {classes} classes, mining" if mining else ""),
        partial(cvops.multibox_target, **options),
        arrays,
        work=(images * num * num_gt, "pairs"),
        written=4 * 9 * images * num,
        read=sum(x.nbytes for x in (arrays if mining else arrays[:2])),
        inner=InnerLoop("IoU", lambda out: images * num * num_gt),
        peers=peers,
        too_slow=too_slow,
    )


@pytest.mark.parametrize(
    ("images", "maps", "num_gt", "classes", "mining"),
    [
        (1, TINY_SSD, 8, 2, False),
        (32, TINY_SSD, 8, 2, False),
        (32, TINY_SSD, 64, 2, False),
        (64, SSD_512, 8, 21, True),
    ],
    ids=["small", "few ground truths", "model", "large"],
)
def bench_multibox_target(time_job, images, maps, num_gt, classes, mining):
    time_job(job(images, maps, num_gt, classes, mining))
