"""nms_rotated of boxes that are spread over an image, or near a few objects."""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import rotated_boxes
from tools.jobs import Job, Peer, check_scores

import cvops

THRESHOLD = 0.3


@lru_cache(maxsize=1)
def job(num, objects=None):
    rng = np.random.default_rng(0)
    boxes = rotated_boxes(rng, num)
    if objects is not None:
        boxes = boxes[rng.integers(0, objects, num)]
        boxes = (boxes * rng.uniform(0.95, 1.05, boxes.shape)).astype(np.float32)
    data = np.concatenate([rng.random((num, 1)), boxes], axis=1).astype(np.float32)

    def check(ours, theirs):
        scores = ours[0][:, 0]
        check_scores(scores[scores >= 0], data[theirs[0], 0])

    return Job(
        "nms_rotated",
        f"{num}, {'spread' if objects is None else 'clustered'}",
        partial(cvops.nms_rotated, overlap_thresh=THRESHOLD, coord_start=1, score_index=0),
        [data],
        work=(num, "boxes"),
        written=data.nbytes,
        peers=dict(
            torch=Peer(lambda ops, tensor: partial(ops.nms_rotated, tensor(data), THRESHOLD), check)
        ),
        too_slow=["numpy", "torch"] if num > 300 else [],
    )


@pytest.mark.parametrize(
    ("num", "objects"),
    [(300, None), (2000, None), (2000, 100), (20_000, None)],
    ids=["small", "spread", "clustered", "large"],
)
def bench_nms_rotated(time_job, num, objects):
    time_job(job(num, objects))
