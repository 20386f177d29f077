"""box_iou_rotated of two sets of boxes, of which most pairs are apart, or most overlap."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import rotated_boxes
from tools.jobs import Job, Peer

import cvops


@lru_cache(maxsize=1)
def job(rows, columns, crowded=False):
    rng = np.random.default_rng(0)
    scale = np.float32([0.1, 0.1, 1, 1, 1] if crowded else [1] * 5)
    lhs, rhs = rotated_boxes(rng, rows) * scale, rotated_boxes(rng, columns) * scale

    def check_close(ours, theirs):
        np.testing.assert_allclose(ours[0], theirs[0], atol=2e-4)

    return Job(
        "box_iou_rotated",
        f"{rows} x {columns}{', crowded' if crowded else ''}",
        cvops.box_iou_rotated,
        (lhs, rhs),
        work=(rows * columns, "pairs"),
        written=4 * rows * columns,
        peers=dict(
            torch=Peer(
                lambda ops, tensor: partial(ops.box_iou_rotated, tensor(lhs), tensor(rhs)),
                check_close,
            )
        ),
        too_slow=["numpy", "torch"] if rows * columns > 1e5 else [],
    )


@pytest.mark.parametrize(
    ("rows", "columns", "crowded"),
    [(100, 100, False), (300, 300, False), (1000, 1000, False), (1000, 1000, True)],
    ids=["small", "model", "large", "crowded"],
)
def bench_box_iou_rotated(time_job, rows, columns, crowded):
    time_job(job(rows, columns, crowded))
