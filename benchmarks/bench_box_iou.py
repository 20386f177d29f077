"""box_iou: every box of one list with every box of another."""

from functools import partial

import numpy as np
import pytest
from harness import boxes

import cvops


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(100, 100), (5444, 64), (24564, 1000)],
    ids=["small", "model", "large"],
)
def bench_box_iou(race, rows, columns):
    rng = np.random.default_rng(0)
    lhs, rhs = boxes(rng, rows), boxes(rng, columns)

    def as_torchvision(ours, theirs):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-7)

    race(
        f"{rows} x {columns}",
        cvops.box_iou,
        (lhs, rhs),
        moved=lhs.nbytes + rhs.nbytes + 4 * rows * columns,
        work=(rows * columns, "pairs"),
        mxnet=lambda mx, array: partial(mx.nd.contrib.box_iou, array(lhs), array(rhs)),
        torchvision=lambda tv, tensor: partial(tv.ops.box_iou, tensor(lhs), tensor(rhs)),
        as_torchvision=as_torchvision,
        too_slow=["numpy"] if rows * columns > 1e7 else [],
    )
