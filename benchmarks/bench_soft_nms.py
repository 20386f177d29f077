"""soft_nms: one list of boxes, of which most stay, and batches of lists with a topk."""

from functools import lru_cache, partial

import numpy as np
import pytest
from bench_box_nms import clustered, make_rows, spread
from tools.jobs import Job, Peer

import cvops

CASES = {
    "small": (1, 1000, 1, spread),
    "middle": (1, 5000, 1, spread),
    "middle clustered": (1, 5000, 1, clustered),
    "batch": (32, 8400, 80, clustered, 1000),
}


@lru_cache(maxsize=1)
def job(images, num, classes, make_boxes, topk=-1, method="linear"):
    data, size = make_rows(images, num, classes, make_boxes, topk)
    options = dict(method=method, topk=topk, **({"id_index": 0} if classes > 1 else {}))

    def torch(ops, tensor):
        rows = tensor(data)
        return lambda: [ops.soft_nms(one[:, 2:], one[:, 1], method=method) for one in rows.unbind()]

    def check_equal(ours, theirs):
        for rows, scores in zip(ours[0], theirs):
            kept = rows[rows[:, 1] > 0, 1]
            assert len(kept) == len(scores)
            np.testing.assert_allclose(kept, scores, rtol=1e-3)

    return Job(
        "soft_nms",
        f"{size}, {method}",
        partial(cvops.soft_nms, **options),
        [data],
        work=(images * num, "boxes"),
        written=data.nbytes,
        peers=dict(torch=Peer(torch, check_equal)) if classes == 1 else {},
        too_slow=["numpy"] if images > 1 else [],
    )


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("case", CASES)
def bench_soft_nms(time_job, case, method):
    time_job(job(*CASES[case], method=method))
