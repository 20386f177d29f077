"""multibox_detection: from a model's scores and offsets to boxes."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.harness import TINY_SSD, Inner, Job, Peer, anchors, pairs_of_kept, same_scores

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

    def close(ours, theirs):
        """Compare; exp may differ in its last bit, and a decision with an IoU close to 0.5."""
        ours, theirs = ours[0], theirs[0]
        np.testing.assert_array_equal(ours[..., 1], theirs[..., 1])
        np.testing.assert_allclose(ours[..., 2:], theirs[..., 2:], rtol=0, atol=3e-7)
        assert (ours[..., 0] != theirs[..., 0]).mean() <= 1e-4

    def mxnet(mx, array):
        return partial(mx.nd.contrib.MultiBoxDetection, *map(array, arrays), **options)

    def torchvision(tv, tensor):
        from peers import torch_ops

        return partial(torch_ops.multibox_detection, tv, *map(tensor, arrays), **options)

    def same_boxes(ours, theirs):
        """Compare; torchvision adds an offset for each class, which costs bits of the corners."""
        same_scores(*(x[0][..., 1][x[0][..., 0] >= 0] for x in (ours, theirs)), 0.99)

    def book(ops, tensor):
        return partial(ops.book_multibox_detection, *map(tensor, arrays))

    def same_boxes_of_any_class(ours, theirs):
        same_boxes([cvops.multibox_detection(*arrays, force_suppress=True)], theirs)

    peers = dict(mxnet=Peer(mxnet, close), torchvision=Peer(torchvision, same_boxes))
    if topk < 0:
        peers["book"] = Peer(book, same_boxes_of_any_class)
    return Job(
        "multibox_detection",
        f"{images} x {num}, {classes} classes" + (f", topk {topk}" if topk >= 0 else ""),
        partial(cvops.multibox_detection, **options),
        arrays,
        work=(images * num, "anchors"),
        written=4 * 6 * images * num,
        inner=Inner("NMS", pairs_of_kept),
        peers=peers,
        too_slow=["numpy", "book", "book-gpu"] if images > 1 else [],
    )


@pytest.mark.parametrize(
    ("images", "classes", "topk"),
    [(1, 2, -1), (32, 2, -1), (32, 21, -1), (32, 21, 400)],
    ids=["small", "model", "large", "large topk"],
)
def bench_multibox_detection(race, images, classes, topk):
    race(job(images, TINY_SSD, classes, topk))
