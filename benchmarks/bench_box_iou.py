"""box_iou of two sets of boxes, its kind "ciou", and the gradient of that.

The peer of the gradient is PyTorch's, of the functions of torchvision.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.implementations import PEERS_ON_CPU
from tools.inputs import boxes
from tools.jobs import InnerLoop, Job, Peer

import cvops


@lru_cache(maxsize=1)
def job(rows, columns):
    rng = np.random.default_rng(0)
    lhs, rhs = boxes(rng, rows), boxes(rng, columns)

    def check_close(ours, theirs):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-7)

    def check_distances(ours, theirs):
        np.testing.assert_allclose(ours[0], 1 - theirs[0], rtol=1e-5, atol=1e-6)

    return Job(
        "box_iou",
        f"{rows} x {columns}",
        cvops.box_iou,
        (lhs, rhs),
        work=(rows * columns, "pairs"),
        written=4 * rows * columns,
        inner=InnerLoop("IoU", lambda out: out[0].size),
        peers=dict(
            mxnet=Peer(lambda mx, array: partial(mx.nd.contrib.box_iou, array(lhs), array(rhs))),
            torchvision=Peer(
                lambda tv, tensor: partial(tv.ops.box_iou, tensor(lhs), tensor(rhs)), check_close
            ),
            powerboxes=Peer(
                lambda pb, array: partial(pb.parallel_iou_distance, lhs, rhs), check_distances
            ),
        ),
        too_slow=["numpy", *(PEERS_ON_CPU if rows * columns >= 1e8 else ())]
        if rows * columns > 1e6
        else [],
    )


def check_close(ours, theirs):
    for x, y in zip(ours, theirs):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3 * abs(y).max())


@lru_cache(maxsize=1)
def kind_job(rows, columns):
    rng = np.random.default_rng(0)
    lhs, rhs = boxes(rng, rows), boxes(rng, columns)

    def torchvision(tv, tensor):
        return partial(tv.ops.complete_box_iou, tensor(lhs), tensor(rhs))

    return Job(
        "box_iou",
        f"{rows} x {columns}, ciou",
        partial(cvops.box_iou, kind="ciou"),
        (lhs, rhs),
        work=(rows * columns, "pairs"),
        written=4 * rows * columns,
        peers=dict(torchvision=Peer(torchvision, check_close)),
    )


@lru_cache(maxsize=1)
def backward_job(rows, columns):
    rng = np.random.default_rng(0)
    lhs, rhs = boxes(rng, rows), boxes(rng, columns)
    out_grad = rng.standard_normal((rows, columns), np.float32)

    def torchvision(tv, tensor):
        import torch

        a, b = (tensor(x).requires_grad_() for x in (lhs, rhs))
        out, grad = tv.ops.complete_box_iou(a, b), tensor(out_grad)
        return lambda: torch.autograd.grad(out, (a, b), grad, retain_graph=True)

    return Job(
        "box_iou_backward",
        f"{rows} x {columns}, ciou",
        partial(cvops.box_iou_backward, kind="ciou"),
        (out_grad, lhs, rhs),
        work=(rows * columns, "pairs"),
        written=lhs.nbytes + rhs.nbytes,
        peers=dict(torchvision=Peer(torchvision, check_close)),
    )


KINDS = pytest.mark.parametrize(
    ("rows", "columns"), [(100, 100), (5444, 64)], ids=["small", "model"]
)


@KINDS
def bench_box_iou_kind(time_job, rows, columns):
    time_job(kind_job(rows, columns))


@KINDS
def bench_box_iou_backward(time_job, rows, columns):
    time_job(backward_job(rows, columns))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(100, 100), (5444, 64), (24564, 100), (24564, 1000), (100_000, 1000)],
    ids=["small", "model", "wide", "large", "huge"],
)
def bench_box_iou(time_job, rows, columns):
    time_job(job(rows, columns))
