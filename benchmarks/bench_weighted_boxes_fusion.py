"""weighted_boxes_fusion of the detections of several models, which are jittered copies.

No peer has this op without a loop in Python.
"""

from functools import lru_cache, partial

import numpy as np
import pytest
from tools.inputs import boxes
from tools.jobs import Job

import cvops


@lru_cache(maxsize=1)
def job(models, num):
    rng = np.random.default_rng(0)
    found = boxes(rng, num)[None] + rng.normal(0, 0.003, (models, num, 4))
    rows = np.empty((models * num, 6), np.float32)
    rows[:, 0] = np.tile(rng.integers(0, 20, num), models)
    rows[:, 1] = rng.random(models * num)
    rows[:, 2:] = found.reshape(-1, 4)
    return Job(
        "weighted_boxes_fusion",
        f"{models} x {num}",
        partial(cvops.weighted_boxes_fusion, num_models=models, id_index=0),
        [rows],
        work=(len(rows), "boxes"),
        written=rows.nbytes,
        too_slow=["numpy"] if len(rows) > 2000 else [],
    )


@pytest.mark.parametrize(("models", "num"), [(3, 100), (5, 300), (5, 2000)])
def bench_weighted_boxes_fusion(time_job, models, num):
    time_job(job(models, num))
