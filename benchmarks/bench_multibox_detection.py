"""multibox_detection of the scores and offsets of a model."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import TINY_SSD, anchors
from tools.jobs import InnerLoop, Job, Peer, check_scores, count_kept_pairs

import cvops


@lru_cache(maxsize=1)
def job(images, maps, classes, topk=-1):
    rng = np.random.default_rng(0)
    anchor = anchors(maps)
    num = anchor.shape[1]
    prob = np.exp(2 * rng.standard_normal((images, classes, num), np.float32))
    prob /= prob.sum(axis=1, keepdims=True)
    loc = rng.standard_normal((images, 4 * num), np.float32)
    arrays = prob, loc, anchor
    options = dict(nms_topk=topk)

    def check_close(ours, theirs):
        """Raise if the results differ by more than MXNet's exp allows.

        exp may differ in its last bit, and a decision with an IoU close to 0.5.
        """
        ours, theirs = ours[0], theirs[0]
        np.testing.assert_array_equal(ours[..., 1], theirs[..., 1])
        np.testing.assert_allclose(ours[..., 2:], theirs[..., 2:], rtol=0, atol=3e-7)
        assert (ours[..., 0] != theirs[..., 0]).mean() <= 1e-4

    def mxnet(mx, array):
        return partial(mx.nd.contrib.MultiBoxDetection, *map(array, arrays), **options)

    def torchvision(tv, tensor):
        from peers import torch_ops

        return partial(torch_ops.multibox_detection, tv, *map(tensor, arrays), **options)

    def check_kept(ours, theirs):
        """Raise if other boxes are kept.

        torchvision adds an offset for each class, so that the corners have fewer bits.
        """
        check_scores(*(x[0][..., 1][x[0][..., 0] >= 0] for x in (ours, theirs)), 0.99)

    def book(ops, tensor):
        return partial(ops.book_multibox_detection, *map(tensor, arrays))

    def check_kept_of_all_classes(ours, theirs):
        check_kept([cvops.multibox_detection(*arrays, force_suppress=True)], theirs)

    peers = dict(mxnet=Peer(mxnet, check_close), torchvision=Peer(torchvision, check_kept))
    if topk < 0:
        peers["book"] = Peer(book, check_kept_of_all_classes)
    return Job(
        "multibox_detection",
        f"{images} x {num}, {classes} classes" + (f", topk {topk}" if topk >= 0 else ""),
        partial(cvops.multibox_detection, **options),
        arrays,
        work=(images * num, "anchors"),
        written=4 * 6 * images * num,
        inner=InnerLoop("NMS", count_kept_pairs),
        peers=peers,
        too_slow=["numpy", "book", "book-gpu"] if images > 1 else [],
    )


@pytest.mark.parametrize(
    ("images", "classes", "topk"),
    [(1, 2, -1), (32, 2, -1), (32, 21, -1), (32, 21, 400)],
    ids=["small", "model", "large", "large topk"],
)
def bench_multibox_detection(time_job, images, classes, topk):
    time_job(job(images, TINY_SSD, classes, topk))
